//! The tokens there are: a table in memory that each request looks into, and its one writer.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use hookmill_actors::{
    activity::source,
    allowance::{Allowance, Spent, Taken},
    domain::activity::{Activity, ActivityResult},
    ports::{clock::Clock, config_store::ConfigStoreError},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::rights::{Identity, Role, Scopes};
use crate::secrets::{Token, TokenHash};

/// The name of the admin token that the start finds or makes.
pub const BOOTSTRAP_NAME: &str = "admin";
/// Names that the audit log uses for others.
const NAMES_KEPT: [&str; 2] = [BOOTSTRAP_NAME, "hookmill"];
/// Tokens that are remembered, ended ones too; beyond it the one that ended first is forgotten.
const TOKENS_MAX: usize = 10_000;
/// A token's last use is noted this coarsely, milliseconds.
const USE_GRAIN_MS: u64 = 60_000;

/// Number of a stored token; never that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct TokenId(pub u32);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {}", self.0)
    }
}

/// A token as it is stored: all but the token itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredToken {
    /// Its number.
    pub id: TokenId,
    /// Whose it is; no two that are not revoked share a name, however it is written.
    pub name: String,
    /// How much it may do.
    pub role: Role,
    /// To what.
    pub scopes: Scopes,
    /// What a presented token is looked up by.
    pub hash: TokenHash,
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
    /// The name of the token it was made with.
    pub created_by: String,
    /// From then on it is refused, milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// Since then it is refused, milliseconds since 1970.
    pub revoked_at_ms: Option<u64>,
}

/// Whether a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It is.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody ended it.
    Revoked,
}

impl StoredToken {
    /// Whether it is good at that time.
    pub fn state(&self, now_ms: u64) -> TokenState {
        if self.revoked_at_ms.is_some() {
            TokenState::Revoked
        } else if self.expires_at_ms.is_some_and(|end| end <= now_ms) {
            TokenState::Expired
        } else {
            TokenState::Active
        }
    }

    /// When it ended, where it did.
    fn ended_at_ms(&self, now_ms: u64) -> Option<u64> {
        self.revoked_at_ms.or(self.expires_at_ms.filter(|end| *end <= now_ms))
    }
}

/// A token and when it was last used, to the minute, milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct KnownToken {
    /// The token.
    pub token: StoredToken,
    /// Its last use.
    pub used_at_ms: Option<u64>,
}

/// What a token is to be.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its name, checked for its form.
    pub name: String,
    /// How much it may do.
    pub role: Role,
    /// To what; `None`: what its maker may.
    pub scopes: Option<Scopes>,
    /// Until when, milliseconds since 1970; `None`: as long as its maker's.
    pub expires_at_ms: Option<u64>,
}

/// Keeps tokens. All calls block for the disk, and what they stored survives a power cut.
pub trait TokenStore: Send + Sync {
    /// All that are kept.
    fn load(&self) -> Result<Vec<KnownToken>, ConfigStoreError>;
    /// Stores a token, forgets another, and notes why in the audit log: all of it or nothing.
    fn put(&self, token: &StoredToken, forgotten: Option<TokenId>, why: Activity) -> Result<(), ConfigStoreError>;
    /// Stores when tokens were last used, milliseconds since 1970.
    fn put_uses(&self, uses: &[(TokenId, u64)]) -> Result<(), ConfigStoreError>;
}

/// Why a presented token does not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody's.
    #[error("no token of this hookmill")]
    Unknown,
    /// It has a token's form, but not its checksum.
    #[error("not whole: a part of it is missing or changed")]
    Damaged,
    /// Its time is over.
    #[error("expired; ask for a new one")]
    Expired,
    /// Somebody ended it.
    #[error("revoked; ask for a new one")]
    Revoked,
}

/// Why a token was not made or revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No such token.
    #[error("{0} does not exist")]
    NotFound(TokenId),
    /// The name is another's.
    #[error("`name` is already used by {0}; revoke that first, or take another name")]
    Taken(TokenId),
    /// The audit log knows somebody else by that name.
    #[error("is kept for what is no token, such as `{BOOTSTRAP_NAME}`; take another name")]
    NameKept,
    /// It would end before it began.
    #[error("must be in the future")]
    Past,
    /// Its role is above its maker's.
    #[error("a token with role `{own}` cannot make one with role `{wanted}`")]
    RoleAbove {
        /// The maker's.
        own: Role,
        /// The new one's.
        wanted: Role,
    },
    /// It would reach further than its maker does.
    #[error("a token for {own} cannot make one for {wanted}")]
    ScopesBeyond {
        /// The maker's.
        own: Scopes,
        /// The new one's.
        wanted: Scopes,
    },
    /// It would outlive its maker.
    #[error("the token it is made with ends before; take an earlier end")]
    OutlivesMaker,
    /// There are as many as there may be, and all of them are good.
    #[error("there are already {0} tokens, the most allowed; revoke some first")]
    TooMany(usize),
    /// The store failed; nothing was changed.
    #[error(transparent)]
    Store(#[from] ConfigStoreError),
}

struct Entry {
    token: StoredToken,
    identity: Arc<Identity>,
    usage: Arc<Usage>,
}

/// A request that a token came with.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// Whose token it is.
    pub identity: Arc<Identity>,
    usage: Arc<Usage>,
}

impl SignIn {
    /// Takes one of the requests that the token may make a minute.
    pub fn take(&self, now: Instant) -> Result<Taken, Spent> {
        self.usage.allowance.take(now)
    }
}

/// When a token was used, milliseconds since 1970, 0: never; and how much of its allowance is.
#[derive(Debug)]
struct Usage {
    last_ms: AtomicU64,
    stored_ms: AtomicU64,
    allowance: Allowance,
}

impl Usage {
    fn new(requests_per_minute: NonZeroU32, used_ms: u64) -> Arc<Self> {
        let allowance = Allowance::per_minute(requests_per_minute, Instant::now());
        Arc::new(Self { last_ms: used_ms.into(), stored_ms: used_ms.into(), allowance })
    }

    fn note(&self, now_ms: u64) {
        // Read first: many requests a second must not pass one cache line to and fro.
        if now_ms.saturating_sub(self.last_ms.load(Ordering::Relaxed)) >= USE_GRAIN_MS {
            self.last_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    fn used_at_ms(&self) -> Option<u64> {
        Some(self.last_ms.load(Ordering::Relaxed)).filter(|at_ms| *at_ms > 0)
    }
}

/// All tokens at one moment.
#[derive(Clone, Default)]
struct Table {
    by_id: BTreeMap<TokenId, Arc<Entry>>,
    /// By the hash of the token. What is presented is hashed first, so how long the search takes says nothing that
    /// would help to guess one.
    by_hash: HashMap<[u8; 32], Arc<Entry>>,
}

impl Table {
    fn insert(&mut self, token: StoredToken, usage: Arc<Usage>) {
        let identity = Identity {
            id: Some(token.id),
            name: token.name.clone(),
            role: token.role,
            scopes: token.scopes.clone(),
            expires_at_ms: token.expires_at_ms,
        };
        let entry = Arc::new(Entry { token, identity: Arc::new(identity), usage });
        self.by_hash.insert(*entry.token.hash.bytes(), entry.clone());
        self.by_id.insert(entry.token.id, entry);
    }

    fn remove(&mut self, id: TokenId) {
        if let Some(entry) = self.by_id.remove(&id) {
            self.by_hash.remove(entry.token.hash.bytes());
        }
    }

    fn all(&self) -> impl Iterator<Item = &StoredToken> {
        self.by_id.values().map(|entry| &entry.token)
    }

    /// What has to go before one more fits.
    fn room(&self, now_ms: u64) -> Result<Option<TokenId>, TokenError> {
        if self.by_id.len() < TOKENS_MAX {
            return Ok(None);
        }
        // The highest number stays, so that the next one is new.
        let last = self.by_id.last_key_value().map(|(id, _)| *id);
        let ended = self.all().filter(|token| Some(token.id) != last);
        let ended = ended.filter_map(|token| Some((token.ended_at_ms(now_ms)?, token.id)));
        ended.min().map(|(_, id)| Some(id)).ok_or(TokenError::TooMany(self.by_id.len()))
    }
}

/// Knows all tokens; see the module.
pub struct TokenRegistry {
    bootstrap: (TokenHash, SignIn),
    requests_per_minute: NonZeroU32,
    current: ArcSwap<Table>,
    /// Held from the first look at the table to its replacement.
    writing: Mutex<()>,
    store: Arc<dyn TokenStore>,
    clock: Arc<dyn Clock>,
}

impl TokenRegistry {
    /// Reads what is stored. `bootstrap` is the hash of the admin token that the start found or made; each token may make
    /// so many requests a minute. Blocks for the disk.
    pub fn open(
        bootstrap: TokenHash,
        requests_per_minute: NonZeroU32,
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigStoreError> {
        let mut table = Table::default();
        for KnownToken { token, used_at_ms } in store.load()? {
            table.insert(token, Usage::new(requests_per_minute, used_at_ms.unwrap_or_default()));
        }
        let identity = Identity {
            id: None,
            name: BOOTSTRAP_NAME.to_owned(),
            role: Role::Admin,
            scopes: Scopes::default(),
            expires_at_ms: None,
        };
        let sign_in = SignIn { identity: Arc::new(identity), usage: Usage::new(requests_per_minute, 0) };
        Ok(Self {
            bootstrap: (bootstrap, sign_in),
            requests_per_minute,
            current: ArcSwap::from_pointee(table),
            writing: Mutex::new(()),
            store,
            clock,
        })
    }

    /// Whose a presented token is. Takes no lock, and a time that tells nothing of the tokens there are.
    pub fn check(&self, presented: &str) -> Result<SignIn, Denied> {
        let hash = TokenHash::of(presented.as_bytes());
        let (bootstrap, sign_in) = &self.bootstrap;
        let is_bootstrap = bootstrap.equals(&hash);
        let table = self.current.load();
        let found = table.by_hash.get(hash.bytes());
        if is_bootstrap {
            return Ok(sign_in.clone());
        }
        let Some(entry) = found else {
            return Err(if Token::is_damaged(presented) { Denied::Damaged } else { Denied::Unknown });
        };
        let now_ms = self.clock.now_ms();
        match entry.token.state(now_ms) {
            TokenState::Active => {
                entry.usage.note(now_ms);
                Ok(SignIn { identity: entry.identity.clone(), usage: entry.usage.clone() })
            }
            TokenState::Expired => Err(Denied::Expired),
            TokenState::Revoked => Err(Denied::Revoked),
        }
    }

    /// Whether a token that was good still is.
    pub fn is_good(&self, identity: &Identity) -> bool {
        let Some(id) = identity.id else { return true };
        let table = self.current.load();
        table.by_id.get(&id).is_some_and(|entry| entry.token.state(self.clock.now_ms()) == TokenState::Active)
    }

    /// All tokens, by number.
    pub fn all(&self) -> Vec<KnownToken> {
        self.current.load().by_id.values().map(|entry| known(entry)).collect()
    }

    /// One of them.
    pub fn get(&self, id: TokenId) -> Option<KnownToken> {
        self.current.load().by_id.get(&id).map(|entry| known(entry))
    }

    /// Makes a token; good when this returns. The token itself is nowhere but in the answer.
    pub async fn create(self: &Arc<Self>, maker: &Identity, new: NewToken) -> Result<(StoredToken, Token), TokenError> {
        let (registry, maker, source) = (self.clone(), maker.clone(), source());
        done_whole(move || registry.create_blocking(&maker, source, new)).await
    }

    /// Ends a token; it is refused when this returns. One that is revoked already stays as it is.
    pub async fn revoke(self: &Arc<Self>, author: &str, id: TokenId) -> Result<(), TokenError> {
        let (registry, author, source) = (self.clone(), author.to_owned(), source());
        done_whole(move || registry.revoke_blocking(&author, source, id)).await
    }

    /// Stores when tokens were last used, where that changed. Blocks for the disk.
    pub fn store_uses(&self) -> Result<(), ConfigStoreError> {
        let table = self.current.load_full();
        let changed = |entry: &Arc<Entry>| {
            let last_ms = entry.usage.last_ms.load(Ordering::Relaxed);
            (last_ms != entry.usage.stored_ms.load(Ordering::Relaxed)).then_some((entry.token.id, last_ms))
        };
        let uses: Vec<_> = table.by_id.values().filter_map(changed).collect();
        if uses.is_empty() {
            return Ok(());
        }
        self.store.put_uses(&uses)?;
        for (id, last_ms) in uses {
            if let Some(entry) = table.by_id.get(&id) {
                entry.usage.stored_ms.store(last_ms, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn create_blocking(
        &self,
        maker: &Identity,
        source: Option<IpAddr>,
        new: NewToken,
    ) -> Result<(StoredToken, Token), TokenError> {
        // The table is replaced last, so what panicked under it left nothing half done.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.current.load_full();
        let now_ms = self.clock.now_ms();
        let (scopes, expires_at_ms) = granted(maker, &new, now_ms)?;
        if NAMES_KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(&new.name)) {
            return Err(TokenError::NameKept);
        }
        let same_name = |token: &&StoredToken| {
            token.revoked_at_ms.is_none() && token.name.to_lowercase() == new.name.to_lowercase()
        };
        if let Some(other) = table.all().find(same_name) {
            return Err(TokenError::Taken(other.id));
        }
        let forgotten = table.room(now_ms)?;
        let secret = Token::generate();
        let token = StoredToken {
            id: TokenId(table.by_id.last_key_value().map_or(0, |(id, _)| id.0) + 1),
            name: new.name,
            role: new.role,
            scopes,
            hash: secret.hash(),
            created_at_ms: now_ms,
            created_by: maker.name.clone(),
            expires_at_ms,
            revoked_at_ms: None,
        };
        let activity = Activity { source, ..activity(&token, now_ms, &maker.name, "token.created") };
        self.store.put(&token, forgotten, activity)?;
        let mut next = Table::clone(&table);
        if let Some(forgotten) = forgotten {
            next.remove(forgotten);
        }
        next.insert(token.clone(), Usage::new(self.requests_per_minute, 0));
        self.current.store(Arc::new(next));
        Ok((token, secret))
    }

    fn revoke_blocking(&self, author: &str, source: Option<IpAddr>, id: TokenId) -> Result<(), TokenError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.current.load_full();
        let entry = table.by_id.get(&id).ok_or(TokenError::NotFound(id))?;
        if entry.token.revoked_at_ms.is_some() {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let token = StoredToken { revoked_at_ms: Some(now_ms), ..entry.token.clone() };
        let activity = Activity { source, ..activity(&token, now_ms, author, "token.revoked") };
        self.store.put(&token, None, activity)?;
        let mut next = Table::clone(&table);
        next.insert(token, entry.usage.clone());
        self.current.store(Arc::new(next));
        Ok(())
    }
}

/// A request that is given up must not leave a token stored but not in force, or the other way round.
async fn done_whole<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TokenError> + Send + 'static,
) -> Result<T, TokenError> {
    let stopped = |_| Err(ConfigStoreError("the task was stopped before it was done".to_owned()).into());
    tokio::task::spawn_blocking(work).await.unwrap_or_else(stopped)
}

/// Scopes and end of a new token: what was asked for, and no more than its maker has.
fn granted(maker: &Identity, new: &NewToken, now_ms: u64) -> Result<(Scopes, Option<u64>), TokenError> {
    if new.role > maker.role {
        return Err(TokenError::RoleAbove { own: maker.role, wanted: new.role });
    }
    let scopes = new.scopes.clone().unwrap_or_else(|| maker.scopes.clone());
    if !scopes.within(&maker.scopes) {
        return Err(TokenError::ScopesBeyond { own: maker.scopes.clone(), wanted: scopes });
    }
    let end = new.expires_at_ms.or(maker.expires_at_ms);
    if end.is_some_and(|end| end <= now_ms) {
        return Err(TokenError::Past);
    }
    if maker.expires_at_ms.is_some_and(|own| end.is_none_or(|end| end > own)) {
        return Err(TokenError::OutlivesMaker);
    }
    Ok((scopes, end))
}

fn known(entry: &Entry) -> KnownToken {
    KnownToken { token: entry.token.clone(), used_at_ms: entry.usage.used_at_ms() }
}

fn activity(token: &StoredToken, at_ms: u64, author: &str, action: &str) -> Activity {
    let end = match token.expires_at_ms {
        Some(end) => {
            let end = i64::try_from(end).ok().and_then(|end| jiff::Timestamp::from_millisecond(end).ok());
            format!("until {}", end.unwrap_or(jiff::Timestamp::MAX))
        }
        None => "without end".to_owned(),
    };
    Activity {
        at_ms,
        actor: author.to_owned(),
        source: None,
        action: action.to_owned(),
        subject: token.id.to_string(),
        integration: None,
        result: ActivityResult::Ok,
        detail: format!("`{}`, {} of {}, {end}", token.name, token.role, token.scopes),
    }
}
