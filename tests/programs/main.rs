//! jq programs in the real worker processes: what loops, eats memory or recurses costs its event and nothing else.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hookmill::programs::{Engines, ProgramOptions};
use hookmill_actors::{
    domain::{
        event::{Arrival, Event, Identity},
        headers::HeaderBlock,
        ids::{EndpointId, EventId, IntegrationId, SubscriptionId},
        transform::Transform,
    },
    ports::program::{Programs, RenderFault, Rendered, Subject, Transformer},
};

fn engines(change: impl FnOnce(&mut ProgramOptions)) -> Engines {
    let mut options = ProgramOptions {
        worker: PathBuf::from(env!("CARGO_BIN_EXE_hookmill")),
        deadline: Duration::from_secs(2),
        ..ProgramOptions::default()
    };
    change(&mut options);
    Engines::new(options)
}

fn jq(engines: &Engines, program: &str) -> Arc<dyn Transformer> {
    let transform = Transform::Jq { program: program.to_owned() };
    engines.transformer(&transform, &[].into()).expect("it compiles").expect("it transforms")
}

fn subject(body: &str) -> Subject {
    Subject {
        event: Arc::new(Event {
            id: EventId::at_millis(1_767_225_600_000),
            arrival: Arrival {
                endpoint: EndpointId(3),
                received_at_ms: 1_767_225_600_000,
                accepted_version: 1,
                peer: Ipv4Addr::LOCALHOST.into(),
                hops: 0,
                query: "a=1".into(),
                headers: HeaderBlock::from_lines([("x-shop", b"ashgrove".as_slice())]),
                body: Bytes::copy_from_slice(body.as_bytes()),
            },
        }),
        identity: Identity { event_type: Some("order.paid".into()), provider_id: None },
        integration: (IntegrationId(7), "shop".into()),
        subscription: SubscriptionId(9),
        naming: None,
    }
}

async fn rendered(transformer: &Arc<dyn Transformer>, body: &str) -> Result<String, String> {
    let made = transformer.render(&subject(body)).await.map_err(|fault| fault.to_string())?;
    let Rendered { content_type, body, .. } = made;
    assert_eq!(content_type.as_deref(), Some("application/json"));
    Ok(String::from_utf8(body.to_vec()).expect("JSON is text"))
}

#[tokio::test]
async fn a_program_rewrites_the_body() {
    let engines = engines(|_| {});
    let program = jq(&engines, "{id: .order.id, type: $event.type, shop: $headers[\"x-shop\"], q: $query.a}");
    let made = rendered(&program, r#"{"order":{"id":12345678901234567890}}"#).await;
    assert_eq!(made.as_deref(), Ok(r#"{"id":12345678901234567890,"type":"order.paid","shop":"ashgrove","q":"1"}"#));
    assert_eq!(rendered(&jq(&engines, ". == null"), "no JSON").await.as_deref(), Ok("true"));
}

#[tokio::test]
async fn what_misbehaves_costs_its_event_only() {
    let engines = engines(|_| {});
    let good = jq(&engines, ".a");
    for (what, program, words) in [
        ("loops", "last(repeat(1))", "longer than 2s"),
        ("loops in a definition", "def f: f; f", "longer than 2s"),
        ("eats memory", "[range(1e12)]", "was stopped"),
        ("grows a text", "last(limit(60; \"x\" | recurse(. + .)))", "memory"),
        ("yields for ever", "repeat(1)", "more than one value"),
        ("yields too much", "[range(300000)]", "more than 1048576 bytes"),
        ("is deep", "reduce range(100000) as $i (0; [.])", ""),
        ("recurses", "def f: [f]; f", ""),
        ("ends the process", "halt", "halts"),
        ("fails", ".a.b.c", "failed"),
    ] {
        let program = jq(&engines, program);
        let began = Instant::now();
        let fault = rendered(&program, r#"{"a":"planted-4711"}"#).await.expect_err(what);
        assert!(fault.contains(words), "{what}: {fault}");
        assert!(!fault.contains("planted"), "{what}: {fault}");
        assert!(began.elapsed() < Duration::from_secs(15), "{what} took {:?}", began.elapsed());
        assert_eq!(rendered(&good, r#"{"a":7}"#).await.as_deref(), Ok("7"), "after one that {what}");
    }
}

#[tokio::test]
async fn one_subscription_that_loops_leaves_workers_to_others() {
    let engines = engines(|options| options.deadline = Duration::from_secs(3));
    let (bad, good) = (jq(&engines, "last(repeat(1))"), jq(&engines, ".a"));
    let looping: Vec<_> = (0..8)
        .map(|_| {
            let bad = bad.clone();
            tokio::spawn(async move { rendered(&bad, "{}").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    for number in 0..20 {
        assert_eq!(rendered(&good, &format!(r#"{{"a":{number}}}"#)).await, Ok(number.to_string()));
    }
    assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
    assert!(!looping[0].is_finished() || !looping[7].is_finished(), "they were looping all the while");
    looping.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_abandoned_event_does_not_keep_a_worker() {
    let engines = engines(|options| {
        options.workers = 1;
        options.deadline = Duration::from_secs(600);
    });
    let (bad, good) = (jq(&engines, "last(repeat(1))"), jq(&engines, ".a"));
    let looping = rendered(&bad, "{}");
    assert!(tokio::time::timeout(Duration::from_millis(500), looping).await.is_err(), "it loops");
    let made = tokio::time::timeout(Duration::from_secs(20), rendered(&good, r#"{"a":1}"#)).await;
    assert_eq!(made.expect("there is a worker").as_deref(), Ok("1"));
}

#[tokio::test]
async fn a_worker_sees_nothing_of_the_process() {
    let engines = engines(|_| {});
    for program in ["$ENV", "env", "$__loc__", "input_filename", "import \"a\" as a; .", "include \"/etc/passwd\"; ."] {
        let transform = Transform::Jq { program: program.to_owned() };
        match engines.transformer(&transform, &[].into()) {
            Err(fault) => assert_eq!(fault.field, "transform.program"),
            Ok(made) => {
                let made = rendered(&made.expect("it transforms"), "{}").await.unwrap_or_default();
                assert!(!made.contains("PATH") && !made.contains("root"), "{program}: {made}");
            }
        }
    }
}

#[test]
fn a_wrong_program_is_refused_with_its_place() {
    let engines = engines(|_| {});
    for (program, words) in [
        (".a |", "line 1, column 5"),
        (".\n| nofun", "line 2, column 3: there is no filter `nofun`"),
        ("", "is empty"),
        (&"(".repeat(16_000), ""),
        (&format!("{}1", "[".repeat(10_000)), ""),
        (&"x".repeat(17_000), "at most 16384"),
    ] {
        let transform = Transform::Jq { program: program.to_owned() };
        let Err(fault) = engines.transformer(&transform, &[].into()) else { panic!("`{program}` compiles") };
        assert_eq!(fault.field, "transform.program");
        assert!(fault.problem.contains(words), "{fault}");
        let shown = fault.problem.len();
        assert!(shown < 400, "{shown} bytes are too much for an error");
    }
    assert!(engines.transformer(&Transform::Jq { program: ".".to_owned() }, &[].into()).is_ok(), "the next is fine");
}

#[test]
fn a_binary_that_is_no_worker_is_named() {
    for worker in ["/bin/true", "/nonexistent/hookmill"] {
        let engines = engines(|options| options.worker = worker.into());
        let transform = Transform::Jq { program: ".".to_owned() };
        let Err(fault) = engines.transformer(&transform, &[].into()) else { panic!("`{worker}` is taken") };
        assert!(fault.problem.contains(worker), "{fault}");
    }
}

#[tokio::test]
async fn without_a_worker_the_engine_is_unavailable_and_no_event_is_at_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let worker = folder.path().join("hookmill");
    let install = |binary: &str| {
        let _ = std::fs::remove_file(&worker);
        std::os::unix::fs::symlink(binary, &worker).expect("a link");
    };
    install(env!("CARGO_BIN_EXE_hookmill"));
    let engines = engines(|options| options.worker.clone_from(&worker));
    let program = jq(&engines, ".a");
    for (binary, words) in [("/nonexistent/hookmill", "cannot be started"), ("/bin/true", "does not answer")] {
        install(binary);
        let fault = program.render(&subject(r#"{"a":1}"#)).await.expect_err("there is no worker");
        let RenderFault::EngineUnavailable(reason) = fault else { panic!("the event is blamed: {fault}") };
        assert!(reason.contains(words), "{reason}");
    }
    install(env!("CARGO_BIN_EXE_hookmill"));
    assert_eq!(rendered(&program, r#"{"a":1}"#).await.as_deref(), Ok("1"), "it is asked for again each time");
}
