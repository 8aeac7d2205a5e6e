//! How often a source may fail to sign in.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Counts failed sign-ins by source: a bucket of [`FAILURES_MAX`] that refills by one each [`REFILL`].
///
/// A valid token is never held up: on loopback all share one address, and an intruder must not lock the operator out.
/// Guessing is hopeless at the tokens' 256 bits; what is bounded here is noise.
pub(in super::super) struct FailedSignIns(Mutex<HashMap<IpAddr, Bucket>>);

struct Bucket {
    /// Failures so far, less what has been refilled.
    level: f64,
    at: Instant,
}

/// Failures at once.
const FAILURES_MAX: f64 = 10.0;
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
        let bucket = buckets.entry(source).or_insert(Bucket { level: 0.0, at: now });
        bucket.level = bucket.level_at(now);
        bucket.at = now;
        if bucket.level + 1.0 > FAILURES_MAX {
            return Err(REFILL.mul_f64(bucket.level + 1.0 - FAILURES_MAX));
        }
        bucket.level += 1.0;
        Ok(())
    }
}

impl Bucket {
    fn level_at(&self, now: Instant) -> f64 {
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() / REFILL.as_secs_f64();
        (self.level - refilled).max(0.0)
    }
}

fn make_room(buckets: &mut HashMap<IpAddr, Bucket>, now: Instant) {
    buckets.retain(|_, bucket| bucket.level_at(now) > 0.0);
    if buckets.len() >= SOURCES_MAX {
        let quietest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(source, _)| *source);
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
