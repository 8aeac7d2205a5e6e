//! Configuration as documents: what is applied stands, twice is once, all or nothing; and what stands is written so
//! that it can be applied.

use std::{path::Path, process::Command};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{Hookmill, TOKEN},
    operating::{Ended, User, ended},
};

const SECRETS: [(&str, &str); 6] = [
    ("BILLING_SIGNING_SECRET", "whsec_cGxhbnRlZC1iaWxsaW5nLTQ3MTEtNDcxMQ=="),
    ("NOTIFICATIONS_SIGNING_SECRET", "whsec_cGxhbnRlZC1ub3RpZnktNDcxMS00NzExIQ=="),
    ("NOTIFICATIONS_TOKEN", "planted-token-4711"),
    ("STRIPE_WEBHOOK_SECRET", "whsec_planted-stripe-4711"),
    ("SMS_WEBHOOK_SECRET", "planted-sms-4711-4711"),
    ("EMAIL_WEBHOOK_SECRET", "whsec_cGxhbnRlZC1lbWFpbC00NzExLTQ3MTEh"),
];

fn example() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/isp").to_str().unwrap().to_owned()
}

/// The example's document, given to standard input: its secrets are in the environment.
fn command(user: &User, server: &Hookmill, args: &[&str]) -> Command {
    let mut command = user.command(args);
    command.env("HOOKMILL_URL", format!("http://{}", server.admin)).env("HOOKMILL_TOKEN", TOKEN).envs(SECRETS);
    command
}

fn run(user: &User, server: &Hookmill, args: &[&str]) -> Ended {
    let done = ended(&mut command(user, server, args), "");
    for (_, secret) in SECRETS {
        assert!(!done.out.contains(secret) && !done.err.contains(secret), "{args:?} shows a secret");
    }
    done
}

async fn version(server: &Hookmill) -> u64 {
    server.get("/metrics").await["configuration_version"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_is_shown_applied_and_then_stands() {
    let server = Hookmill::start_with(&[]);
    let user = User::new();
    let plan = run(&user, &server, &["apply", "-f", &example(), "--dry-run"]);
    assert_eq!(plan.code, 0, "{}", plan.err);
    assert!(plan.out.contains("+ integration Card payments"), "{}", plan.out);
    assert!(plan.out.contains("+ webhook Text messages/reports"), "{}", plan.out);
    assert!(plan.out.contains("secret: ***, set"), "{}", plan.out);
    assert!(plan.out.ends_with("14 to create, 0 to change, 0 to delete, 0 unchanged\n"), "{}", plan.out);
    assert_eq!(server.get("/integrations").await["total"], 0, "a dry run changes nothing");

    let before = version(&server).await;
    let done = run(&user, &server, &["apply", "-f", &example()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("14 created, 0 changed, 0 deleted, 0 unchanged"), "{}", done.out);
    assert_eq!(version(&server).await, before + 1, "all of it is one version");
    assert_eq!(server.get("/subscriptions").await["total"], 5);

    let again = run(&user, &server, &["apply", "-f", &example(), "--prune"]);
    assert_eq!(again.out, "nothing to change: 14 as it should be\n", "{}", again.err);
    assert_eq!(version(&server).await, before + 1);

    // The endpoint verifies with the secret that the environment held.
    let body = r#"{"status":"failed"}"#;
    let signature = format!("sha256={}", crate::harness::hex_hmac(b"planted-sms-4711-4711", body.as_bytes()));
    assert_eq!(server.post("sms", &[("x-sms-signature", &signature)], body).await.status, 200);
    for (_, secret) in SECRETS {
        assert!(crate::harness::files_with(&server.data_dir(), secret).is_empty(), "a secret is stored in clear");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_applied_without_a_change_and_makes_another_server_alike() {
    let (one, two) = (Hookmill::start_with(&[]), Hookmill::start_with(&[]));
    let user = User::new();
    assert_eq!(run(&user, &one, &["apply", "-f", &example()]).code, 0);
    for format in ["yaml", "toml", "json"] {
        let folder = user.home().join(format);
        let folder = folder.to_str().unwrap();
        let written = run(&user, &one, &["export", "--to", folder, "--format", format]);
        assert_eq!(written.code, 0, "{}", written.err);
        assert!(written.err.contains("CARD_PAYMENTS_STRIPE_SECRET"), "{}", written.err);
        let refused = run(&user, &one, &["export", "--to", folder, "--format", format]);
        assert_eq!(refused.code, 2, "nothing is written over unasked: {}", refused.err);

        let missing = run(&user, &one, &["apply", "-f", folder]);
        assert_eq!(missing.code, 2);
        assert!(missing.err.contains("the environment has no variable"), "{}", missing.err);
        assert!(missing.err.contains(": integrations.") || missing.err.contains(": destinations."), "{}", missing.err);
        assert!(missing.err.contains("; set it (`export "), "{}", missing.err);
        let mut command = command(&user, &one, &["apply", "-f", folder, "--prune", "--json"]);
        let named = [
            ("BILLING_SIGNING_SECRET", SECRETS[0].1),
            ("NOTIFICATIONS_SIGNING_SECRET", SECRETS[1].1),
            ("NOTIFICATIONS_CREDENTIALS_TOKEN", SECRETS[2].1),
            ("CARD_PAYMENTS_STRIPE_SECRET", SECRETS[3].1),
            ("TEXT_MESSAGES_REPORTS_SECRET", SECRETS[4].1),
            ("E_MAIL_MAIL_EVENTS_SECRET", SECRETS[5].1),
            // Was made, and never told.
            ("ARCHIVE_SIGNING_SECRET", "whsec_cGxhbnRlZC1hcmNoaXZlLTQ3MTEtNDcxMQ=="),
        ];
        let applied = ended(command.envs(named), "").json();
        let changed: Vec<&Value> =
            applied["changes"].as_array().unwrap().iter().filter(|it| it["action"] != "unchanged").collect();
        if format == "yaml" {
            assert_eq!(changed.len(), 1, "{changed:#?}");
            assert_eq!(changed[0]["name"], "archive");
            assert_eq!(changed[0]["secrets"], json!([{"pointer": "/signing_secret", "change": "changed"}]));
        } else {
            assert_eq!(changed, Vec::<&Value>::new());
        }
    }

    let nothing = ended(&mut command(&user, &one, &["apply", "-f", "-", "--prune", "--yes"]), "");
    assert_eq!(nothing.code, 2, "a pipe that broke off takes nothing away: {}", nothing.out);
    let bare = run(&user, &one, &["export", "--without-secrets"]);
    let again = ended(&mut command(&user, &one, &["apply", "-f", "-", "--json"]), &bare.out).json();
    assert_eq!(again["summary"], json!({"create": 0, "update": 0, "delete": 0, "unchanged": 14}));
    let copied = ended(&mut command(&user, &two, &["apply", "-f", "-"]), &bare.out);
    assert_eq!(copied.code, 2, "a destination that signs in cannot be made without its token: {}", copied.err);
    assert!(copied.err.contains("-: destinations.1.credentials.token"), "{}", copied.err);
    let with_token = bare.out.replace("name: notifications", "name: notifications\n  credentials: {token: t}");
    let copied = ended(&mut command(&user, &two, &["apply", "-f", "-", "--secrets-to", "made"]), &with_token);
    assert_eq!(copied.code, 0, "{}\n{with_token}", copied.err);
    let made = std::fs::read_to_string(user.home().join("made")).unwrap();
    assert!(made.contains("webhook Text messages/reports") && !copied.out.contains("whsec_"), "{made}");
    assert_eq!(run(&user, &two, &["export", "--without-secrets"]).out, bare.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_or_nothing_and_each_fault_at_its_place() {
    let server = Hookmill::start_with(&[]);
    let user = User::new();
    let document = |text: &str| user.write("a.yaml", text);
    let apply = |file: &str| run(&user, &server, &["apply", "-f", file]);
    let other = server.integration("generic_hmac", "held").await;
    let reserved = json!({"integration_id": other, "name": "reserved", "path": "reserved"});
    server.create("/webhooks", reserved).await;
    let deleted = server.admin(Method::DELETE, "/webhooks/2", None).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let shop = "integrations:\n- name: Shop\n  type: custom\n  environment: staging\n";
    for (more, code, words) in [
        ("  webhooks:\n  - name: w\n    pth: x\n", 2, "a.yaml: integrations.0.webhooks.0.pth: is not known"),
        ("  subscriptions:\n  - name: s\n    destination: gone\n", 2, "names no destination"),
        (
            "  webhooks:\n  - {name: w, path: a}\n  - {name: v, path: a}\n",
            2,
            "webhooks.1.path: is that of another webhook",
        ),
        (
            "  webhooks:\n  - {name: w}\n  - {name: v, path: held}\n",
            5,
            "integrations.0.webhooks.1.path: is already used by webhook endpoint 1",
        ),
        (
            "  webhooks:\n  - {name: w, path: reserved}\n",
            5,
            "integrations.0.webhooks.0.path: is reserved for webhook endpoint 2, which is deleted",
        ),
        ("  webhooks:\n  - {name: w}\n  - {name: w}\n", 2, "integrations.0.webhooks.1.name"),
        ("  credentials: {key: '***'}\n", 2, "integrations.0.credentials.key: is `***`"),
        ("- name: Shop\n  type: custom\n  environment: staging\n", 2, "integrations.1.name"),
        ("  provider: nonsense\n", 2, "is no provider"),
        ("  activate: after_test\n", 2, "is not possible here"),
    ] {
        let file = document(&format!("{shop}{more}"));
        let refused = apply(&file);
        assert_eq!(refused.code, code, "{more}: {}", refused.err);
        assert!(refused.err.contains(words), "{more}: {}", refused.err);
    }
    assert_eq!(server.get("/integrations").await["total"], 1, "nothing half applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_webhooks_swap_their_paths_in_one_step() {
    let server = Hookmill::start_with(&[]);
    let user = User::new();
    let apply = |one: &str, other: &str| {
        let text = format!(
            "integrations:\n- name: Shop\n  type: custom\n  environment: staging\n  webhooks:\n  - {{name: one, path: \
             {one}}}\n  - {{name: other, path: {other}}}\n"
        );
        let file = user.write("a.yaml", &text);
        let applied = run(&user, &server, &["apply", "-f", &file, "--json"]);
        assert_eq!(applied.code, 0, "{}", applied.err);
    };
    apply("a", "b");
    apply("b", "a");
    let paths = ["/webhooks/1", "/webhooks/2"].map(async |path| server.get(path).await["path"].clone());
    let [one, other] = paths;
    assert_eq!((one.await, other.await), ("/b".into(), "/a".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_to_be_stays_and_what_is_chosen_changes() {
    let server = Hookmill::start();
    let user = User::new();
    let apply = |text: &str, more: &[&str]| {
        let file = user.write("a.yaml", text);
        run(&user, &server, &[&["apply", "-f", &file], more].concat())
    };
    let text = "destinations:\n- name: d\n  settings: {url: 'http://127.0.0.1:9/a'}\nintegrations:\n- name: Shop\n  \
                type: custom\n  environment: staging\n  description: x\n  webhooks:\n  - name: w\n  subscriptions:\n  \
                - {name: s, destination: d}\n";
    let made = apply(text, &["--json"]).json();
    let parts = made["changes"].as_array().unwrap();
    let secret = parts.iter().find(|it| it["kind"] == "webhook").unwrap()["made"]["secret"].as_str().unwrap();
    let path = server.get("/webhooks/1").await["path"].clone();
    assert!(secret.starts_with("whsec_"), "{made}");

    // Paused by itself, as after a 410; the document says nothing of it.
    let paused = user.on(&server, &["destinations", "update", "d", "--status", "paused"]);
    assert_eq!(paused.code, 0, "{}", paused.err);
    assert!(apply(text, &[]).out.starts_with("nothing to change"));

    let changed = apply(&text.replace("description: x", "description: y").replace("/a'", "/b'"), &[]);
    assert!(
        changed.out.contains("~ destination d\n    settings.url: \"http://127.0.0.1:9/a\" -> \"http://127.0.0.1:9/b\"")
    );
    assert!(changed.out.contains("description: \"x\" -> \"y\""), "{}", changed.out);
    assert!(changed.out.contains("0 created, 2 changed, 0 deleted, 2 unchanged"), "{}", changed.out);
    let webhook = server.get("/webhooks/1").await;
    assert_eq!((&webhook["path"], webhook["secrets"].as_array().unwrap().len()), (&path, 1));
    assert_eq!(server.get("/destinations/1").await["status"], "paused");

    // A secret that is given is rotated in: the former one holds for a while.
    let rotated = apply(&text.replace("- name: w", "- name: w\n    secret: planted-other-4711"), &[]);
    assert!(rotated.out.contains("~ webhook Shop/w\n    secret: ***, changed"), "{}", rotated.out);
    assert_eq!(server.get("/webhooks/1").await["secrets"].as_array().unwrap().len(), 2);

    // A member that is left out has its default.
    let cleared = apply(&text.replace("  description: x\n", ""), &[]);
    assert!(cleared.out.contains("description: \"x\""), "{}", cleared.out);
    assert_eq!(server.get("/integrations/1").await["description"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_takes_what_was_applied_and_leaves_what_was_made_by_hand() {
    let server = Hookmill::start();
    let user = User::new();
    let by_hand = json!({"name": "by hand", "type": "custom", "environment": "staging"});
    let kept = server.create("/integrations", by_hand).await["id"].clone();
    let apply = |text: &str, more: &[&str]| {
        let file = user.write("a.yaml", text);
        run(&user, &server, &[&["apply", "-f", &file], more].concat())
    };
    let destination = |name: &str| format!("- name: {name}\n  settings: {{url: 'http://127.0.0.1:9/'}}\n");
    let shop = "integrations:\n- name: Shop\n  type: custom\n  environment: staging\n  webhooks: [{name: w}]\n  \
                subscriptions: [{name: s, destination: a}]\n";
    let whole = format!("destinations:\n{}{}{shop}", destination("a"), destination("b"));
    assert_eq!(apply(&whole, &[]).code, 0);
    let hand_made = json!({"integration_id": 2, "name": "by hand too"});
    server.create("/webhooks", hand_made).await;

    let less = format!("destinations:\n{}{}", destination("b"), shop.replace("  webhooks: [{name: w}]\n", ""))
        .replace("destination: a", "destination: b");
    let left = apply(&less, &[]);
    assert!(left.out.contains("0 created, 1 changed, 0 deleted"), "nothing goes unasked: {}", left.out);
    let pruned = apply(&less, &["--prune"]);
    assert!(
        pruned.out.contains("- webhook Shop/w\n- destination a\n0 created, 0 changed, 2 deleted"),
        "{}",
        pruned.out
    );
    assert_eq!(server.get("/webhooks").await["total"], 1, "what was made by hand stays");

    let all = apply("destinations: []\n", &["--prune"]);
    assert!(all.out.contains("- integration Shop\n") && all.out.contains("- webhook Shop/by hand too"), "{}", all.out);
    let integrations = server.get("/integrations").await;
    assert_eq!((&integrations["total"], &integrations["items"][0]["id"]), (&json!(1), &kept));
    assert_eq!(server.get("/destinations").await["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_refused_where_a_name_stands_for_two_things() {
    let server = Hookmill::start();
    let user = User::new();
    // A `store` has no settings to give.
    let kept = user.write("kept.yaml", "destinations:\n- {name: kept, type: store}\n");
    assert_eq!(run(&user, &server, &["apply", "-f", &kept]).code, 0);
    let shop = json!({"name": "Shop", "type": "custom", "environment": "staging"});
    for _ in 0..2 {
        server.create("/integrations", shop.clone()).await;
    }
    let refused = run(&user, &server, &["export"]);
    assert_eq!((refused.code, &*refused.out), (5, ""));
    assert!(refused.err.contains("`Shop` is the name of the integrations 1, 2"), "{}", refused.err);
    server.create("/webhooks", json!({"integration_id": 1, "name": "w"})).await;
    assert_eq!(user.on(&server, &["integrations", "update", "2", "--name", "Shop 2"]).code, 0);
    assert_eq!(run(&user, &server, &["export"]).code, 0);
    server.create("/webhooks", json!({"integration_id": 1, "name": "w"})).await;
    let refused = run(&user, &server, &["export"]);
    assert!(refused.err.contains("`w` is the name of the webhooks of integration 1 "), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_applied_than_what_was_shown() {
    let server = Hookmill::start();
    let body = |name: &str| json!({"destinations": [{"name": name, "settings": {"url": "http://127.0.0.1:9/"}}]});
    let with = |mut body: Value, name: &str, value: Value| {
        body[name] = value;
        body
    };
    let post = async |body: Value| server.admin(hyper::Method::POST, "/apply", Some(body)).await;
    let plan = post(with(body("a"), "dry_run", json!(true))).await.json();
    assert_eq!(plan["changes"][0]["id"], Value::Null);
    server.create("/destinations", body("a")["destinations"][0].clone()).await;
    let refused = post(with(body("a"), "plan", plan["plan"].clone())).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (412, &json!("version_conflict")));
    let plan = post(with(body("b"), "dry_run", json!(true))).await.json();
    let done = post(with(body("b"), "plan", plan["plan"].clone())).await;
    assert_eq!(done.json()["summary"]["create"], 1);
}
