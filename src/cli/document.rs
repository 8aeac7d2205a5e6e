//! Documents that people write: JSON, TOML or YAML in, JSON out. `${NAME}` stands for a variable of the environment,
//! `$${` for `${` itself. No error repeats what a document holds: it may be a secret.

use std::{cell::RefCell, collections::BTreeSet, path::Path};

use serde_json::{Map, Value};

use super::{
    UsageError, show,
    verify::{is_stdin, read},
};

/// Far above what any resource needs.
const BYTES_MAX: u64 = 4 << 20;
/// As deep as the API takes anything.
const DEPTH_MAX: usize = 64;

/// In which form a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Toml,
    Yaml,
}

impl Form {
    /// By the file's name.
    pub(super) fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// The object in a file, or in standard input for `-`, with the environment's variables put in.
pub(super) fn object(file: &Path) -> anyhow::Result<Map<String, Value>> {
    let value = parsed(file)?;
    let wrong = |problem: String| UsageError::new(format!("{}: {problem}", file.display()));
    match with_variables(&value, &|name| std::env::var(name).ok()).map_err(wrong)? {
        Value::Object(members) => Ok(members),
        _ => Err(wrong("the document must be an object".to_owned())),
    }
}

/// The document as it stands there.
pub(super) fn parsed(file: &Path) -> anyhow::Result<Value> {
    let bytes = read(file, BYTES_MAX).map_err(|error| UsageError::new(format!("{error:#}")))?;
    let wrong = |problem: String| UsageError::new(format!("{}: {problem}", file.display()));
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text".to_owned()))?;
    let form = if is_stdin(file) { None } else { Form::of(file) };
    let value = match form {
        Some(form) => parse(&text, form).map_err(wrong)?,
        None => guessed(&text).map_err(wrong)?,
    };
    if depth(&value) > DEPTH_MAX {
        return Err(wrong(format!("is nested deeper than {DEPTH_MAX} levels")));
    }
    Ok(value)
}

/// A text of unknown form. What is TOML is seldom a YAML object, and what is JSON is YAML, too.
fn guessed(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with(['{', '['])
        && let Ok(value) = parse(text, Form::Json)
    {
        return Ok(value);
    }
    match parse(text, Form::Toml) {
        Ok(value) => Ok(value),
        Err(toml) => parse(text, Form::Yaml).map_err(|yaml| format!("is neither YAML ({yaml}) nor TOML ({toml})")),
    }
}

fn parse(text: &str, form: Form) -> Result<Value, String> {
    match form {
        Form::Json => serde_json::from_str(text)
            .map_err(|error| format!("is not JSON at line {}, column {}", error.line(), error.column())),
        Form::Toml => match toml::from_str::<toml::Table>(text) {
            Ok(table) => Ok(of_toml(toml::Value::Table(table))),
            Err(error) => {
                let before = error.span().map_or(0, |span| span.start.min(text.len()));
                let line = text.get(..before).map_or(1, |before| before.split('\n').count());
                Err(format!("is not TOML at line {line}"))
            }
        },
        Form::Yaml => {
            // `y` and `on` are texts, as in YAML 1.2. A snippet might show a secret.
            let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
            serde_saphyr::from_str_with_options(text, options).map_err(|error| match error.location() {
                Some(location) => format!("is not YAML at line {}, column {}", location.line(), location.column()),
                None => "is not YAML".to_owned(),
            })
        }
    }
}

fn of_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(of_toml).collect(),
        toml::Value::Table(members) => members.into_iter().map(|(name, value)| (name, of_toml(value))).collect(),
    }
}

/// With each `${NAME}` replaced; where there is no such variable, all that are missing are told at once.
fn with_variables(value: &Value, variable: &dyn Fn(&str) -> Option<String>) -> Result<Value, String> {
    expanded(value.clone(), "", variable).map_err(|problem| {
        let missing = RefCell::new(BTreeSet::new());
        let noted = |name: &str| {
            variable(name).or_else(|| {
                missing.borrow_mut().insert(name.to_owned());
                Some(String::new())
            })
        };
        // What else is wrong with it is told once these are there.
        let _ = expanded(value.clone(), "", &noted);
        let missing: Vec<String> = missing.take().into_iter().collect();
        match missing.as_slice() {
            [] | [_] => problem,
            several => format!("{problem}; all that are missing: {}", several.join(", ")),
        }
    })
}

/// With each `${NAME}` replaced, in texts at any depth; what is wrong is told with its place, which begins with `at`.
fn expanded(value: Value, at: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Value, String> {
    let within = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    Ok(match value {
        Value::String(text) => Value::String(expanded_text(&text, variable).map_err(|problem| match at {
            "" => problem,
            at => format!("{}: {problem}", show::escaped(at)),
        })?),
        Value::Array(items) => {
            let items = items.into_iter().enumerate();
            items
                .map(|(index, item)| expanded(item, &within(&index.to_string()), variable))
                .collect::<Result<_, _>>()?
        }
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| {
                let value = expanded(value, &within(&name), variable)?;
                Ok((name, value))
            })
            .collect::<Result<Map<_, _>, String>>()?
            .into(),
        other => other,
    })
}

fn expanded_text(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            made.push_str(&rest[..at]);
            made.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        made.push_str(&rest[..at]);
        let behind = &rest[at + 2..];
        let name = behind.split_once('}').map(|(name, _)| name).filter(|name| is_variable(name));
        let Some(name) = name else {
            return Err("holds a `${` that begins no `${NAME}`; write `$${` for the characters themselves".to_owned());
        };
        let value = variable(name).ok_or_else(|| {
            format!(
                "the environment has no variable {name}; set it (`export {name}=…`) and repeat the command, or write \
                 `$${{{name}}}` where the characters themselves are meant"
            )
        })?;
        made.push_str(&value);
        rest = &behind[name.len() + 1..];
    }
    made.push_str(rest);
    Ok(made)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|it: char| it.is_ascii_digit())
        && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn three_forms_say_the_same() {
        let want = json!({"name": "shop", "settings": {"url": "https://x", "n": 3, "on": true}, "types": ["a.*"]});
        for (form, text) in [
            (Form::Json, r#"{"name":"shop","settings":{"url":"https://x","n":3,"on":true},"types":["a.*"]}"#),
            (Form::Toml, "name = \"shop\"\ntypes = [\"a.*\"]\n[settings]\nurl = \"https://x\"\nn = 3\non = true\n"),
            (Form::Yaml, "name: shop\nsettings:\n  url: https://x\n  n: 3\n  on: true\ntypes: [a.*]\n"),
        ] {
            assert_eq!(parse(text, form).as_ref(), Ok(&want), "{form:?}");
            assert_eq!(guessed(text).as_ref(), Ok(&want), "{form:?}");
        }
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        let read = parse("a: y\nb: on\nc: No\nd: true\n", Form::Yaml);
        assert_eq!(read, Ok(json!({"a": "y", "b": "on", "c": "No", "d": true})));
    }

    #[test]
    fn a_broken_document_is_told_by_place_and_not_by_content() {
        for (form, text) in [
            (Form::Json, "{\n\"a\": planted}"),
            (Form::Toml, "a = 1\nb = planted"),
            (Form::Yaml, "a: 1\nb: \"planted\n c: [}"),
        ] {
            let error = parse(text, form).expect_err("it is broken");
            assert!(error.contains("at line") && !error.contains("planted"), "{form:?}: {error}");
        }
        assert!(guessed("a: [planted").is_err_and(|error| !error.contains("planted")));
    }

    #[test]
    fn variables_stand_in_any_text() {
        let variable = |name: &str| (name == "KEY_1").then(|| "v${x}".to_owned());
        let made = expanded(json!({"a": ["x ${KEY_1} y"], "b": "$${KEY_1} $5", "n": 1}), "", &variable);
        assert_eq!(made, Ok(json!({"a": ["x v${x} y"], "b": "${KEY_1} $5", "n": 1})));
        let missing = expanded(json!({"hooks": [{}, {"secret": "x${GONE}"}]}), "", &variable);
        let missing = missing.expect_err("there is no such variable");
        assert!(missing.starts_with("hooks.1.secret: the environment has no variable GONE; set it"), "{missing}");
        assert!(missing.contains("`$${GONE}`"), "{missing}");
        for wrong in ["${", "${}", "${1A}", "${a b}", "x${KEY_1"] {
            assert!(expanded(json!(wrong), "", &variable).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_missing_variables_are_told_at_once() {
        let variable = |name: &str| (name == "THERE").then(String::new);
        let document = json!({"a": "${GONE_2}", "b": ["${THERE}", "${GONE_1}", "${GONE_2}"]});
        let missing = with_variables(&document, &variable).expect_err("two are not there");
        assert!(missing.starts_with("a: the environment has no variable GONE_2; set it"), "{missing}");
        assert!(missing.ends_with("; all that are missing: GONE_1, GONE_2"), "{missing}");
        let missing = with_variables(&json!("${GONE_1}"), &variable).expect_err("one is not there");
        assert!(!missing.contains("all that"), "{missing}");
    }

    proptest::proptest! {
        #[test]
        fn what_is_escaped_comes_back(text in "[a${}b]{0,12}") {
            let made = expanded_text(&text.replace("${", "$${"), &|_| None);
            proptest::prop_assert_eq!(made, Ok(text));
        }
    }
}
