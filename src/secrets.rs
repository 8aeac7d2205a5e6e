//! What keeps secrets secret: the key ring that seals them at rest, API tokens, and files that only we may read.
//!
//! Losing the ring costs every stored secret, and nothing else: events are not sealed. How its keys change while
//! things are sealed with them is in `keys`.

mod keyring;
mod live;
pub(crate) mod names;
pub(crate) mod private_file;
mod sealing;
mod source;
mod token;

pub use self::{
    keyring::{BadKeyId, KeyId, KeyInfo, KeyRing, KeyRingError, KeyState, RingChangeError},
    live::LiveRing,
    private_file::{PrivateFileError, check as check_private},
    sealing::key_of,
    source::{KeySource, KeyVariables},
    token::{
        AdminToken, AdminTokenError, AdminTokenOrigin, BadTokenHash, TOKEN_BYTES_MAX, Token, TokenHash,
        admin_token_file,
    },
};

/// Random bytes from the operating system, for keys, nonces, tokens and provider secrets.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    use xsalsa20poly1305::aead::{OsRng, rand_core::RngCore};
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// Keeps this process' memory, which holds keys, out of core dumps.
///
/// # Errors
/// What the system said.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Not 0: a dump that is piped to a program ignores 0, and 1 is what Linux takes for "no dump" there (core(5)
    // tells of the first, `do_coredump` of the second). As the size of a file, 1 byte is too small for any dump.
    const NO_DUMP: u64 = 1;
    let maximum = getrlimit(Resource::Core).maximum;
    let current = Some(maximum.map_or(NO_DUMP, |most| most.min(NO_DUMP)));
    Ok(setrlimit(Resource::Core, Rlimit { current, maximum })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_dumps_are_off_afterwards() {
        use rustix::process::{Resource, getrlimit};
        assert!(forbid_core_dumps().is_ok());
        assert!(getrlimit(Resource::Core).current.is_some_and(|bytes| bytes <= 1));
    }

    #[test]
    fn random_bytes_are_not_the_same_twice() {
        assert_ne!(random_bytes::<32>(), random_bytes::<32>());
    }
}
