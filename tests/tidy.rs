//! What must stay true of the sources themselves: who may depend on whom, where a provider may be named, how long a
//! file may grow. Each test says what to do when it fails.

#![expect(clippy::print_stdout, reason = "files that grow long are told before they are refused")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What `actors` must never know: everything that touches the outside.
const OUTSIDE: [&str; 4] = ["hyper", "axum", "redis", "sled"];
/// Providers whose names are also ordinary words of the field, so that finding one elsewhere says nothing.
const ORDINARY_WORDS: [&str; 6] = ["api_key", "basic", "bearer", "ip_allowlist", "jwt", "none"];
/// A longer file is split by nouns.
const LINES_MAX: usize = 600;
/// A longer file is told.
const LINES_COMFORTABLE: usize = 400;

#[test]
fn the_heart_depends_on_nothing_from_outside() {
    let manifest: toml::Table = read("actors/Cargo.toml").parse().expect("actors/Cargo.toml is TOML");
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
        for name in table.keys() {
            assert!(!is_outside(name), "actors/Cargo.toml [{section}] names `{name}`; put it behind a port in src/");
        }
    }
}

#[test]
fn the_heart_does_not_reach_the_outside_through_others() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .current_dir(root())
        .args(["tree", "-p", "hookmill-actors", "-e", "normal", "--prefix", "none", "--offline", "--locked"])
        .output()
        .expect("cargo starts");
    assert!(tree.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout);
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains("ractor"), "the tree of hookmill-actors was not understood: {tree}");
    let outside: Vec<_> = names.into_iter().filter(|name| is_outside(name)).collect();
    assert!(
        outside.is_empty(),
        "hookmill-actors pulls in {outside:?}; `cargo tree -p hookmill-actors -i NAME` tells how"
    );
}

#[test]
fn the_heart_names_nothing_from_outside() {
    let mut found = Vec::new();
    for path in rust_files(&["actors/src"]) {
        for (number, line) in code_lines(&read_path(&path)) {
            // `hyper::` and `use hyper` are code; `hyper` in a text is not.
            let named = OUTSIDE.iter().find(|name| {
                line.contains(&format!("{name}::")) || name_after(line, "use").is_some_and(|it| is_within(it, name))
            });
            if let Some(name) = named {
                found.push(format!("{}:{number} names {name}", shown(&path)));
            }
        }
    }
    assert!(found.is_empty(), "put it behind a port in src/:\n{}", found.join("\n"));
}

#[test]
fn every_provider_file_stands_in_the_registry() {
    let providers = providers();
    assert!(!providers.is_empty(), "no file below src/providers holds `impl Provider for`");
    let registry = read("src/providers.rs");
    let registry = code_lines(&registry).map(|(_, line)| line).collect::<Vec<_>>().join("\n");
    for name in providers {
        assert!(
            holds_word(&registry, &name),
            "src/providers/{name}.rs holds a provider, but src/providers.rs has no line for it: it would never be used"
        );
    }
}

#[test]
fn a_provider_is_named_only_where_it_lives() {
    let mut found = Vec::new();
    for path in rust_files(&["src", "actors/src"]) {
        let place = shown(&path);
        if may_name_providers(&place) {
            continue;
        }
        let text = read_path(&path);
        for name in providers().iter().filter(|name| !ORDINARY_WORDS.contains(&name.as_str())) {
            if Path::new(&place) == Path::new("src/providers").join(format!("{name}.rs")) {
                continue;
            }
            for (number, line) in code_lines(&text) {
                if holds_word(line, name) || holds_word(line, &camel_case(name)) {
                    found.push(format!("{place}:{number} names {name}"));
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "a provider's name occurs only in its file and its registry line; ask the port `Provider` instead:\n{}",
        found.join("\n")
    );
}

#[test]
fn files_stay_short() {
    let mut long = Vec::new();
    for path in rust_files(&["src", "actors/src"]) {
        let lines = read_path(&path).lines().count();
        if lines > LINES_MAX {
            long.push(format!("{}: {lines} lines", shown(&path)));
        } else if lines > LINES_COMFORTABLE {
            println!("{}: {lines} lines", shown(&path));
        }
    }
    assert!(long.is_empty(), "more than {LINES_MAX} lines; find the second noun and move it:\n{}", long.join("\n"));
}

#[test]
fn one_provider_of_tls_and_no_openssl() {
    let lock: toml::Table = read("Cargo.lock").parse().expect("Cargo.lock is TOML");
    let packages = lock.get("package").and_then(toml::Value::as_array).expect("Cargo.lock lists packages");
    let names: BTreeSet<&str> =
        packages.iter().filter_map(|package| package.get("name").and_then(toml::Value::as_str)).collect();
    assert!(names.contains("rustls"), "Cargo.lock was not understood");
    for name in ["aws-lc-rs", "aws-lc-sys", "openssl-sys"] {
        assert!(
            !names.contains(name),
            "Cargo.lock holds {name}: `cargo tree -i {name}` tells which feature to turn off"
        );
    }
}

#[test]
fn the_licence_is_the_one_the_manifest_names() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let licence = manifest["workspace"]["package"]["license"].as_str().expect("a text");
    let text = read("LICENSE");
    assert!(text.contains(&format!("{licence} License")), "LICENSE is not the text of `{licence}`");
    assert!(text.contains("Copyright"), "LICENSE names no holder");
}

#[test]
fn no_tracked_file_knows_its_authors_machine() {
    // In pieces, so that this file does not hold them itself.
    let places: Vec<String> = ["work", "root", "tmp/wt"].iter().map(|place| format!("/{place}/")).collect();
    let mut found = Vec::new();
    for path in tracked_files() {
        // Not text, or a link into nowhere: nothing to read.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            if places.iter().any(|place| holds_absolute_path(line, place)) {
                found.push(format!("{}:{number}: {}", shown(&path), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "paths of one machine; make them relative or a setting:\n{}", found.join("\n"));
}

#[test]
fn the_checks_themselves_can_fail() {
    assert!(holds_word("use stripe;", "stripe") && !holds_word("stripes, re_stripe", "stripe"));
    assert_eq!(camel_case("generic_hmac"), "GenericHmac");
    assert_eq!(name_after("pub use hyper::body;", "use"), Some("hyper"));
    assert_eq!(name_after("use hyper_util::rt;", "use"), Some("hyper_util"));
    assert!(is_outside("hyper") && is_outside("hyper-util") && !is_outside("hyperloglog"));
    let text = "//! a\nlet url = \"a//b\"; // stripe\n/* x */ code\nmod tests { stripe }\n";
    let lines: Vec<_> = code_lines(text).collect();
    assert_eq!(lines, [(2, "let url = \"a//b\"; "), (3, "/* x */ code")]);
    let home = ["/ro", "ot/"].concat();
    assert!(holds_absolute_path(&format!("see `{home}x`"), &home));
    assert!(holds_absolute_path(&format!("{home}x"), &home));
    assert!(!holds_absolute_path(&format!("https://example.com{home}x"), &home));
    assert!(!holds_absolute_path(&format!("src{home}x ..{home}"), &home));
}

/// The names of the providers: the files below `src/providers` that implement the port.
fn providers() -> Vec<String> {
    let is_provider = |path: &PathBuf| code_lines(&read_path(path)).any(|(_, line)| line.contains("impl Provider for"));
    rust_files(&["src/providers"]).iter().filter(|path| is_provider(path)).map(|path| stem(path)).collect()
}

/// The registry, what samples and the command line show to people, and what only tests use.
fn may_name_providers(place: &str) -> bool {
    place == "src/providers.rs"
        || place == "src/cli.rs"
        || place.starts_with("src/cli/")
        || place.starts_with("actors/src/testkit")
        || place == "src/admin/testing.rs"
        || place.ends_with("/tests.rs")
        || place.contains("/tests/")
}

/// Lines of code with their numbers: without comments, and without the tests at the file's end.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .take_while(|(_, line)| !line.trim_start_matches("pub(super) ").starts_with("mod tests"))
        .map(|(number, line)| (number, without_comment(line)))
        .filter(|(_, line)| !line.trim().is_empty())
}

/// A line up to its `//`, unless that stands in a text, as in an address.
fn without_comment(line: &str) -> &str {
    let outside_a_text = |at: &usize| line[..*at].matches('"').count().is_multiple_of(2);
    line.match_indices("//").map(|(at, _)| at).find(outside_a_text).map_or(line, |at| &line[..at])
}

fn is_outside(name: &str) -> bool {
    OUTSIDE.iter().any(|outside| is_within(name, outside))
}

/// Whether a crate is this one or of its family: `hyper-util` is `hyper`'s.
fn is_within(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

fn holds_word(text: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

/// The first name after a keyword: `hyper` in `pub use hyper::body`.
fn name_after<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("{keyword} "))?;
    rest.trim_start().split(|character: char| !character.is_alphanumeric() && character != '_').next()
}

fn holds_absolute_path(line: &str, place: &str) -> bool {
    let continues = |character: char| character.is_alphanumeric() || "._~-/}*".contains(character);
    line.match_indices(place).any(|(at, _)| !line[..at].ends_with(continues))
}

fn camel_case(name: &str) -> String {
    let mut start = true;
    name.chars()
        .filter_map(|character| {
            let upper = std::mem::replace(&mut start, character == '_');
            (character != '_').then(|| if upper { character.to_ascii_uppercase() } else { character })
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    read_path(&root().join(path))
}

fn read_path(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A path as people write it: from the repository's root.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// All Rust files below the folders, sorted.
fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// What is under version control; in an unpacked archive, which has none, every source and text we know of.
fn tracked_files() -> Vec<PathBuf> {
    let listed = Command::new("git").current_dir(root()).args(["ls-files", "-z"]).output();
    match listed {
        Ok(listed) if listed.status.success() && !listed.stdout.is_empty() => {
            let names = String::from_utf8_lossy(&listed.stdout).into_owned();
            names.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name)).collect()
        }
        _ => rust_files(&["src", "actors/src", "benches", "tests"]),
    }
}
