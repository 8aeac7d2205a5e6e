use std::sync::{Arc, atomic::Ordering};

use hookmill_actors::ports::clock::Clock;
use proptest::prelude::*;

use super::{memory::MemoryTokens, *};
use crate::secrets::TokenHash;

const BOOTSTRAP: &str = "bootstrap-0123456789";
const MINUTE_MS: u64 = 60_000;

struct Set(std::sync::atomic::AtomicU64);

impl Clock for Set {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Kept {
    store: Arc<MemoryTokens>,
    clock: Arc<Set>,
    registry: Arc<TokenRegistry>,
}

impl Kept {
    fn new() -> Self {
        let (store, clock) = (Arc::<MemoryTokens>::default(), Arc::new(Set(1_000_000.into())));
        let registry = opened(&store, &clock);
        Self { store, clock, registry }
    }

    fn reopened(&mut self) {
        self.registry = opened(&self.store, &self.clock);
    }

    fn admin(&self) -> Arc<Identity> {
        self.check(BOOTSTRAP).expect("the admin token is always good")
    }

    fn check(&self, token: &str) -> Result<Arc<Identity>, Denied> {
        self.registry.check(token).map(|sign_in| sign_in.identity)
    }

    fn wait(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    async fn make(&self, maker: &Identity, new: NewToken) -> Result<(TokenId, String), TokenError> {
        let (token, secret) = self.registry.create(maker, new).await?;
        Ok((token.id, secret.expose().to_owned()))
    }

    fn used_at_ms(&self, id: TokenId) -> Option<u64> {
        self.registry.get(id).expect("it is there").used_at_ms
    }
}

fn opened(store: &Arc<MemoryTokens>, clock: &Arc<Set>) -> Arc<TokenRegistry> {
    let bootstrap = TokenHash::of(BOOTSTRAP.as_bytes());
    Arc::new(
        TokenRegistry::open(bootstrap, 6_000.try_into().expect("not zero"), store.clone(), clock.clone())
            .expect("it is in memory"),
    )
}

fn new(name: &str, role: Role) -> NewToken {
    NewToken { name: name.to_owned(), role, scopes: None, expires_at_ms: None }
}

fn scopes(texts: &[&str]) -> Scopes {
    Scopes::new(texts.iter().map(|text| text.parse().expect("it is a scope")))
}

#[tokio::test]
async fn a_token_is_good_until_it_is_revoked_over_restarts_too() {
    let mut kept = Kept::new();
    let (id, token) = kept.make(&kept.admin(), new("ci", Role::Viewer)).await.expect("it may be made");
    for _ in 0..2 {
        let identity = kept.check(&token).expect("it is good");
        assert_eq!((identity.id, identity.name.as_str(), identity.role), (Some(id), "ci", Role::Viewer));
        assert_eq!(kept.check(&token[1..]), Err(Denied::Unknown));
        assert_eq!(kept.check(&token[..20]), Err(Denied::Damaged));
        assert_eq!(kept.check(""), Err(Denied::Unknown));
        kept.reopened();
    }
    let under_way = kept.check(&token).expect("it is good");
    assert!(kept.registry.is_good(&under_way) && kept.registry.is_good(&kept.admin()));
    for _ in 0..2 {
        kept.registry.revoke("admin", id).await.expect("it is there");
        assert!(!kept.registry.is_good(&under_way), "what is under way ends");
        assert_eq!(kept.check(&token), Err(Denied::Revoked));
        kept.reopened();
    }
    let noted: Vec<_> = kept.store.activities().into_iter().map(|it| (it.action, it.subject, it.detail)).collect();
    let detail = "`ci`, viewer of everything, without end";
    let want = ["token.created", "token.revoked"].map(|action| (action.into(), "token 1".into(), detail.into()));
    assert_eq!(noted, want);
    assert_eq!(kept.registry.revoke("admin", TokenId(9)).await, Err(TokenError::NotFound(TokenId(9))));
}

#[tokio::test]
async fn a_token_ends_at_its_time() {
    let kept = Kept::new();
    let end = kept.clock.now_ms() + 10;
    let wanted = NewToken { expires_at_ms: Some(end), ..new("ci", Role::Admin) };
    let (_, token) = kept.make(&kept.admin(), wanted).await.expect("it may be made");
    kept.wait(9);
    let maker = kept.check(&token).expect("it is good for a moment");
    let (heir, _) = kept.make(&maker, new("heir", Role::Admin)).await.expect("it ends with its maker");
    assert_eq!(kept.registry.get(heir).and_then(|known| known.token.expires_at_ms), Some(end));
    let longer = NewToken { expires_at_ms: Some(end + 1), ..new("longer", Role::Viewer) };
    assert_eq!(kept.make(&maker, longer).await, Err(TokenError::OutlivesMaker));
    kept.wait(1);
    assert_eq!(kept.check(&token), Err(Denied::Expired));
    let past = NewToken { expires_at_ms: Some(end), ..new("past", Role::Viewer) };
    assert_eq!(kept.make(&kept.admin(), past).await, Err(TokenError::Past));
}

#[tokio::test]
async fn nobody_makes_a_token_with_more_than_he_has() {
    let kept = Kept::new();
    let limited = NewToken { scopes: Some(scopes(&["environment:staging"])), ..new("team", Role::Admin) };
    let (_, token) = kept.make(&kept.admin(), limited).await.expect("it may be made");
    let maker = kept.check(&token).expect("it is good");
    for wider in [scopes(&[]), scopes(&["integration:1"]), scopes(&["environment:staging", "integration:1"])] {
        let wanted = NewToken { scopes: Some(wider), ..new("wide", Role::Viewer) };
        assert!(matches!(kept.make(&maker, wanted).await, Err(TokenError::ScopesBeyond { .. })));
    }
    let (heir, _) = kept.make(&maker, new("heir", Role::Admin)).await.expect("it has what its maker has");
    let heir = kept.registry.get(heir).expect("it was made").token;
    assert_eq!((heir.scopes, heir.created_by.as_str()), (scopes(&["environment:staging"]), "team"));
    let manager = Identity { role: Role::Manager, ..Identity::clone(&maker) };
    let above = kept.make(&manager, new("above", Role::Admin)).await;
    assert_eq!(above, Err(TokenError::RoleAbove { own: Role::Manager, wanted: Role::Admin }));
}

#[tokio::test]
async fn a_name_tells_one_token_from_all_others() {
    let kept = Kept::new();
    let (id, _) = kept.make(&kept.admin(), new("CI", Role::Viewer)).await.expect("the name is free");
    assert_eq!(kept.make(&kept.admin(), new("ci", Role::Viewer)).await, Err(TokenError::Taken(id)));
    for name in ["admin", "Admin", "hookmill"] {
        assert_eq!(kept.make(&kept.admin(), new(name, Role::Viewer)).await, Err(TokenError::NameKept), "{name}");
    }
    kept.registry.revoke("admin", id).await.expect("it is there");
    let (next, _) = kept.make(&kept.admin(), new("ci", Role::Viewer)).await.expect("the name is free again");
    assert_ne!(next, id);
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_in_force() {
    let kept = Kept::new();
    let (id, token) = kept.make(&kept.admin(), new("ci", Role::Viewer)).await.expect("it may be made");
    kept.store.fails.store(true, Ordering::Relaxed);
    assert!(matches!(kept.make(&kept.admin(), new("x", Role::Viewer)).await, Err(TokenError::Store(_))));
    assert!(matches!(kept.registry.revoke("admin", id).await, Err(TokenError::Store(_))));
    assert!(kept.check(&token).is_ok());
    assert_eq!(kept.registry.all().len(), 1);
}

#[tokio::test]
async fn the_last_use_is_kept_to_the_minute() {
    let mut kept = Kept::new();
    let (id, token) = kept.make(&kept.admin(), new("ci", Role::Viewer)).await.expect("it may be made");
    assert_eq!(kept.used_at_ms(id), None);
    let first = kept.clock.now_ms();
    for (wait, want) in [(0, first), (MINUTE_MS - 1, first), (1, first + MINUTE_MS)] {
        kept.wait(wait);
        kept.check(&token).expect("it is good");
        assert_eq!(kept.used_at_ms(id), Some(want));
    }
    kept.registry.store_uses().expect("it is in memory");
    kept.reopened();
    assert_eq!(kept.used_at_ms(id), Some(first + MINUTE_MS));
    kept.registry.revoke("admin", id).await.expect("it is there");
    assert_eq!(kept.used_at_ms(id), Some(first + MINUTE_MS));
    kept.store.fails.store(true, Ordering::Relaxed);
    assert_eq!(kept.registry.store_uses(), Ok(()), "nothing changed, so nothing is written");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever is made, revoked and waited for: a token is good exactly while it is neither revoked nor over, before
    /// and after a restart.
    #[test]
    fn the_table_agrees_with_a_model(steps in proptest::collection::vec((0u8..4, 0usize..8), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut kept = Kept::new();
        let mut model: Vec<(TokenId, String, u64, bool)> = Vec::new();
        for (step, which) in steps {
            match step {
                0 => {
                    let end = kept.clock.now_ms() + 10 * (which as u64 + 1);
                    let wanted = NewToken { expires_at_ms: Some(end), ..new(&format!("t{}", model.len()), Role::Viewer) };
                    let (id, token) = runtime.block_on(kept.make(&kept.admin(), wanted)).expect("it may be made");
                    model.push((id, token, end, false));
                }
                1 => if let Some((id, _, _, revoked)) = model.get_mut(which) {
                    runtime.block_on(kept.registry.revoke("admin", *id)).expect("it is there");
                    *revoked = true;
                },
                2 => kept.wait(7 * which as u64),
                _ => kept.reopened(),
            }
            for (id, token, end, revoked) in &model {
                let want = match (revoked, *end <= kept.clock.now_ms()) {
                    (true, _) => Err(Denied::Revoked),
                    (false, true) => Err(Denied::Expired),
                    (false, false) => Ok(Some(*id)),
                };
                prop_assert_eq!(kept.check(token).map(|identity| identity.id), want);
            }
        }
    }
}
