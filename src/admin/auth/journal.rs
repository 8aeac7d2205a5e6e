//! Failed sign-ins for the audit log: the first of an address at once, further ones together, so that whoever guesses
//! cannot fill the log. In memory; a crash loses at most the counts of the last ten minutes.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hookmill_actors::domain::activity::{Activity, ActivityResult};

use super::super::resource::time;

/// Failures of one address within so long are told together.
const WINDOW_MS: u64 = 10 * 60 * 1_000;
/// Addresses told apart at once; those beyond are told as one.
const SOURCES_MAX: usize = 64;

/// Counts failures until they are told.
#[derive(Default)]
pub(in super::super) struct SignInJournal(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_source: HashMap<IpAddr, Tally>,
    others: Option<Tally>,
}

/// Failures that were not told yet.
#[derive(Clone, Copy)]
struct Tally {
    window_ends_ms: u64,
    count: u64,
    first_ms: u64,
    last_ms: u64,
}

impl Tally {
    fn begin(now_ms: u64) -> Self {
        Self { window_ends_ms: now_ms.saturating_add(WINDOW_MS), count: 0, first_ms: now_ms, last_ms: now_ms }
    }

    fn add(&mut self, now_ms: u64) {
        if self.count == 0 {
            self.first_ms = now_ms;
        }
        self.count += 1;
        self.last_ms = now_ms;
    }
}

impl SignInJournal {
    /// Takes a failure in; an activity where it is to be told at once.
    pub(super) fn failed(&self, source: IpAddr, now_ms: u64) -> Option<Activity> {
        let mut kept = self.kept();
        if let Some(tally) = kept.by_source.get_mut(&source) {
            tally.add(now_ms);
            return None;
        }
        if kept.by_source.len() >= SOURCES_MAX {
            kept.others.get_or_insert_with(|| Tally::begin(now_ms)).add(now_ms);
            return None;
        }
        kept.by_source.insert(source, Tally::begin(now_ms));
        Some(activity(Some(source), now_ms, String::new()))
    }

    /// What is to be told by now.
    pub(in super::super) fn due(&self, now_ms: u64) -> Vec<Activity> {
        self.told(now_ms, |tally| tally.window_ends_ms <= now_ms)
    }

    /// All that was not told yet, at a stop.
    pub(in super::super) fn rest(&self, now_ms: u64) -> Vec<Activity> {
        self.told(now_ms, |_| true)
    }

    fn told(&self, now_ms: u64, is_due: impl Fn(&Tally) -> bool) -> Vec<Activity> {
        let mut kept = self.kept();
        let mut told = Vec::new();
        kept.by_source.retain(|source, tally| {
            if !is_due(tally) {
                return true;
            }
            if tally.count > 0 {
                told.push(activity(Some(*source), now_ms, together(tally, "further failures")));
            }
            let goes_on = tally.count > 0;
            *tally = Tally::begin(now_ms);
            goes_on
        });
        if let Some(tally) = kept.others.take_if(|tally| is_due(tally)) {
            told.push(activity(None, now_ms, together(&tally, "failures from further addresses")));
        }
        told
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Counts only: what panicked under it left at worst one wrong.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn together(tally: &Tally, what: &str) -> String {
    format!("{} {what} from {} to {}", tally.count, time(tally.first_ms), time(tally.last_ms))
}

fn activity(source: Option<IpAddr>, at_ms: u64, detail: String) -> Activity {
    Activity {
        at_ms,
        actor: "nobody".to_owned(),
        source,
        action: "sign_in.failed".to_owned(),
        subject: "the admin API".to_owned(),
        integration: None,
        result: ActivityResult::Refused,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn the_first_is_told_at_once_and_the_rest_together() {
        let journal = SignInJournal::default();
        assert!(journal.failed(address(1), 0).is_some());
        for now_ms in 1..=500 {
            assert_eq!(journal.failed(address(1), now_ms), None);
        }
        assert!(journal.due(WINDOW_MS - 1).is_empty());
        let told = journal.due(WINDOW_MS);
        assert_eq!((told.len(), told[0].source), (1, Some(address(1))));
        assert!(told[0].detail.starts_with("500 further failures from 1970-01-01T00:00:00.001Z"), "{}", told[0].detail);
        assert!(journal.due(2 * WINDOW_MS).is_empty(), "it was quiet since");
        assert!(journal.failed(address(1), 2 * WINDOW_MS).is_some(), "and is news again");
    }

    #[test]
    fn many_addresses_cannot_fill_the_log() {
        let journal = SignInJournal::default();
        let mut told = 0;
        for now_ms in 0..20 * WINDOW_MS / 1_000 {
            for number in 0..20 {
                let source = address(u32::try_from(now_ms).expect("it is small") * 20 + number);
                told += usize::from(journal.failed(source, now_ms * 1_000).is_some());
            }
            told += journal.due(now_ms * 1_000).len();
        }
        assert!(told <= 21 * (2 * SOURCES_MAX + 1), "{told} activities in 20 windows of {SOURCES_MAX} addresses");
        let rest = journal.rest(20 * WINDOW_MS);
        assert!(rest.iter().any(|activity| activity.source.is_none()), "the others are counted too: {rest:?}");
    }
}
