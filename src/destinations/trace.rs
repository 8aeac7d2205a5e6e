//! `traceparent` (W3C Trace Context, version 00): a delivery continues the trace that its event arrived with, or
//! begins one whose id is the event's own, so that all attempts of an event are found together. Pure.

use hookmill_actors::domain::{
    headers::{HeaderBlock, Single},
    ids::EventId,
};

/// The header's name, incoming and outgoing.
pub(super) const TRACEPARENT: &str = "traceparent";

/// Length of a version 00 value: `00-<32>-<16>-<2>`.
const VALUE_BYTES: usize = 55;
/// The only flag defined: the caller may have recorded the trace.
const SAMPLED: u8 = 0x01;

/// The trace that a delivery belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    /// Never zero.
    pub(super) id: u128,
    /// Zero or [`SAMPLED`].
    pub(super) flags: u8,
}

impl Trace {
    /// The arrival's trace, where it came with exactly one valid header.
    pub(super) fn of(event: EventId, headers: &HeaderBlock) -> Self {
        let incoming = match headers.single(TRACEPARENT) {
            Single::Value(value) => Self::parse(value),
            Single::Absent | Single::Repeated => None,
        };
        incoming.unwrap_or(Self { id: event.as_u128().max(1), flags: SAMPLED })
    }

    /// Reads a value of version 00, or the part of a later version that 00 defines.
    fn parse(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_at_checked(VALUE_BYTES)?;
        let dashes = head[2] == b'-' && head[35] == b'-' && head[52] == b'-';
        let version = lower_hex(&head[..2])?;
        let ends = rest.is_empty() || (version != 0 && rest[0] == b'-');
        let id = lower_hex(&head[3..35])?;
        let parent = lower_hex(&head[36..52])?;
        let flags = lower_hex(&head[53..])?;
        let sampled = if flags & u128::from(SAMPLED) == 0 { 0 } else { SAMPLED };
        (dashes && ends && version != 0xff && id != 0 && parent != 0).then_some(Self { id, flags: sampled })
    }
}

/// As a header of a request that continues the trace; each time with another span.
impl std::fmt::Display for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, flags } = self;
        write!(f, "00-{id:032x}-{span:016x}-{flags:02x}", span = fastrand::u64(1..))
    }
}

fn lower_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::ids::IntegrationId;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn trace(values: &[&str]) -> Trace {
        let event = EventId::from_parts(7, IntegrationId(1), 2);
        Trace::of(event, &HeaderBlock::from_lines(values.iter().map(|value| (TRACEPARENT, value.as_bytes()))))
    }

    #[test]
    fn continues_a_valid_trace_with_its_sampling() {
        let id = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
        assert_eq!(trace(&[VALID]), Trace { id, flags: 1 });
        assert_eq!(trace(&[&VALID.replace("-01", "-00")]), Trace { id, flags: 0 });
        assert_eq!(trace(&[&VALID.replace("-01", "-ff")]), Trace { id, flags: 1 });
        assert_eq!(trace(&[&format!("cc{}-more", &VALID[2..])]), Trace { id, flags: 1 });
    }

    #[test]
    fn begins_the_events_own_trace_otherwise() {
        let own = Trace { id: EventId::from_parts(7, IntegrationId(1), 2).as_u128(), flags: 1 };
        assert_eq!(trace(&[]), own);
        assert_eq!(trace(&[VALID, VALID]), own, "repeated");
        for value in [
            "",
            "00",
            &VALID.to_uppercase(),
            &VALID.replace("b7ad6b7169203331", "0000000000000000"),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &format!("ff{}", &VALID[2..]),
            &format!("{VALID}-more"),
            &VALID.replacen('-', "_", 1),
            &VALID.replace("b7", "+7"),
        ] {
            assert_eq!(trace(&[value]), own, "{value}");
        }
    }
}
