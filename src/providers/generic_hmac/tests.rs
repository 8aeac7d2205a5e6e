use hookmill_actors::domain::headers::HeaderBlock;
use serde_json::json;

use super::{
    super::{
        members::tests::{assert_members_exist, map},
        tests::{block, post},
    },
    *,
};

const BODY: &[u8] = br#"{"id":"evt_9","type":"thing.done"}"#;
const SECRET: &str = "3f9a77aa";
const NOW_MS: u64 = 1_768_465_800_000;
// From Python's `hmac`, key b"3f9a77aa" unless said otherwise.
const SHA1_HEX: &str = "c707f393bf988bc6424618c2656b567d4543e7b8";
const SHA256_HEX: &str = "ee46513a32921dc0ea0153557a55a5728ccdfc247fa0f1017a76ffbbf0eca9ad";
const SHA384_B64: &str = "7nrKXuGuc/bDvTD2OB73uympVTJsgodjRodqFSi/Pj+s6o3oNC6xa6AJenkUrMCv";
const SHA512_B64URL: &str = "WCSU-IawmsGHGMPm2O7c3o0anm6ePS8G4gN2KyOEVIARkTFIoRylgni9c0dBCIju4OnnGDV54r4cUDhflda_rg";
/// Under the four bytes that the secret is the hex of.
const SHA256_HEX_KEY_HEX: &str = "5204501815c14a82688b3ce0f7c5a0c24b3d5ad17de7436b0adc0f2fa8d8c30e";
/// Under what the secret decodes to as base64.
const SHA256_HEX_KEY_B64: &str = "52faa78eddeb068fabf81c989d9adb4e44b2d40d9a6cdbf5a84bb23eca73b69f";
/// Of `<id>.<timestamp>.<body>` with id `r-1` at 1768465800.
const ID_TS_B64: &str = "V4KDH2PvQyKwMXQ++21JPzhWKbQD1N7dgyxsCaNpmpA=";
/// Of `POST\n/hook\nhttps://h.example/hook?a=1\n<body>`.
const URL_HEX: &str = "30764e8408056cb5c04093f4778cb3a9072a690b87d3af7e90ab0141932c5e33";

fn compile(settings: Value) -> Arc<dyn Verifier> {
    PROVIDER.verifier(&map(settings), &[Secret::new("feed"), Secret::new(SECRET)]).expect("compiles")
}

fn fault(settings: Value) -> String {
    PROVIDER.verifier(&map(settings), &[Secret::new(SECRET)]).err().expect("refused").to_string()
}

fn verify(settings: Value, lines: &[(&str, &str)]) -> Result<Verified, Refusal> {
    compile(settings).verify(&post(&block(lines), BODY), NOW_MS)
}

#[test]
fn the_table_of_members_is_the_struct() {
    assert_members_exist::<Settings>();
}

#[test]
fn every_algorithm_and_encoding() {
    let good = Ok(Verified { secret_index: 1 });
    let table = [
        (json!({}), SHA256_HEX),
        (json!({ "algorithm": "sha1" }), SHA1_HEX),
        (json!({ "algorithm": "sha384", "encoding": "base64" }), SHA384_B64),
        (json!({ "algorithm": "sha512", "encoding": "base64url" }), SHA512_B64URL),
        (json!({ "secret_encoding": "hex" }), SHA256_HEX_KEY_HEX),
        (json!({ "secret_encoding": "base64" }), SHA256_HEX_KEY_B64),
    ];
    for (place, (settings, signature)) in table.iter().enumerate() {
        assert_eq!(verify(settings.clone(), &[("X-Signature", signature)]), good, "{settings}");
        let (_, other) = &table[(place + 1) % table.len()];
        assert!(verify(settings.clone(), &[("X-Signature", other)]).is_err(), "{settings}");
    }
    assert_eq!(verify(json!({ "header": "X-Sig" }), &[("x-sig", SHA256_HEX)]), good);
}

#[test]
fn a_prefix_that_is_set_is_required() {
    let settings = json!({ "prefix": "sha256=" });
    let with = format!("sha256={SHA256_HEX}");
    assert!(verify(settings.clone(), &[("X-Signature", &with)]).is_ok());
    assert!(verify(settings.clone(), &[("X-Signature", SHA256_HEX)]).is_err());
    assert!(verify(settings, &[("X-Signature", &with.to_uppercase())]).is_err());
    assert!(verify(json!({}), &[("X-Signature", &with)]).is_err());
}

#[test]
fn a_list_counts_only_where_a_separator_is_set() {
    let list = format!("s1={}, s1={SHA256_HEX},junk", "0".repeat(64));
    assert!(verify(json!({ "prefix": "s1=", "separator": "," }), &[("X-Signature", &list)]).is_ok());
    assert!(verify(json!({ "prefix": "s1=" }), &[("X-Signature", &list)]).is_err());
    let spaced = format!("{SHA256_HEX}  junk");
    assert!(verify(json!({ "separator": " " }), &[("X-Signature", &spaced)]).is_ok());
    assert!(verify(json!({ "separator": "," }), &[("X-Signature", ",,")]).is_err());
}

#[test]
fn timestamp_and_id_are_part_of_it() {
    let settings = json!({
        "template": "{id}.{timestamp}.{body}", "timestamp_header": "X-Timestamp", "id_header": "X-Request-Id",
        "encoding": "base64", "tolerance_s": 30,
    });
    let verify = |id: &[&str], timestamp: &[&str]| {
        let lines: Vec<(&str, &str)> = id
            .iter()
            .map(|value| ("X-Request-Id", *value))
            .chain(timestamp.iter().map(|value| ("X-Timestamp", *value)))
            .chain([("X-Signature", ID_TS_B64)])
            .collect();
        verify(settings.clone(), &lines)
    };
    assert!(verify(&["r-1"], &["1768465800"]).is_ok());
    assert_eq!(verify(&["r-2"], &["1768465800"]), Err(Refusal::Mismatch));
    assert_eq!(verify(&["r-1"], &["1768465801"]), Err(Refusal::Mismatch));
    assert_eq!(verify(&["r-1"], &["1768465831"]), Err(Refusal::Timestamp { age_s: -31, tolerance_s: 30 }));
    assert_eq!(verify(&["r-1"], &["1768465769"]), Err(Refusal::Timestamp { age_s: 31, tolerance_s: 30 }));
    for (id, timestamp) in [
        (["r-1"].as_slice(), [].as_slice()),
        (&["r-1"], &[""]),
        (&["r-1"], &["soon"]),
        (&[], &["1768465800"]),
        (&[""], &["1768465800"]),
        (&["r.1"], &["1768465800"]),
    ] {
        assert!(matches!(verify(id, timestamp), Err(Refusal::Malformed(_))), "{id:?} {timestamp:?}");
    }
    assert!(matches!(verify(&["r-1", "r-1"], &["1768465800"]), Err(Refusal::Repeated(_))));
    assert!(matches!(verify(&["r-1"], &["1768465800", "1768465800"]), Err(Refusal::Repeated(_))));
}

#[test]
fn the_signed_url_is_the_configured_one() {
    let settings = json!({ "template": "{method}\n{path}\n{url}\n{body}", "public_url": "https://h.example" });
    let lines = [("Host", "evil.example"), ("X-Signature", URL_HEX)];
    assert!(verify(settings.clone(), &lines).is_ok());
    let headers = block(&lines);
    let other = InboundRequest { target: "/hook?a=2", ..post(&headers, BODY) };
    assert_eq!(compile(settings).verify(&other, NOW_MS), Err(Refusal::Mismatch));
}

#[test]
fn says_which_setting_is_wrong() {
    let table = [
        (json!({ "algorithm": "md5" }), "`algorithm`: must be `sha1`"),
        (json!({ "headr": "X" }), "`headr`: is unknown; `header` is near"),
        (json!({ "header": "X Signature" }), "`header`: must be the name of a header"),
        (
            json!({ "template": "{timestamp}.{body}" }),
            "`template`: holds {timestamp}, so `timestamp_header` must be set",
        ),
        (json!({ "template": "{id}{body}" }), "`template`: holds {id}, so `id_header` must be set"),
        (json!({ "template": "{url}{body}" }), "`template`: holds {url}, so `public_url` must be set"),
        (json!({ "timestamp_header": "X-T" }), "`template`: must hold {timestamp}"),
        (json!({ "tolerance_s": 5 }), "`tolerance_s`: needs `timestamp_header`"),
        (json!({ "public_url": "https://h.example/" }), "`public_url`: must be like"),
        (json!({ "public_url": "h.example" }), "`public_url`: must be like"),
        (json!({ "separator": "" }), "`separator`: must not be empty"),
        (json!({ "separator": "=", "prefix": "s1=" }), "`separator`: must not be empty"),
        (json!({ "secret_encoding": "base64", "prefix": null }), ""),
        (json!({ "handshake": "hub.challenge" }), "`verify_token`: must be set"),
        (json!({ "verify_token": "x" }), "`verify_token`: belongs to"),
        (json!({ "handshake": "crc", "handshake_field": "x" }), "`handshake_field`: belongs to"),
    ];
    for (settings, want) in table {
        if want.is_empty() {
            assert!(PROVIDER.verifier(&map(settings), &[Secret::new(SECRET)]).is_ok());
        } else {
            let fault = fault(settings.clone());
            assert!(fault.starts_with(want), "{settings}: {fault}");
        }
    }
    let secrets = [Secret::new(SECRET), Secret::new("no hex")];
    let Err(error) = PROVIDER.verifier(&map(json!({ "secret_encoding": "hex" })), &secrets) else {
        panic!("takes a secret that is no hex");
    };
    assert_eq!(error.to_string(), "`secrets[1]`: is not hex, as `secret_encoding` says");
}

fn get(settings: Value, target: &str) -> Option<(u16, &'static str, String)> {
    let verifier = compile(settings);
    assert!(verifier.answers_get());
    let headers = HeaderBlock::default();
    let request = InboundRequest { method: "GET", target, ..post(&headers, b"") };
    let reply = verifier.handshake(&request)?;
    Some((reply.status, reply.content_type, String::from_utf8(reply.body).expect("text")))
}

#[test]
fn hub_challenge_wants_mode_and_token() {
    let ask =
        |query: &str| get(json!({ "handshake": "hub.challenge", "verify_token": "t0k en" }), &format!("/hook?{query}"));
    let some = |text: &str| Some((200, "text/plain", text.to_owned()));
    assert_eq!(ask("hub.mode=subscribe&hub.verify_token=t0k+en&hub.challenge=42"), some("42"));
    assert_eq!(ask("hub.challenge=%3Cb%3E&hub%2Emode=subscribe&hub.verify_token=t0k%20en&x"), some("<b>"));
    assert_eq!(ask("hub.mode=subscribe&hub.verify_token=t0k+en&hub.challenge=%zz%"), some("%zz%"));
    for query in [
        "",
        "hub.mode=subscribe&hub.verify_token=t0k+en",
        "hub.mode=subscribe&hub.verify_token=t0k+en&hub.challenge=",
        "hub.mode=subscribe&hub.verify_token=t0k+e&hub.challenge=42",
        "hub.mode=subscribe&hub.verify_token=&hub.challenge=42",
        "hub.mode=unsubscribe&hub.verify_token=t0k+en&hub.challenge=42",
        "hub.mode=subscribe&hub.verify_token=bad&hub.verify_token=t0k+en&hub.challenge=42",
    ] {
        assert_eq!(ask(query), None, "{query}");
    }
    let long = format!("hub.mode=subscribe&hub.verify_token=t0k+en&hub.challenge={}", "x".repeat(1_025));
    assert_eq!(ask(&long), None);
    assert!(ask(&long[..long.len() - 1]).is_some());
}

#[test]
fn crc_hashes_tokens_only() {
    // From Python's `hmac`: the first secret, b"feed".
    let want = r#"{"response_token":"sha256=VO1YPEYf3Dl2eMZVa0wTgg8l3gGwJE+Y4exMQo5oYF4="}"#;
    let ask = |query: &str| get(json!({ "handshake": "crc", "algorithm": "sha1" }), &format!("/hook?{query}"));
    assert_eq!(ask("crc_token=challenge-string_9"), Some((200, "application/json", want.to_owned())));
    // Any of these would be an event signed for whoever asks.
    for query in ["crc_token=%7B%22id%22%3A1%7D", "crc_token=1768465800.x", "crc_token=", "other=1"] {
        assert_eq!(ask(query), None, "{query}");
    }
}

#[test]
fn echo_json_answers_handshakes_and_leaves_events_alone() {
    let headers = HeaderBlock::default();
    let ask = |settings: Value, body: &str| {
        let verifier = compile(settings);
        assert!(!verifier.answers_get());
        let reply = verifier.handshake(&post(&headers, body.as_bytes()))?;
        Some((reply.content_type, String::from_utf8(reply.body).expect("text")))
    };
    let some = |text: &str| Some(("text/plain", text.to_owned()));
    let echo = json!({ "handshake": "echo_json" });
    let named = json!({ "handshake": "echo_json", "handshake_field": "plainToken" });
    assert_eq!(ask(echo.clone(), r#"{"token":"x","challenge":"c<1>","type":"url_verification"}"#), some("c<1>"));
    assert_eq!(ask(echo.clone(), r#"{"challenge":"c"}"#), some("c"));
    assert_eq!(ask(named.clone(), r#"{"plainToken":"p"}"#), some("p"));
    for body in [
        r#"{"challenge":"c","type":"game.started"}"#,
        r#"{"challenge":"c","amount":5}"#,
        r#"{"challenge":{"a":1},"type":"url_verification"}"#,
        r#"{"challenge":"","type":"url_verification"}"#,
        "not json",
    ] {
        assert_eq!(ask(echo.clone(), body), None, "{body}");
    }
    assert_eq!(ask(named, r#"{"challenge":"c"}"#), None);
    assert_eq!(ask(echo.clone(), &format!(r#"{{"challenge":"{}"}}"#, "x".repeat(1_025))), None);
    assert_eq!(compile(json!({})).handshake(&post(&headers, br#"{"challenge":"c"}"#)), None);
}

#[test]
fn the_id_is_in_the_header_that_is_set() {
    let event = payload::tests::event(&[("X-Request-Id", "r-1")], BODY);
    let id = |settings| PROVIDER.identify(&map(settings), &event).provider_id;
    assert_eq!(id(json!({})).as_deref(), Some("evt_9"));
    assert_eq!(id(json!({ "id_header": "X-Request-ID" })).as_deref(), Some("r-1"));
    assert_eq!(id(json!({ "id_header": "X-Other" })), None, "never another id than the configured one");
    assert_eq!(PROVIDER.identify(&Map::new(), &event).event_type.as_deref(), Some("thing.done"));
}

#[test]
fn signs_as_it_verifies() {
    let settings = json!({
        "template": "v1:{timestamp}:{id}:{method}:{body}", "timestamp_header": "X-T", "timestamp_unit": "ms",
        "id_header": "X-Id", "prefix": "v1=", "encoding": "base64url", "algorithm": "sha384", "secret_encoding": "hex",
    });
    let signed = PROVIDER.sign(&map(settings.clone()), &Secret::new(SECRET), "r-1", BODY, NOW_MS).expect("signs");
    let lines: Vec<(&str, &str)> = signed.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(verify(settings, &lines), Ok(Verified { secret_index: 1 }));
    let url = map(json!({ "template": "{url}{body}", "public_url": "https://h.example" }));
    assert!(PROVIDER.sign(&url, &Secret::new(SECRET), "r-1", BODY, NOW_MS).is_err());
}
