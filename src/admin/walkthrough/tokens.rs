//! Tokens with roles, as a client meets them.

use axum::http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::{
    super::{
        routes,
        table::{Described, Need},
    },
    Running, running,
};
use crate::tokens::Role;

impl Running {
    /// Makes a token: its number and itself.
    pub(super) async fn token(&self, name: &str, role: &str, scopes: &[&str]) -> (u64, String) {
        let made = self.post("/api/v1/tokens", json!({"name": name, "role": role, "scopes": scopes})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let id = made.body["id"].as_u64().expect("it is a number");
        assert_eq!(made.headers[header::LOCATION], format!("/api/v1/tokens/{id}"));
        (id, made.body["token"].as_str().expect("it is shown once").to_owned())
    }
}

/// A path of that route which names nothing that is there.
fn path_of(route: &str) -> String {
    route
        .replace("{event_id}", "00000000-0000-7000-8000-000900010000")
        .replace("{command}", "pause")
        .replace("{file}", "index.css")
        .split('/')
        .map(|part| if part.starts_with('{') { "999" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

#[tokio::test]
async fn every_method_of_every_route_asks_for_its_role() {
    let run = running().await;
    let (_, viewer) = run.token("v", "viewer", &[]).await;
    let (_, manager) = run.token("m", "integration_manager", &[]).await;
    let (_, admin) = run.token("a", "admin", &[]).await;
    let roles = [(Role::Viewer, viewer), (Role::Manager, manager), (Role::Admin, admin)];
    let mut walked = 0;
    for (route, methods) in routes() {
        for Described { method, need, .. } in methods.described() {
            let path = path_of(route);
            let Need::Role(needed) = *need else {
                assert_eq!(
                    run.send_as(None, method.as_str(), &path, Value::Null).await.status,
                    StatusCode::OK,
                    "{path}"
                );
                continue;
            };
            let stranger = run.send_as(None, method.as_str(), &path, Value::Null).await;
            assert!(
                [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(&stranger.status),
                "{method} {path}: {}",
                stranger.text
            );
            for (role, token) in &roles {
                let answer = run.send_as(Some(token), method.as_str(), &path, Value::Null).await;
                let refused = answer.status == StatusCode::FORBIDDEN;
                assert_eq!(refused, *role < needed, "{method} {path} as {role}: {}", answer.text);
                assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path} as {role}");
                if refused {
                    assert_eq!(answer.body["code"], format!("{needed}_role_needed"));
                    assert!(answer.body["detail"].as_str().is_some_and(|text| text.contains(&format!("`{needed}`"))));
                }
            }
            walked += 1;
        }
    }
    assert!(walked > 40, "{walked} methods");
}

#[test]
fn who_only_reads_changes_nothing_and_deletions_are_not_for_all() {
    for (route, methods) in routes() {
        for Described { method, need, .. } in methods.described() {
            if let Need::Role(role) = need {
                assert_eq!(*role == Role::Viewer, *method == Method::GET && !is_of_admins(route), "{method} {route}");
                assert_eq!(
                    *role == Role::Admin,
                    is_of_admins(route) || deletes_integration(method, route),
                    "{method} {route}"
                );
            }
        }
    }
}

fn is_of_admins(route: &str) -> bool {
    let of_admins = ["/api/v1/tokens", "/api/v1/keys", "/api/v1/backup"];
    of_admins.iter().any(|path| route.starts_with(path)) && !route.ends_with("/self")
}

/// Deletes one, or brings it back.
fn deletes_integration(method: &Method, route: &str) -> bool {
    (*method == Method::DELETE && route.ends_with("/integrations/{id}"))
        || route.ends_with("/integrations/{id}/restore")
}

#[tokio::test]
async fn a_token_is_shown_once_listed_and_revoked() {
    let run = running().await;
    let (id, token) = run.token("ci", "viewer", &[]).await;
    let path = format!("/api/v1/tokens/{id}");
    let own = run.send_as(Some(&token), "GET", "/api/v1/tokens/self", Value::Null).await;
    let one = run.get(&path).await;
    assert_eq!((own.status, &own.body), (StatusCode::OK, &one.body));
    assert_eq!(
        one.body,
        json!({"id": id, "name": "ci", "role": "viewer", "scopes": [], "status": "active",
               "created_at": one.body["created_at"], "created_by": "admin", "expires_at": null,
               "last_used_at": one.body["last_used_at"], "revoked_at": null})
    );
    let list = run.get("/api/v1/tokens?status=active&role=viewer").await;
    assert_eq!((&list.body["total"], &list.body["items"][0]["name"]), (&json!(1), &json!("ci")));
    for shown in [&own.text, &one.text, &list.text] {
        assert!(!shown.contains(&token) && !shown.contains("hash"), "{shown}");
    }
    let refused = run.post("/api/v1/tokens", json!({"name": "Ci", "role": "viewer"})).await;
    assert_eq!((refused.status, &refused.body["errors"][0]["pointer"]), (StatusCode::CONFLICT, &json!("/name")));
    let kept = run.post("/api/v1/tokens", json!({"name": "hookmill", "role": "viewer"})).await;
    assert_eq!(kept.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", kept.text);
    let unknown = json!({"name": "x", "role": "viewer", "scopes": ["integration:7"]});
    let unknown = run.post("/api/v1/tokens", unknown).await;
    assert_eq!(
        (unknown.status, &unknown.body["errors"][0]["pointer"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("/scopes"))
    );

    for _ in 0..2 {
        assert_eq!(run.send("DELETE", &path, Value::Null, None).await.status, StatusCode::NO_CONTENT);
        let refused = run.send_as(Some(&token), "GET", "/api/v1/integrations", Value::Null).await;
        assert_eq!((refused.status, &refused.body["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")));
        assert!(refused.body["detail"].as_str().is_some_and(|text| text.contains("revoked")), "{}", refused.text);
    }
    assert_eq!(run.get(&path).await.body["status"], "revoked");
    assert_eq!(run.get("/api/v1/tokens?status=active").await.body["total"], 0);
    assert_eq!(run.send("DELETE", "/api/v1/tokens/99", Value::Null, None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_first_token_knows_itself() {
    let run = running().await;
    let own = run.get("/api/v1/tokens/self").await;
    assert_eq!(
        (&own.body["id"], &own.body["name"], &own.body["role"]),
        (&Value::Null, &json!("admin"), &json!("admin"))
    );
    assert_eq!(run.get("/api/v1/tokens").await.body["total"], 0);
}
