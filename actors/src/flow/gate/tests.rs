use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
};

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{
    domain::shaping::{BreakerPolicy, Concurrency, Rate, RetryBudget},
    flow::view::BreakerState,
};

const A: SubscriptionId = SubscriptionId(1);
const B: SubscriptionId = SubscriptionId(2);
const C: SubscriptionId = SubscriptionId(3);

fn gate(limits: DestinationLimits) -> (Arc<Gate>, Instant) {
    let now = Instant::now();
    (Arc::new(Gate::new(limits, now)), now)
}

fn at_once(max: u16) -> DestinationLimits {
    DestinationLimits { concurrency: Some(Concurrency::Fixed { max }), ..DestinationLimits::default() }
}

fn a_second(per_second: u32, burst: u32) -> DestinationLimits {
    DestinationLimits { rate: Some(Rate { per_second, burst: Some(burst) }), ..DestinationLimits::default() }
}

fn end(permit: Permit, now: Instant) -> Vec<SubscriptionId> {
    permit.end(Ended::Delivered, Duration::from_millis(1), now)
}

fn refused(result: Result<Permit, Wait>) -> Wait {
    result.expect_err("there is nothing to be had")
}

#[test]
fn places_go_round_and_whoever_just_had_one_stands_behind() {
    let (gate, now) = gate(at_once(1));
    let first = gate.begin(Try::First, A, now).expect("free");
    for who in [B, C, A, B] {
        assert_eq!(refused(gate.begin(Try::First, who, now)), Wait::ForRoom);
    }
    let mut turns = Vec::new();
    let mut permit = first;
    for _ in 0..6 {
        let hints = end(permit, now);
        let [next] = hints[..] else { panic!("one place, one hint: {hints:?}") };
        turns.push(next);
        for other in [A, B, C].into_iter().filter(|other| *other != next) {
            assert_eq!(refused(gate.begin(Try::First, other, now)), Wait::ForRoom, "it is not its turn");
        }
        permit = gate.begin(Try::First, next, now).expect("its turn");
        assert_eq!(refused(gate.begin(Try::First, next, now)), Wait::ForRoom);
    }
    assert_eq!(turns, [B, C, A, B, C, A]);
    drop(permit);
}

#[test]
fn a_turn_that_is_not_taken_goes_to_the_next() {
    let (gate, now) = gate(at_once(1));
    let permit = gate.begin(Try::First, A, now).expect("free");
    refused(gate.begin(Try::First, B, now));
    refused(gate.begin(Try::First, C, now));
    assert_eq!(end(permit, now), [B]);
    assert_eq!(gate.leave(B, now), [C], "B has nothing to send");
    assert_eq!(gate.sweep(now + CLAIM / 2).0, []);
    refused(gate.begin(Try::First, B, now));
    assert_eq!(gate.sweep(now + CLAIM).0, [B], "C did not come");
}

#[test]
fn a_permit_that_is_dropped_gives_its_place_back() {
    let (gate, now) = gate(at_once(1));
    let permit = gate.begin(Try::First, A, now).expect("free");
    refused(gate.begin(Try::First, B, now));
    drop(permit);
    assert_eq!(gate.sweep(now).0, [B]);
    assert!(gate.begin(Try::First, B, now).is_ok());
}

#[test]
fn a_slow_rate_is_shared_fairly() {
    let (gate, begin) = gate(a_second(10, 1));
    let mut next = BTreeMap::from([(A, begin), (B, begin), (C, begin)]);
    let mut had = BTreeMap::from([(A, 0), (B, 0), (C, 0)]);
    // All want as much as they can get, and A always asks first and far too often.
    for step in 0..3_000 {
        let now = begin + Duration::from_millis(step);
        for who in [A, B, C] {
            if who != A && next[&who] > now {
                continue;
            }
            match gate.begin(Try::First, who, now) {
                Ok(permit) => {
                    *had.get_mut(&who).expect("known") += 1;
                    let _ = end(permit, now);
                }
                Err(wait) => {
                    next.insert(who, wait.until().expect("a rate has a time"));
                }
            }
        }
    }
    assert!(had.values().all(|had| (9..=11).contains(had)), "{had:?}");
}

#[test]
fn a_refusal_uses_nothing_up() {
    let limits = DestinationLimits {
        rate: Some(Rate { per_second: 1, burst: Some(2) }),
        retry_budget: RetryBudget { share: 1.0, floor_per_second: 0.0 },
        ..at_once(1)
    };
    let (gate, now) = gate(limits);
    for _ in 0..10 {
        assert!(matches!(refused(gate.begin(Try::Retry, A, now)), Wait::Budget(_)));
    }
    let permit = gate.begin(Try::First, A, now).expect("free");
    for _ in 0..10 {
        assert_eq!(refused(gate.begin(Try::Retry, A, now)), Wait::ForRoom);
    }
    let _ = end(permit, now);
    let retry = gate.begin(Try::Retry, A, now).expect("the cell and the retry are still there");
    let _ = end(retry, now);
    assert!(matches!(refused(gate.begin(Try::Retry, A, now)), Wait::Budget(_)));
    assert!(matches!(refused(gate.begin(Try::Replay, A, now)), Wait::Rate(_)), "a replay needs no budget");
}

#[test]
fn an_open_breaker_spends_no_attempt_and_tells_who_waits() {
    let breaker = BreakerPolicy { consecutive_failures: 2, probes: 1, ..BreakerPolicy::default() };
    let (gate, now) = gate(DestinationLimits { breaker, ..at_once(2) });
    let permits = [(); 2].map(|()| gate.begin(Try::First, A, now).expect("free"));
    refused(gate.begin(Try::First, B, now));
    refused(gate.begin(Try::First, C, now));
    let [first, second] = permits;
    assert_eq!(first.end(Ended::Throttled, Duration::ZERO, now), [B], "429 alone does not open it");
    let permit = gate.begin(Try::First, B, now).expect("its turn");
    refused(gate.begin(Try::First, B, now));
    assert_eq!(second.end(Ended::Overloaded, Duration::ZERO, now), [C]);
    refused(gate.begin(Try::First, A, now));
    let hints = permit.end(Ended::Failed, Duration::ZERO, now);
    assert_eq!(hints, [B, A], "C was told already");
    let Wait::Breaker(until) = refused(gate.begin(Try::First, A, now)) else { panic!("it is open") };
    assert!(until >= now + Duration::from_secs(5));
    assert_eq!(gate.view(now).breaker.state, BreakerState::Open);
    assert_eq!(gate.view(until).breaker.state, BreakerState::HalfOpen);

    let probe = gate.begin(Try::First, A, until).expect("a probe");
    assert_eq!(refused(gate.begin(Try::First, B, until)), Wait::ForRoom);
    assert_eq!(end(probe, until), [B]);
    assert_eq!(gate.view(until).breaker.state, BreakerState::Closed);
    let (_, entry) = gate.sweep(until);
    assert_eq!((entry.opened, entry.closed), (1, 1));
}

#[test]
fn new_limits_hold_at_once_and_keep_what_is_known() {
    let (gate, now) = gate(at_once(1));
    let permit = gate.begin(Try::First, A, now).expect("free");
    refused(gate.begin(Try::First, B, now));
    refused(gate.begin(Try::First, C, now));
    gate.update(at_once(3), now);
    assert_eq!(gate.view(now).concurrency, ConcurrencyView { limit: Some(3), in_use: 1, adaptive: false });
    assert_eq!(gate.sweep(now).0, [B, C]);
    drop(permit);
}

#[test]
fn a_refused_retry_is_still_told_of_new_limits() {
    let limits =
        |max| DestinationLimits { retry_budget: RetryBudget { share: 0.0, floor_per_second: 0.0 }, ..at_once(max) };
    let (gate, now) = gate(limits(1));
    let permit = gate.begin(Try::First, A, now).expect("free");
    assert_eq!(refused(gate.begin(Try::First, B, now)), Wait::ForRoom);
    gate.update(limits(2), now);
    assert!(matches!(refused(gate.begin(Try::Retry, B, now)), Wait::Budget(_)));
    assert_eq!(gate.sweep(now).0, [B], "its first attempts need not wait for the budget");
    drop(permit);
}

/// Counted over many turns, so that one interruption does not decide; the fastest of several runs.
#[test]
fn a_gate_without_limits_costs_next_to_nothing() {
    const TURNS: u32 = 20_000;
    let (gate, now) = gate(DestinationLimits::default());
    let fastest = (0..10)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..TURNS {
                let permit = black_box(&gate).begin(Try::First, A, now).expect("no limits");
                black_box(permit.end(Ended::Delivered, Duration::from_millis(1), now));
            }
            begin.elapsed() / TURNS
        })
        .min()
        .expect("ten runs");
    eprintln!("begin and end: {fastest:?}");
    // Unoptimised and on a busy machine; see the printed figure of a release build for what it really costs.
    assert!(fastest < Duration::from_micros(20), "{fastest:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Begin(u32, Try),
    End(Index, Ended),
    Drop(Index),
    Leave(u32),
    Sweep,
    Limits(u16),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let attempt = prop_oneof![4 => Just(Try::First), 2 => Just(Try::Retry), 1 => Just(Try::Replay)];
    let ended = prop_oneof![
        6 => Just(Ended::Delivered), 1 => Just(Ended::Answered), 1 => Just(Ended::Throttled),
        1 => Just(Ended::Overloaded), 1 => Just(Ended::Unanswered), 2 => Just(Ended::Failed), 1 => Just(Ended::Abandoned),
    ];
    prop_oneof![
        12 => (0u32..6, attempt).prop_map(|(who, attempt)| Step::Begin(who, attempt)),
        8 => (any::<Index>(), ended).prop_map(|(which, ended)| Step::End(which, ended)),
        1 => any::<Index>().prop_map(Step::Drop),
        1 => (0u32..6).prop_map(Step::Leave),
        2 => Just(Step::Sweep),
        1 => (1u16..6).prop_map(Step::Limits),
        6 => (0u64..400).prop_map(Step::Pass),
    ]
}

fn limits(max: u16, adaptive: bool, per_second: Option<u32>) -> DestinationLimits {
    DestinationLimits {
        concurrency: Some(if adaptive { Concurrency::Adaptive { min: 1, max } } else { Concurrency::Fixed { max } }),
        rate: per_second.map(|per_second| Rate { per_second, burst: Some(3) }),
        retry_budget: RetryBudget { share: 0.5, floor_per_second: 2.0 },
        breaker: BreakerPolicy { consecutive_failures: 4, open_s: 1, open_max_s: 4, ..BreakerPolicy::default() },
    }
}

proptest! {
    /// Never more under way than allowed, no rate or budget passed; and whoever was told to wait for a hint gets one:
    /// when everything under way has ended and a few looks were taken, nobody waits any more.
    #[test]
    fn limits_hold_and_no_waiter_is_forgotten(
        max in 1u16..5, adaptive: bool, per_second in prop::option::of(1u32..200),
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let (gate, begin) = gate(limits(max, adaptive, per_second));
        let (mut now, mut max, mut highest_max) = (begin, max, max);
        let mut under_way: Vec<Permit> = Vec::new();
        let mut waits: BTreeSet<SubscriptionId> = BTreeSet::new();
        let (mut firsts, mut retries, mut begun) = (0u32, 0u32, Vec::new());
        for step in steps {
            let hints = match step {
                Step::Begin(who, attempt) => {
                    let who = SubscriptionId(who);
                    match gate.begin(attempt, who, now) {
                        Ok(permit) => {
                            under_way.push(permit);
                            prop_assert!(under_way.len() <= usize::from(highest_max));
                            waits.remove(&who);
                            begun.push(now);
                            firsts += u32::from(attempt == Try::First);
                            retries += u32::from(attempt == Try::Retry);
                        }
                        Err(Wait::ForRoom) => drop(waits.insert(who)),
                        Err(wait) => {
                            prop_assert!(wait.until().is_some_and(|until| until > now));
                            prop_assert!(attempt == Try::Retry || !matches!(wait, Wait::Budget(_)));
                            // Whoever has a time comes then by itself; a refused retry keeps its place in the line.
                            if !matches!(wait, Wait::Budget(_)) {
                                waits.remove(&who);
                            }
                        }
                    }
                    Vec::new()
                }
                Step::End(which, ended) if !under_way.is_empty() => {
                    let permit = under_way.swap_remove(which.index(under_way.len()));
                    permit.end(ended, Duration::from_millis(5), now)
                }
                Step::Drop(which) if !under_way.is_empty() => {
                    drop(under_way.swap_remove(which.index(under_way.len())));
                    Vec::new()
                }
                Step::Leave(who) => {
                    waits.remove(&SubscriptionId(who));
                    gate.leave(SubscriptionId(who), now)
                }
                Step::Sweep => gate.sweep(now).0,
                Step::Limits(new) => {
                    gate.update(limits(new, adaptive, per_second), now);
                    max = new;
                    // What is under way under the old limit stays.
                    highest_max = highest_max.max(max);
                    Vec::new()
                }
                Step::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    Vec::new()
                }
                Step::End(..) | Step::Drop(_) => Vec::new(),
            };
            prop_assert_eq!(hints.iter().collect::<BTreeSet<_>>().len(), hints.len(), "nobody is told twice at once");
            for who in hints {
                waits.remove(&who);
            }
            prop_assert_eq!(gate.view(now).concurrency.in_use, under_way.len());
            prop_assert!(gate.view(now).waiting <= 6);
        }

        let seconds = (now - begin).as_secs_f64();
        prop_assert!(f64::from(retries) <= 0.5 * f64::from(firsts) + 2.0 * seconds * 1.001 + 2.0);
        if let Some(per_second) = per_second {
            for (index, from) in begun.iter().enumerate() {
                for (more, to) in begun[index..].iter().enumerate() {
                    let share = (*to - *from).as_secs_f64() * f64::from(per_second) * 1.001;
                    prop_assert!(f64::from(u32::try_from(more).expect("few") + 1) <= share + 3.001);
                }
            }
        }

        let mut hinted: BTreeSet<SubscriptionId> = BTreeSet::new();
        for permit in under_way {
            hinted.extend(permit.end(Ended::Delivered, Duration::from_millis(5), now));
        }
        for _ in 0..30 {
            now += CLAIM;
            hinted.extend(gate.sweep(now).0);
        }
        prop_assert!(waits.is_subset(&hinted), "waiting {waits:?}, hinted {hinted:?}");
        prop_assert!(max > 0);
    }
}
