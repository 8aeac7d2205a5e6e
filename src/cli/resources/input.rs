//! From what was typed to a call: the path with its arguments, the query, the body with its secrets.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ArgMatches;
use serde_json::{Map, Value};

use super::{Action, Body, Flag, Kind, SecretFlag, Verb};
use crate::{
    admin::read_only,
    cli::{
        UsageError,
        client::{Call, Client, segment},
        document, note, show,
        verify::{is_stdin, read_secret},
    },
};

/// Names that are looked for, a page at a time.
const NAMES_PAGE: usize = 1_000;

/// States that hookmill finds out by itself: between `get` and `update` they may change without anybody's doing.
const FINDINGS: [&str; 2] = ["pending", "failed"];

/// The call that was typed.
pub(super) async fn call(action: &Action, matches: &ArgMatches, client: &Client) -> anyhow::Result<Call> {
    let mut call = Call::new(action.method.into(), path(action, matches, client).await?);
    for flag in action.query {
        if let Some(value) = value(flag, matches, client).await? {
            call.query.push((flag.to.to_owned(), as_parameter(value)));
        }
    }
    if action.method != Verb::Get {
        call.comment = matches.get_one::<String>("comment").cloned();
    }
    if action.conditional {
        call.if_version = matches.get_one::<u64>("if-version").copied();
    }
    if action.body != Body::None {
        let current = match action.body {
            Body::Change => show::members(client.json(Call::get(call.path.clone())).await?).unwrap_or_default(),
            _ => Map::new(),
        };
        let mut body = body(action, matches, client, &current).await?;
        if action.body == Body::Change {
            only_changes(&mut call, &mut body, &current, read_only(collection_of(action)));
        }
        if action.body == Body::Document {
            call.idempotency_key = matches.get_one::<String>("idempotency-key").cloned();
        }
        // Actions without members take no body at all.
        if action.body != Body::Flags || !body.is_empty() || !action.members.is_empty() {
            call.body = Some(Value::Object(body));
        }
    }
    Ok(call)
}

/// The collection that an action works on: the first part of its path.
fn collection_of(action: &Action) -> &'static str {
    action.path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

/// Leaves of an update what differs from what stands: so a document may be what `get` showed, changed. What nobody sets,
/// `read_only`, may have changed by itself; but another `id` is that of another thing, and the server says so.
fn only_changes(
    call: &mut Call,
    body: &mut Map<String, Value>,
    current: &Map<String, Value>,
    read_only: &[&'static str],
) {
    if let Some(version) = body.remove("version").as_ref().and_then(Value::as_u64) {
        let based_on = *call.if_version.get_or_insert(version);
        if current.get("version").and_then(Value::as_u64).is_some_and(|now| now != based_on) {
            // The server says so best, and looks at the version before it looks at any member.
            body.clear();
            return;
        }
    }
    body.retain(|name, value| {
        let is_found_out = (name != "id" && read_only.contains(&name.as_str()))
            || (name == "status" && FINDINGS.iter().any(|it| value == it));
        !is_found_out && current.get(name) != Some(value)
    });
    if body.is_empty() {
        note("nothing differs from what stands");
    }
}

async fn path(action: &Action, matches: &ArgMatches, client: &Client) -> anyhow::Result<String> {
    let mut path = String::new();
    for part in action.path.split('/').skip(1) {
        path.push('/');
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            None => path.push_str(part),
            Some(name) => {
                let typed = matches.get_one::<String>(name).context("a required argument was parsed")?;
                let typed = match collection(name) {
                    Some(collection) => resolved(client, collection, typed).await?.to_string(),
                    None => typed.clone(),
                };
                path.push_str(&segment(&typed));
            }
        }
    }
    Ok(path)
}

/// The collection whose members may be named in that argument.
fn collection(argument: &str) -> Option<&'static str> {
    match argument {
        "INTEGRATION" => Some("integrations"),
        "WEBHOOK" => Some("webhooks"),
        "DESTINATION" => Some("destinations"),
        "SUBSCRIPTION" => Some("subscriptions"),
        _ => None,
    }
}

/// The number of a resource that is given by number or by name.
pub(in crate::cli) async fn resolved(client: &Client, collection: &str, typed: &str) -> anyhow::Result<u64> {
    if let Ok(number) = typed.parse() {
        return Ok(number);
    }
    let mut found = Vec::new();
    let mut skip = 0;
    loop {
        let call =
            Call::get(format!("/{collection}")).with("limit", NAMES_PAGE.to_string()).with("skip", skip.to_string());
        let mut page = client.json(call).await?;
        let items = show::items(&mut page);
        skip += items.len();
        let is_last = items.len() < NAMES_PAGE;
        let named = items.iter().filter(|item| item["name"] == *typed).filter_map(|item| item["id"].as_u64());
        found.extend(named);
        if is_last {
            break;
        }
    }
    let one = collection.trim_end_matches('s');
    match found.as_slice() {
        [id] => Ok(*id),
        [] => {
            let typed = show::escaped(typed);
            Err(NotThere(format!("there is no {one} with the name `{typed}`; `hookmill {collection} list` shows them"))
                .into())
        }
        several => {
            let several: Vec<String> = several.iter().map(u64::to_string).collect();
            Err(UsageError::new(format!("the {one}s {} all have that name; give the number", several.join(", "))))
        }
    }
}

/// What was named is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct NotThere(String);

async fn value(flag: &Flag, matches: &ArgMatches, client: &Client) -> anyhow::Result<Option<Value>> {
    let text = || matches.get_one::<String>(flag.name);
    let texts = || matches.get_many::<String>(flag.name).into_iter().flatten();
    Ok(match flag.kind {
        Kind::Text | Kind::Choice(_) => text().map(|text| text.as_str().into()),
        Kind::Number => matches.get_one::<u64>(flag.name).map(|number| (*number).into()),
        Kind::Bool => matches.get_one::<bool>(flag.name).map(|value| (*value).into()),
        Kind::Texts => matches.contains_id(flag.name).then(|| texts().map(String::as_str).collect()),
        Kind::Json => match text() {
            None => None,
            Some(text) => Some(serde_json::from_str(text).map_err(|_| {
                UsageError::new(format!("`--{}` must be JSON; in a shell, put it into single quotes", flag.name))
            })?),
        },
        Kind::Ref(collection) => match text() {
            None => None,
            Some(text) => Some(resolved(client, collection, text).await?.into()),
        },
    })
}

fn as_parameter(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Array(items) => items.into_iter().map(as_parameter).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

async fn body(
    action: &Action,
    matches: &ArgMatches,
    client: &Client,
    current: &Map<String, Value>,
) -> anyhow::Result<Map<String, Value>> {
    let takes_document = action.body.takes_document();
    let file = if takes_document { matches.get_one::<PathBuf>("file") } else { None };
    let from_stdin = file.is_some_and(|file| is_stdin(file));
    let mut body = match file {
        Some(file) => document::object(file)?,
        None => Map::new(),
    };
    for flag in action.members {
        if let Some(value) = value(flag, matches, client).await? {
            place(&mut body, flag.to, value, current).map_err(UsageError::new)?;
        }
    }
    if takes_document {
        for assignment in matches.get_many::<String>("set").into_iter().flatten() {
            set(&mut body, assignment, action.secrets, current).map_err(UsageError::new)?;
        }
    }
    let mut stdin_is_free = !from_stdin;
    for secret in action.secrets {
        put_secrets(&mut body, secret, matches, &mut stdin_is_free)?;
    }
    Ok(body)
}

/// Puts a value where a pointer says, with the objects on the way: those that stand, where the body has none.
fn place(
    body: &mut Map<String, Value>,
    pointer: &str,
    value: Value,
    current: &Map<String, Value>,
) -> Result<(), String> {
    let mut names = pointer.trim_start_matches('/').split('/').peekable();
    if let Some((first, _)) = pointer.trim_start_matches('/').split_once('/')
        && let Some(stands @ Value::Object(_)) = current.get(first)
    {
        body.entry(first).or_insert_with(|| stands.clone());
    }
    let mut at = body;
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            at.insert(name.to_owned(), value);
            return Ok(());
        }
        let below = at.entry(name).or_insert_with(|| Value::Object(Map::new()));
        at = below.as_object_mut().ok_or_else(|| format!("`{name}` is no object, so nothing can be set within it"))?;
    }
    Ok(())
}

fn set(
    body: &mut Map<String, Value>,
    assignment: &str,
    secrets: &[SecretFlag],
    current: &Map<String, Value>,
) -> Result<(), String> {
    let (name, text) =
        assignment.split_once('=').ok_or("`--set` takes MEMBER=VALUE, such as `settings.url=https://x`")?;
    let pointer = format!("/{}", name.replace('.', "/"));
    let is_secret = |secret: &SecretFlag| {
        pointer.strip_prefix(secret.member).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some(secret) = secrets.iter().find(|secret| is_secret(secret)) {
        return Err(format!(
            "`{name}` is a secret, and everybody on this machine can read arguments; use `--{}` or `--{}`",
            secret.file, secret.variable
        ));
    }
    let value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
    place(body, &pointer, value, current)
}

fn put_secrets(
    body: &mut Map<String, Value>,
    secret: &SecretFlag,
    matches: &ArgMatches,
    stdin_is_free: &mut bool,
) -> anyhow::Result<()> {
    let given = |flag: &'static str| matches.get_many::<String>(flag).into_iter().flatten();
    for (typed, is_file) in given(secret.file).map(|it| (it, true)).chain(given(secret.variable).map(|it| (it, false)))
    {
        let flag = if is_file { secret.file } else { secret.variable };
        let (member, source) = if secret.named {
            let (name, source) = typed
                .split_once('=')
                .filter(|(name, _)| !name.is_empty() && !name.contains('/'))
                .ok_or_else(|| UsageError::new(format!("`--{flag}` takes NAME=…, such as `api_key=…`")))?;
            (format!("{}/{name}", secret.member), source)
        } else {
            (secret.member.to_owned(), typed.as_str())
        };
        let text = if is_file { from_file(Path::new(source), stdin_is_free)? } else { from_variable(source)? };
        place(body, &member, text.into(), &Map::new()).map_err(UsageError::new)?;
    }
    Ok(())
}

fn from_file(file: &Path, stdin_is_free: &mut bool) -> anyhow::Result<String> {
    if is_stdin(file) && !std::mem::replace(stdin_is_free, false) {
        return Err(UsageError::new("only one thing can be read from `-`: standard input is read once"));
    }
    let secret = read_secret(file).map_err(|error| UsageError::new(format!("{error:#}")))?;
    let text = secret.expose_str().ok_or_else(|| UsageError::new(format!("{} is not UTF-8 text", file.display())))?;
    Ok(text.to_owned())
}

fn from_variable(name: &str) -> anyhow::Result<String> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(UsageError::new(format!("the environment has no variable {name} that holds text"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRETS: &[SecretFlag] =
        &[SecretFlag { file: "secret-file", variable: "secret-env", member: "/secret", named: false }];

    #[test]
    fn members_are_set_wherever_they_are() {
        let mut body = Map::new();
        for assignment in ["name=a=b", "settings.url=https://x", "settings.timeout_ms=5", "active=false", "x=null"] {
            set(&mut body, assignment, SECRETS, &Map::new()).expect(assignment);
        }
        let want =
            json!({"name": "a=b", "settings": {"url": "https://x", "timeout_ms": 5}, "active": false, "x": null});
        assert_eq!(Value::Object(body.clone()), want);
        assert!(set(&mut body, "name.x=1", SECRETS, &Map::new()).is_err());
        assert!(set(&mut body, "name", SECRETS, &Map::new()).is_err());
    }

    #[test]
    fn an_update_begins_with_what_stands_and_sends_what_differs() {
        let mut stale = Map::from_iter([("version".to_owned(), json!(6)), ("updated_at".to_owned(), json!("then"))]);
        let current = json!({"id": 1, "version": 7, "name": "a", "settings": {"url": "https://x", "timeout_ms": 5}});
        let current = current.as_object().expect("an object");
        let mut body = Map::from_iter([("id".to_owned(), json!(1)), ("version".to_owned(), json!(7))]);
        set(&mut body, "settings.url=https://y", SECRETS, current).expect("it can be set");
        body.insert("status".to_owned(), json!("pending"));
        body.insert("health_status".to_owned(), json!("as it was"));
        let read_only = read_only("integrations");
        body.insert("latest_version".to_owned(), json!(3));
        let mut call = Call::get("/x");
        only_changes(&mut call, &mut body, current, read_only);
        assert_eq!(Value::Object(body), json!({"settings": {"url": "https://y", "timeout_ms": 5}}));
        assert_eq!(call.if_version, Some(7));
        let mut call = Call::get("/x");
        only_changes(&mut call, &mut stale, current, read_only);
        assert_eq!((call.if_version, stale), (Some(6), Map::new()), "the server refuses it by its version");
        let mut other = Map::from_iter([("id".to_owned(), json!(2))]);
        only_changes(&mut Call::get("/x"), &mut other, current, read_only);
        assert_eq!(Value::Object(other), json!({"id": 2}), "the server says that it is another one");
    }

    #[test]
    fn a_secret_is_refused_as_an_argument() {
        for assignment in ["secret=planted", "secret.x=planted"] {
            let error = set(&mut Map::new(), assignment, SECRETS, &Map::new()).expect_err("it is a secret");
            assert!(error.contains("--secret-file") && !error.contains("planted"), "{error}");
        }
        assert!(set(&mut Map::new(), "secretary=x", SECRETS, &Map::new()).is_ok());
    }
}
