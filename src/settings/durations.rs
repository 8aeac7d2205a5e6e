//! A list of durations in settings, as texts such as `["5s", "5m"]`. Used as `#[serde(with = "durations")]`.

use std::time::Duration;

use humantime_serde::Serde;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes each duration as a text.
pub(super) fn serialize<S: Serializer>(list: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|wait| Serde::from(*wait)))
}

/// Takes a list of duration texts.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    let list = Vec::<Serde<Duration>>::deserialize(deserializer)?;
    Ok(list.into_iter().map(Serde::into_inner).collect())
}
