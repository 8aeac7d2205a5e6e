//! Which expressions are let through, and how they are made safe to run: names that exist, functions whose cost is
//! known, loops at most two deep, patterns compiled beforehand, and a payment in front of whatever may be large.

use cel::{
    IdedExpr,
    common::{
        ast::{
            CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, SourceInfo,
            operators::{
                ADD, CONDITIONAL, DIVIDE, EQUALS, GREATER, GREATER_EQUALS, IN, INDEX, LESS, LESS_EQUALS, LOGICAL_AND,
                LOGICAL_NOT, LOGICAL_OR, MODULO, MULTIPLY, NEGATE, NOT_EQUALS, NOT_STRICTLY_FALSE, SUBSTRACT,
            },
        },
        types::CelInt,
    },
    parser::{ParseErrors, Parser},
};
use regex::{Regex, RegexBuilder};

use super::{
    budget,
    wanted::{EVENT_MEMBERS, VARIABLES, Wants},
};

/// Nodes of an expression with its macros written out, at most.
const NODES_MAX: u64 = 1_000;
/// Levels of nesting, at most: the interpreter recurses.
const DEPTH_MAX: usize = 64;
/// Brackets and conditions within each other, at most: the parser recurses, too.
const PARSER_DEPTH_MAX: u16 = 32;
/// Loops within each other, at most.
const LOOPS_MAX: usize = 2;
/// Regular expressions of one expression, at most.
const REGEXES_MAX: usize = 16;
/// Bytes of one compiled regular expression, and of the automaton that it builds as it goes.
const REGEX_BYTES_MAX: usize = 256 << 10;

/// Functions that an expression may call, beside operators.
const FUNCTIONS: [&str; 10] =
    ["size", "contains", "startsWith", "endsWith", "matches", "int", "uint", "double", "string", "type"];
/// What the parser writes out by itself.
const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];
/// Names of types, for `type(x) == int`.
const TYPES: [&str; 8] = ["bool", "int", "uint", "double", "string", "list", "map", "null_type"];

/// An expression that may run.
pub(super) struct Checked {
    pub(super) expr: IdedExpr,
    pub(super) wants: Wants,
    pub(super) regexes: Vec<Regex>,
    /// Whatever the event, it gives neither true nor false.
    pub(super) is_never_bool: bool,
}

/// Parses, checks and rewrites; a fault says where it is and what would be right.
pub(super) fn compile(text: &str) -> Result<Checked, String> {
    brackets(text)?;
    let parser = Parser::new().max_recursion_depth(PARSER_DEPTH_MAX).error_recovery_limit(1);
    let (mut expr, source) = parser.parse_with_source_info(text).map_err(|errors| syntax(&errors))?;
    let nodes = nodes(&expr, 0)?;
    if nodes > NODES_MAX {
        return Err(format!("has {nodes} parts with its macros written out; at most {NODES_MAX} are allowed"));
    }
    let is_never_bool = is_never_bool(&expr);
    let mut check = Check { source: &source, wants: Wants::default(), regexes: Vec::new(), bound: Vec::new() };
    check.expr(&mut expr)?;
    Ok(Checked { expr, wants: check.wants, regexes: check.regexes, is_never_bool })
}

/// Told by the outermost part alone: members of an event may be of any type.
fn is_never_bool(expr: &IdedExpr) -> bool {
    const OTHERWISE: [&str; 12] =
        [ADD, SUBSTRACT, MULTIPLY, DIVIDE, MODULO, NEGATE, "size", "int", "uint", "double", "string", "type"];
    match &expr.expr {
        Expr::Literal(literal) => !matches!(literal, LiteralValue::Boolean(_)),
        Expr::Call(call) => OTHERWISE.contains(&call.func_name.as_str()),
        Expr::List(_) | Expr::Map(_) => true,
        Expr::Select(_) | Expr::Ident(_) | Expr::Comprehension(_) | Expr::Struct(_) | Expr::Unspecified => false,
    }
}

/// Nested brackets are counted before anything recurses over them. Those within a string count as well; nobody
/// needs so many there.
fn brackets(text: &str) -> Result<(), String> {
    let mut depth = 0u16;
    for (at, char) in text.char_indices() {
        match char {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > PARSER_DEPTH_MAX {
            let place = place(text, at);
            return Err(format!("{place}: brackets are nested more than {PARSER_DEPTH_MAX} deep"));
        }
    }
    Ok(())
}

fn syntax(errors: &ParseErrors) -> String {
    let Some(error) = errors.errors.first() else { return "is not a CEL expression".to_owned() };
    let message = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    // The parser's own words for a failure without a place.
    if message == "UNKNOWN" || message.contains("Recursion limit") {
        return format!("is nested more than {PARSER_DEPTH_MAX} levels deep, or is no CEL expression; split it");
    }
    // What could stand there is a list of nearly all there is.
    let message = message.split(" expecting {").next().unwrap_or(message);
    let message = message.replace("mismatched input '<EOF>'", "it ends too early").replace("'<EOF>'", "the end");
    let (line, column) = (error.pos.0.max(1), error.pos.1.max(1));
    format!("line {line}, column {column}: {}", crate::programs::excerpt(&message))
}

/// `line 1, column 5` of a byte offset.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

/// How many nodes there are, and that they are not nested too deep.
fn nodes(expr: &IdedExpr, depth: usize) -> Result<u64, String> {
    if depth > DEPTH_MAX {
        return Err(format!("is nested more than {DEPTH_MAX} levels deep; split it"));
    }
    let mut sum = 1;
    let mut add = |child: &IdedExpr| nodes(child, depth + 1).map(|nodes| sum += nodes);
    match &expr.expr {
        Expr::Call(call) => call.target.iter().map(AsRef::as_ref).chain(&call.args).try_for_each(add)?,
        Expr::Comprehension(it) => {
            [&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result].into_iter().try_for_each(add)?;
        }
        Expr::List(list) => list.elements.iter().try_for_each(add)?,
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    add(&entry.key)?;
                    add(&entry.value)?;
                }
            }
        }
        Expr::Select(select) => add(&select.operand)?,
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
    Ok(sum)
}

struct Check<'s> {
    source: &'s SourceInfo,
    wants: Wants,
    regexes: Vec<Regex>,
    /// The variables of the loops around.
    bound: Vec<String>,
}

impl Check<'_> {
    fn fault<T>(&self, expr: &IdedExpr, problem: impl std::fmt::Display) -> Result<T, String> {
        match self.source.offset_for(expr.id) {
            Some((start, _)) => {
                // The parser counts characters.
                let at = self.source.source.char_indices().nth(start as usize).map_or(0, |(at, _)| at);
                Err(format!("{}: {problem}", place(&self.source.source, at)))
            }
            None => Err(problem.to_string()),
        }
    }

    fn expr(&mut self, expr: &mut IdedExpr) -> Result<(), String> {
        if self.path(expr)? {
            return Ok(());
        }
        if let Expr::Call(call) = &expr.expr {
            self.may_call(expr, call)?;
        }
        let id = expr.id;
        let place = IdedExpr { id, expr: Expr::Unspecified };
        match &mut expr.expr {
            Expr::Call(call) => self.call(&place, call),
            Expr::Comprehension(comprehension) => self.comprehension(&place, comprehension),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| {
                self.expr(element)?;
                pay(element);
                Ok(())
            }),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(entry) = &mut entry.expr else { continue };
                    for part in [&mut entry.key, &mut entry.value] {
                        self.expr(part)?;
                        pay(part);
                    }
                }
                Ok(())
            }
            Expr::Select(select) => self.expr(&mut select.operand),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                let name = name.clone();
                self.ident(&place, &name)
            }
            Expr::Struct(_) | Expr::Unspecified => self.fault(&place, "messages cannot be made here; use a map"),
        }
    }

    /// Notes what is looked at where the expression is a variable or a part of one.
    fn path(&mut self, expr: &IdedExpr) -> Result<bool, String> {
        let Some((root, path)) = path_of(expr) else { return Ok(false) };
        if self.bound.iter().any(|bound| bound == root) {
            return Ok(true);
        }
        if root == "event" {
            self.event(expr, &path)?;
        }
        match self.wants.of(root) {
            Some(wanted) => {
                wanted.want(&path);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn event(&self, expr: &IdedExpr, path: &[&str]) -> Result<(), String> {
        match path {
            [] | ["integration"] | ["integration", "id" | "name"] => Ok(()),
            ["integration", other, ..] => {
                self.fault(expr, format!("`event.integration` has no `{other}`; it has `id` and `name`"))
            }
            [member, rest @ ..] if EVENT_MEMBERS.contains(member) => match rest {
                [] => Ok(()),
                _ => self.fault(expr, format!("`event.{member}` has no members")),
            },
            [other, ..] => self.fault(expr, format!("`event` has no `{other}`; it has {}", listed(&EVENT_MEMBERS))),
        }
    }

    fn ident(&self, place: &IdedExpr, name: &str) -> Result<(), String> {
        let known = name.starts_with('@') || TYPES.contains(&name) || self.bound.iter().any(|bound| bound == name);
        if known {
            return Ok(());
        }
        self.fault(place, format!("`{name}` is not known; known are {}", listed(&VARIABLES)))
    }

    fn may_call(&self, expr: &IdedExpr, call: &CallExpr) -> Result<(), String> {
        let name = call.func_name.as_str();
        if is_operator(name) || FUNCTIONS.contains(&name) {
            return Ok(());
        }
        if MACROS.contains(&name) {
            return self.fault(expr, format!("`{name}` is called with the wrong number of arguments"));
        }
        let known = FUNCTIONS.iter().chain(&MACROS).copied().collect::<Vec<_>>();
        self.fault(expr, format!("there is no function `{name}`; there are {}", listed(&known)))
    }

    fn call(&mut self, place: &IdedExpr, call: &mut CallExpr) -> Result<(), String> {
        if call.func_name == "matches" {
            return self.matches(place, call);
        }
        for part in call.target.iter_mut().map(AsMut::as_mut).chain(&mut call.args) {
            self.expr(part)?;
        }
        if is_free(&call.func_name) || call.args.iter().any(|arg| bounds_the_other(&call.func_name, arg)) {
            return Ok(());
        }
        call.target.iter_mut().map(AsMut::as_mut).chain(&mut call.args).for_each(pay);
        Ok(())
    }

    /// Compiles the pattern now: at run time it would be compiled anew for each event.
    fn matches(&mut self, place: &IdedExpr, call: &mut CallExpr) -> Result<(), String> {
        let args = call.target.take().map(|target| *target).into_iter().chain(std::mem::take(&mut call.args));
        let Ok([mut text, pattern]) = <[IdedExpr; 2]>::try_from(args.collect::<Vec<_>>()) else {
            return self.fault(place, "`matches` takes a text and a pattern, as in `event.type.matches('^a')`");
        };
        let Expr::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
            return self.fault(place, "the pattern of `matches` must be written out here, in quotes");
        };
        if self.regexes.len() == REGEXES_MAX {
            return self.fault(place, format!("more than {REGEXES_MAX} patterns"));
        }
        let compiled = RegexBuilder::new(pattern.inner())
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .nest_limit(u32::from(PARSER_DEPTH_MAX))
            .build();
        match compiled {
            Ok(regex) => self.regexes.push(regex),
            Err(regex::Error::CompiledTooBig(_)) => {
                return self.fault(place, "the pattern is too large; repeat less in it");
            }
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.rsplit("error: ").next().unwrap_or(&reason).trim();
                return self.fault(place, format!("the pattern is not a regular expression: {reason}"));
            }
        }
        self.expr(&mut text)?;
        budget::MATCHES.clone_into(&mut call.func_name);
        call.args = vec![text, int(place.id, self.regexes.len() as u64 - 1)];
        Ok(())
    }

    fn comprehension(&mut self, place: &IdedExpr, it: &mut ComprehensionExpr) -> Result<(), String> {
        self.expr(&mut it.iter_range)?;
        let variables = [Some(&it.iter_var), it.iter_var2.as_ref()];
        for name in variables.into_iter().flatten() {
            if VARIABLES.contains(&name.as_str()) || TYPES.contains(&name.as_str()) {
                return self
                    .fault(place, format!("`{name}` has a meaning already; name the loop's variable otherwise"));
            }
            self.bound.push(name.clone());
        }
        let loops = self.bound.len();
        if loops > LOOPS_MAX {
            return self.fault(place, format!("loops are nested more than {LOOPS_MAX} deep"));
        }
        for part in [&mut it.accu_init, &mut it.loop_cond, &mut it.loop_step, &mut it.result] {
            self.expr(part)?;
        }
        self.bound.truncate(loops - if it.iter_var2.is_some() { 2 } else { 1 });
        let round = nodes(&it.loop_step, 0)? + nodes(&it.loop_cond, 0)?;
        let range = std::mem::take(&mut it.iter_range);
        let round = int(range.id, round);
        it.iter_range = function(budget::RANGE, vec![range, round]);
        Ok(())
    }
}

/// A variable with the members that are named below it: `body.data["id"]`.
fn path_of(expr: &IdedExpr) -> Option<(&str, Vec<&str>)> {
    match &expr.expr {
        Expr::Ident(name) => Some((name, Vec::new())),
        Expr::Select(SelectExpr { operand, field, .. }) => {
            // `has(a.b).c` is nobody's member.
            if matches!(&operand.expr, Expr::Select(inner) if inner.test) {
                return None;
            }
            let (root, mut path) = path_of(operand)?;
            path.push(field);
            Some((root, path))
        }
        Expr::Call(call) if call.func_name == INDEX && call.target.is_none() => match call.args.as_slice() {
            [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(field)), .. }] => {
                let (root, mut path) = path_of(operand)?;
                path.push(field.inner());
                Some((root, path))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Puts the payment in front of an operand, unless its size is known.
fn pay(operand: &mut IdedExpr) {
    let known = match &operand.expr {
        Expr::Literal(_) => true,
        Expr::Ident(name) => name.starts_with('@'),
        Expr::Call(call) => call.func_name == budget::OPERAND || yields_a_scalar(&call.func_name),
        _ => false,
    };
    if !known {
        let inner = std::mem::take(operand);
        *operand = function(budget::OPERAND, vec![inner]);
    }
}

fn function(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    let id = args.first().map_or(0, |arg| arg.id);
    IdedExpr { id, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }) }
}

fn int(id: u64, number: u64) -> IdedExpr {
    let number = CelInt::from(i64::try_from(number).unwrap_or(i64::MAX));
    IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(number)) }
}

fn is_operator(name: &str) -> bool {
    is_free(name) || compares(name) || [ADD, SUBSTRACT, MULTIPLY, DIVIDE, MODULO, NEGATE, IN].contains(&name)
}

/// What costs the same whatever its operands are.
fn is_free(name: &str) -> bool {
    [CONDITIONAL, LOGICAL_AND, LOGICAL_OR, LOGICAL_NOT, NOT_STRICTLY_FALSE, INDEX].contains(&name)
}

fn compares(name: &str) -> bool {
    [EQUALS, NOT_EQUALS, LESS, LESS_EQUALS, GREATER, GREATER_EQUALS].contains(&name)
}

/// Whether a literal operand bounds the cost of an operator, whatever the other is.
fn bounds_the_other(name: &str, arg: &IdedExpr) -> bool {
    match &arg.expr {
        Expr::Literal(LiteralValue::String(_) | LiteralValue::Bytes(_)) => compares(name),
        Expr::Literal(_) => is_operator(name) && name != IN,
        _ => false,
    }
}

fn yields_a_scalar(name: &str) -> bool {
    let functions = ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "type", budget::MATCHES];
    compares(name) || [LOGICAL_AND, LOGICAL_OR, LOGICAL_NOT, IN].contains(&name) || functions.contains(&name)
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
