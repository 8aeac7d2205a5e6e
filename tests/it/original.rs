//! The module that hookmill replaces, as its callers knew it: each of its known faults, looked for from their side.
//! The numbers are those of the list that hookmill was designed against.

mod configuring;
mod delivering;
mod securing;
mod testing;

use std::io::Write;

use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Hookmill, Reply, SECRET, Sink, TOKEN, hex_hmac};

/// A caller of the original, who changed the host name.
pub(crate) struct Caller {
    pub(crate) hookmill: Hookmill,
}

impl Caller {
    pub(crate) fn new() -> Self {
        Self { hookmill: Hookmill::start() }
    }

    /// With settings of their own, and loopback destinations allowed.
    pub(crate) fn with_settings(settings: &str) -> Self {
        Self { hookmill: Hookmill::start_with(&["--dev", "--config", &settings_file(settings)]) }
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}/integration-management{path}", self.hookmill.admin))
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/json")
            .body(body.map(|body| body.to_string()).unwrap_or_default().into())
            .unwrap();
        self.hookmill.request(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let reply = self.call(Method::GET, path, None).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {:?}", reply.body);
        reply.json()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let reply = self.call(Method::POST, path, Some(body)).await;
        assert!(reply.status.is_success(), "{path}: {:?}", reply.body);
        reply.json()
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        let reply = self.call(Method::PUT, path, Some(body)).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {:?}", reply.body);
        reply.json()
    }

    /// An integration with that configuration and credentials; its number.
    pub(crate) async fn integration(&self, kind: &str, configuration: Value, credentials: Value) -> u64 {
        let body = json!({"name": kind, "type": kind, "environment": "development", "configuration": configuration,
                          "credentials": credentials});
        self.post("/integrations/", body).await["id"].as_u64().unwrap()
    }

    /// A payment integration with an endpoint at `/shop` whose secret is [`SECRET`]; its number.
    pub(crate) async fn shop(&self) -> u64 {
        let id = self.integration("payment_gateway", json!({}), json!({"api_key": "sk_test_planted_credential"})).await;
        self.post("/webhooks/", json!({"integration_id": id, "name": "shop", "path": "/shop", "secret_key": SECRET}))
            .await;
        id
    }

    /// The same, delivered to a service without retries longer than these.
    pub(crate) async fn shop_to(&self, sink: &Sink, schedule_s: &[u64]) -> u64 {
        let id = self.shop().await;
        self.hookmill.deliver_to(id, sink, json!({"schedule_s": schedule_s})).await;
        id
    }

    /// Posts to the original's receiver.
    pub(crate) async fn receive(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request =
            Request::post(format!("http://{}/integration-management/webhooks/receive/{path}", self.hookmill.ingress))
                .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.hookmill.request(request.body(body.to_owned().into()).unwrap()).await
    }

    /// The same with a signature that holds; the event's id.
    pub(crate) async fn received(&self, path: &str, body: &str) -> String {
        let reply = self.receive(path, &[("X-Signature", &signed(body))], body).await;
        assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
        let reply = reply.json();
        assert_eq!(reply["status"], "success");
        reply["event_id"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn signed(body: &str) -> String {
    hex_hmac(SECRET.as_bytes(), body.as_bytes())
}

/// Kept until the process ends: hookmill reads it at its start only, and the system clears its folder.
fn settings_file(settings: &str) -> String {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(settings.as_bytes()).unwrap();
    let (_, path) = file.keep().unwrap();
    path.to_str().unwrap().to_owned()
}
