//! How often a source may fail to sign in.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hookmill_actors::allowance::Allowance;
use tokio::time::Instant;

/// Counts failed sign-ins by source: [`FAILURES_MAX`] at once, and one more each [`REFILL`].
///
/// A valid token is never held up: on loopback all share one address, and an intruder must not lock the operator out.
/// Guessing is hopeless at the tokens' 256 bits; what is bounded here is noise.
pub(in super::super) struct FailedSignIns(Mutex<HashMap<IpAddr, Bucket>>);

struct Bucket {
    failures: Allowance,
    last: Instant,
}

/// Failures at once.
const FAILURES_MAX: NonZeroU32 = NonZeroU32::new(10).expect("10 is not zero");
/// One more is allowed after so long.
const REFILL: Duration = Duration::from_secs(6);
/// Sources remembered; the one longest quiet is forgotten first.
const SOURCES_MAX: usize = 4_096;

impl FailedSignIns {
    pub(in super::super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Notes a failure; tells how long to wait when there were too many.
    pub(super) fn failed(&self, source: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = network(source);
        if buckets.len() >= SOURCES_MAX && !buckets.contains_key(&source) {
            make_room(&mut buckets, now);
        }
        let fresh = || Bucket { failures: Allowance::new(FAILURES_MAX, REFILL, now), last: now };
        let bucket = buckets.entry(source).or_insert_with(fresh);
        bucket.last = now;
        bucket.failures.take(now).map(drop).map_err(|spent| spent.one_in)
    }
}

fn make_room(buckets: &mut HashMap<IpAddr, Bucket>, now: Instant) {
    // Whoever was quiet for so long has all of it again, as if he had never been here.
    buckets.retain(|_, bucket| now.saturating_duration_since(bucket.last) < REFILL * FAILURES_MAX.get());
    if buckets.len() >= SOURCES_MAX {
        let quietest = buckets.iter().min_by_key(|(_, bucket)| bucket.last).map(|(source, _)| *source);
        if let Some(source) = quietest {
            buckets.remove(&source);
        }
    }
}

/// One IPv6 customer has a whole /64.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn sources_are_counted_apart_and_their_table_is_bounded() {
        let sign_ins = FailedSignIns::new();
        let now = Instant::now();
        let source = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..10 {
            assert_eq!(sign_ins.failed(source, now), Ok(()));
        }
        assert!(sign_ins.failed(source, now).is_err());
        assert_eq!(sign_ins.failed(IpAddr::from([192, 0, 2, 2]), now), Ok(()));
        assert_eq!(sign_ins.failed(source, now + REFILL), Ok(()));
        for number in 0..20_000u32 {
            let _ = sign_ins.failed(Ipv4Addr::from_bits(number).into(), now + REFILL);
        }
        assert!(sign_ins.0.lock().expect("nobody panicked").len() <= SOURCES_MAX);
        let one = "2001:db8::1".parse().expect("an address");
        let other = "2001:db8::2".parse().expect("an address");
        assert_eq!(network(one), network(other));
    }
}
