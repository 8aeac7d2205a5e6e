//! What is sealed with which key: counted by what it is, over what stands now and over old versions.

use std::{collections::BTreeMap, fmt};

use hookmill_actors::ports::{
    config_store::ConfigStoreError,
    sealer::{Owner, SealError, SealedPart, Sealer},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sealed::Place;
use crate::{
    secrets::{KeyId, LiveRing, key_of},
    storage::sled_config::{PassPlace, SledConfig, Standing},
    words::counted,
};

/// Changes that are looked at while nobody else writes.
const STEP: usize = 128;
/// No sealed text is shorter: version, key id, nonce and tag in base64.
const SEALED_CHARS_MIN: usize = 60;

/// How many of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// In what stands now.
    pub current: u64,
    /// In versions, the last ones included.
    pub versions: u64,
}

impl Tally {
    fn count(&mut self, standing: Standing) {
        match standing {
            Standing::Current => self.current += 1,
            Standing::History => self.versions += 1,
        }
    }

    fn total(self) -> u64 {
        self.current + self.versions
    }
}

/// What is sealed with one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holdings {
    /// Of integrations.
    pub credentials: Tally,
    /// Of webhook endpoints.
    pub endpoint_secrets: Tally,
    /// Of destinations, to sign with.
    pub signing_secrets: Tally,
    /// Of destinations, to sign in with.
    pub destination_credentials: Tally,
    /// Credentials of integrations in changes that wait for their connection test.
    #[serde(default)]
    pub held_changes: u64,
    /// Replies that are given again to whoever repeats a request.
    #[serde(default)]
    pub replies: u64,
    /// In other places.
    pub other: u64,
    /// Texts that name the key and do not open with it: no key opens them any more.
    pub damaged: u64,
}

impl Holdings {
    /// Whether the key opens nothing here.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Whether nothing here names the key.
    pub fn is_untouched(&self) -> bool {
        self.is_empty() && self.damaged == 0
    }

    /// How many texts the key opens here.
    pub fn total(&self) -> u64 {
        self.known() + self.other
    }

    fn count(&mut self, place: Place, owner: Owner) {
        match (place, owner) {
            (Place::HeldChanges, _) => self.held_changes += 1,
            (Place::Replies, _) | (_, Owner::Reply(_)) => self.replies += 1,
            (Place::Changes(standing), Owner::Credentials(_)) => self.credentials.count(standing),
            (Place::Changes(standing), Owner::EndpointSecret(_)) => self.endpoint_secrets.count(standing),
            (Place::Changes(standing), Owner::SigningSecret(_)) => self.signing_secrets.count(standing),
            (Place::Changes(standing), Owner::DestinationCredentials(_)) => {
                self.destination_credentials.count(standing);
            }
        }
    }

    /// What was found where it is looked for.
    fn known(&self) -> u64 {
        self.kinds().iter().map(|(tally, _)| tally.total()).sum::<u64>() + self.held_changes + self.replies
    }

    fn kinds(&self) -> [(Tally, &'static str); 4] {
        [
            (self.credentials, "integration credential"),
            (self.endpoint_secrets, "endpoint secret"),
            (self.signing_secrets, "signing secret"),
            (self.destination_credentials, "destination credential"),
        ]
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.kinds();
        let tallies = kinds.iter().filter(|(tally, _)| tally.total() > 0).map(|(Tally { current, versions }, kind)| {
            match (current, versions) {
                (0, versions) => format!("{} in versions", counted(*versions, kind)),
                (current, 0) => counted(*current, kind),
                (current, versions) => format!("{} and {versions} in versions", counted(*current, kind)),
            }
        });
        let rest = [
            (self.held_changes, "held change"),
            (self.replies, "reply record"),
            (self.other, "other text"),
            (self.damaged, "damaged text"),
        ];
        let rest = rest.into_iter().filter(|(count, _)| *count > 0).map(|(count, kind)| counted(count, kind));
        let parts: Vec<String> = tallies.chain(rest).collect();
        if parts.is_empty() { f.write_str("nothing") } else { f.write_str(&parts.join(", ")) }
    }
}

/// Counts everything. A text whose key the ring has not is counted as what it is.
pub(super) fn take(config: &SledConfig, ring: &LiveRing) -> Result<BTreeMap<KeyId, Holdings>, ConfigStoreError> {
    let mut census: BTreeMap<KeyId, Holdings> = BTreeMap::new();
    for kind in Place::ALL {
        let mut place = PassPlace::default();
        let mut look = |part: SealedPart<'_>, _: &dyn Fn() -> String| {
            let Some(key) = key_of(&part.sealed.0) else { return false };
            let holdings = census.entry(key).or_default();
            match ring.open(part.owner, part.sealed) {
                Ok(_) | Err(SealError::UnknownKey(_)) => holdings.count(kind, part.owner),
                Err(SealError::Refused | SealError::Malformed) => holdings.damaged += 1,
            }
            false
        };
        while let Some((next, _)) = kind.edit(config, &place, STEP, &mut look)? {
            place = next;
        }
    }
    count_others(config, &mut census)?;
    Ok(census)
}

/// Whatever looks like a sealed text anywhere in the configuration and was not counted as a part of a resource: a key
/// must not be retired because somebody keeps its texts where this module does not look.
fn count_others(config: &SledConfig, census: &mut BTreeMap<KeyId, Holdings>) -> Result<(), ConfigStoreError> {
    let mut found: BTreeMap<KeyId, u64> = BTreeMap::new();
    config.each_document(|document| {
        for text in document.split(|byte| *byte == b'"').filter(|text| text.len() >= SEALED_CHARS_MIN) {
            // In a document within a document the closing quote is escaped.
            let text = std::str::from_utf8(text).map(|text| text.trim_end_matches('\\')).unwrap_or_default();
            if let Some(key) = key_of(text) {
                *found.entry(key).or_default() += 1;
            }
        }
    })?;
    for (key, texts) in found {
        let holdings = census.entry(key).or_default();
        holdings.other = texts.saturating_sub(holdings.known() + holdings.damaged);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holdings_are_told_in_words() {
        let mut holdings = Holdings::default();
        assert_eq!((holdings.to_string().as_str(), holdings.is_untouched()), ("nothing", true));
        holdings.credentials = Tally { current: 2, versions: 5 };
        holdings.endpoint_secrets = Tally { current: 0, versions: 3 };
        holdings.other = 1;
        assert_eq!(
            holdings.to_string(),
            "2 integration credentials and 5 in versions, 3 endpoint secrets in versions, 1 other text"
        );
        assert!(!holdings.is_empty());
        let damaged = Holdings { damaged: 1, ..Holdings::default() };
        assert!(damaged.is_empty() && !damaged.is_untouched());
    }
}
