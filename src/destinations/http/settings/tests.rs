//! Which settings hold, and what is said of those that do not.

use serde_json::json;

use super::*;

/// As `openssl x509 -req` makes them unless it is told otherwise.
const CERTIFICATE_V1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBIjCByQIUB/zhecW4yqsERE+Dvhh96pc7jE4wCgYIKoZIzj0EAwIwEjEQMA4G
A1UEAwwHVGVzdCBDQTAgFw0yNjExMjgwMjAwMzlaGA8yMTI2MTEwNDAyMDAzOVow
FDESMBAGA1UEAwwJZWMtY2xpZW50MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
68jT/hyPsxI6y5xAhR8bKJL57Cj/dTe/tc+yqjjtxkfOF+foMojum2K6vkSDL31M
k9XV1vnfzg5ymnoQL+IeOTAKBggqhkjOPQQDAgNIADBFAiEA4do8YsW1Oh1JW7hB
VC6+Tp31UCc4IU+pox8BlWiAo/kCIE3iPTyCiUu1MjPj0uR8wg8v/ajOEqRrLINn
l9eTKP8V
-----END CERTIFICATE-----";

const ENCRYPTED_KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";

fn parse(settings: Value) -> Result<HttpSettings, SettingsError> {
    with(settings, &json!({}))
}

fn with(settings: Value, credentials: &Value) -> Result<HttpSettings, SettingsError> {
    let Value::Object(settings) = settings else { panic!("settings are an object") };
    let credentials = Credentials::read(Some(&Secret::new(credentials.to_string())))?;
    HttpSettings::parse(&settings, credentials, HttpDefaults::default())
}

/// What was refused; settings that hold have no `Debug`.
fn refused(parsed: Result<HttpSettings, SettingsError>, what: &str) -> SettingsError {
    parsed.err().unwrap_or_else(|| panic!("it must be refused: {what}"))
}

#[test]
fn takes_urls_and_fills_in_defaults() {
    for url in [
        "https://example.com",
        "http://example.com:8080/hooks/a?tenant=b&c",
        "https://[2606:4700::1111]:8443/x",
        "http://93.184.216.34/",
        "https://xn--bcher-kva.example./",
        "http://my_service:80/",
    ] {
        let settings = parse(json!({ "url": url })).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(settings.timeout, Duration::from_secs(15));
        assert_eq!(settings.connect_timeout, Duration::from_secs(5));
    }
    let settings = parse(json!({ "url": "https://1.2.3.4/", "timeout_ms": 100, "connect_timeout_ms": 120_000 }));
    let settings = settings.unwrap();
    assert_eq!((settings.timeout.as_millis(), settings.connect_timeout.as_millis()), (100, 120_000));
    let servers: Vec<_> = settings.servers().collect();
    assert_eq!(servers, [("url", Server { host: "1.2.3.4".into(), port: 443 })]);
}

#[test]
fn names_the_member_at_fault_and_what_would_be_right() {
    let long = format!("http://a/{}", "x".repeat(2048));
    let long_host = format!("http://{}.example/", "x".repeat(250));
    let cases = [
        (json!({}), "url", "missing"),
        (json!({ "url": 5 }), "url", "string"),
        (json!({ "url": long }), "url", "2048"),
        (json!({ "url": long_host }), "url", "253"),
        (json!({ "url": "ftp://a/" }), "url", "`http://` or `https://`"),
        (json!({ "url": "/hooks" }), "url", "`http://` or `https://`"),
        (json!({ "url": "http://" }), "url", "not a URL"),
        (json!({ "url": "http:///x" }), "url", "not a URL"),
        (json!({ "url": "http://:80/" }), "url", "no host"),
        (json!({ "url": "http://a/#b" }), "url", "fragment"),
        (json!({ "url": "http://u:p@a/" }), "url", "before `@`"),
        (json!({ "url": "http://u@a/" }), "url", "before `@`"),
        (json!({ "url": "http://a b/" }), "url", "percent-encode"),
        (json!({ "url": "http://a/\r\nx: y" }), "url", "control characters"),
        (json!({ "url": "http://bücher.example/" }), "url", "punycode"),
        (json!({ "url": "http://2130706433/" }), "url", "four decimal numbers"),
        (json!({ "url": "http://0x7f000001/" }), "url", "four decimal numbers"),
        (json!({ "url": "http://0x7f.1/" }), "url", "four decimal numbers"),
        (json!({ "url": "http://127.0.0.1./" }), "url", "four decimal numbers"),
        (json!({ "url": "http://[fe80::1%25eth0]/" }), "url", ""),
        (json!({ "url": "http://a%2eb/" }), "url", ""),
        (json!({ "url": "http://a:0/" }), "url", "1 to 65535"),
        (json!({ "url": "http://a:/" }), "url", "1 to 65535"),
        (json!({ "url": "http://a:70000/" }), "url", ""),
        (json!({ "url": "http://a/", "timeout_ms": 99 }), "timeout_ms", "100 to 120000"),
        (json!({ "url": "http://a/", "timeout_ms": "5s" }), "timeout_ms", "100 to 120000"),
        (json!({ "url": "http://a/", "connect_timeout_ms": 120_001 }), "connect_timeout_ms", "100 to 120000"),
        (json!({ "url": "http://a/", "connect_timeout_ms": -1 }), "connect_timeout_ms", "100 to 120000"),
        (json!({ "url": "http://a/", "header": {} }), "header", "it has url, method, headers, auth"),
    ];
    for (settings, field, problem) in cases {
        let error = refused(parse(settings.clone()), &settings.to_string());
        assert_eq!(error.field, field, "{settings}");
        assert!(error.problem.contains(problem), "{settings}: {error}");
    }
}

#[test]
fn a_secret_of_the_query_is_a_credential() {
    let credentials = json!({"query": "token=hush&a=%20"});
    for (url, whole) in [
        ("https://a.example/b", "https://a.example/b?token=hush&a=%20"),
        ("https://a.example/b?c=d", "https://a.example/b?c=d&token=hush&a=%20"),
        ("https://a.example", "https://a.example/?token=hush&a=%20"),
    ] {
        let settings = with(json!({ "url": url }), &credentials).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(settings.uri, whole);
    }
    let shown = refused(parse(json!({"url": "https://a.example/?token=hush"})), "it is shown");
    assert!(shown.field == "url" && shown.problem.contains("`credentials.query`"), "{shown}");
    for query in ["token=hush#a", "a b", "\u{e4}"] {
        let wrong = refused(with(json!({"url": "https://a.example/"}), &json!({"query": query})), query);
        assert!(wrong.field == "credentials.query" && !wrong.problem.contains("hush"), "{wrong}");
    }
}

#[test]
fn an_error_never_repeats_the_url() {
    for url in ["http://a/?token=hush#x", "http://hush:hush@a/", "http://a /?hush"] {
        assert!(!refused(parse(json!({ "url": url })), url).to_string().contains("hush"), "{url}");
    }
}

#[test]
fn a_certificate_and_its_key_are_told_apart() {
    let certified = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (own, other) = (certified("hookmill"), certified("other"));
    let (pem, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    for (certificate, key, field, problem) in [
        (&*pem, &*other.signing_key.serialize_pem(), "client_key", "is not the key of `client_certificate`"),
        (&pem, &pem, "client_key", "no private key"),
        (&pem, ENCRYPTED_KEY, "client_key", "is encrypted"),
        (CERTIFICATE_V1, &key, "client_certificate", "(UnsupportedCertVersion); it must be of X.509 version 3"),
    ] {
        let credentials = json!({"client_certificate": certificate, "client_key": key});
        let error = refused(with(json!({"url": "https://a.example/"}), &credentials), problem);
        assert_eq!(error.field, format!("credentials.{field}"), "{error}");
        assert!(error.problem.contains(problem), "{error}");
    }
}

#[test]
fn headers_auth_and_peers_have_faults_of_their_own() {
    let url = "https://a.example/";
    let certified = rcgen::generate_simple_self_signed(vec!["hookmill".to_owned()]).unwrap();
    let (pem, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let secret = "0123456789abcdef";
    let cases = [
        (json!({"method": "GET"}), json!({}), "method", "`POST`, `PUT`, `PATCH`, `DELETE`"),
        (json!({"method": "post"}), json!({}), "method", "`POST`"),
        (json!({"headers": []}), json!({}), "headers", "object"),
        (json!({"headers": {"host": "b"}}), json!({}), "headers.host", "set by hookmill"),
        (json!({"headers": {"Webhook-Id": "b"}}), json!({}), "headers.Webhook-Id", "set by hookmill"),
        (json!({"headers": {"x": "a\r\nb: c"}}), json!({}), "headers.x", "no header may hold"),
        (json!({"headers": {"X-Api-Key": "k"}}), json!({}), "headers.X-Api-Key", "`auth`"),
        (json!({"headers": {"X-A": "1", "x-a": "2"}}), json!({}), "headers.x-a", "twice"),
        (json!({"headers": {"content-type": "a/b"}}), json!({}), "headers.content-type", "transformation"),
        (json!({"headers": {"x": 5}}), json!({}), "headers.x", "string"),
        (json!({"auth": {}}), json!({}), "auth.type", "`bearer`"),
        (json!({"auth": {"type": "digest"}}), json!({}), "auth.type", "`basic`"),
        (json!({"auth": {"type": "bearer"}}), json!({}), "credentials.token", "missing"),
        (json!({"auth": {"type": "bearer", "header": "x"}}), json!({"token": "t"}), "auth.header", "takes type"),
        (json!({"auth": {"type": "bearer"}}), json!({"token": "a\nb"}), "credentials.token", "no header may hold"),
        (
            json!({"auth": {"type": "basic"}}),
            json!({"username": "a:b", "password": "p"}),
            "credentials.username",
            "colon",
        ),
        (json!({"auth": {"type": "api_key"}}), json!({"api_key": "k"}), "auth.header", "missing"),
        (json!({"auth": {"type": "api_key", "header": "host"}}), json!({"api_key": "k"}), "auth.header", "hookmill"),
        (json!({"auth": {"type": "hmac"}}), json!({"secret": "short"}), "credentials.secret", "16"),
        (
            json!({"auth": {"type": "hmac", "template": "{timestamp}"}}),
            json!({"secret": secret}),
            "auth.template",
            "{body}",
        ),
        (json!({"auth": {"type": "hmac", "algorithm": "md5"}}), json!({"secret": secret}), "auth.algorithm", "sha256"),
        (
            json!({"auth": {"type": "hmac", "header": "x", "timestamp_header": "x"}}),
            json!({"secret": secret}),
            "auth.timestamp_header",
            "same",
        ),
        (
            json!({"auth": {"type": "hmac"}, "headers": {"x-signature": "1"}}),
            json!({"secret": secret}),
            "headers.x-signature",
            "`auth`",
        ),
        (json!({}), json!({"token": "t"}), "credentials.token", "no such credential"),
        (json!({"ca": "nonsense"}), json!({}), "ca", "no certificate"),
        (json!({"ca": pem, "url": "http://a/"}), json!({}), "ca", "without TLS"),
        (json!({}), json!({"client_certificate": pem}), "credentials.client_key", "missing"),
        (
            json!({"url": "http://a/"}),
            json!({"client_certificate": pem, "client_key": key}),
            "credentials.client_certificate",
            "without TLS",
        ),
        (json!({"proxy": "https://p:1"}), json!({}), "proxy", "`http://`"),
        (json!({"proxy": "http://p:1/x"}), json!({}), "proxy", "path"),
        (json!({"proxy": "http://u:hush@p:1"}), json!({}), "proxy", "credentials"),
        (json!({"proxy": "http://p:1"}), json!({"proxy_username": "u"}), "credentials.proxy_password", "missing"),
        (
            json!({}),
            json!({"proxy_username": "u", "proxy_password": "p"}),
            "credentials.proxy_password",
            "no such credential",
        ),
    ];
    for (mut settings, credentials, field, problem) in cases {
        settings.as_object_mut().unwrap().entry("url").or_insert_with(|| url.into());
        let text = format!("{settings} with {credentials}");
        let error = refused(with(settings, &credentials), &text);
        assert_eq!(error.field, field, "{text}: {error}");
        assert!(error.problem.contains(problem) && !error.problem.contains("hush"), "{text}: {error}");
    }
    for (settings, credentials) in [
        (json!({"url": url, "method": "PUT", "headers": {"x-team": "billing"}}), json!({})),
        (json!({"url": url, "ca": pem}), json!({"client_certificate": pem, "client_key": key})),
        (json!({"url": url, "proxy": "http://p:3128/"}), json!({"proxy_username": "u", "proxy_password": "p"})),
        (json!({"url": url, "auth": {"type": "none"}}), json!({})),
    ] {
        let text = settings.to_string();
        with(settings, &credentials).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}
