//! Starts hookmill as an operator would, and a service for it to deliver to.

use std::{
    collections::BTreeSet,
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

pub(crate) const TOKEN: &str = "hm_test-token-0123456789abcdef";
pub(crate) const SECRET: &str = "whsec_test_0123456789abcdef0123456789abcdef";

/// A running hookmill; killed when dropped.
pub(crate) struct Hookmill {
    child: Child,
    pub(crate) ingress: SocketAddr,
    pub(crate) admin: SocketAddr,
    data: Arc<TempDir>,
    flags: Vec<String>,
    client: Client<HttpConnector, Full<Bytes>>,
    record: Option<Record>,
}

/// Every exchange with a server, in order.
pub(crate) type Record = Arc<Mutex<Vec<Exchange>>>;

/// What was asked for, and the whole reply.
pub(crate) struct Exchange {
    pub(crate) asked: String,
    pub(crate) reply: Vec<u8>,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookmill"));
    command.env("HOOKMILL_ADMIN_TOKEN", TOKEN).env("NO_COLOR", "1");
    command
}

impl Hookmill {
    /// On an empty directory, with loopback destinations allowed.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--dev"])
    }

    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_on(Arc::new(TempDir::new().unwrap()), flags)
    }

    /// On a data directory that is there. Its log goes elsewhere.
    pub(crate) fn start_in(data_dir: &Path, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_at(Arc::new(TempDir::new().unwrap()), data_dir.to_owned(), flags)
    }

    fn start_on(data: Arc<TempDir>, flags: Vec<String>) -> Self {
        let data_dir = data.path().join("data");
        Self::start_at(data, data_dir, flags)
    }

    /// On an empty directory, as [`Hookmill::start`], in an environment of its own.
    pub(crate) fn start_by(command: Command) -> Self {
        let data = Arc::new(TempDir::new().unwrap());
        let data_dir = data.path().join("data");
        Self::spawn(command, data, data_dir, vec!["--dev".to_owned()])
    }

    fn start_at(data: Arc<TempDir>, data_dir: PathBuf, flags: Vec<String>) -> Self {
        Self::spawn(command(), data, data_dir, flags)
    }

    fn spawn(mut command: Command, data: Arc<TempDir>, data_dir: PathBuf, flags: Vec<String>) -> Self {
        let log = File::options().create(true).append(true).open(data.path().join("stderr.log")).unwrap();
        let mut child = command
            .args(["serve", "--ingress", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(&flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut addresses = HashMap::new();
        let mut said = File::options().create(true).append(true).open(data.path().join("stdout.log")).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref() {
            let line = line.unwrap();
            writeln!(said, "{line}").unwrap();
            for name in ["webhooks", "admin API"] {
                if let Some(url) = line.trim().strip_prefix(name) {
                    let host = url.trim().trim_start_matches("http://").split('/').next().unwrap();
                    addresses.insert(name, host.parse::<SocketAddr>().unwrap());
                }
            }
            if addresses.len() == 2 {
                break;
            }
        }
        let Some((ingress, admin)) = addresses.get("webhooks").copied().zip(addresses.get("admin API").copied()) else {
            let log = std::fs::read_to_string(data.path().join("stderr.log")).unwrap_or_default();
            panic!("hookmill did not start: {log}");
        };
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| writeln!(said, "{line}")));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { child, ingress, admin, data, flags, client, record: None }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data.path().join("data")
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Keeps every exchange from now on.
    pub(crate) fn recorded(mut self, record: &Record) -> Self {
        self.record = Some(record.clone());
        self
    }

    /// What it wrote to its log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("stderr.log")).unwrap()
    }

    /// As `kill -9` does.
    pub(crate) fn kill(mut self) -> Stopped {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        Stopped { data: self.data.clone(), flags: self.flags.clone() }
    }

    /// As an init system does; waits for a clean end.
    pub(crate) fn terminate(self) -> Stopped {
        self.signal("TERM");
        let (code, said, stopped) = self.ended();
        assert_eq!(code, Some(0), "{said}");
        stopped
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end: exit code, what it wrote to its log, and what it leaves.
    pub(crate) fn ended(mut self) -> (Option<i32>, String, Stopped) {
        let began = Instant::now();
        let ended = loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                break ended;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        };
        (ended.code(), self.log(), Stopped { data: self.data.clone(), flags: self.flags.clone() })
    }

    pub(crate) async fn request(&self, request: Request<Full<Bytes>>) -> Reply {
        let asked = format!("{} {}", request.method(), request.uri().path());
        let response = self.client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if let Some(record) = &self.record {
            let head = format!("{} {:?}\n", parts.status, parts.headers);
            let reply = [head.as_bytes(), &body].concat();
            record.lock().unwrap().push(Exchange { asked, reply });
        }
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}/api/v1{path}", self.admin))
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/json")
            .body(Full::from(body.map(|body| body.to_string()).unwrap_or_default()))
            .unwrap();
        self.request(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let reply = self.admin(Method::GET, path, None).await;
        assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
        reply.json()
    }

    pub(crate) async fn create(&self, path: &str, body: Value) -> Value {
        let reply = self.admin(Method::POST, path, Some(body)).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
        reply.json()
    }

    /// An integration of that provider with an endpoint at `/{path}`, whose secret is [`SECRET`].
    pub(crate) async fn integration(&self, provider: &str, path: &str) -> u64 {
        let integration = self
            .create(
                "/integrations",
                json!({"name": provider, "type": "custom", "provider": provider, "environment": "development",
                       "configuration": {}, "credentials": {"api_key": "sk_test_planted_credential"}}),
            )
            .await;
        let id = integration["id"].as_u64().unwrap();
        self.create("/webhooks", json!({"integration_id": id, "name": path, "path": path, "secret": SECRET})).await;
        id
    }

    /// A destination at that address with a subscription of the integration to it: (destination, subscription).
    pub(crate) async fn deliver_to(&self, integration: u64, sink: &Sink, retry: Value) -> (Value, Value) {
        let url = format!("http://{}/hook", sink.address);
        let settings = json!({"url": url, "timeout_ms": 2_000});
        let destination =
            self.create("/destinations", json!({"name": "sink", "type": "http", "settings": settings})).await;
        let subscription = self
            .create(
                "/subscriptions",
                json!({"integration_id": integration, "destination_id": destination["id"], "name": "all",
                       "in_flight_max": 64, "retry": retry}),
            )
            .await;
        (destination, subscription)
    }

    /// Posts a webhook as it is.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let mut request = Request::post(format!("http://{}/webhooks/receive/{path}", self.ingress))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.request(request.body(Full::from(body.into())).unwrap()).await
    }

    /// Posts a webhook signed with [`SECRET`] under the default generic scheme; its event id.
    pub(crate) async fn post_signed(&self, path: &str, body: &str) -> String {
        let reply =
            self.post(path, &[("x-signature", &hex_hmac(SECRET.as_bytes(), body.as_bytes()))], body.to_owned()).await;
        assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
        let reply = reply.json();
        assert_eq!(reply["status"], "success");
        reply["event_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn dead_letters(&self) -> Vec<Value> {
        self.get("/deadletters").await["items"].as_array().unwrap().clone()
    }
}

impl Drop for Hookmill {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A hookmill that was stopped, with its data.
pub(crate) struct Stopped {
    data: Arc<TempDir>,
    flags: Vec<String>,
}

impl Stopped {
    pub(crate) fn start(self) -> Hookmill {
        Hookmill::start_on(self.data, self.flags)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// Starts it and waits for it to give up: exit code and what it said.
    pub(crate) fn start_refused(&self, flags: &[&str]) -> (i32, String) {
        let mut child = command()
            .args(["serve", "--dev", "--ingress", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
            .arg(self.data_dir())
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if began.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub(crate) fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self
    }
}

pub(crate) fn hex_hmac(key: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// Whether a delivery is signed by Standard Webhooks' rules with this secret.
pub(crate) fn signature_holds(secret: &str, delivery: &Received) -> bool {
    let header = |name: &str| delivery.headers.get(name).unwrap().to_str().unwrap().to_owned();
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&delivery.body);
    header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// A delivery as the service got it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn id(&self) -> String {
        self.headers["webhook-id"].to_str().unwrap().to_owned()
    }
}

type Answer = dyn Fn(usize, &Received) -> Response<Full<Bytes>> + Send + Sync;

/// A service that keeps what it gets and answers as told.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<Arc<Answer>>>,
}

pub(crate) fn status(code: u16) -> Response<Full<Bytes>> {
    Response::builder().status(code).body(Full::from("")).unwrap()
}

impl Sink {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            answer: Arc::new(Mutex::new(Arc::new(|_, _: &Received| status(200)))),
        };
        let (received, answer) = (sink.received.clone(), sink.answer.clone());
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (received, answer) = (received.clone(), answer.clone());
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (received, answer) = (received.clone(), answer.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let got = Received { headers: parts.headers, body: body.collect().await?.to_bytes() };
                        let count = {
                            let mut received = received.lock().unwrap();
                            received.push(got.clone());
                            received.len()
                        };
                        let answer = answer.lock().unwrap().clone();
                        Ok::<_, hyper::Error>(answer(count, &got))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        sink
    }

    /// From now on it answers so; the first argument counts what it got.
    pub(crate) fn answers(&self, answer: impl Fn(usize, &Received) -> Response<Full<Bytes>> + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until something holds of what was received.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        wait_for(what, async || {
            let received = self.received();
            holds(&received).then_some(received)
        })
        .await
    }
}

/// Looks again and again until there is something to see; gives up after half a minute.
pub(crate) async fn wait_for<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every byte below a directory that looks like this text: for planted secrets.
pub(crate) fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

/// The ids of all stored events, page by page.
pub(crate) async fn every_event(hookmill: &Hookmill) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut page = "/events?limit=1000".to_owned();
    loop {
        let listed = hookmill.get(&page).await;
        ids.extend(listed["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match listed["next"].as_str() {
            Some(next) => page = format!("/events?limit=1000&before={next}"),
            None => return ids,
        }
    }
}
