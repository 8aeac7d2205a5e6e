//! `hookmill export`: what stands, as documents that `hookmill apply` reads. Secrets are never in them: a variable of
//! the environment stands in place of each.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::{UsageError, client::Call, context::ServerArgs, note, one_thread, print};
use crate::words::counted;

/// What to write where.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {
    /// A folder: a document for each integration, and one for the destinations; else all of it to standard output
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// How to write
    #[arg(long, value_enum, default_value_t = Written::Yaml)]
    format: Written,
    /// Leave secrets out, rather than put a variable in the place of each: `apply` lets them stand
    #[arg(long)]
    without_secrets: bool,
    /// Write over documents that are there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// In which form documents are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Written {
    Yaml,
    Toml,
    Json,
}

const EXAMPLES: &str = "\
Examples:
  hookmill export --to hookmill/
  hookmill export --without-secrets | hookmill apply -f - --dry-run
  hookmill export --context prod --format toml > prod.toml";

/// What replies show in place of a secret.
const HIDDEN: &str = "***";
const SECRETS: [&str; 3] = ["secret", "signing_secret", "credentials"];

pub(super) fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    let mut whole = one_thread()?.block_on(client.json(Call::get("/export")))?;
    let mut variables = Variables::default();
    let mut taken = |collection: &str| {
        let things = whole[collection].as_array_mut().map(std::mem::take).unwrap_or_default();
        things.into_iter().map(|thing| prepared(thing, args, &mut variables)).collect::<Vec<Value>>()
    };
    let (destinations, integrations) = (taken("destinations"), taken("integrations"));
    match &args.to {
        None => print(args.format.text(&json!({"destinations": destinations, "integrations": integrations}))?)?,
        Some(folder) => write_all(folder, args, &destinations, integrations)?,
    }
    if !variables.0.is_empty() {
        let names: Vec<&str> = variables.0.iter().map(String::as_str).collect();
        note(format_args!("the environment must hold these when it is applied: {}", names.join(", ")));
    }
    Ok(ExitCode::SUCCESS)
}

fn prepared(mut thing: Value, args: &ExportArgs, variables: &mut Variables) -> Value {
    if args.without_secrets {
        drop_secrets(&mut thing);
    }
    if args.format == Written::Toml {
        // It has no word for it, and a member that is left out has its default.
        drop_nulls(&mut thing);
    }
    let name = thing["name"].as_str().unwrap_or_default().to_owned();
    with_variables(thing, &mut vec![name], variables)
}

fn drop_secrets(thing: &mut Value) {
    let Value::Object(members) = thing else { return };
    members.retain(|name, _| !SECRETS.contains(&name.as_str()));
    if let Some(Value::Array(webhooks)) = members.get_mut("webhooks") {
        webhooks.iter_mut().for_each(drop_secrets);
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => {
            items.retain(|value| !value.is_null());
            items.iter_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

/// The variables that stand in place of secrets.
#[derive(Default)]
struct Variables(BTreeSet<String>);

impl Variables {
    fn named(&mut self, path: &[String]) -> String {
        let letters = path.join("_");
        let mut name: String =
            letters.chars().map(|it| if it.is_ascii_alphanumeric() { it.to_ascii_uppercase() } else { '_' }).collect();
        if name.starts_with(|it: char| it.is_ascii_digit()) {
            name.insert(0, '_');
        }
        let base = name.clone();
        let mut number = 1;
        while !self.0.insert(name.clone()) {
            number += 1;
            name = format!("{base}_{number}");
        }
        format!("${{{name}}}")
    }
}

/// With a variable in the place of what is hidden, and every other text as it is read back.
fn with_variables(value: Value, path: &mut Vec<String>, variables: &mut Variables) -> Value {
    match value {
        Value::String(text) if text == HIDDEN => variables.named(path).into(),
        Value::String(text) => text.replace("${", "$${").into(),
        Value::Array(items) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| {
                // Parts are known by their names.
                let name = item["name"].as_str().map_or_else(|| index.to_string(), str::to_owned);
                below(name, item, path, variables)
            })
            .collect(),
        Value::Object(members) => {
            let made: Map<String, Value> = members
                .into_iter()
                .map(|(name, value)| {
                    // The lists of parts say nothing that their parts' names do not.
                    let made = if matches!(name.as_str(), "webhooks" | "subscriptions") {
                        with_variables(value, path, variables)
                    } else {
                        below(name.clone(), value, path, variables)
                    };
                    (name, made)
                })
                .collect();
            made.into()
        }
        other => other,
    }
}

fn below(name: String, value: Value, path: &mut Vec<String>, variables: &mut Variables) -> Value {
    path.push(name);
    let made = with_variables(value, path, variables);
    path.pop();
    made
}

fn write_all(folder: &Path, args: &ExportArgs, destinations: &[Value], integrations: Vec<Value>) -> anyhow::Result<()> {
    let mut documents = Vec::new();
    let mut names = BTreeSet::new();
    if !destinations.is_empty() {
        names.insert("destinations".to_owned());
        documents.push(("destinations".to_owned(), json!({"destinations": destinations})));
    }
    for integration in integrations {
        let mut name = file_name(integration["name"].as_str().unwrap_or_default());
        let base = name.clone();
        let mut number = 1;
        while !names.insert(name.clone()) {
            number += 1;
            name = format!("{base}-{number}");
        }
        documents.push((name, json!({"integrations": [integration]})));
    }
    let files: Vec<PathBuf> =
        documents.iter().map(|(name, _)| folder.join(format!("{name}.{}", args.format.extension()))).collect();
    if let Some(there) = files.iter().find(|file| !args.force && file.exists()) {
        return Err(UsageError::new(format!("{} is there already; `--force` writes over it", there.display())));
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for ((_, document), file) in documents.iter().zip(&files) {
        let text = args.format.text(document)?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    note(format_args!("{} in {}", counted(files.len(), "document"), folder.display()));
    Ok(())
}

/// A name as a file may have it: it never leaves its folder.
fn file_name(name: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut made = String::new();
    for it in name.chars().take(CHARS_MAX) {
        if it.is_alphanumeric() {
            made.extend(it.to_lowercase());
        } else if !made.ends_with('-') && !made.is_empty() {
            made.push('-');
        }
    }
    let made = made.trim_end_matches('-');
    if made.is_empty() { "integration".to_owned() } else { made.to_owned() }
}

impl Written {
    fn extension(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::Toml => "toml",
            Self::Json => "json",
        }
    }

    fn text(self, document: &Value) -> anyhow::Result<String> {
        Ok(match self {
            Self::Yaml => serde_saphyr::to_string(document).context("it cannot be written as YAML")?,
            Self::Toml => toml::to_string_pretty(document).context("it cannot be written as TOML")?,
            Self::Json => serde_json::to_string_pretty(document)? + "\n",
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::document;

    #[test]
    fn a_variable_stands_in_place_of_each_secret() {
        let mut variables = Variables::default();
        let thing = json!({"name": "Shop 2", "credentials": {"api_key": "***"},
                           "webhooks": [{"name": "a", "secret": "***"}, {"name": "A", "secret": "***"}],
                           "configuration": {"text": "${x}"}});
        let made = with_variables(thing, &mut vec!["Shop 2".to_owned()], &mut variables);
        assert_eq!(
            made,
            json!({"name": "Shop 2", "credentials": {"api_key": "${SHOP_2_CREDENTIALS_API_KEY}"},
                   "webhooks": [{"name": "a", "secret": "${SHOP_2_A_SECRET}"}, {"name": "A", "secret": "${SHOP_2_A_SECRET_2}"}],
                   "configuration": {"text": "$${x}"}})
        );
        assert_eq!(variables.0.len(), 3);
    }

    #[test]
    fn a_file_s_name_stays_in_its_folder() {
        for (name, file) in [
            ("Shop", "shop"),
            ("../../etc/passwd", "etc-passwd"),
            ("Größe & Co.", "größe-co"),
            ("...", "integration"),
            (&"x".repeat(200), &"x".repeat(60)),
        ] {
            assert_eq!(file_name(name), file);
        }
    }

    fn any_document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\n\t]{0,20}".prop_map(Value::from),
            proptest::sample::select(
                &["yes", "null", "~", "1e3", "0x1f", "- a", "a: b", "#x", "'", "2026-01-31", "${A}", " "][..]
            )
            .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-z_:#-]{1,6}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(thing in any_document()) {
            let folder = tempfile::tempdir().unwrap();
            for form in [Written::Yaml, Written::Toml, Written::Json] {
                let mut document = json!({"thing": thing});
                if form == Written::Toml {
                    drop_nulls(&mut document);
                }
                let escaped = with_variables(document.clone(), &mut Vec::new(), &mut Variables::default());
                let file = folder.path().join(format!("a.{}", form.extension()));
                fs::write(&file, form.text(&escaped).unwrap()).unwrap();
                let read = document::object(&file).map(Value::Object);
                prop_assert_eq!(read.ok(), Some(document), "{:?}: {}", form, fs::read_to_string(&file).unwrap());
            }
        }
    }
}
