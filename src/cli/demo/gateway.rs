//! The demo's hookmill, set up through its own admin API and fed with webhooks signed as the providers sign.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, bail};
use hookmill_actors::{
    domain::secret::Secret,
    metrics::Report,
    ports::{clock::Clock, provider::Providers},
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Map, Value, json};

use super::{
    PROVIDERS,
    service::{SHAKY, STEADY, Service},
};
use crate::{
    app::{App, SystemClock},
    cli::ServeOptions,
    providers::registry,
    secrets::{Token, random_bytes},
    settings::{Overrides, Settings, SettingsSources},
};

/// A hookmill on free ports, and a client of it.
pub(super) struct Gateway {
    app: App,
    token: Token,
    secrets: HashMap<&'static str, Secret>,
    destinations: u64,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Gateway {
    pub(super) async fn start(dir: &Path, service: &Service) -> anyhow::Result<Self> {
        let free = "127.0.0.1:0".parse().ok();
        let overrides = Overrides { data_dir: Some(dir.join("data")), ingress: free, admin: free, dev: true };
        let settings = Settings::load(SettingsSources { config_file: None, environment: Vec::new(), overrides })?;
        let token = Token::generate();
        let options = ServeOptions { start_empty: false, dev: true };
        let app = App::start(&settings, options, token.hash()).await?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut gateway = Self { app, token, secrets: HashMap::new(), destinations: 0, client };
        gateway.configure(service).await?;
        Ok(gateway)
    }

    /// Subscriptions that each event goes to.
    pub(super) fn subscriptions_each(&self) -> u64 {
        self.destinations
    }

    async fn configure(&mut self, service: &Service) -> anyhow::Result<()> {
        let mut destinations = Vec::new();
        for path in [STEADY, SHAKY] {
            let settings = json!({"url": format!("http://{}{path}", service.address)});
            let body = json!({"name": path.trim_start_matches('/'), "type": "http", "settings": settings});
            destinations.push(self.create("/destinations", body).await?);
            self.destinations += 1;
        }
        for name in PROVIDERS {
            let provider = registry().get(name).context("the demo's provider is registered")?;
            let secret = provider.new_secret(&random_bytes());
            let body = json!({"name": name, "type": "custom", "provider": name, "environment": "development",
                              "configuration": {}});
            let integration = self.create("/integrations", body).await?;
            let body = json!({"integration_id": integration, "name": name, "path": name,
                              "secret": secret.expose_str().context("the demo's secrets are text")?});
            self.create("/webhooks", body).await?;
            for destination in &destinations {
                let body = json!({"integration_id": integration, "destination_id": destination, "name": name,
                                  "retry": {"schedule_s": [1, 1, 1, 2, 2, 2, 3, 3, 5, 5, 10, 10, 30, 60, 60, 60]}});
                self.create("/subscriptions", body).await?;
            }
            self.secrets.insert(name, secret);
        }
        Ok(())
    }

    async fn create(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let request = Request::post(format!("http://{}/api/v1{path}", self.app.addresses().admin))
            .header("authorization", format!("Bearer {}", self.token.expose()))
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))?;
        let (status, reply) = self.send(request).await?;
        if status != 201 {
            bail!("the demo's set-up was refused: {path} answered {status}: {}", String::from_utf8_lossy(&reply));
        }
        let reply: Value = serde_json::from_slice(&reply)?;
        Ok(reply["id"].clone())
    }

    /// Posts one sample event of the provider, signed.
    pub(super) async fn post(&self, name: &'static str, number: u32) -> anyhow::Result<()> {
        let provider = registry().get(name).context("the demo's provider is registered")?;
        let secret = self.secrets.get(name).context("the demo's provider has a secret")?;
        let id = format!("evt_demo_{number}");
        let (content_type, body) = provider.sample(&id);
        let signed = provider.sign(&Map::new(), secret, &id, &body, SystemClock.now_ms())?;
        let mut request = Request::post(format!("http://{}/webhooks/receive/{name}", self.app.addresses().ingress))
            .header("content-type", content_type);
        for (header, value) in signed.headers {
            request = request.header(header, value);
        }
        let (status, reply) = self.send(request.body(Full::from(body))?).await?;
        if status != 200 {
            bail!("a signed webhook was answered {status}: {}", String::from_utf8_lossy(&reply));
        }
        Ok(())
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(u16, Bytes)> {
        let response = self.client.request(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    pub(super) async fn report(&self) -> Report {
        self.app.tree().report().await
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.app.stop().await
    }
}

/// The same, typed by hand.
pub(super) const BY_HAND: &str = r#"
The same by hand, in another directory:
  hookmill --dev                      # serves, and prints where the admin token is
  printf whsec_my_own_secret_0123456789 > secret
  curl -H "Authorization: Bearer $(cat hookmill-data/admin-token)" -H 'Content-Type: application/json'     http://127.0.0.1:8081/api/v1/integrations -d '{
      "name": "Shop", "type": "payment_gateway", "provider": "stripe", "environment": "development",
      "webhook":     {"path": "shop", "secret": "whsec_my_own_secret_0123456789"},
      "destination": {"type": "http", "settings": {"url": "http://127.0.0.1:9000/hook"}}}'
  hookmill send --provider stripe --secret-file secret --url http://127.0.0.1:8080/webhooks/receive/shop
"#;
