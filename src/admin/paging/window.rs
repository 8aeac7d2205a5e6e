//! Windows into lists of resources, which are in memory and ordered by id: by `skip`, or from where a cursor stands.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Params, refused};
use crate::admin::problem::Problem;

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) struct Window {
    start: Start,
    limit: usize,
    collection: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Skip(usize),
    After(u32),
}

/// A part of a list of resources.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Windowed<T> {
    items: Vec<T>,
    /// `null` where counting would walk over all there are.
    total: Option<usize>,
    skip: Option<usize>,
    limit: usize,
    /// Goes on after the last item; `null` at the end.
    next_cursor: Option<String>,
}

impl Params {
    /// `limit`, and `skip` or `cursor`.
    pub(in crate::admin) fn window(&mut self, collection: &'static str) -> Result<Window, Problem> {
        let limit = self.limit()?;
        let skip = self.skip()?;
        let start = match self.text("cursor")? {
            None => Start::Skip(skip.unwrap_or(0)),
            Some(_) if skip.is_some() => return Err(refused("skip", "does not go with `cursor`; give one of them")),
            Some(cursor) => match opened(collection, &cursor) {
                Some(id) => Start::After(id),
                None => return Err(refused("cursor", "must be the `next_cursor` of an earlier reply of this list")),
            },
        };
        Ok(Window { start, limit, collection })
    }

    /// `q`: a text that is searched for, whatever its case.
    pub(in crate::admin) fn search(&mut self) -> Result<Search, Problem> {
        Ok(Search(self.line("q")?.map(|text| text.to_lowercase())))
    }

    /// A parameter with two names; given both, they must be equal.
    pub(in crate::admin) fn flag(&mut self, names: [&'static str; 2]) -> Result<Option<bool>, Problem> {
        let [first, second] = names;
        match (self.boolean(first)?, self.boolean(second)?) {
            (Some(one), Some(other)) if one != other => {
                Err(refused(first, &format!("and `{second}` are two spellings of one filter and differ")))
            }
            (one, other) => Ok(one.or(other)),
        }
    }
}

/// What is searched for, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::admin) struct Search(Option<String>);

impl Search {
    /// Whether any of the texts holds it.
    pub(in crate::admin) fn finds(&self, name: &str, description: Option<&str>) -> bool {
        let Some(wanted) = &self.0 else { return true };
        name.to_lowercase().contains(wanted) || description.is_some_and(|text| text.to_lowercase().contains(wanted))
    }
}

impl<T> Windowed<T> {
    pub(in crate::admin) fn items(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// The same part with other items, some left out.
    pub(in crate::admin) fn filter_map<U>(self, item: impl FnMut(T) -> Option<U>) -> Windowed<U> {
        let Self { items, total, skip, limit, next_cursor } = self;
        Windowed { items: items.into_iter().filter_map(item).collect(), total, skip, limit, next_cursor }
    }
}

impl Window {
    /// The id that the list begins after.
    pub(in crate::admin) fn after(self) -> Option<u32> {
        match self.start {
            Start::Skip(_) => None,
            Start::After(id) => Some(id),
        }
    }

    /// Cuts the window out of all there are from its begin on, by id; only what is in it is made. `known` is their
    /// number, where it is known; with a cursor they are not counted.
    pub(in crate::admin) fn of<R, T>(
        self,
        all: impl Iterator<Item = R>,
        known: Option<usize>,
        id: impl Fn(&R) -> u32,
        view: impl Fn(R) -> T,
    ) -> Windowed<T> {
        let (skip, counted) = match self.start {
            Start::Skip(skip) => (skip, known.is_none()),
            Start::After(_) => (0, false),
        };
        let mut items = Vec::new();
        let (mut last, mut more, mut passed) = (0, false, 0);
        for one in all {
            passed += 1;
            if passed <= skip {
                continue;
            }
            if items.len() < self.limit {
                last = id(&one);
                items.push(view(one));
                continue;
            }
            more = true;
            if !counted {
                break;
            }
        }
        Windowed {
            items,
            total: known.or_else(|| counted.then_some(passed)),
            skip: matches!(self.start, Start::Skip(_)).then_some(skip),
            limit: self.limit,
            next_cursor: more.then(|| sealed(self.collection, last)),
        }
    }
}

/// Clients must not read anything into it.
fn sealed(collection: &str, id: u32) -> String {
    let [a, b, c, d] = id.to_be_bytes();
    URL_SAFE_NO_PAD.encode([mark(collection), a, b, c, d])
}

fn opened(collection: &str, cursor: &str) -> Option<u32> {
    let bytes: [u8; 5] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
    let [of, a, b, c, d] = bytes;
    (of == mark(collection)).then(|| u32::from_be_bytes([a, b, c, d]))
}

/// A cursor of one list is refused by another.
fn mark(collection: &str) -> u8 {
    collection.as_bytes().first().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tests::params, *};

    fn window(start: Start, limit: usize) -> Window {
        Window { start, limit, collection: "things" }
    }

    fn cut(window: Window, ids: &[u32], known: Option<usize>) -> Windowed<u32> {
        let from = ids.iter().copied().filter(|id| window.after().is_none_or(|after| *id > after));
        window.of(from, known, |id| *id, |id| id)
    }

    proptest! {
        #[test]
        fn cursors_go_through_a_list_once_whatever_comes_and_goes(
            ids in proptest::collection::btree_set(any::<u32>(), 0..60), gone in 0usize..60, limit in 1usize..20,
        ) {
            let mut ids: Vec<u32> = ids.into_iter().collect();
            let want = ids.clone();
            let mut seen = Vec::new();
            let mut part = cut(window(Start::Skip(0), limit), &ids, None);
            prop_assert_eq!(part.total, Some(ids.len()));
            loop {
                seen.append(&mut part.items);
                let Some(cursor) = part.next_cursor else { break };
                // What was already shown may go in the meantime.
                if let Some(at) = seen.get(gone).and_then(|id| ids.iter().position(|it| it == id)) {
                    ids.remove(at);
                }
                let after = opened("things", &cursor).expect("it is of this list");
                part = cut(window(Start::After(after), limit), &ids, None);
                prop_assert!(part.total.is_none() && part.skip.is_none());
            }
            prop_assert_eq!(seen, want);
        }
    }

    #[test]
    fn only_what_is_needed_is_walked_over() {
        let walked = std::cell::Cell::new(0);
        let all = || (0..100u32).inspect(|_| walked.set(walked.get() + 1));
        let part = window(Start::Skip(2), 3).of(all(), Some(100), |id| *id, |id| id);
        assert_eq!((part.items, part.total, part.skip, walked.take()), (vec![2, 3, 4], Some(100), Some(2), 6));
        let part = window(Start::Skip(2), 3).of(all(), None, |id| *id, |id| id);
        assert_eq!((part.total, part.next_cursor.is_some(), walked.take()), (Some(100), true, 100));
        let part = window(Start::After(7), 3).of(all(), None, |id| *id, |id| id);
        assert_eq!((part.total, walked.take()), (None, 4));
    }

    #[tokio::test]
    async fn a_window_is_read_strictly() {
        let cursor = sealed("things", 7);
        let read = params(&format!("cursor={cursor}&limit=5")).await.window("things");
        assert_eq!(read, Ok(window(Start::After(7), 5)));
        let other = sealed("others", 7);
        for wrong in [format!("cursor={cursor}&skip=1"), format!("cursor={other}"), "cursor=".to_owned()] {
            assert!(params(&wrong).await.window("things").is_err(), "{wrong}");
        }
        assert!(params("limit=1001").await.window("things").is_err());
        let searched = params("q=LeDGer").await.search().expect("it is short");
        assert!(
            searched.finds("The Ledger", None) && searched.finds("x", Some("a ledger")) && !searched.finds("x", None)
        );
        assert!(params(&format!("q={}", "x".repeat(256))).await.search().is_err());
        assert_eq!(params("is_active=true").await.flag(["active", "is_active"]), Ok(Some(true)));
        assert!(params("is_active=true&active=false").await.flag(["active", "is_active"]).is_err());
    }
}
