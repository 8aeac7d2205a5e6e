//! CEL: filters and order keys, compiled once, evaluated between the log and a destination.
//!
//! The crate has no limit of its own on time or memory, so [`check`] admits only what can be bounded and rewrites the
//! expression so that every loop and every operation on a large value pays from a [`budget`] before it runs.
//! [`values`] makes only those variables, and of the body only those members, that an expression looks at.

mod budget;
mod check;
mod values;
mod wanted;
mod words;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, IdedExpr, Value,
    common::types::{CelBool, CelInt, CelString, CelUInt},
};
use hookmill_actors::ports::{
    program::{KEY_BYTES_MAX, ProgramFault, Selected, Selector, Subject},
    provider::SettingsError,
};
use regex::Regex;

use self::wanted::Wants;

/// Bytes of one expression, at most.
pub(super) const EXPRESSION_BYTES_MAX: usize = 4 << 10;
/// Recursive descent and the interpreter need room for the deepest expression that is let through, also where
/// nothing is optimized.
const COMPILE_STACK_BYTES: usize = 16 << 20;

/// CEL's standard library and ours: shared, because one is larger than most expressions.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    budget::declare(&mut env);
    Arc::new(env)
});

/// A compiled expression.
struct Expression {
    expr: IdedExpr,
    wants: Wants,
    regexes: Arc<[Regex]>,
    is_never_bool: bool,
}

impl Expression {
    /// Compiles; `field` names the text in a fault.
    fn compile(field: &str, text: &str) -> Result<Self, SettingsError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            let problem = format!("is {} bytes long; at most {EXPRESSION_BYTES_MAX} are allowed", text.len());
            return Err(SettingsError::new(field, problem));
        }
        if text.trim().is_empty() {
            return Err(SettingsError::new(field, "is empty; leave it out instead"));
        }
        let owned = text.to_owned();
        let compiled = std::thread::Builder::new()
            .name("cel-compile".to_owned())
            .stack_size(COMPILE_STACK_BYTES)
            .spawn(move || check::compile(&owned))
            .map_err(|error| SettingsError::new(field, format!("cannot be compiled now: {error}")))?
            .join();
        match compiled {
            Ok(Ok(check::Checked { expr, wants, regexes, is_never_bool })) => {
                Ok(Self { expr, wants, regexes: regexes.into(), is_never_bool })
            }
            Ok(Err(problem)) => Err(SettingsError::new(field, problem)),
            Err(_) => Err(SettingsError::new(field, "makes the CEL parser fail; write it differently")),
        }
    }
}

/// A filter, an order key, or both.
pub(super) struct CelSelector {
    filter: Option<Expression>,
    key: Option<Expression>,
    wants: Wants,
}

impl CelSelector {
    /// Compiles what is given.
    pub(super) fn new(filter: Option<&str>, key: Option<&str>) -> Result<Self, SettingsError> {
        let filter = filter.map(|text| Expression::compile("selection.filter", text)).transpose()?;
        if filter.as_ref().is_some_and(|it| it.is_never_bool) {
            let problem = "gives no truth value; it must give true or false, as `body.amount > 1000` does";
            return Err(SettingsError::new("selection.filter", problem));
        }
        let key = key.map(|text| Expression::compile("order.key", text)).transpose()?;
        let mut wants = Wants::default();
        for expression in filter.iter().chain(&key) {
            wants.add(&expression.wants);
        }
        Ok(Self { filter, key, wants })
    }

    fn evaluate(&self, subject: &Subject) -> Result<Selected, ProgramFault> {
        let mut context = Context::with_env(ENVIRONMENT.clone());
        values::declare(&mut context, &self.wants, subject)?;
        if let Some(filter) = &self.filter
            && !holds(filter, &context)?
        {
            return Ok(Selected::No);
        }
        let key = self.key.as_ref().map(|key| named(key, &context)).transpose()?;
        Ok(Selected::Yes { key })
    }
}

impl Selector for CelSelector {
    fn select(&self, subject: &Subject) -> Result<Selected, ProgramFault> {
        catch_unwind(AssertUnwindSafe(|| self.evaluate(subject)))
            .unwrap_or_else(|_| Err(ProgramFault("the CEL interpreter failed on this event".to_owned())))
    }
}

fn holds(filter: &Expression, context: &Context<'_, '_>) -> Result<bool, ProgramFault> {
    let fault = |text: &str| ProgramFault(format!("the filter {text}"));
    budget::within(&filter.regexes, || {
        let value = Value::resolve_val(&filter.expr, context)
            .map_err(|error| fault(&format!("failed: {}", words::of(&error))))?;
        match value.downcast_ref::<CelBool>() {
            Some(holds) => Ok(*holds.inner()),
            None => Err(fault(&format!("gives {}; it must give true or false", value.get_type().name()))),
        }
    })
    .unwrap_or_else(|| Err(fault(budget::SPENT)))
}

fn named(key: &Expression, context: &Context<'_, '_>) -> Result<Box<str>, ProgramFault> {
    let fault = |text: &str| ProgramFault(format!("the order key {text}"));
    let text = budget::within(&key.regexes, || {
        let value =
            Value::resolve_val(&key.expr, context).map_err(|error| fault(&format!("failed: {}", words::of(&error))))?;
        if let Some(text) = value.downcast_ref::<CelString>() {
            return Ok(text.inner().into());
        }
        let plain = value
            .downcast_ref::<CelInt>()
            .map(|it| it.inner().to_string())
            .or_else(|| value.downcast_ref::<CelUInt>().map(|it| it.inner().to_string()))
            .or_else(|| value.downcast_ref::<CelBool>().map(|it| it.inner().to_string()));
        match plain {
            Some(text) => Ok(text.into_boxed_str()),
            None => Err(fault(&format!("gives {}; it must give a string, an int or a bool", value.get_type().name()))),
        }
    });
    let text: Box<str> = text.unwrap_or_else(|| Err(fault(budget::SPENT)))?;
    if text.len() > KEY_BYTES_MAX {
        return Err(fault(&format!("is {} bytes long; at most {KEY_BYTES_MAX} are allowed", text.len())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
