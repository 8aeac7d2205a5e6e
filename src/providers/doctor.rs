//! Says why a signature holds or fails. What usually goes wrong between a signer and a verifier is tried out:
//! a change that makes the signature hold is the likely cause.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};
use bytes::Bytes;
use hookmill_actors::{
    domain::{headers::HeaderBlock, secret::Secret},
    ports::provider::{InboundRequest, Provider, Providers, Refusal, SettingsError, Verified},
};
use serde_json::{Map, Value};

use super::registry;

/// Headers tried as the one that carries the signature.
const HEADERS_TRIED_MAX: usize = 6;

/// A stored request and the endpoint it was meant for.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) provider: &'static dyn Provider,
    pub(crate) settings: Map<String, Value>,
    pub(crate) secrets: Vec<Secret>,
    /// Secrets that no longer held when it came.
    pub(crate) former: Vec<Former>,
    pub(crate) headers: HeaderBlock,
    pub(crate) body: Bytes,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) peer: IpAddr,
    pub(crate) now_ms: u64,
}

/// A secret that was rotated out.
#[derive(Clone)]
pub(crate) struct Former {
    pub(crate) secret: Secret,
    /// Milliseconds since 1970.
    pub(crate) ended_ms: u64,
}

/// What was found out about a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    /// When the request says it was signed, seconds since 1970, where the scheme dates it.
    pub(crate) signed_at_s: Option<u64>,
    /// How it holds, or why not.
    pub(crate) verdict: Result<Verified, Refusal>,
    /// It fails by its age alone.
    pub(crate) only_age: bool,
    /// What explains a refusal, best first; at least one then.
    pub(crate) causes: Vec<String>,
}

impl Case {
    /// `None` where the settings or secrets do not fit the provider.
    fn verify_at(&self, now_ms: u64) -> Option<Result<Verified, Refusal>> {
        let verifier = self.provider.verifier(&self.settings, &self.secrets).ok()?;
        let request = InboundRequest {
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            body: &self.body,
            peer: self.peer,
        };
        Some(verifier.verify(&request, now_ms))
    }

    fn holds_at(&self, now_ms: u64) -> bool {
        matches!(self.verify_at(now_ms), Some(Ok(_)))
    }

    /// When the request says it was signed, seconds since 1970. In 1970 every stamp lies too far ahead, and the
    /// refusal says how far.
    fn signed_at_s(&self) -> Option<u64> {
        match self.verify_at(0)? {
            Err(Refusal::Timestamp { age_s, .. }) => Some(age_s.unsigned_abs()),
            _ => None,
        }
    }
}

impl Case {
    /// Finds out. Larger bodies than `guess_bytes_max` are hashed once, not once for every guess: with a scheme that has
    /// many settings that is some thousand times. Fails where settings or secrets do not fit the provider.
    pub(crate) fn diagnose(&self, guess_bytes_max: usize) -> Result<Diagnosis, SettingsError> {
        self.provider.verifier(&self.settings, &self.secrets)?;
        let signed_at_s = self.signed_at_s();
        let misfit = || SettingsError::new("verification", "does not fit");
        let verdict = self.verify_at(self.now_ms).ok_or_else(misfit)?;
        let own_time_ms = signed_at_s.map_or(self.now_ms, |seconds| seconds.saturating_mul(1_000));
        let (mut only_age, mut causes) = (false, Vec::new());
        if let Err(refusal) = &verdict {
            only_age = !matches!(refusal, Refusal::Repeated(_)) && self.holds_at(own_time_ms);
            causes = if only_age {
                vec![
                    "the signature itself holds, only its age is wrong: a clock is off, or the request was sent again \
                     later"
                        .to_owned(),
                ]
            } else {
                causes_of(self, refusal, own_time_ms, guess_bytes_max)
            };
        }
        Ok(Diagnosis { signed_at_s, verdict, only_age, causes })
    }

    /// Which of several secrets it was, in words; empty where there is one choice only.
    pub(crate) fn which_secret(&self, verified: Verified) -> String {
        match self.secrets.len() {
            0 => String::new(),
            count if verified.secret_index < count => format!("secret {} of {count}", verified.secret_index + 1),
            count => format!("public key {}", verified.secret_index - count + 1),
        }
    }
}

/// What explains the refusal, best first; at least one line.
fn causes_of(case: &Case, refusal: &Refusal, own_time_ms: u64, guess_bytes_max: usize) -> Vec<String> {
    if let Refusal::Repeated(header) = refusal {
        return vec![format!(
            "something between the sender and here adds `{header}` again; which one counts cannot be told"
        )];
    }
    if case.body.len() > guess_bytes_max {
        return vec!["the body is too large to try the usual causes on".into()];
    }
    let mut found = Vec::new();
    let changes = former(case).into_iter().chain(bodies(case)).chain(secrets(case));
    for (cause, changed) in changes.chain(settings(case)).chain(providers(case)) {
        if changed.holds_at(own_time_ms) || changed.signed_at_s().is_some_and(|at| changed.holds_at(at * 1_000)) {
            found.push(cause);
        }
    }
    if found.is_empty() {
        found.extend(match refusal {
            Refusal::MissingSignature(header) => signature_like(&case.headers)
                .into_iter()
                .map(|other| {
                    format!("there is no `{header}`, but there is `{other}`: is this the right provider, or setting?")
                })
                .next()
                .or_else(|| Some("the request is not signed, or a proxy on its way removes the header".into())),
            Refusal::Mismatch => Some(
                "none of the usual causes explains it: another secret, or a body that was changed on its way".into(),
            ),
            _ => Some("the header is not in this scheme's form: is this the right provider, or setting?".into()),
        });
    }
    found
}

/// With the secrets that its sender may still have.
fn former(case: &Case) -> Vec<(String, Case)> {
    let with = |former: &Former| {
        let since = Duration::from_secs(case.now_ms.saturating_sub(former.ended_ms) / 1_000);
        let since = humantime_serde::re::humantime::format_duration(since);
        let words =
            format!("it is signed with a former secret, which had ended {since} before; its sender needs the new one");
        (words, Case { secrets: vec![former.secret.clone()], ..case.clone() })
    };
    case.former.iter().map(with).collect()
}

/// The body as it may have been when it was signed.
fn bodies(case: &Case) -> Vec<(String, Case)> {
    let body: &[u8] = &case.body;
    let trimmed = body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n"));
    let table = [
        (
            trimmed.map(<[u8]>::to_vec),
            "the body ends in a line break that was not signed: an editor or `echo` adds one",
        ),
        (Some([body, b"\n".as_slice()].concat()), "the signed body ended in a line feed that is lost here"),
        (Some([body, b"\r\n".as_slice()].concat()), "the signed body ended in CR LF, which is lost here"),
        (
            body.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec),
            "the body begins with a byte order mark that was not signed",
        ),
        (Some(replaced(body, b"\r\n", b"\n")), "line ends were LF when it was signed and are CR LF here"),
        (Some(replaced(body, b"\n", b"\r\n")), "line ends were CR LF when it was signed and are LF here"),
        (respaced(body, "", ""), "the JSON was written anew: without its spaces the signature holds"),
        (respaced(body, " ", " "), "the JSON was written anew: with a space after `,` and `:` the signature holds"),
        (Some(Vec::new()), "the signature is that of an empty body: the sender signed before it had one"),
    ];
    table
        .into_iter()
        .filter_map(|(changed, cause)| {
            let changed = changed.filter(|changed| changed != body)?;
            Some((cause.to_owned(), Case { body: changed.into(), ..case.clone() }))
        })
        .collect()
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut changed = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(from) {
            changed.extend_from_slice(to);
            rest = after;
        } else {
            changed.push(*first);
            rest = after;
        }
    }
    changed
}

/// The same JSON with other spaces between its tokens, everything else untouched; `None` for what is no JSON.
fn respaced(body: &[u8], after_comma: &str, after_colon: &str) -> Option<Vec<u8>> {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).ok()?;
    let mut changed = Vec::with_capacity(body.len());
    let (mut in_text, mut is_escaped) = (false, false);
    for byte in body {
        if in_text {
            in_text = is_escaped || *byte != b'"';
            is_escaped = !is_escaped && *byte == b'\\';
            changed.push(*byte);
            continue;
        }
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => {}
            b',' => changed.extend_from_slice(format!(",{after_comma}").as_bytes()),
            b':' => changed.extend_from_slice(format!(":{after_colon}").as_bytes()),
            _ => {
                in_text = *byte == b'"';
                changed.push(*byte);
            }
        }
    }
    Some(changed)
}

/// The secrets as the signer may use them.
fn secrets(case: &Case) -> Vec<(String, Case)> {
    let lenient = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let mut changed = Vec::new();
    for (place, secret) in case.secrets.iter().enumerate() {
        let text = secret.expose();
        let bare = text.strip_prefix(b"whsec_");
        let table: [(Option<Cow<'_, [u8]>>, &str); 7] = [
            (Some(text.trim_ascii().into()), "has spaces or line breaks around it that the signer does not use"),
            (
                Some([text, b"\n"].concat().into()),
                "ends in a line feed where it is signed: it was pasted or read with one",
            ),
            (bare.map(Into::into), "is used without `whsec_` by the signer"),
            (
                lenient.decode(bare.unwrap_or(text)).ok().map(Into::into),
                "is base64, and the signer uses what it decodes to",
            ),
            (hex::decode(text).ok().map(Into::into), "is hex, and the signer uses what it decodes to"),
            (
                Some(format!("whsec_{}", BASE64_STANDARD.encode(text)).into_bytes().into()),
                "is used as text by the signer, where its base64 is to be decoded",
            ),
            (
                bare.map(|bare| format!("whsec_{}", BASE64_STANDARD.encode(bare)).into_bytes().into()),
                "is used as text without `whsec_` by the signer, where its base64 is to be decoded",
            ),
        ];
        for (variant, cause) in table {
            if let Some(variant) = variant.filter(|variant| &**variant != text) {
                let secrets = vec![Secret::new(variant)];
                changed.push((format!("secret {} {cause}", place + 1), Case { secrets, ..case.clone() }));
            }
        }
    }
    changed
}

/// Other settings, where the provider has such: of all combinations those with the fewest changes.
fn settings(case: &Case) -> Vec<(String, Case)> {
    let texts = |texts: &[&str]| texts.iter().map(|text| Value::from(*text)).collect::<Vec<_>>();
    let mut prefixes = texts(&["sha1=", "sha256=", "sha512=", "v0=", "v1="]);
    prefixes.push(Value::Null);
    let members = [
        ("header", signature_like(&case.headers).into_iter().map(Value::from).collect()),
        ("algorithm", texts(&["sha1", "sha256", "sha384", "sha512"])),
        ("encoding", texts(&["hex", "base64", "base64url"])),
        ("prefix", prefixes),
        ("secret_encoding", texts(&["utf8", "hex", "base64"])),
    ];
    let mut variants = vec![(Vec::new(), case.settings.clone())];
    for (member, values) in members {
        for (changes, settings) in variants.clone() {
            for value in &values {
                let mut settings = settings.clone();
                settings.insert(member.to_owned(), value.clone());
                // The provider may not know the member, or the secrets may not be in that form.
                if case.provider.verifier(&settings, &case.secrets).is_ok() {
                    let change = format!("`{member}` = {value}");
                    variants.push(([changes.as_slice(), &[change]].concat(), settings));
                }
            }
        }
    }
    variants.sort_by_key(|(changes, _)| changes.len());
    let holding = variants.into_iter().skip(1).find_map(|(changes, settings)| {
        let changed = Case { settings, ..case.clone() };
        let at_ms = changed.signed_at_s().map_or(case.now_ms, |seconds| seconds.saturating_mul(1_000));
        changed.holds_at(at_ms).then(|| (format!("with the settings {} it holds", changes.join(", ")), changed))
    });
    holding.into_iter().collect()
}

/// The other schemes as they are without settings.
fn providers(case: &Case) -> Vec<(String, Case)> {
    let names = registry().names().into_iter().filter(|name| *name != case.provider.name());
    names
        .filter_map(|name| {
            let provider = registry().get(name)?;
            // A scheme that accepts a request without headers explains nothing.
            let bare = Case { provider, settings: Map::new(), headers: HeaderBlock::default(), ..case.clone() };
            let changed = Case { headers: case.headers.clone(), ..bare.clone() };
            (!bare.holds_at(case.now_ms)).then(|| (format!("as provider `{name}` it holds"), changed))
        })
        .collect()
}

/// Names of headers that may carry a signature.
fn signature_like(headers: &HeaderBlock) -> Vec<String> {
    let names = headers.iter().map(|(name, _)| name);
    let mut found: Vec<String> = names
        .filter(|name| ["signature", "hmac", "-sign", "-hash", "-digest"].iter().any(|part| name.contains(part)))
        .map(str::to_owned)
        .collect();
    found.dedup();
    found.truncate(HEADERS_TRIED_MAX);
    found
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;

    const NOW_MS: u64 = 1_768_465_800_000;
    const BODY: &[u8] = br#"{"id": "evt_1", "a": "b, \" c: d"}"#;

    /// A request that holds.
    fn signed(provider: &str, settings: Value, secret: &str, body: &[u8]) -> Case {
        let Value::Object(settings) = settings else { panic!("settings are an object") };
        let provider = registry().get(provider).expect("registered");
        let secret = Secret::new(secret);
        let signed = provider.sign(&settings, &secret, "msg_1", body, NOW_MS).expect("signs");
        let headers =
            HeaderBlock::from_lines(signed.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        Case {
            provider,
            settings,
            secrets: vec![secret],
            former: Vec::new(),
            headers,
            body: Bytes::copy_from_slice(body),
            method: "POST".into(),
            target: "/".into(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            now_ms: NOW_MS,
        }
    }

    fn told(case: &Case) -> (bool, String) {
        let diagnosis = case.diagnose(256 << 10).expect("they fit");
        (diagnosis.verdict.is_ok(), format!("{}\n{}", diagnosis.causes.join("\n"), words(&diagnosis.verdict)))
    }

    fn words(verdict: &Result<Verified, Refusal>) -> String {
        verdict.as_ref().err().map(ToString::to_string).unwrap_or_default()
    }

    fn assert_told(case: &Case, wanted: &str) {
        let (holds, out) = told(case);
        assert!(!holds && out.contains(wanted), "wanted `{wanted}` in:\n{out}");
    }

    #[test]
    fn says_with_what_it_holds() {
        let case = signed("stripe", json!({}), "whsec_a", BODY);
        let (holds, out) = told(&Case { now_ms: NOW_MS + 17_000, ..case.clone() });
        assert_eq!(case.signed_at_s(), Some(NOW_MS / 1_000));
        assert!(holds, "{out}");
        assert_eq!(case.which_secret(Verified { secret_index: 0 }), "secret 1 of 1");
    }

    #[test]
    fn names_the_usual_causes() {
        let github = signed("github", json!({}), "key", BODY);
        let with_body = |body: &[u8]| Case { body: Bytes::copy_from_slice(body), ..github.clone() };
        let with_secret = |secret: &str| Case { secrets: vec![Secret::new(secret)], ..github.clone() };
        assert_told(&with_body(&[BODY, b"\n"].concat()), "the body ends in a line break");
        assert_told(&with_body(br#"{"id":"evt_1","a":"b, \" c: d"}"#), "the JSON was written anew: with a space");
        assert_told(&with_secret(" key\t"), "secret 1 has spaces or line breaks around it");
        assert_told(&with_secret("whsec_key"), "secret 1 is used without `whsec_`");
        assert_told(&with_secret("a2V5"), "secret 1 is base64, and the signer uses what it decodes to");
        assert_told(&with_secret("6b6579"), "secret 1 is hex");
        assert_told(&with_secret("other"), "none of the usual causes");
        let newline = signed("github", json!({}), "key\n", BODY);
        assert_told(&Case { secrets: vec![Secret::new("key")], ..newline }, "secret 1 ends in a line feed");
        let empty = signed("github", json!({}), "key", b"");
        assert_told(&Case { body: Bytes::from_static(BODY), ..empty }, "the signature is that of an empty body");
    }

    #[test]
    fn knows_a_secret_that_was_rotated_out() {
        let case = signed("stripe", json!({}), "old", BODY);
        let former = |secret| vec![Former { secret: Secret::new(secret), ended_ms: NOW_MS - 90_000 }];
        let rotated = Case { secrets: vec![Secret::new("new")], former: former("old"), ..case };
        assert_told(&rotated, "it is signed with a former secret, which had ended 1m 30s before");
        assert_told(&Case { former: former("older"), ..rotated }, "none of the usual causes");
    }

    #[test]
    fn finds_the_settings_and_the_provider() {
        let settings = json!({ "header": "X-Shop-Signature", "algorithm": "sha512", "encoding": "base64" });
        let case = signed("generic_hmac", settings, "key", BODY);
        let wanted = r#"with the settings `header` = "x-shop-signature", `algorithm` = "sha512", `encoding` = "base64" it holds"#;
        assert_told(&Case { settings: Map::new(), ..case.clone() }, wanted);
        let github = registry().get("github").expect("registered");
        let other = Case { provider: github, settings: Map::new(), ..case };
        assert_told(&other, "there is no `x-hub-signature-256`, but there is `x-shop-signature`");
        let stripe = signed("stripe", json!({}), "key", BODY);
        assert_told(&Case { provider: github, ..stripe }, "as provider `stripe` it holds");
    }

    #[test]
    fn tells_age_from_forgery() {
        let case = signed("stripe", json!({}), "key", BODY);
        let late = Case { now_ms: NOW_MS + 301_000, ..case.clone() };
        assert_told(&late, "the signature itself holds, only its age is wrong");
        assert!(told(&late).1.contains("timestamp 301 s old, tolerance 300 s"));
        let both = Case { secrets: vec![Secret::new("key ")], ..late };
        assert_told(&both, "secret 1 has spaces");
        let unsigned = Case { headers: HeaderBlock::default(), ..case };
        assert_told(&unsigned, "the request is not signed");
    }

    #[test]
    fn respacing_keeps_texts() {
        assert_eq!(respaced(BODY, "", "").expect("json"), br#"{"id":"evt_1","a":"b, \" c: d"}"#);
        assert_eq!(respaced(b"{\"a\":\r\n [1 ,2]}", " ", " ").expect("json"), br#"{"a": [1, 2]}"#);
        assert_eq!(respaced(b"no json", "", ""), None);
    }
}
