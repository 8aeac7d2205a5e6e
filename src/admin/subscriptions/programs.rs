//! Compiles what a subscription says, so that no text is stored that does not work.

use std::{collections::BTreeMap, sync::Arc};

use hookmill_actors::{
    domain::{config::Subscription, transform::Transform},
    ports::{
        program::{Programs, Selector, Transformer},
        provider::SettingsError,
    },
};

use crate::admin::{
    Api,
    problem::{Fault, Problem},
};

/// A subscription's programs, ready to run; `None` where there is nothing to do.
pub(super) struct Compiled {
    pub(super) selector: Option<Arc<dyn Selector>>,
    pub(super) transformer: Option<Arc<dyn Transformer>>,
}

/// Refuses what does not compile, each fault at its member.
pub(in crate::admin) async fn check(api: &Api, subscription: &Subscription) -> Result<(), Problem> {
    compile(api, subscription).await.map(drop)
}

/// Compiles on a thread that may be held up: a program is tried in a worker process.
pub(super) async fn compile(api: &Api, subscription: &Subscription) -> Result<Compiled, Problem> {
    let programs = api.tree.ports().compiler.programs.clone();
    let subscription = subscription.clone();
    tokio::task::spawn_blocking(move || compiled(&*programs, &subscription))
        .await
        .map_err(|error| Problem::internal(&error))?
}

fn compiled(programs: &dyn Programs, subscription: &Subscription) -> Result<Compiled, Problem> {
    let Subscription { selection, order, transform, headers, .. } = subscription;
    let (filter, key) = (selection.filter.as_deref(), order.key());
    let mut faults = Vec::new();
    // One by one, so that each tells its fault.
    for (filter, key) in [(filter, None), (None, key)] {
        if filter.is_some() || key.is_some() {
            faults.extend(programs.selector(filter, key).err());
        }
    }
    faults.extend(programs.transformer(transform, &BTreeMap::new()).err());
    faults.extend(programs.transformer(&Transform::None, headers).err());
    if !faults.is_empty() {
        return Err(Problem::members(faults.into_iter().map(fault).collect()));
    }
    let whole = |error| Problem::members(vec![fault(error)]);
    let selector = match (filter, key) {
        (None, None) => None,
        (filter, key) => Some(programs.selector(filter, key).map_err(whole)?),
    };
    Ok(Compiled { selector, transformer: programs.transformer(transform, headers).map_err(whole)? })
}

/// A header's name may hold a dot: only the first one parts.
fn fault(SettingsError { field, problem }: SettingsError) -> Fault {
    let escaped = |part: &str| part.replace('~', "~0").replace('/', "~1");
    let pointer = match field.split_once('.') {
        Some((member, within)) => format!("/{}/{}", escaped(member), escaped(within)),
        None => format!("/{}", escaped(&field)),
    };
    Fault { pointer, detail: problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::subscriptions::tests::subscription,
        programs::{Engines, ProgramOptions},
    };
    use hookmill_actors::domain::{
        ids::EventId,
        order::{OnFailure, Order},
    };

    #[test]
    fn every_text_is_compiled_and_every_fault_has_its_pointer() {
        let engines = Engines::new(ProgramOptions::default());
        let mut made = subscription(1, 1, EventId::ZERO);
        assert!(compiled(&engines, &made).is_ok_and(|made| made.selector.is_none() && made.transformer.is_none()));
        made.selection.filter = Some("body.a == ".to_owned());
        made.order = Order::FifoByKey { key: "bodi.a".to_owned(), on_failure: OnFailure::Block };
        made.headers = [("x-a.b/c".to_owned(), "v".to_owned()), ("x-ok".to_owned(), "{{event.id}}".to_owned())].into();
        let Err(refused) = compiled(&engines, &made) else { panic!("it compiles") };
        let pointers: Vec<&str> = refused.faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/selection/filter", "/order/key", "/headers/x-a.b~1c"]);
        made.selection.filter = Some("body.a == 1".to_owned());
        made.order = Order::Parallel;
        made.headers.remove("x-a.b/c");
        assert!(compiled(&engines, &made).is_ok_and(|made| made.selector.is_some() && made.transformer.is_some()));
    }
}
