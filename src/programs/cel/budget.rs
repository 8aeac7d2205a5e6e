//! What one evaluation may cost. CEL always ends, but two nested loops over a large body end after hours; so
//! [`super::check`] puts a call around every loop's range and every operand that may be large, and the call pays here.
//!
//! One unit is about the evaluation of one node of an expression: 50 to 100 ns.

use std::{cell::RefCell, sync::Arc};

use cel::{
    Env, ExecutionError,
    common::{
        types::{self, CelBool, CelInt, CelList, CelMap, CelString},
        value::{CowVal, Val},
    },
};
use regex::Regex;

/// Pays for a loop's range and all its rounds: `range(value, nodes of one round)`.
pub(super) const RANGE: &str = "@range";
/// Pays for an operand that may be large.
pub(super) const OPERAND: &str = "@operand";
/// A regular expression that was compiled beforehand: `matches(text, its place)`.
pub(super) const MATCHES: &str = "@matches";

/// Units for one evaluation: some tens of milliseconds at worst.
const UNITS_MAX: u64 = 500_000;
/// Bytes of text that are handled in the time of one unit.
const TEXT_BYTES_A_UNIT: u64 = 64;
/// The same for a regular expression, whose automaton may have to be built as it goes.
const MATCHED_BYTES_A_UNIT: u64 = 4;

/// The words for an evaluation that was stopped.
pub(super) const SPENT: &str =
    "needs too much work on this event; loop over a shorter list, or compare smaller parts of the body";

struct Budget {
    units: u64,
    spent: bool,
    regexes: Option<Arc<[Regex]>>,
}

thread_local! {
    // An evaluation does not leave its thread, and the crate's functions get nothing but their arguments.
    static BUDGET: RefCell<Budget> = const { RefCell::new(Budget { units: 0, spent: false, regexes: None }) };
}

/// Runs one evaluation on a fresh budget; `None` when it was spent, whatever came out.
pub(super) fn within<T>(regexes: &Arc<[Regex]>, evaluate: impl FnOnce() -> T) -> Option<T> {
    let regexes = (!regexes.is_empty()).then(|| regexes.clone());
    BUDGET.with_borrow_mut(|budget| *budget = Budget { units: UNITS_MAX, spent: false, regexes });
    let value = evaluate();
    BUDGET.with_borrow(|budget| (!budget.spent).then_some(value))
}

/// Declares the functions; their names cannot be written in an expression.
pub(super) fn declare(env: &mut Env) {
    let dynamic = || vec![types::DYN_TYPE, types::INT_TYPE];
    env.add_overload(RANGE, RANGE, dynamic(), range).expect("the name is ours");
    env.add_overload(MATCHES, MATCHES, dynamic(), matches).expect("the name is ours");
    env.add_overload(OPERAND, OPERAND, vec![types::DYN_TYPE], operand).expect("the name is ours");
}

fn pay(units: u64) -> Result<(), ExecutionError> {
    BUDGET.with_borrow_mut(|budget| match budget.units.checked_sub(units) {
        Some(rest) => {
            budget.units = rest;
            Ok(())
        }
        None => {
            budget.units = 0;
            budget.spent = true;
            Err(ExecutionError::InternalError("spent".to_owned()))
        }
    })
}

fn range<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let nodes = args.pop().and_then(|nodes| nodes.downcast_ref::<CelInt>().map(|it| it.inner().unsigned_abs()));
    let value = only(args)?;
    let rounds = value.as_sizer().map_or(0, |sizer| sizer.size().inner().unsigned_abs());
    // Each element is copied to be bound to the loop's variable.
    pay(weight(value.as_ref()).saturating_add(rounds.saturating_mul(nodes.unwrap_or(1))))?;
    Ok(value)
}

fn operand<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = only(args)?;
    pay(weight(value.as_ref()))?;
    Ok(value)
}

#[expect(clippy::needless_pass_by_value, reason = "the crate's signature of a function")]
fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, place] = args.as_slice() else { return Err(ExecutionError::MissingArgumentOrTarget) };
    let (Some(text), Some(place)) = (text.downcast_ref::<CelString>(), place.downcast_ref::<CelInt>()) else {
        return Err(ExecutionError::no_such_member_overload(
            "matches",
            vec![text.get_type().name().to_owned(), "string".to_owned()],
        ));
    };
    pay(1 + text.inner().len() as u64 / MATCHED_BYTES_A_UNIT)?;
    // In place: a clone of a regular expression begins with an empty cache.
    let found = BUDGET.with_borrow(|budget| {
        let place = usize::try_from(*place.inner()).ok()?;
        budget.regexes.as_ref()?.get(place).map(|regex| regex.is_match(text.inner()))
    });
    let found = found.ok_or_else(|| ExecutionError::InternalError("no such pattern".to_owned()))?;
    Ok(CowVal::owned(CelBool::from(found)))
}

fn only<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    args.pop().ok_or(ExecutionError::MissingArgumentOrTarget)
}

/// What it costs to copy, compare or search a value. Counting stops where no budget would be left.
fn weight(value: &dyn Val) -> u64 {
    fn add(value: &dyn Val, sum: &mut u64) {
        *sum += 1;
        if *sum > UNITS_MAX {
            return;
        }
        if let Some(text) = value.downcast_ref::<CelString>() {
            *sum += text.inner().len() as u64 / TEXT_BYTES_A_UNIT;
        } else if let Some(list) = value.downcast_ref::<CelList>() {
            for item in list.inner() {
                add(item.as_ref(), sum);
            }
        } else if let Some(map) = value.downcast_ref::<CelMap>() {
            for (key, item) in map.inner() {
                add(key.inner(), sum);
                add(item.as_ref(), sum);
            }
        }
    }
    let mut sum = 0;
    add(value, &mut sum);
    sum
}
