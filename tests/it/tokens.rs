//! Tokens of a running hookmill, over a restart and a kill.

use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Hookmill, Reply, files_with};

impl Hookmill {
    async fn get_as(&self, token: &str, path: &str) -> Reply {
        let request = Request::get(format!("http://{}/api/v1{path}", self.admin))
            .header("authorization", format!("Bearer {token}"))
            .body("".into())
            .unwrap();
        self.request(request).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_outlives_a_restart_and_its_revocation_a_kill() {
    let hookmill = Hookmill::start();
    let made = hookmill.create("/tokens", json!({"name": "grafana", "role": "viewer", "expires_in": "30d"})).await;
    let token = made["token"].as_str().unwrap().to_owned();
    let path = format!("/tokens/{}", made["id"]);
    assert_eq!(hookmill.get_as(&token, "/integrations").await.status, StatusCode::OK);

    let hookmill = hookmill.terminate().start();
    let own = hookmill.get_as(&token, "/tokens/self").await;
    assert_eq!((own.status, &own.json()["name"]), (StatusCode::OK, &json!("grafana")));
    assert_ne!(own.json()["last_used_at"], Value::Null, "the stop stores when it was used");
    let refused = hookmill.get_as(&token, &path).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::FORBIDDEN, &json!("admin_role_needed")));

    assert_eq!(hookmill.admin(Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(hookmill.get_as(&token, "/integrations").await.status, StatusCode::UNAUTHORIZED);
    let stopped = hookmill.kill();
    assert_eq!(files_with(&stopped.data_dir(), &token), Vec::<std::path::PathBuf>::new());

    let hookmill = stopped.start();
    let refused = hookmill.get_as(&token, "/integrations").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.json()["detail"].as_str().unwrap().contains("revoked"));
    let activities = hookmill.get("/activities").await.to_string();
    assert!(activities.contains("token.created") && activities.contains("token.revoked"), "{activities}");
    assert!(!activities.contains(&token) && !hookmill.log().contains(&token));
}
