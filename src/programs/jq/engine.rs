//! Compiling and running a program with jaq. Runs in workers only: nothing here is bounded in time or memory.
//!
//! A program sees its input, its variables and the time. `env` and `$ENV` do not exist for it, `import` and `include`
//! find nothing, `input` has no more inputs, and what `debug` and `stderr` write goes nowhere.

use std::{collections::HashMap, io};

use jaq_core::{
    Compiler, Ctx, Vars, data,
    load::{Arena, Error, File, Loader, span},
};
use jaq_json::{Val, read, write};
use serde::de::IgnoredAny;

use super::fault;
use crate::programs::{body, excerpt};

type Data = data::JustLut<Val>;
type Filter = jaq_core::Filter<Data>;

/// The variables that a program has beside its input.
pub(super) const VARIABLES: [&str; 3] = ["$event", "$headers", "$query"];
/// Compiled programs that a worker keeps.
const CACHED_MAX: usize = 64;
/// What a program may not call: it tells of the process.
const REFUSED: [&str; 1] = ["env"];

/// A compiled program.
pub(super) struct Program {
    text: String,
    filter: Filter,
}

/// Compiled programs by their text.
#[derive(Default)]
pub(super) struct Cache(HashMap<Vec<u8>, Program>);

impl Cache {
    /// The program, compiled now or before.
    pub(super) fn get(&mut self, program: &[u8]) -> Result<&Program, String> {
        if !self.0.contains_key(program) {
            let text = std::str::from_utf8(program).map_err(|_| "is not UTF-8".to_owned())?;
            let filter = compile(text)?;
            if self.0.len() == CACHED_MAX {
                self.0.clear();
            }
            self.0.insert(program.to_vec(), Program { text: text.to_owned(), filter });
        }
        self.0.get(program).ok_or_else(|| "is not there".to_owned())
    }
}

/// Compiles; a fault says where it is.
fn compile(text: &str) -> Result<Filter, String> {
    let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let functions = jaq_core::funs::<Data>().chain(jaq_std::funs()).chain(jaq_json::funs());
    let functions = functions.filter(|(name, ..)| !REFUSED.contains(name));
    let arena = Arena::default();
    let modules = Loader::new(definitions).load(&arena, File { code: text, path: () }).map_err(|errors| {
        let first = errors.into_iter().find_map(|(_, error)| unreadable(text, error));
        first.unwrap_or_else(|| "is not a jq program".to_owned())
    })?;
    Compiler::default().with_global_vars(VARIABLES).with_funs(functions).compile(modules).map_err(|errors| {
        let first = errors.into_iter().flat_map(|(_, undefined)| undefined).next();
        first.map_or_else(
            || "is not a jq program".to_owned(),
            |(name, kind)| {
                let known = if kind.as_str() == "variable" {
                    format!("; there are {}", VARIABLES.map(|name| format!("`{name}`")).join(", "))
                } else {
                    String::new()
                };
                format!("{}: there is no {} `{}`{known}", place(text, name), kind.as_str(), excerpt(name))
            },
        )
    })
}

fn unreadable(text: &str, error: Error<&str>) -> Option<String> {
    let at = |found: &str, expected: &str| {
        let what = if found.is_empty() { "the end".to_owned() } else { format!("`{}`", excerpt(first_word(found))) };
        format!("{}: {what} stands where {expected} is expected", place(text, found))
    };
    match error {
        Error::Io(errors) => {
            errors.first().map(|(path, _)| format!("{}: there are no modules to import", place(text, path)))
        }
        Error::Lex(errors) => errors.first().map(|(expected, found)| at(found, expected.as_str())),
        Error::Parse(errors) => errors.first().map(|(expected, found)| at(found, expected.as_str())),
    }
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or(text)
}

/// `line 1, column 5` of a part of the text.
fn place(text: &str, part: &str) -> String {
    let before = text.get(..span(text, part).start.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

/// Runs a compiled program: exactly one value must come out, as JSON of at most `bytes_max`.
pub(super) fn run(program: &Program, input: &[u8], variables: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
    let Program { text, filter } = program;
    let input = read::parse_single(input).map_err(|_| "the body is not JSON".to_owned())?;
    let values = match variables {
        [] => Val::Null,
        variables => read::parse_single(variables).map_err(|_| "the variables are not JSON".to_owned())?,
    };
    let variables = VARIABLES.map(|name| member(&values, name.trim_start_matches('$')));
    let context = Ctx::<Data>::new(&filter.lut, Vars::new(variables));
    let mut outputs = filter.id.run((context, input));
    let mut next = || {
        outputs.next().map(|output| {
            output.map_err(|exception| match exception.get_err() {
                Ok(error) => fault::told(&error, text),
                Err(_) => "the program halts; it must yield one value".to_owned(),
            })
        })
    };
    let value =
        next().ok_or("the program yields nothing; leave events out with the subscription's filter instead")??;
    if let Some(second) = next() {
        second?;
        return Err("the program yields more than one value; put them into a list with `[...]`".to_owned());
    }
    let mut output = Bounded { bytes: Vec::new(), bytes_max };
    write::write(&mut output, &write::Pp::default(), 0, &value)
        .map_err(|_| format!("the program yields more than {bytes_max} bytes"))?;
    if body::depth(&output.bytes) > body::DEPTH_MAX {
        return Err(format!("the program yields a value that is nested more than {} levels deep", body::DEPTH_MAX));
    }
    // jaq knows more than JSON: NaN, byte strings, keys of any type.
    if serde_json::from_slice::<IgnoredAny>(&output.bytes).is_err() {
        return Err("the program yields a value that JSON has no form for, such as NaN".to_owned());
    }
    Ok(output.bytes)
}

fn member(values: &Val, name: &str) -> Val {
    match values {
        Val::Obj(members) => members.get(&Val::from(name.to_owned())).cloned().unwrap_or_default(),
        _ => Val::Null,
    }
}

struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(program: &str, input: &str) -> Result<String, String> {
        let mut cache = Cache::default();
        let variables = br#"{"event":{"id":"e1"},"headers":{"x-a":"1"}}"#;
        let output = run(cache.get(program.as_bytes())?, input.as_bytes(), variables, 1_000)?;
        Ok(String::from_utf8(output).expect("JSON is text"))
    }

    #[test]
    fn programs_make_one_value() {
        for (program, input, want) in [
            (".", r#"{"b":1,"a":[1.50,12345678901234567890]}"#, r#"{"b":1,"a":[1.50,12345678901234567890]}"#),
            (
                "{id: .data.id, total: (.amount / 100)}",
                r#"{"data":{"id":"x"},"amount":250}"#,
                r#"{"id":"x","total":2.5}"#,
            ),
            (".items | map(.sku) | join(\",\")", r#"{"items":[{"sku":"a"},{"sku":"b"}]}"#, r#""a,b""#),
            ("{e: $event.id, h: $headers[\"x-a\"], q: $query}", "null", r#"{"e":"e1","h":"1","q":null}"#),
            (". as [$a] | $a", "[7]", "7"),
            ("input", "1", ""),
            ("\"a\\nb\"", "null", r#""a\nb""#),
        ] {
            if want.is_empty() {
                assert!(made(program, input).is_err(), "{program}");
            } else {
                assert_eq!(made(program, input).as_deref(), Ok(want), "{program}");
            }
        }
    }

    #[test]
    fn a_fault_says_where_and_what() {
        for (program, words) in [
            (".a |", "line 1, column 5"),
            (".\n| foo(1)", "line 2, column 3: there is no filter `foo`"),
            ("$ENV.PATH", "there is no variable `$ENV`"),
            ("env", "there is no filter `env`"),
            ("include \"a\"; .", "no modules"),
            ("{", "expected"),
            ("empty", "yields nothing"),
            ("1, 2", "more than one value"),
            ("repeat(1)", "more than one value"),
            ("[range(400)]", "more than 1000 bytes"),
            ("nan", "JSON has no form"),
            ("halt", "halts"),
            ("reduce range(70) as $i (0; [.])", "levels deep"),
            (".secret | .x", "the program failed: cannot index … with …"),
            ("error(\"no amount\")", "the program failed: no amount"),
            ("if .a then . else error(\"plan \\(.secret) is\\nunknown\") end", "the program failed: plan … is…unknown"),
            ("{code: \"E7\", of: .secret} | error", "E7"),
            ("error(.secret)", "the program failed: …"),
            ("error", "the program failed: …"),
            ("error(\"x\" * 5000)", "the program failed: …"),
            ("error(\"again \" * 5000)", "the program failed: again again"),
        ] {
            let fault = made(program, r#"{"secret":"planted-4711"}"#).expect_err(program);
            assert!(fault.contains(words), "{program}: {fault}");
            assert!(!fault.contains("planted"), "{program}: {fault}");
        }
    }
}
