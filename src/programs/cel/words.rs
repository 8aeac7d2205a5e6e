//! What failed in an evaluation, in words that say what would be right. Never with a value of the event: faults are
//! shown to more people than bodies are.

use cel::ExecutionError;

/// Characters of a name or message that are told.
const TOLD_CHARS_MAX: usize = 120;

pub(super) fn of(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(name) => {
            let name = cut(name);
            format!("there is no member `{name}` in this event; ask for it first, as in `has(body.{name}) && ...`")
        }
        ExecutionError::NoSuchOverload(overload) => {
            let name = match overload.function() {
                "_._" | "_[_]" => return unreadable(overload.argument_types()),
                "@in" => "in",
                other => other.trim_matches('_'),
            };
            format!("`{name}` cannot be applied to {}", listed(overload.argument_types()))
        }
        ExecutionError::UndeclaredReference(name) => format!("`{}` is not known", cut(name)),
        ExecutionError::UnexpectedType { got, want } => format!("it has {} where {} is needed", cut(got), cut(want)),
        ExecutionError::UnsupportedBinaryOperator(name, ..) => format!("`{name}` cannot be applied to these types"),
        ExecutionError::FunctionError { function, .. } => {
            format!("`{}` cannot convert the value of this event", cut(function))
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number became too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => {
            "an index lies outside of its list; ask for `size(...)` first".to_owned()
        }
        ExecutionError::ValuesNotComparable(..) => "it compares values of different types".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has the same key twice".to_owned(),
        _ => "it is applied to a type that it is not made for".to_owned(),
    }
}

fn unreadable(types: &[String]) -> String {
    match types.first().map(String::as_str) {
        Some("null_type") => {
            "it reads a member of null; a body that is neither JSON nor a form is null, so ask `body != null` first"
                .to_owned()
        }
        Some(kind) => format!("it reads a member of {kind}"),
        None => "it reads a member of something that has none".to_owned(),
    }
}

fn listed(types: &[String]) -> String {
    types.iter().map(|kind| cut(kind)).collect::<Vec<_>>().join(" and ")
}

fn cut(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(TOLD_CHARS_MAX).collect()
}
