//! Everything of hookmill that touches the outside: sockets, files, stores, the command line.
//! The library shows its modules to the binary, the tests and the benches; it is no public API.

pub mod admin;
pub mod app;
pub mod backup;
pub mod cli;
pub mod connections;
pub mod destinations;
pub mod doctor;
pub mod ingress;
pub mod keys;
pub mod programs;
pub mod providers;
pub(crate) mod rate_headers;
pub mod rejections;
pub mod replies;
pub mod secrets;
pub mod settings;
pub mod storage;
pub mod tokens;
pub(crate) mod words;

/// The codes that a section of `docs/errors.md` lists, with their statuses. Each must have a meaning and a next step.
#[cfg(test)]
fn documented_codes(section: &str) -> std::collections::BTreeMap<String, u16> {
    let text = include_str!("../docs/errors.md");
    let (_, section) = text.split_once(&format!("\n{section}\n")).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let codes: Vec<(String, u16)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [code, status, meaning, next] = cells[..] else { panic!("not four cells: {row}") };
            assert!(!meaning.is_empty() && !next.is_empty(), "{row}");
            (code.trim_matches('`').to_owned(), status.parse().expect("a status"))
        })
        .collect();
    let count = codes.len();
    let codes = std::collections::BTreeMap::from_iter(codes);
    assert_eq!(codes.len(), count, "a code stands there twice");
    codes
}
