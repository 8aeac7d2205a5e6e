//! No secret is shown: one life of a server, with secrets planted wherever one can be given, and then a search through
//! its files, its logs, every reply of its API, what the command line printed, a backup and an export.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::Engine;
use http_body_util::Full;
use hyper::{Method, Request, Response};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::{
    destinations::Redis,
    harness::{Hookmill, Record, Reply, SECRET, Sink, TOKEN, hex_hmac, wait_for},
    operating::{Ended, User, ended},
    planted::{Planted, Search},
};

/// What the body of a webhook holds: no secret of hookmill's, so that the search must find it.
const IN_THE_BODY: &str = "legitimate-content-of-a-webhook-4711";

/// A server, and everything that is known of it.
struct Life {
    server: Hookmill,
    sink: Sink,
    user: User,
    record: Record,
    planted: Planted,
    /// Which reply may show which secret, as the documentation says: the one that made it.
    shown: Vec<(usize, String)>,
    /// What commands printed.
    printed: Vec<(String, Vec<u8>)>,
    said: Vec<(String, Vec<u8>)>,
    folder: tempfile::TempDir,
}

impl Life {
    async fn begin() -> Self {
        let (user, folder, record) = (User::new(), tempfile::tempdir().unwrap(), Record::default());
        let settings = "[telemetry]\nlog_level = \"trace\"\n[log]\nsegment_bytes = \"2 MiB\"\n[ingress]\n\
                        body_bytes_max = \"256 KiB\"\n[connection_tests]\nprobe_after = \"1s\"\n";
        let settings = user.write("hookmill.toml", settings);
        let server = Hookmill::start_with(&["--dev", "--config", &settings]).recorded(&record);
        let mut planted = Planted::default();
        planted.add("the first token", TOKEN.as_bytes());
        planted.add("the secret of the first endpoint", SECRET.as_bytes());
        let sink = Sink::start().await;
        // A service that repeats what it was sent, as some do when they refuse it.
        sink.answers(|_, got| {
            let refused = got.headers.contains_key("x-refuse");
            let body = if refused { format!("refused: {:?}", got.headers) } else { "taken".to_owned() };
            Response::builder().status(if refused { 401 } else { 200 }).body(Full::from(body)).unwrap()
        });
        Self { server, sink, user, record, planted, shown: Vec::new(), printed: Vec::new(), said: Vec::new(), folder }
    }

    /// Any call of the admin API, below `/api/v1` or from the root.
    async fn call(&self, method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Reply {
        let path = if path.starts_with("/integration-management") { path.to_owned() } else { format!("/api/v1{path}") };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.server.admin))
            .header("content-type", "application/json");
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {TOKEN}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.server.request(request.body(Full::from(body)).unwrap()).await
    }

    async fn done(&self, method: Method, path: &str, body: Value) -> Value {
        let reply = self.call(method, path, Some(body), &[]).await;
        assert!(reply.status.is_success(), "{path}: {} {:?}", reply.status, reply.body);
        if reply.body.is_empty() { Value::Null } else { reply.json() }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.done(Method::POST, path, body).await
    }

    /// A call that must be refused, with whatever it gave.
    async fn refused(&self, method: Method, path: &str, body: Value) {
        let reply = self.call(method, path, Some(body), &[]).await;
        assert!(reply.status.is_client_error(), "{path}: {} {:?}", reply.status, reply.body);
    }

    /// The last reply may show that secret.
    fn shows(&mut self, name: &str) {
        let last = self.record.lock().unwrap().len() - 1;
        self.shown.push((last, name.to_owned()));
    }

    /// Types a command, with these secrets in its environment.
    fn types(&mut self, args: &[&str], secrets: &[(&str, &str)], input: &str) -> Ended {
        let mut command = self.user.command(args);
        command.env("HOOKMILL_URL", format!("http://{}", self.server.admin)).env("HOOKMILL_TOKEN", TOKEN);
        command.env("HOOKMILL_ADMIN_TOKEN", TOKEN);
        let done = ended(command.envs(secrets.iter().copied()), input);
        self.printed.push((args.join(" "), [done.out.as_bytes(), done.err.as_bytes()].concat()));
        done
    }

    fn typed(&mut self, args: &[&str], secrets: &[(&str, &str)]) -> Ended {
        let done = self.types(args, secrets, "");
        assert_eq!(done.code, 0, "{args:?}: {}", done.err);
        done
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.sink.address)
    }

    async fn integrations(&mut self) {
        let base = json!({"base_url": self.url("")});
        let dead = json!({"health_check_url": "http://127.0.0.1:9/health", "auth_type": "basic"});
        let key = self.planted.text("api key");
        let shop = json!({"name": "Shop", "type": "payment_gateway", "provider": "generic_hmac", "environment": "staging",
                          "configuration": base, "credentials": {"api_key": key}, "webhook": {"path": "orders", "secret": SECRET}});
        self.post("/integrations", shop).await;
        let (password, nested) =
            (self.planted.text("health check's password"), self.planted.text("a nested credential"));
        let other = json!({"name": "Dead", "type": "custom", "environment": "staging", "configuration": dead,
                           "credentials": {"username": "u", "password": password, "more": {"deep": [nested]}}});
        self.post("/integrations", other).await;
        let sms = json!({"name": "Texts", "type": "sms_provider", "environment": "staging", "configuration": base,
                         "credentials": {"account_sid": self.planted.word("account-sid"), "auth_token": self.planted.text("auth token")}});
        self.post("/integrations", sms).await;
        for id in 1..=3 {
            self.post(&format!("/integrations/{id}/test"), json!({})).await;
        }
        for configuration in [
            json!({"api_key": self.planted.text("a key in the configuration")}),
            json!({"health_check_url": format!("https://u:{}@example.com/", self.planted.word("a-password-in-an-url"))}),
            json!({"health_check_url": format!("https://example.com/?a=1&access_token={}", self.planted.word("a-token-in-an-url"))}),
            json!({"headers": {"Authorization": format!("Bearer {}", self.planted.word("a-header-in-the-configuration"))}}),
        ] {
            let wrong =
                json!({"name": "x", "type": "custom", "environment": "staging", "configuration": configuration});
            self.refused(Method::POST, "/integrations", wrong.clone()).await;
            self.refused(Method::PATCH, "/integrations/1", json!({"configuration": configuration})).await;
            self.refused(Method::POST, "/apply", json!({"integrations": [wrong]})).await;
        }
        let wrong = json!({"name": "x", "credentials": self.planted.text("credentials that are no object"), "type": 7});
        self.refused(Method::POST, "/integrations", wrong).await;
    }

    async fn endpoints(&mut self) {
        let given = self.planted.text("a secret that was rotated in");
        self.post("/webhooks/1/rotate-secret", json!({"secret": given, "grace_s": 3_600})).await;
        let made = self.post("/webhooks/1/rotate-secret", json!({"grace_s": 3_600})).await;
        self.planted.add("a secret that was made", made["secret"].as_str().unwrap().as_bytes());
        self.shows("a secret that was made");
        let given = self.planted.whsec("a Standard Webhooks secret");
        let mail = json!({"name": "Mail", "type": "email_provider", "provider": "standard_webhooks",
                          "environment": "staging", "webhook": {"path": "mail", "secret": given}});
        self.post("/integrations", mail).await;
        let short = json!({"integration_id": 4, "name": "w", "secret": format!("whsec_{}", self.planted.text("a key that is no base64"))});
        self.refused(Method::POST, "/webhooks", short).await;
        let asked = json!({"integration_id": 1, "name": "made"});
        let repeated = [("idempotency-key", "one")];
        let made = self.call(Method::POST, "/webhooks", Some(asked.clone()), &repeated).await.json();
        self.planted.add("a secret of a new endpoint", made["secret"].as_str().unwrap().as_bytes());
        self.shows("a secret of a new endpoint");
        // The reply is given again to whoever repeats the request, and to nobody else.
        let again = self.call(Method::POST, "/webhooks", Some(asked), &repeated).await;
        assert_eq!(again.json()["secret"], made["secret"]);
        self.shows("a secret of a new endpoint");
        let other = json!({"integration_id": 1, "name": "another"});
        assert!(self.call(Method::POST, "/webhooks", Some(other), &repeated).await.status.is_client_error());
    }

    async fn destinations(&mut self, redis: &Redis) {
        let word = |planted: &mut Planted, name: &str| planted.word(name);
        let url = self.url("/hook");
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["hookmill".to_owned()]).unwrap().self_signed(&key).unwrap();
        self.planted.add("a client's key", &key.serialize_der());
        for (number, line) in key.serialize_pem().lines().filter(|line| line.len() == 64).enumerate() {
            self.planted.add(&format!("line {number} of a client's key"), line.as_bytes());
        }
        let p = &mut self.planted;
        let (user, password) = (word(p, "basic-user"), p.text("basic password"));
        let pair = format!("{user}:{password}");
        p.add("basic, as it is sent", base64::engine::general_purpose::STANDARD.encode(&pair).as_bytes());
        let refused = json!({"x-refuse": "yes"});
        let all = [
            json!({"name": "bearer", "settings": {"url": url, "auth": {"type": "bearer"}}, "credentials": {"token": p.text("bearer token")}}),
            json!({"name": "echo", "settings": {"url": url, "auth": {"type": "bearer"}, "headers": refused}, "credentials": {"token": word(p, "echoed-token")}}),
            json!({"name": "echo basic", "settings": {"url": url, "auth": {"type": "basic"}, "headers": refused}, "credentials": {"username": user, "password": password}}),
            json!({"name": "api key", "settings": {"url": url, "auth": {"type": "api_key", "header": "X-Key", "prefix": "k "}, "headers": refused}, "credentials": {"api_key": word(p, "destination-api-key")}}),
            json!({"name": "hmac", "settings": {"url": url, "auth": {"type": "hmac"}}, "credentials": {"secret": p.text("hmac key")}}),
            json!({"name": "query", "settings": {"url": url}, "credentials": {"query": format!("token={}", word(p, "token-of-a-query"))}}),
            json!({"name": "mtls", "settings": {"url": "https://localhost:9/hook"}, "credentials": {"client_certificate": certificate.pem(), "client_key": key.serialize_pem()}}),
            json!({"name": "proxy", "settings": {"url": url, "proxy": "http://127.0.0.1:9"}, "credentials": {"proxy_username": "u", "proxy_password": p.text("proxy password")}}),
            json!({"name": "redis", "type": "redis_stream", "settings": {"url": format!("redis://localhost:{}", redis.1), "stream": "s"}, "credentials": {"username": "u", "password": p.text("redis password")}}),
            json!({"name": "nats", "type": "nats", "settings": {"url": "nats://127.0.0.1:9", "subject": "a.b"}, "credentials": {"username": "u", "password": p.text("nats password")}}),
            json!({"name": "nats token", "type": "nats", "settings": {"url": "nats://127.0.0.1:9", "subject": "a.b"}, "credentials": {"token": p.text("nats token")}}),
        ];
        for (number, destination) in (1..).zip(all) {
            let made = self.post("/destinations", destination.clone()).await;
            let name = format!("signing secret of {}", destination["name"].as_str().unwrap());
            self.planted.add_whsec(&name, made["signing_secret"].as_str().unwrap());
            self.shows(&name);
            self.shows(&format!("{name}, its bytes"));
            self.post(&format!("/destinations/{number}/test"), json!({})).await;
            self.post("/destinations/test", json!({"destination": destination})).await;
            let subscription = json!({"integration_id": 1, "destination_id": number, "name": destination["name"], "retry": {"schedule_s": [1]}});
            self.post("/subscriptions", subscription).await;
        }
        let given = self.planted.whsec("a signing secret that was given");
        self.post("/destinations/1/rotate-secret", json!({"signing_secret": given})).await;
        let p = &mut self.planted;
        for wrong in [
            json!({"settings": {"url": format!("http://u:{}@127.0.0.1/", word(p, "user-info"))}}),
            json!({"settings": {"url": format!("{url}?a=1&token={}", word(p, "token-in-an-url"))}}),
            json!({"settings": {"url": url, "headers": {"X-Auth-Token": p.text("a header that is a secret")}}}),
            json!({"settings": {"url": url, "auth": {"type": "bearer"}}, "credentials": {"tokn": p.text("a credential of the wrong name")}}),
            json!({"settings": {"url": url, "auth": {"type": "bearer"}}, "credentials": {"token": format!("{}\n", p.text("a token with a line end"))}}),
            json!({"settings": {"url": url}, "signing_secret": p.text("a signing secret that is none")}),
            json!({"settings": {"url": url}, "credentials": p.text("credentials that are a text")}),
            json!({"settings": {"url": "https://localhost:9/", "auth": {"type": "none"}}, "credentials": {"client_certificate": p.text("no certificate"), "client_key": p.text("no key")}}),
            json!({"type": "redis_stream", "settings": {"url": format!("redis://:{}@127.0.0.1:9", word(p, "redis-user-info")), "stream": "s"}}),
            json!({"type": "nats", "settings": {"url": format!("nats://{}@127.0.0.1:9", word(p, "nats-user-info")), "subject": "a"}}),
        ] {
            let mut named = wrong.clone();
            named["name"] = json!("wrong");
            self.refused(Method::POST, "/destinations", named.clone()).await;
            self.refused(Method::POST, "/destinations/test", json!({"destination": named})).await;
            self.refused(Method::PATCH, "/destinations/1", wrong).await;
        }
    }

    async fn webhooks(&mut self) {
        let headers: Vec<(String, String)> =
            ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"]
                .into_iter()
                .map(|name| (name.to_owned(), format!("it={}", self.planted.text(&format!("the header {name}")))))
                .collect();
        let post = async |secret: &str, body: &str| {
            let signature = hex_hmac(secret.as_bytes(), body.as_bytes());
            let all = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let all: Vec<(&str, &str)> = all.chain([("x-signature", signature.as_str())]).collect();
            self.server.post("orders", &all, body.to_owned()).await.status.as_u16()
        };
        for number in 0..3 {
            let body = format!(r#"{{"id":"evt_{number}","type":"paid","note":"{IN_THE_BODY}"}}"#);
            assert_eq!(post(SECRET, &body).await, 200, "the former secret holds in its grace");
        }
        let wrong = self.planted.text("somebody else's secret");
        assert_eq!(post(&wrong, r#"{"id":"evt_9"}"#).await, 401);
        wait_for("dead letters", async || {
            let all = self.call(Method::GET, "/deadletters", None, &[]).await.json();
            (all["items"].as_array().unwrap().len() >= 20).then_some(())
        })
        .await;
        let query = json!({"query": {"source": "dead_letters", "subscription_id": 1}, "start": true});
        self.post("/replays", query).await;
        let body = r#"{"id":"x"}"#;
        let asked = json!({"headers": {"X-Signature": hex_hmac(wrong.as_bytes(), body.as_bytes())}, "body": body,
                           "secret": format!("{wrong} ")});
        self.post("/providers/generic_hmac/verify", asked).await;
    }

    /// Changes that are held, brought back, compared, repeated.
    async fn history(&mut self) {
        let first = self.planted.text("a credential of the first change");
        self.done(Method::PUT, "/integrations/1", json!({"credentials": {"api_key": first}})).await;
        let held = json!({"configuration": {"base_url": "http://127.0.0.1:9"}, "activate": "after_test",
                          "credentials": {"api_key": self.planted.text("a credential of a held change")}});
        self.done(Method::PUT, "/integrations/1", held).await;
        wait_for("the held change's test", async || {
            let shown = self.call(Method::GET, "/integrations/1", None, &[]).await.json();
            (shown["pending_version"]["state"] == "failed").then_some(())
        })
        .await;
        let later = json!({"credentials": {"token": self.planted.word("a-later-token")}});
        self.done(Method::PATCH, "/destinations/2", later).await;
        let versions = self.call(Method::GET, "/integrations/1/versions", None, &[]).await.json();
        let numbers: Vec<u64> =
            versions["items"].as_array().unwrap().iter().map(|it| it["version"].as_u64().unwrap()).collect();
        for number in &numbers {
            for path in
                [format!("/integrations/1/versions/{number}"), format!("/integrations/1/versions/{number}/diff")]
            {
                self.call(Method::GET, &path, None, &[]).await;
            }
        }
        self.post(&format!("/integrations/1/versions/{}/rollback", numbers[1]), json!({})).await;
        // The held change is sealed with the key of its time; another change cancels it.
        self.done(Method::PUT, "/integrations/1", json!({"description": "changed"})).await;
        self.done(Method::DELETE, "/integrations/3", Value::Null).await;
        self.call(Method::GET, "/integrations?deleted=true", None, &[]).await;
    }

    async fn tokens(&mut self) {
        for role in ["admin", "viewer"] {
            let made = self.post("/tokens", json!({"name": format!("the {role}"), "role": role})).await;
            let token = made["token"].as_str().unwrap().to_owned();
            let name = format!("the token of {role}");
            self.planted.add(&name, token.as_bytes());
            self.shows(&name);
            let bearer = format!("Bearer {token}");
            self.call(Method::GET, "/tokens/self", None, &[("authorization", &bearer)]).await;
            self.call(Method::POST, "/tokens", Some(json!({})), &[("authorization", &bearer)]).await;
        }
        self.done(Method::DELETE, "/tokens/2", Value::Null).await;
        for value in [
            format!("Bearer {}", self.planted.word("hmk_wrong-token")),
            format!("Basic {}", self.planted.word("a-wrong-basic")),
            self.planted.word("no-scheme-at-all"),
        ] {
            let reply = self.call(Method::GET, "/integrations", None, &[("authorization", &value)]).await;
            assert_eq!(reply.status, 401);
        }
    }

    fn commands(&mut self) {
        let mail = self.planted.whsec("a mail secret of a document");
        let texts = self.planted.text("a text secret in a file");
        fs::write(self.user.home().join("texts.secret"), format!("{texts}\n")).unwrap();
        let token = self.planted.word("a-token-of-a-document");
        let document = "destinations:\n- name: d\n  settings: {url: 'http://127.0.0.1:9/', auth: {type: bearer}}\n  credentials: \
                        {token: '${D_TOKEN}'}\nintegrations:\n- name: Applied\n  type: custom\n  environment: staging\n  \
                        provider: standard_webhooks\n  webhooks: [{name: applied, path: w, secret: '${MAIL}'}]\n- name: Filed\n  type: custom\n  \
                        environment: staging\n  webhooks: [{name: filed, path: f, secret: 'file:texts.secret'}]\n";
        let file = self.user.write("apply.yaml", document);
        let variables = [("D_TOKEN", token.as_str()), ("MAIL", mail.as_str())];
        self.typed(&["apply", "-f", &file, "--dry-run"], &variables);
        self.typed(&["apply", "-f", &file, "--json", "--secrets-to", "made"], &variables);
        let made = fs::read_to_string(self.user.home().join("made")).unwrap();
        for word in made.split_whitespace().filter(|word| word.starts_with("whsec_")) {
            self.planted.add_whsec("a secret that an apply made", word);
        }
        let rotated = self.planted.text("a mail secret that is none");
        assert_ne!(self.types(&["apply", "-f", &file], &[("D_TOKEN", &token), ("MAIL", &rotated)], "").code, 0);
        let broken = self
            .user
            .write("broken.yaml", &format!("integrations: [{{name: {}", self.planted.word("a-broken-document")));
        assert_ne!(self.types(&["apply", "-f", &broken], &[], "").code, 0);
        let exported = self.folder.path().join("export");
        self.typed(&["export", "--to", exported.to_str().unwrap()], &[]);
        self.typed(&["export"], &[]);

        let typed = self.planted.text("a secret that was typed");
        self.typed(&["webhooks", "rotate-secret", "filed", "--secret-env", "S", "--json"], &[("S", &typed)]);
        let wrong =
            self.types(&["webhooks", "rotate-secret", "applied", "--secret-env", "S", "--json"], &[("S", &typed)], "");
        assert_ne!(wrong.code, 0, "it is no Standard Webhooks secret");
        let password = self.planted.text("a password that was typed");
        let create = [
            "destinations",
            "create",
            "--name",
            "typed",
            "--type",
            "nats",
            "--set",
            "settings.url=nats://127.0.0.1:9",
            "--set",
            "settings.subject=a",
            "--credential-env",
            "password=P",
            "--set",
            "credentials.username=u",
            "--secret-to",
            "signing",
        ];
        self.types(&create, &[("P", &password)], "");
        self.typed(&["tokens", "create", "--name", "typed", "--role", "viewer", "--secret-to", "token"], &[]);
        let token = fs::read_to_string(self.user.home().join("token")).unwrap();
        self.planted.add("a token that was typed", token.trim().as_bytes());
        let header = self.user.write("headers", "x-signature: 00\n");
        let body = self.user.write("body", "{}");
        let secret = self.planted.text("a secret to verify with");
        let file = self.user.write("secret", &secret);
        self.types(
            &["verify", "--provider", "generic_hmac", "--secret-file", &file, "--headers", &header, "--body", &body],
            &[],
            "",
        );
        let url = format!("http://{}/webhooks/receive/orders", self.server.ingress);
        self.types(&["send", "--provider", "generic_hmac", "--secret-file", &file, "--url", &url], &[], "");
        let mut denied = self.user.command(&["integrations", "list", "--json"]);
        let wrong = self.planted.word("hmk_a-token-that-is-denied");
        let done =
            ended(denied.env("HOOKMILL_URL", format!("http://{}", self.server.admin)).env("HOOKMILL_TOKEN", wrong), "");
        self.printed.push(("with a wrong token".to_owned(), [done.out, done.err].concat().into_bytes()));
        for args in [
            &["integrations", "list", "--json"][..],
            &["integrations", "get", "Shop"],
            &["webhooks", "list", "--jsonl"],
            &["destinations", "list", "--json"],
            &["destinations", "test", "echo", "--json"],
            &["deadletters", "list", "--json"],
            &["rejections", "list", "--json"],
            &["activity", "list", "--json"],
            &["tokens", "list"],
            &["keys", "list", "--sealed", "--json"],
            &["metrics"],
        ] {
            self.types(args, &[], "");
        }
    }

    fn key_of_the_ring(&self, number: usize) -> String {
        let ring = fs::read_to_string(self.server.data_dir().join("keys.toml")).unwrap();
        let keys = ring.lines().filter_map(|line| line.strip_prefix("key = "));
        keys.map(|key| key.trim_matches('"').to_owned()).nth(number).unwrap()
    }

    fn plant_key(&mut self, name: &str, key: &str) {
        self.planted.add(name, key.as_bytes());
        if let Ok(bytes) =
            hex::decode(key).or_else(|_| base64::engine::general_purpose::STANDARD.decode(key).map_err(|_| ()))
        {
            self.planted.add(&format!("{name}, its bytes"), &bytes);
        }
    }

    async fn keys(&mut self) {
        let old = self.key_of_the_ring(0);
        let (data, admin) = (self.server.data_dir(), self.server.admin.to_string());
        let at = ["--data-dir", data.to_str().unwrap(), "--admin", &admin];
        self.typed(&[&["keys", "rotate", "--json"][..], &at].concat(), &[]);
        let all = [self.key_of_the_ring(0), self.key_of_the_ring(1)];
        let new = all.into_iter().find(|key| *key != old).unwrap();
        self.plant_key("the old key", &old);
        self.plant_key("the new key", &new);
        let listed = self.call(Method::GET, "/keys?sealed=true", None, &[]).await.json();
        let active = listed["keys"].as_array().unwrap().iter().find(|key| key["state"] == "active").unwrap();
        let id = active["id"].as_str().unwrap().to_owned();
        self.typed(&[&["keys", "retire", &id][..], &at].concat(), &[]);
        let other = self.user.home().join("other.toml");
        self.typed(&[&["keys", "add", "--output", other.to_str().unwrap()][..], &at].concat(), &[]);
        let doctor = [&["doctor", "--json"][..], &at].concat();
        self.types(&doctor, &[("HOOKMILL_ADMIN_TOKEN", TOKEN)], "");
        let ring = format!("{}\nnonsense", fs::read_to_string(data.join("keys.toml")).unwrap());
        self.types(&doctor, &[("HOOKMILL_KEYRING", &ring)], "");
        let file = self.user.write("own.toml", "[admin]\nnonsense = 1\n");
        self.types(&["config", "check", "--print", "--config", &file], &[("HOOKMILL_KEYRING", &ring)], "");
        self.types(
            &["config", "check", "--print"],
            &[("HOOKMILL_ADMIN_TOKEN", TOKEN), ("HOOKMILL_KEYRING", &ring)],
            "",
        );
    }

    /// Every `GET` there is, of everything there is.
    async fn read_everything(&self) {
        let items = async |path: &str| {
            let all = self.call(Method::GET, path, None, &[]).await.json();
            all["items"].as_array().or(all.as_array()).cloned().unwrap_or_default()
        };
        let ids = async |path: &str| {
            items(path).await.iter().map(|it| it["id"].to_string().replace('"', "")).collect::<Vec<_>>()
        };
        let mut paths: Vec<String> = [
            "/keys?sealed=true",
            "/export",
            "/metrics",
            "/activities",
            "/activities/export",
            "/tokens/self",
            "/providers/stripe",
        ]
        .map(str::to_owned)
        .to_vec();
        for (of, parts) in [
            ("/integrations", &["", "/flow", "/status", "/versions"][..]),
            ("/webhooks", &[""]),
            ("/destinations", &["", "/flow"]),
            ("/subscriptions", &[""]),
            ("/events", &["", "/body"]),
            ("/providers", &[]),
            ("/rejections", &["", "/explain"]),
            ("/replays", &[""]),
            ("/tokens", &[""]),
            ("/integration-management/integrations", &["", "/status"]),
            ("/integration-management/webhooks", &[""]),
        ] {
            for id in ids(of).await {
                paths.extend(parts.iter().map(|part| format!("{of}/{id}{part}")));
            }
        }
        for letter in items("/deadletters").await {
            paths.push(format!("/deadletters/{}/{}", letter["subscription_id"], letter["event_id"].as_str().unwrap()));
        }
        for path in paths {
            let reply = self.call(Method::GET, &path, None, &[]).await;
            assert!(reply.status.is_success(), "{path}: {} {:?}", reply.status, reply.body);
        }
        for event in ids("/events").await {
            self.call(Method::POST, &format!("/events/{event}/verify"), None, &[]).await;
        }
    }

    fn back_up(&mut self) -> PathBuf {
        let to = self.folder.path().join("backup");
        let data = self.server.data_dir();
        self.typed(&["backup", "--json", "--to", to.to_str().unwrap(), "--data-dir", data.to_str().unwrap()], &[]);
        self.typed(&["restore", "--from", to.to_str().unwrap(), "--check"], &[]);
        to
    }

    /// Ends it as the power does, and starts it again.
    fn crash(mut self) -> Self {
        self.server = self.server.kill().start().recorded(&self.record);
        self
    }

    /// All that stands somewhere and must not: what, and where.
    fn leaks(&self, search: &Search, data: &Path) -> BTreeSet<(String, String)> {
        let mut leaks = BTreeSet::new();
        for (number, exchange) in self.record.lock().unwrap().iter().enumerate() {
            for name in search.found_in(&exchange.reply) {
                let may = self.shown.iter().any(|(at, shown)| *at == number && shown == name);
                if !may {
                    leaks.insert((name.to_owned(), format!("reply to {}", exchange.asked)));
                }
            }
        }
        for (what, text) in self.printed.iter().chain(&self.said) {
            leaks.extend(search.found_in(text).into_iter().map(|name| (name.to_owned(), what.clone())));
        }
        for folder in [data, self.folder.path()] {
            leaks.extend(search.found_below(folder));
        }
        leaks
    }
}

/// The paths of the admin API that can be read, as its table of routes has them.
fn readable() -> BTreeSet<String> {
    let source = concat!(include_str!("../../src/admin.rs"), include_str!("../../src/admin/original.rs"));
    let route =
        regex::Regex::new(r#"\(\s*"(/(?:api/v1|integration-management)/[^"]*)",\s*(?:\w+\(\s*)?get\("#).unwrap();
    route.captures_iter(source).map(|found| found[1].to_owned()).filter(|path| !path.contains("things")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_is_found_after_a_whole_life() {
    let redis = Redis::start();
    let mut life = Life::begin().await;
    life.integrations().await;
    life.endpoints().await;
    life.destinations(&redis).await;
    life.webhooks().await;
    life.history().await;
    life.tokens().await;
    life.commands();
    life.keys().await;
    life.read_everything().await;
    let mut life = life.crash();
    life.read_everything().await;
    life.back_up();
    // What is under way to a service that is not there.
    tokio::time::sleep(Duration::from_millis(200)).await;

    let followed = ["/api/v1/events/stream", "/api/v1/backup/{id}/{part}"];
    let asked: BTreeSet<String> = life.record.lock().unwrap().iter().map(|it| it.asked.clone()).collect();
    let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    for path in readable().iter().filter(|path| !followed.contains(&path.as_str())) {
        let is_it = |asked: &String| {
            let (wanted, had) = (parts(path), parts(asked.strip_prefix("GET ").unwrap_or_default()));
            wanted.len() == had.len() && wanted.iter().zip(&had).all(|(want, had)| want.starts_with('{') || want == had)
        };
        assert!(asked.iter().any(is_it), "nobody read {path}");
    }

    let stopped = life.server.terminate();
    let data = stopped.data_dir();
    for log in ["stdout.log", "stderr.log"] {
        let text = fs::read(data.with_file_name(log)).unwrap();
        assert!(log == "stdout.log" || text.windows(4).any(|word| word == b"INFO"), "it says what it does");
        life.said.push((log.to_owned(), text));
    }
    life.server = stopped.start();
    let search = life.planted.search();
    // A key stands in its ring and nowhere else.
    let ring = |(name, place): &(String, String)| name.starts_with("the new key") && place == "keys.toml";
    let (keys, leaks): (Vec<_>, Vec<_>) = life.leaks(&search, &data).into_iter().partition(ring);
    assert!(leaks.is_empty() && !keys.is_empty(), "{leaks:#?}");

    let mut body = Planted::default();
    body.add("what a webhook brought", IN_THE_BODY.as_bytes());
    let found = life.leaks(&body.search(), &data);
    let at = |place: &str| found.iter().any(|(_, at)| at.starts_with(place) || at.ends_with(place));
    assert!(at(".seg") && at("reply to GET"), "the search finds what is there: {found:?}");
    drop(redis);
}
