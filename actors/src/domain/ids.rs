//! Identities. An id is checked once, where it enters, then trusted.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

/// Bits of the counter below the milliseconds in an event's sequence.
const COUNTER_BITS: u32 = 26;
/// Milliseconds take 48 bits, as in RFC 9562.
const SEQUENCE_MAX: u128 = (1 << (48 + COUNTER_BITS)) - 1;

/// The identity and the position of an event, given by the log's one writer: id order is commit order.
///
/// In the form of a UUID of version 7 (RFC 9562): 48 bits of milliseconds and 26 of counter make one 74-bit sequence that
/// only grows, then 32 bits of integration number, then 16 random bits that the log stores and checks
/// when an id is looked up. [`EventId::ZERO`] stands before every event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, ToSchema)]
#[schema(value_type = String, format = "uuid")]
pub struct EventId(u128);

impl EventId {
    /// The position before the first event.
    pub const ZERO: Self = Self(0);
    /// The position after the last event that can ever be.
    pub const MAX: Self = Self(u128::MAX);

    /// Packs the parts. `sequence` keeps its low 74 bits.
    pub fn from_parts(sequence: u128, integration: IntegrationId, random: u16) -> Self {
        let sequence = sequence & SEQUENCE_MAX;
        let millis = sequence >> COUNTER_BITS;
        let counter = sequence & ((1 << COUNTER_BITS) - 1);
        let high = counter >> 14;
        let low = counter & ((1 << 14) - 1);
        Self(
            (millis << 80)
                | (0x7 << 76)
                | (high << 64)
                | (0b10 << 62)
                | (low << 48)
                | (u128::from(integration.0) << 16)
                | u128::from(random),
        )
    }

    /// The smallest id of the given wall-clock milliseconds: a place to start reading from.
    pub fn at_millis(millis: u64) -> Self {
        Self::from_parts(u128::from(millis) << COUNTER_BITS, IntegrationId(0), 0)
    }

    /// The sequence that follows `last` at wall-clock `now_ms`; it never goes back when the clock does.
    pub fn next_sequence(now_ms: u64, last: u128) -> u128 {
        (u128::from(now_ms) << COUNTER_BITS).max(last + 1)
    }

    /// The 74-bit sequence: milliseconds, then the counter.
    pub fn sequence(self) -> u128 {
        let millis = self.0 >> 80;
        let high = (self.0 >> 64) & 0xfff;
        let low = (self.0 >> 48) & 0x3fff;
        (millis << COUNTER_BITS) | (high << 14) | low
    }

    /// Milliseconds since 1970 that the id carries.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0 >> 80).unwrap_or(u64::MAX)
    }

    /// The integration that the event belongs to.
    pub fn integration(self) -> IntegrationId {
        IntegrationId(u32::try_from((self.0 >> 16) & 0xffff_ffff).unwrap_or(u32::MAX))
    }

    /// The 128 bits, big-endian: sorts as the id does.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The inverse of [`EventId::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The id as a plain number.
    pub fn as_u128(self) -> u128 {
        self.0
    }

    /// The inverse of [`EventId::as_u128`].
    pub fn from_u128(value: u128) -> Self {
        Self(value)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_u128(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no event id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an event id; an event id is a UUID such as 019ab3f0-0000-7000-8000-000000010000")]
pub struct BadEventId(String);

impl FromStr for EventId {
    type Err = BadEventId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(|uuid| Self(uuid.as_u128())).map_err(|_| BadEventId(text.chars().take(64).collect()))
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.to_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            let bytes = serde_bytes::ByteArray::<16>::deserialize(deserializer)?;
            Ok(Self::from_bytes(*bytes))
        }
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// An integration. One counter, never reused: event ids carry it.
    IntegrationId
);
number_id!(
    /// A webhook endpoint.
    EndpointId
);
number_id!(
    /// A destination.
    DestinationId
);
number_id!(
    /// A subscription.
    SubscriptionId
);
number_id!(
    /// A bulk replay.
    ReplayId
);
number_id!(
    /// A run of a task.
    TaskRunId
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_survive_and_order_is_the_sequences(
            a in 0u128..=SEQUENCE_MAX, b in 0u128..=SEQUENCE_MAX,
            integration in any::<u32>(), other in any::<u32>(), random in any::<u16>(),
        ) {
            let left = EventId::from_parts(a, IntegrationId(integration), random);
            let right = EventId::from_parts(b, IntegrationId(other), random);
            prop_assert_eq!(left.sequence(), a);
            prop_assert_eq!(left.integration(), IntegrationId(integration));
            prop_assert_eq!(u128::from(left.millis()), a >> COUNTER_BITS);
            if a != b {
                prop_assert_eq!(left < right, a < b);
            }
            prop_assert_eq!(left.to_string().parse::<EventId>(), Ok(left));
            prop_assert_eq!(EventId::from_bytes(left.to_bytes()), left);
        }

        #[test]
        fn a_sequence_only_grows(clock in proptest::collection::vec(0u64..1 << 47, 1..50)) {
            let mut last = 0;
            for now in clock {
                let next = EventId::next_sequence(now, last);
                prop_assert!(next > last);
                last = next;
            }
        }
    }

    #[test]
    fn is_a_version_7_uuid() {
        let id = EventId::from_parts(u128::MAX, IntegrationId(u32::MAX), u16::MAX);
        let uuid = Uuid::from_u128(id.as_u128());
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn refuses_what_is_no_uuid() {
        assert!("not-an-id".parse::<EventId>().is_err());
    }
}
