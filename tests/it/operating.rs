//! The command line over the admin API of a server that runs: what an operator types, what is printed, how it ends.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Hookmill, SECRET, Sink, TOKEN, status};

/// What a command printed and how it ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// A user with a configuration folder of his own.
pub(crate) struct User {
    home: tempfile::TempDir,
}

impl User {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The program, before it knows any server.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookmill"));
        for name in
            ["HOOKMILL_URL", "HOOKMILL_TOKEN", "HOOKMILL_TOKEN_FILE", "HOOKMILL_CONTEXT", "HOOKMILL_ADMIN_TOKEN"]
        {
            command.env_remove(name);
        }
        command.env("XDG_CONFIG_HOME", self.home.path().join("config")).env("NO_COLOR", "1");
        command.current_dir(self.home.path()).args(args).stdin(Stdio::null());
        command
    }

    /// Types a command for a server that the environment names.
    pub(crate) fn on(&self, server: &Hookmill, args: &[&str]) -> Ended {
        self.typed(server, args, "")
    }

    /// The same with something on standard input.
    pub(crate) fn typed(&self, server: &Hookmill, args: &[&str], input: &str) -> Ended {
        let mut command = self.command(args);
        command.env("HOOKMILL_URL", format!("http://{}", server.admin)).env("HOOKMILL_TOKEN", TOKEN);
        ended(&mut command, input)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let file = self.home.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

/// Runs a command to its end, with that on standard input.
pub(crate) fn ended(command: &mut Command, input: &str) -> Ended {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_of_an_event_is_made_and_watched_by_typing() {
    let server = Hookmill::start();
    let sink = Sink::start().await;
    let user = User::new();
    let secret = user.write("shop.secret", &format!("{SECRET}\n"));

    let made = user.on(
        &server,
        &[
            "integrations",
            "create",
            "--name",
            "Shop",
            "--type",
            "custom",
            "--provider",
            "generic_hmac",
            "--environment",
            "development",
            "--json",
        ],
    );
    assert_eq!(made.json()["name"], "Shop");
    let made = user.on(
        &server,
        &[
            "webhooks",
            "create",
            "--integration",
            "Shop",
            "--name",
            "orders",
            "--path",
            "orders",
            "--secret-file",
            &secret,
            "--json",
        ],
    );
    assert_eq!(made.json()["path"], "/orders");
    let url = format!("http://{}/hook", sink.address);
    let kept = user.home().join("ledger.secret");
    let made = user.on(
        &server,
        &[
            "destinations",
            "create",
            "--name",
            "ledger",
            "--to",
            &url,
            "--set",
            "settings.timeout_ms=2000",
            "--secret-to",
            kept.to_str().unwrap(),
        ],
    );
    assert_eq!(made.code, 0, "{}", made.err);
    let signing = std::fs::read_to_string(&kept).unwrap();
    assert!(signing.starts_with("whsec_") && !made.out.contains(signing.trim()), "{}", made.out);
    let made = user.typed(
        &server,
        &["subscriptions", "create", "--integration", "Shop", "--destination", "ledger", "-f", "-", "--json"],
        "name: all\nselection:\n  types: ['order.*']\n",
    );
    let made = made.json();
    assert_eq!((&made["name"], &made["selection"]["types"]), (&json!("all"), &json!(["order.*"])));

    let id = server.post_signed("orders", r#"{"id":"o-1","type":"order.paid"}"#).await;
    sink.until("the event", |got| got.iter().any(|it| it.id() == id)).await;
    let table = crate::harness::wait_for("its type", async || {
        let table = user.on(&server, &["events", "list", "--integration", "Shop"]);
        assert_eq!(table.code, 0, "{}", table.err);
        table.out.contains("order.paid").then_some(table)
    })
    .await;
    let lines: Vec<&str> = table.out.lines().collect();
    assert!(lines[0].starts_with("ID") && lines[0].contains("RECEIVED"), "{}", table.out);
    assert!(lines[1].starts_with(&id) && lines[1].contains("order.paid"), "{}", table.out);
    let body = user.on(&server, &["events", "body", &id]);
    assert_eq!(body.out, r#"{"id":"o-1","type":"order.paid"}"#);

    let changed = user.on(&server, &["subscriptions", "update", "all", "--active=false", "--json"]);
    assert_eq!(changed.json()["active"], false);
    let gone = user.on(&server, &["subscriptions", "delete", "all"]);
    assert_eq!((gone.code, gone.out.as_str()), (0, "all is deleted\n"), "{}", gone.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_get_shows_can_be_changed_and_given_back() {
    let server = Hookmill::start();
    let user = User::new();
    let settings = r#"{"url": "http://127.0.0.1:9/hook", "timeout_ms": 3000}"#;
    user.on(&server, &["destinations", "create", "--name", "a", "--settings", settings]);
    let shown = user.on(&server, &["destinations", "get", "a", "--json"]).json();
    let mut changed = shown.clone();
    changed["name"] = json!("b");
    let update = |document: &Value| {
        user.typed(&server, &["destinations", "update", "1", "-f", "-", "--json"], &document.to_string())
    };
    assert_eq!(update(&changed).json()["name"], "b");
    let stale = update(&shown);
    assert_eq!(stale.code, 5, "{}", stale.err);
    assert!(stale.err.contains("version_conflict") && stale.err.contains("next: "), "{}", stale.err);
    // An integration has a new version whenever something of it changes; so has what was fetched before.
    user.on(&server, &["integrations", "create", "--name", "Shop", "--type", "custom", "--environment", "staging"]);
    let mut shop = user.on(&server, &["integrations", "get", "Shop", "--json"]).json();
    let made = user.on(&server, &["webhooks", "create", "--integration", "Shop", "--name", "w", "--json"]);
    assert_eq!(made.code, 0, "{}", made.err);
    let now = user.on(&server, &["integrations", "get", "Shop", "--json"]).json();
    assert_ne!(now["latest_version"], shop["latest_version"]);
    shop["description"] = json!("as it was, and more");
    let given_back = user.typed(&server, &["integrations", "update", "Shop", "-f", "-", "--json"], &shop.to_string());
    assert_eq!(given_back.code, 0, "{}", given_back.err);
    assert_eq!(given_back.json()["description"], "as it was, and more");
    for (kind, name) in [("integrations", "Shop"), ("webhooks", "w"), ("destinations", "b")] {
        let shown = user.on(&server, &[kind, "get", name, "--json"]);
        let same = user.typed(&server, &[kind, "update", name, "-f", "-", "--json"], &shown.out);
        assert_eq!(same.code, 0, "{kind}: {}", same.err);
        assert!(same.err.contains("nothing differs"), "{kind}: {}", same.err);
    }
    let one = user.on(&server, &["destinations", "update", "b", "--to", "http://127.0.0.1:9/other", "--json"]).json();
    assert_eq!(one["settings"], json!({"url": "http://127.0.0.1:9/other", "timeout_ms": 3000}));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_says_what_was_wrong_and_what_to_do() {
    let server = Hookmill::start();
    let user = User::new();
    for (args, code, words) in [
        (["integrations", "get", "7"].as_slice(), 3, "integration 7 does not exist (404 not_found)"),
        (&["integrations", "get", "Shop"], 3, "no integration with the name `Shop`"),
        (&["integrations", "create", "--name", "Shop"], 2, "/type: is missing"),
        (&["integrations", "create", "--set", "credentials.key=planted"], 2, "--credential-file"),
        (&["webhooks", "list", "--limit", "0"], 2, "0 is not in 1..=1000000"),
        (&["events", "get", "x"], 3, "the path holds an id that is none"),
        (&["integrations", "nonsense"], 2, "unrecognized subcommand"),
        (&["events", "list", "--output", "json"], 2, "tip: `--json` writes JSON"),
        (&["--json", "events", "list"], 2, "tip: a command over the admin API takes it"),
        (&["events", "list", "--where", "body.a =="], 2, "column 10: it ends too early"),
        (&["events", "list", "--data-dir", "/no/such/folder"], 2, "there is no folder /no/such/folder"),
    ] {
        let done = user.on(&server, args);
        assert_eq!(done.code, code, "{args:?}: {}", done.err);
        assert!(done.err.contains(words), "{args:?}: {}", done.err);
        assert!(done.out.is_empty(), "{args:?}: {}", done.out);
        assert!(!done.err.contains("planted"), "{args:?}: {}", done.err);
    }

    let mut denied = user.command(&["integrations", "list"]);
    denied.env("HOOKMILL_URL", format!("http://{}", server.admin)).env("HOOKMILL_TOKEN", "hm_not-the-token-planted");
    let denied = ended(&mut denied, "");
    assert_eq!(denied.code, 4, "{}", denied.err);
    assert!(denied.err.contains("next: ") && !denied.err.contains("planted"), "{}", denied.err);

    let mut absent = user.command(&["integrations", "list"]);
    absent.env("HOOKMILL_URL", "http://127.0.0.1:9").env("HOOKMILL_TOKEN", TOKEN);
    let absent = ended(&mut absent, "");
    assert_eq!(absent.code, 6, "{}", absent.err);
    assert!(absent.err.contains("http://127.0.0.1:9 cannot be reached"), "{}", absent.err);

    let unknown = ended(&mut user.command(&["integrations", "list"]), "");
    assert_eq!(unknown.code, 2, "{}", unknown.err);
    assert!(unknown.err.contains("hookmill context add"), "{}", unknown.err);

    // Webhooks come in there; no API is.
    let mut wrong_port = user.command(&["integrations", "list"]);
    wrong_port.env("HOOKMILL_URL", format!("http://{}", server.ingress)).env("HOOKMILL_TOKEN", TOKEN);
    let wrong_port = ended(&mut wrong_port, "");
    assert_eq!(wrong_port.code, 1, "nothing is missing: {}", wrong_port.err);
    assert!(wrong_port.err.contains("not that of the webhooks"), "{}", wrong_port.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_are_tried_kept_private_and_used_by_name() {
    use std::os::unix::fs::PermissionsExt;

    let (one, two) = (Hookmill::start(), Hookmill::start());
    let user = User::new();
    let url = |server: &Hookmill| format!("http://{}", server.admin);
    let token = user.write("token", TOKEN);
    let add = |name: &str, server: &Hookmill| {
        ended(&mut user.command(&["context", "add", name, "--url", &url(server), "--token-file", &token]), "")
    };
    assert_eq!(add("one", &one).out, "one is known\n");
    let typed = user.command(&["context", "add", "two", "--url", &url(&two), "--token-file", "-"]);
    assert_eq!(ended(&mut { typed }, TOKEN).out, "two is known\n");
    let wrong = ended(
        &mut user.command(&["context", "add", "three", "--url", &url(&one), "--token-file", "-"]),
        "hm_this-is-no-token-of-it",
    );
    assert_eq!(wrong.code, 4, "a context that does not work is not kept: {}", wrong.err);
    assert_eq!(add("no name", &one).code, 2);

    let file = user.home().join("config/hookmill/contexts.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let list = ended(&mut user.command(&["context", "list", "--json"]), "");
    let names: Vec<Value> = list.json()["items"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["one", "two"]);
    assert!(!list.out.contains(TOKEN));

    let create = ["integrations", "create", "--name", "Shop", "--type", "custom", "--environment", "staging"];
    assert_eq!(ended(user.command(&create).args(["--context", "two"]), "").code, 0);
    let count = |args: &[&str]| {
        let listed = ended(user.command(&["integrations", "list", "--json"]).args(args), "");
        listed.json()["items"].as_array().unwrap().len()
    };
    assert_eq!((count(&[]), count(&["--context", "two"])), (0, 1), "the first one is in use");
    assert_eq!(ended(&mut user.command(&["context", "use", "two"]), "").code, 0);
    assert_eq!(count(&[]), 1);
    assert_eq!(ended(&mut user.command(&["context", "remove", "two"]), "").code, 0);
    let unknown = ended(&mut user.command(&["integrations", "list", "--context", "two"]), "");
    assert_eq!(unknown.code, 2, "{}", unknown.err);
    assert!(unknown.err.contains("there are one"), "{}", unknown.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_read_page_by_page_to_their_end() {
    let server = Hookmill::start();
    let user = User::new();
    for number in 0..7 {
        let body = json!({"name": format!("d{number}"), "settings": {"url": "http://127.0.0.1:9/"}});
        server.create("/destinations", body).await;
    }
    let some = user.on(&server, &["destinations", "list", "--limit", "3"]);
    assert_eq!((some.out.lines().count(), some.code), (4, 0), "{}", some.out);
    assert!(some.err.contains("there is more"), "{}", some.err);
    let all = user.on(&server, &["destinations", "list", "--all", "--jsonl"]);
    let names: Vec<Value> =
        all.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].clone()).collect();
    assert_eq!(names, ["d0", "d1", "d2", "d3", "d4", "d5", "d6"]);

    server.integration("generic_hmac", "in").await;
    for number in 0..5 {
        server.post_signed("in", &format!("{{\"id\":\"e-{number}\"}}")).await;
    }
    let first = user.on(&server, &["events", "list", "--limit", "2", "--json"]).json();
    let next = first["next"].as_str().unwrap();
    let second = user.on(&server, &["events", "list", "--cursor", next, "--all", "--json"]).json();
    assert_eq!((first["items"].as_array().unwrap().len(), second["items"].as_array().unwrap().len()), (2, 3));
    assert_eq!(second["next"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_replayed_and_followed_to_the_end() {
    let server = Hookmill::start();
    let sink = Sink::start().await;
    sink.answers(|_, _| status(500));
    let user = User::new();
    let integration = server.integration("generic_hmac", "in").await;
    server.deliver_to(integration, &sink, json!({"schedule_s": []})).await;
    for number in 0..3 {
        server.post_signed("in", &format!("{{\"id\":\"e-{number}\"}}")).await;
    }
    crate::harness::wait_for("three dead letters", async || (server.dead_letters().await.len() == 3).then_some(()))
        .await;
    sink.answers(|_, _| status(200));
    let followed = user
        .on(&server, &["replay", "create", "--source", "dead_letters", "--subscription", "all", "--start", "--follow"]);
    assert_eq!(followed.code, 0, "{}", followed.err);
    assert!(followed.err.contains("is done: 3 replayed, 0 skipped, 0 remaining"), "{}", followed.err);
    let shown = user.on(&server, &["replay", "get", "1"]);
    assert!(shown.out.contains("progress.replayed") && shown.out.contains("plan.deliveries"), "{}", shown.out);

    sink.answers(|_, _| status(500));
    server.post_signed("in", r#"{"id":"e-9"}"#).await;
    crate::harness::wait_for("a dead letter", async || (server.dead_letters().await.len() == 1).then_some(())).await;
    let discarded =
        user.on(&server, &["deadletters", "discard-many", "--subscription-of", "all", "--reason", "a test", "--json"]);
    assert_eq!(discarded.json(), json!({"discarded": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_s_own_machine_needs_no_context() {
    let server = Hookmill::start();
    let user = User::new();
    let data = server.data_dir();
    // The token was preset, so the folder holds none.
    let refused = ended(&mut user.command(&["metrics", "--data-dir", data.to_str().unwrap()]), "");
    assert_eq!(refused.code, 2, "{}", refused.err);
    let mut command = user.command(&["metrics", "--json", "--data-dir", data.to_str().unwrap()]);
    command.env("HOOKMILL_ADMIN_TOKEN", TOKEN).env("HOOKMILL_ADMIN__ADDRESS", server.admin.to_string());
    let metrics = ended(&mut command, "");
    assert!(metrics.json()["dead_letters"].is_u64(), "{}", metrics.out);
}

#[test]
fn completions_and_manual_pages_come_from_the_program() {
    let user = User::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = ended(&mut user.command(&["completions", shell]), "");
        assert_eq!(script.code, 0, "{}", script.err);
        assert!(script.out.contains("deadletters") && script.out.contains("rotate-secret"), "{shell}");
    }
    assert_eq!(ended(&mut user.command(&["man", "--to", "man"]), "").code, 0);
    let page = std::fs::read_to_string(user.home().join("man/hookmill-webhooks-rotate-secret.1")).unwrap();
    assert!(page.contains("grace"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_others_do_not_steer_the_terminal() {
    let server = Hookmill::start();
    let user = User::new();
    server.integration("generic_hmac", "in").await;
    let id = server.post_signed("in", r#"{"id":"e-1","type":"x"}"#).await;
    let reply = server.post("in", &[("x-signature", "no")], "\u{1b}[2J").await;
    assert_eq!(reply.status, 401);
    let hostile = server.post_signed("in", "{\"id\":\"\u{9b}2J\",\"type\":\"\u{202e}evil\"}").await;
    let listed = user.on(&server, &["events", "list"]);
    assert!(listed.out.contains(&id) && listed.out.contains(&hostile), "{}", listed.out);
    assert!(!listed.out.chars().any(|it| it != '\n' && (it.is_control() || it == '\u{202e}')), "{:?}", listed.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_used_within_its_role_and_revoked() {
    let server = Hookmill::start();
    let user = User::new();
    let file = user.home().join("ci.token");
    let name = file.to_str().unwrap();
    let create = ["tokens", "create", "--name", "ci", "--role", "viewer", "--expires-in", "90d", "--secret-to", name];
    let made = user.on(&server, &create);
    assert_eq!(made.code, 0, "{}", made.err);
    let token = std::fs::read_to_string(&file).unwrap();
    assert!(!made.out.contains(token.trim()) && !made.err.contains(token.trim()));
    let again = user.on(&server, &create);
    assert_eq!(again.code, 2, "nothing is made whose secret could not be kept: {}", again.err);

    let with = |args: &[&str]| {
        let mut command = user.command(args);
        command.env("HOOKMILL_URL", format!("http://{}", server.admin)).env("HOOKMILL_TOKEN_FILE", name);
        ended(&mut command, "")
    };
    assert_eq!(with(&["integrations", "list"]).code, 0);
    assert_eq!(with(&["tokens", "self", "--json"]).json()["name"], "ci");
    let refused = with(&["destinations", "create", "--name", "d", "--to", "http://127.0.0.1:9/"]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("role") && refused.err.contains("next: "), "{}", refused.err);

    let listed = user.on(&server, &["tokens", "list", "--json"]).json();
    let id = listed["items"].as_array().unwrap().iter().find(|it| it["name"] == "ci").unwrap()["id"].to_string();
    let revoked = user.on(&server, &["tokens", "revoke", id.trim_matches('"')]);
    assert_eq!(revoked.code, 0, "{}", revoked.err);
    assert_eq!(with(&["integrations", "list"]).code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_read_compared_and_brought_back() {
    let server = Hookmill::start();
    let user = User::new();
    user.on(&server, &["integrations", "create", "--name", "Shop", "--type", "custom", "--environment", "staging"]);
    let changed =
        user.on(&server, &["integrations", "update", "Shop", "--description", "new", "--comment", "told so by Ada"]);
    assert_eq!(changed.code, 0, "{}", changed.err);
    let listed = user.on(&server, &["versions", "list", "Shop"]);
    let lines: Vec<&str> = listed.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", listed.out);
    assert!(lines[1].contains("told so by Ada"), "{}", listed.out);
    let (new, old) = (lines[1].split(' ').next().unwrap(), lines[2].split(' ').next().unwrap());
    let difference = user.on(&server, &["versions", "diff", "Shop", new, "--against", old]);
    assert!(difference.out.contains("/integration/description"), "{}{}", difference.out, difference.err);
    let back = user.on(&server, &["versions", "rollback", "Shop", old]);
    assert_eq!(back.code, 0, "{}", back.err);
    assert_eq!(user.on(&server, &["integrations", "get", "Shop", "--json"]).json()["description"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_listed_brought_back_or_purged() {
    let server = Hookmill::start();
    let user = User::new();
    server.integration("generic_hmac", "in").await;
    for (resource, name) in [("webhooks", "in"), ("integrations", "generic_hmac")] {
        let id = user.on(&server, &[resource, "get", name, "--json"]).json()["id"].to_string();
        let deleted = || user.on(&server, &[resource, "list", "--deleted", "--json"]).json()["items"].clone();
        assert_eq!(user.on(&server, &[resource, "delete", name]).code, 0);
        assert_eq!(deleted()[0]["id"].to_string(), id);
        let back = user.on(&server, &[resource, "restore", &id]);
        assert_eq!(back.code, 0, "{}", back.err);
        assert_eq!(user.on(&server, &[resource, "get", name, "--json"]).json()["id"].to_string(), id);
        assert_eq!(user.on(&server, &[resource, "restore", &id]).code, 5, "it is not deleted");
        assert_eq!(user.on(&server, &[resource, "delete", &id, "--purge"]).code, 0);
        assert_eq!((deleted(), user.on(&server, &[resource, "restore", &id]).code), (json!([]), 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_looked_at_and_accepted_after_all() {
    let server = Hookmill::start();
    let user = User::new();
    server.integration("generic_hmac", "in").await;
    let refused = server.post("in", &[("x-signature", "00")], r#"{"id":"r-1","type":"t"}"#).await;
    assert_eq!(refused.status, 401);
    let found = crate::harness::wait_for("the refused request", async || {
        let listed = user.on(&server, &["rejections", "list", "--cause", "invalid_signature", "--json"]).json();
        listed["items"].as_array().unwrap().first().cloned()
    })
    .await;
    let id = found["id"].as_str().unwrap();
    assert_eq!(user.on(&server, &["rejections", "explain", id]).code, 0);
    assert_ne!(user.on(&server, &["rejections", "accept", id]).code, 0, "its signature does not hold");
    let accepted = user.on(&server, &["rejections", "accept-many", "--webhook", "in", "--unverified", "--json"]);
    assert_eq!(accepted.json(), json!({"accepted": 1, "left": 0}));
    crate::harness::wait_for("its event", async || {
        let events = user.on(&server, &["events", "list", "--where", "body.id == 'r-1'", "--json"]).json();
        (events["items"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    let providers = user.on(&server, &["providers", "list"]);
    assert!(providers.out.contains("generic_hmac") && providers.out.starts_with("NAME"), "{}", providers.out);
}
