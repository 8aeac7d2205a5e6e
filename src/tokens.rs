//! Who may use the admin API: tokens with a role, scopes and an end, kept as hashes, and looked up on every request
//! from memory, without a lock.
//!
//! [`TokenRegistry`] is their only writer. What it was asked to make or revoke is stored before it is in force, with its
//! entry in the audit log in the same write; a crash costs at most the last minute of when tokens were used.

#[cfg(test)]
pub(crate) mod memory;
mod registry;
mod rights;
#[cfg(test)]
mod tests;

pub use self::{
    registry::{
        BOOTSTRAP_NAME, Denied, KnownToken, NewToken, SignIn, StoredToken, TokenError, TokenId, TokenRegistry,
        TokenState, TokenStore,
    },
    rights::{BadScope, Identity, Role, Scope, Scopes},
};
