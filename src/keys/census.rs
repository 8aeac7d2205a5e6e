//! What is sealed with which key: counted by what it is, over what stands now and over old versions.

use std::{collections::BTreeMap, fmt};

use hookmill_actors::ports::{
    config_store::ConfigStoreError,
    sealer::{Owner, SealError, Sealer, sealed_parts},
};
use serde::{Deserialize, Serialize};

use crate::{
    secrets::{KeyId, LiveRing, key_of},
    storage::sled_config::{PassPlace, SledConfig, Standing},
};

/// Changes that are looked at while nobody else writes.
const STEP: usize = 128;
/// No sealed text is shorter: version, key id, nonce and tag in base64.
const SEALED_CHARS_MIN: usize = 60;

/// How many of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Of integrations.
    pub credentials: Tally,
    /// Of webhook endpoints.
    pub endpoint_secrets: Tally,
    /// Of destinations, to sign with.
    pub signing_secrets: Tally,
    /// Of destinations, to sign in with.
    pub destination_credentials: Tally,
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
        self.kinds().iter().map(|(tally, _)| tally.total()).sum::<u64>() + self.other
    }

    fn tally(&mut self, owner: Owner) -> &mut Tally {
        match owner {
            Owner::Credentials(_) => &mut self.credentials,
            Owner::EndpointSecret(_) => &mut self.endpoint_secrets,
            Owner::SigningSecret(_) => &mut self.signing_secrets,
            Owner::DestinationCredentials(_) => &mut self.destination_credentials,
        }
    }

    fn kinds(&self) -> [(Tally, &'static str); 4] {
        [
            (self.credentials, "integration credentials"),
            (self.endpoint_secrets, "endpoint secrets"),
            (self.signing_secrets, "signing secrets"),
            (self.destination_credentials, "destination credentials"),
        ]
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.kinds();
        let tallies = kinds.iter().filter(|(tally, _)| tally.total() > 0).map(|(Tally { current, versions }, kind)| {
            match (current, versions) {
                (0, versions) => format!("{versions} {kind} in versions"),
                (current, 0) => format!("{current} {kind}"),
                (current, versions) => format!("{current} {kind} and {versions} in versions"),
            }
        });
        let other = (self.other > 0).then(|| format!("{} other texts", self.other));
        let damaged = (self.damaged > 0).then(|| format!("{} damaged texts", self.damaged));
        let parts: Vec<String> = tallies.chain(other).chain(damaged).collect();
        if parts.is_empty() { f.write_str("nothing") } else { f.write_str(&parts.join(", ")) }
    }
}

/// Counts everything. A text whose key the ring has not is counted as what it is.
pub(super) fn take(config: &SledConfig, ring: &LiveRing) -> Result<BTreeMap<KeyId, Holdings>, ConfigStoreError> {
    let mut census: BTreeMap<KeyId, Holdings> = BTreeMap::new();
    for standing in Standing::ALL {
        let mut place = PassPlace::default();
        let mut look = |change: &mut hookmill_actors::domain::config::Change| {
            for part in change.resource.iter_mut().flat_map(sealed_parts) {
                let Some(key) = key_of(&part.sealed.0) else { continue };
                let holdings = census.entry(key).or_default();
                match ring.open(part.owner, part.sealed) {
                    Ok(_) | Err(SealError::UnknownKey(_)) => holdings.tally(part.owner).count(standing),
                    Err(SealError::Refused | SealError::Malformed) => holdings.damaged += 1,
                }
            }
            false
        };
        while let Some((next, _)) = config.edit_changes(standing, &place, STEP, &mut look)? {
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
        let known: u64 = holdings.kinds().iter().map(|(tally, _)| tally.total()).sum();
        holdings.other = texts.saturating_sub(known + holdings.damaged);
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
            "2 integration credentials and 5 in versions, 3 endpoint secrets in versions, 1 other texts"
        );
        assert!(!holdings.is_empty());
        let damaged = Holdings { damaged: 1, ..Holdings::default() };
        assert!(damaged.is_empty() && !damaged.is_untouched());
    }
}
