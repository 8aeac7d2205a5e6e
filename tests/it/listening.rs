//! `hookmill listen`: events of a server at a service on the developer's machine.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use crate::{
    harness::{Hookmill, Sink, TOKEN, signature_holds, status},
    operating::User,
};

/// More than any test has a listener say.
const LINES_MAX: usize = 1_000;

/// A listener that runs; killed when dropped.
struct Listener {
    child: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
}

impl Listener {
    fn start(user: &User, url: &str, args: &[&str]) -> Self {
        let mut command = user.command(&[&["listen"], args].concat());
        command.env("HOOKMILL_URL", url).env("HOOKMILL_TOKEN", TOKEN);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = lines(child.stdout.take().unwrap());
        let err = lines(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    fn said(lines: &mpsc::Receiver<String>) -> String {
        lines.recv_timeout(Duration::from_secs(30)).expect("it says something")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A door that stays while the server behind it is another one.
async fn door(behind: Arc<Mutex<Option<SocketAddr>>>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let target = *behind.lock().unwrap();
            tokio::spawn(async move {
                let Some(target) = target else { return };
                let Ok(mut server) = tokio::net::TcpStream::connect(target).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_signed_to_a_local_service_and_its_answers_are_shown() {
    let server = Hookmill::start();
    server.integration("generic_hmac", "in").await;
    server.post_signed("in", r#"{"id":"before"}"#).await;
    let service = Sink::start().await;
    service.answers(|count, _| status(if count == 2 { 500 } else { 200 }));
    let user = User::new();
    let url = format!("http://{}/hooks", service.address);
    let listener = Listener::start(&user, &format!("http://{}", server.admin), &["--forward", &url]);
    assert!(Listener::said(&listener.err).starts_with("ready"));
    let secret = Listener::said(&listener.err).strip_prefix("signed with ").unwrap().to_owned();

    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(server.post_signed("in", &format!("{{\"id\":\"e-{number}\",\"type\":\"t\"}}")).await);
    }
    let got = service.until("three events", |got| got.len() == 3).await;
    assert_eq!(got.iter().map(crate::harness::Received::id).collect::<Vec<_>>(), ids, "in order, and none of before");
    for (number, delivery) in got.iter().enumerate() {
        assert_eq!(delivery.body, format!("{{\"id\":\"e-{number}\",\"type\":\"t\"}}"));
        assert_eq!(delivery.headers["content-type"], "application/json");
        assert!(signature_holds(&secret, delivery));
    }
    let shown: Vec<String> = (0..3).map(|_| Listener::said(&listener.out)).collect();
    assert!(shown[0].contains(&ids[0]) && shown[0].contains("-> 200 OK in "), "{shown:?}");
    assert!(shown[1].contains("-> 500 Internal Server Error"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_is_tried_again_and_nothing_is_left_out() {
    let server = Hookmill::start();
    server.integration("generic_hmac", "in").await;
    let behind = Arc::new(Mutex::new(Some(server.admin)));
    let address = door(behind.clone()).await;
    let user = User::new();
    let secret = user.write("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let service = Sink::start().await;
    let url = format!("http://{}/", service.address);
    let args =
        ["--forward", &url, "--secret-file", &secret, "--types", "order.*", "--filter", "body.id != '5'", "--jsonl"];
    let listener = Listener::start(&user, &format!("http://{address}"), &args);
    assert!(Listener::said(&listener.err).starts_with("ready"));
    let first = server.post_signed("in", r#"{"id":"1","type":"order.paid"}"#).await;
    service.until("the first", |got| got.len() == 1).await;

    *behind.lock().unwrap() = None;
    let server = server.kill().start();
    let missed = server.post_signed("in", r#"{"id":"2","type":"order.sent"}"#).await;
    server.post_signed("in", r#"{"id":"3","type":"other"}"#).await;
    server.post_signed("in", r#"{"id":"5","type":"order.other"}"#).await;
    assert!(Listener::said(&listener.err).contains("trying again"));
    *behind.lock().unwrap() = Some(server.admin);
    let last = server.post_signed("in", r#"{"id":"4","type":"order.back"}"#).await;
    let got = service.until("the others", |got| got.len() == 3).await;
    let ids: Vec<String> = got.iter().map(crate::harness::Received::id).collect();
    assert_eq!(ids, [first, missed, last]);
    let line: serde_json::Value = serde_json::from_str(&Listener::said(&listener.out)).unwrap();
    assert_eq!((&line["event_type"], &line["answer"]["status"]), (&"order.paid".into(), &200.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_its_reader() {
    let server = Hookmill::start();
    server.integration("generic_hmac", "in").await;
    let user = User::new();
    let mut listener = Listener::start(&user, &format!("http://{}", server.admin), &["--count", "1000"]);
    assert!(Listener::said(&listener.err).starts_with("ready"));
    drop(std::mem::replace(&mut listener.out, mpsc::sync_channel(1).1));
    let deadline = Instant::now() + Duration::from_secs(30);
    let ended = loop {
        // The first of them is still taken: a pipe is only known to be closed once something is written into it.
        server.post_signed("in", r#"{"type":"t"}"#).await;
        if let Some(ended) = listener.child.try_wait().unwrap() {
            break ended;
        }
        assert!(Instant::now() < deadline, "it goes on for nobody");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(ended.success(), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_ends_at_once() {
    let server = Hookmill::start();
    let user = User::new();
    for (args, code) in [
        (["listen", "--forward", "localhost:3000"].as_slice(), 2),
        (&["listen", "--integration", "Shop"], 3),
        (&["listen", "--forward", "http://127.0.0.1:9/", "--secret-file", "/no/such/file"], 2),
    ] {
        let done = user.on(&server, args);
        assert_eq!(done.code, code, "{args:?}: {}", done.err);
    }
}
