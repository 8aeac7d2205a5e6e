//! API tokens beside the configuration: each a document, and its last use another, because that one changes often.
//!
//! A token is written with its entry in the audit log, whose number [`super::mark`] keeps: a database that has lost a
//! revocation is seen to have gone back, and refused.

use hookmill_actors::{domain::activity::Activity, ports::config_store::ConfigStoreError};

use super::{SledConfig, parse, split_chunk, to_json};
use crate::tokens::{KnownToken, StoredToken, TokenId, TokenStore};

impl TokenStore for SledConfig {
    fn load(&self) -> Result<Vec<KnownToken>, ConfigStoreError> {
        let mut tokens = Vec::new();
        for item in self.0.tree.scan_prefix(b"k").keys() {
            let chunked = self.0.guard(item)?;
            let (key, 0) = split_chunk(&chunked)? else { continue };
            let json = self.0.read(key)?.unwrap_or_default();
            let token: StoredToken = parse(key, &json)?;
            let use_key = key_of(b'u', token.id);
            let used_at_ms = self.0.read(&use_key)?.map(|json| parse(&use_key, &json)).transpose()?;
            tokens.push(KnownToken { token, used_at_ms });
        }
        Ok(tokens)
    }

    fn put(&self, token: &StoredToken, forgotten: Option<TokenId>, why: Activity) -> Result<(), ConfigStoreError> {
        let mut batch = sled::Batch::default();
        self.0.put(&mut batch, &key_of(b'k', token.id), &to_json(token)?, &token.id)?;
        if let Some(id) = forgotten {
            self.0.remove(&mut batch, &key_of(b'k', id), 0)?;
            self.0.remove(&mut batch, &key_of(b'u', id), 0)?;
        }
        self.0.write_with_activities(batch, &[why])
    }

    fn put_uses(&self, uses: &[(TokenId, u64)]) -> Result<(), ConfigStoreError> {
        let _writing = self.0.writing();
        let mut batch = sled::Batch::default();
        for (id, at_ms) in uses {
            self.0.put(&mut batch, &key_of(b'u', *id), &to_json(at_ms)?, id)?;
        }
        self.0.write(batch)
    }
}

fn key_of(letter: u8, id: TokenId) -> Vec<u8> {
    let mut key = vec![letter];
    key.extend(id.0.to_be_bytes());
    key
}
