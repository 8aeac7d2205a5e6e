//! Secrets that are planted in a product, and the search for them: in whatever form a text is written down.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use aho_corasick::AhoCorasick;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use sha2::{Digest, Sha256};

/// Shorter texts occur by accident.
const BYTES_MIN: usize = 12;

/// The secrets, by name.
#[derive(Default)]
pub(crate) struct Planted(BTreeMap<String, Vec<u8>>);

impl Planted {
    /// A secret that occurs nowhere else, with characters that are written differently in JSON, base64 and URLs.
    pub(crate) fn text(&mut self, name: &str) -> String {
        let text = format!("{name}+/\"={}", &hex::encode(Sha256::digest(name))[..24]);
        self.add(name, text.as_bytes());
        text
    }

    /// The same for a place that takes only letters, digits and hyphens.
    pub(crate) fn word(&mut self, name: &str) -> String {
        let text = format!("{name}-{}", &hex::encode(Sha256::digest(name))[..24]);
        self.add(name, text.as_bytes());
        text
    }

    /// A key as Standard Webhooks writes it. Its bytes are as secret as its text.
    pub(crate) fn whsec(&mut self, name: &str) -> String {
        let text = format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(Sha256::digest(name)));
        self.add_whsec(name, &text);
        text
    }

    pub(crate) fn add_whsec(&mut self, name: &str, text: &str) {
        let encoded = text.strip_prefix("whsec_").unwrap().trim_end_matches('=');
        self.add(name, encoded.as_bytes());
        self.add(&format!("{name}, its bytes"), &STANDARD_NO_PAD.decode(encoded).unwrap());
    }

    pub(crate) fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= BYTES_MIN, "{name} is too short to be looked for");
        assert!(self.0.insert(name.to_owned(), secret.to_vec()).is_none(), "{name} is planted twice");
    }

    pub(crate) fn search(&self) -> Search {
        let mut names = Vec::new();
        let mut needles = Vec::new();
        for (name, secret) in &self.0 {
            for form in forms(secret) {
                names.push(name.clone());
                needles.push(form);
            }
        }
        Search { names, machine: AhoCorasick::new(needles).unwrap() }
    }
}

/// Looks for all of them at once.
pub(crate) struct Search {
    names: Vec<String>,
    machine: AhoCorasick,
}

impl Search {
    /// The names of the secrets that occur in these bytes, in any form.
    pub(crate) fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let all = self.machine.find_overlapping_iter(bytes);
        let mut found: Vec<&str> = all.map(|it| self.names[it.pattern()].as_str()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// What occurs in which file below a folder.
    pub(crate) fn found_below(&self, folder: &Path) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(self.found_below(&path));
            } else {
                let bytes = std::fs::read(&path).unwrap();
                let file = path.file_name().unwrap().to_string_lossy().into_owned();
                found.extend(self.found_in(&bytes).into_iter().map(|name| (name.to_owned(), file.clone())));
            }
        }
        found
    }
}

/// How bytes may be written down: as they are, in JSON, base64 at each of its three alignments, hex, percent-encoded, as
/// a list of numbers.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec(), hex::encode(secret).into_bytes(), hex::encode_upper(secret).into_bytes()];
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        for before in 0..3 {
            // Only what does not depend on the neighbours.
            let encoded = engine.encode([&vec![0; before], secret].concat());
            let first = [0, 2, 3][before];
            let whole = (before + secret.len()) * 8 / 6;
            forms.push(encoded.as_bytes()[first..whole].to_vec());
        }
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        let quoted = serde_json::to_string(text).unwrap();
        let inner = &quoted[1..quoted.len() - 1];
        // Text in JSON that is a text in JSON.
        let twice = serde_json::to_string(inner).unwrap();
        forms.extend(
            [inner.to_owned(), twice[1..twice.len() - 1].to_owned(), inner.replace('/', "\\/")].map(String::into_bytes),
        );
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    for (upper, also) in [(true, &b""[..]), (false, b""), (true, b"/"), (true, b"/+="), (true, b"+=")] {
        let mut encoded = String::new();
        for byte in secret {
            match (plain(byte) || also.contains(byte), upper) {
                (true, _) => encoded.push(char::from(*byte)),
                (false, true) => write!(encoded, "%{byte:02X}").unwrap(),
                (false, false) => write!(encoded, "%{byte:02x}").unwrap(),
            }
        }
        forms.push(encoded.into_bytes());
    }
    for between in [",", ", "] {
        forms.push(secret.iter().map(u8::to_string).collect::<Vec<_>>().join(between).into_bytes());
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

#[test]
fn a_secret_is_found_in_every_form_and_nothing_else_is() {
    let mut planted = Planted::default();
    let text = planted.text("a-password");
    let key = planted.whsec("a-key");
    let search = planted.search();
    let encoded = |before: &str| {
        let all = format!("{before}{text}.");
        [STANDARD_NO_PAD.encode(&all), URL_SAFE_NO_PAD.encode(&all), hex::encode(&all), format!("{:?}", all.as_bytes())]
    };
    let percent: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let json = serde_json::json!({"a": text}).to_string();
    let forms = [text.clone(), percent, serde_json::json!({"b": json}).to_string(), json];
    for form in forms.into_iter().chain(["", "x", "xy"].into_iter().flat_map(encoded)) {
        assert_eq!(search.found_in(format!("before {form} after").as_bytes()), ["a-password"], "{form}");
    }
    assert_eq!(search.found_in(key.as_bytes()), ["a-key", "a-key, its bytes"]);
    assert_eq!(search.found_in(&Sha256::digest("a-key")), ["a-key, its bytes"]);
    assert_eq!(search.found_in(b"whsec_ nothing, a-password+/ is half of it"), Vec::<&str>::new());
}
