//! Query parameters, read strictly, and the shapes of lists: a page by `skip` and `limit` for what is in memory, a
//! page by cursor for what grows without bound.

mod doc;
mod window;

use std::{ops::RangeInclusive, str::FromStr};

use axum::{
    extract::{FromRequestParts, Query},
    http::{Uri, request::Parts},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    fields::{self, listed, nearest, not_one_of, parse_moment},
    json::quoted,
    problem::{Code, Problem},
};

pub(super) use self::{
    doc::{Active, LimitParam, PageParams, SearchParam, SinceUntil, WindowParams},
    window::{Search, Windowed},
};

/// Items of one page, at most.
const LIMIT_MAX: u16 = 1_000;
/// Items of one page, where the client does not say.
const LIMIT_DEFAULT: usize = 100;
/// A text that a list is narrowed by, characters.
const TEXT_CHARS_MAX: usize = 255;

/// The query parameters of a request; each may be there once.
pub(super) struct Params {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::of(&parts.uri)
    }
}

impl Params {
    /// Those of a request's target. What is no UTF-8 is refused, as it would be searched for in a form that nobody wrote.
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let unreadable = || Problem::new(Code::InvalidRequest, "the query string is not percent-encoded UTF-8");
        let Query(given) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| unreadable())?;
        if given.iter().any(|(name, value)| [name, value].iter().any(|it| it.contains(char::REPLACEMENT_CHARACTER))) {
            return Err(unreadable());
        }
        Ok(Self { given, known: Vec::new() })
    }

    /// A parameter as text.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        self.known.push(name);
        let mut values = self.given.extract_if(.., |(given, _)| given == name).map(|(_, value)| value);
        let first = values.next();
        if values.next().is_some() {
            return Err(refused(name, "occurs more than once"));
        }
        Ok(first)
    }

    /// A parameter that has a form of its own.
    pub(super) fn parsed<T: FromStr>(&mut self, name: &'static str, right: &str) -> Result<Option<T>, Problem> {
        self.read(name, |text| text.parse().map_err(|_| format!("must be {right}; it is `{}`", quoted(&text))))
    }

    /// A whole number within bounds, in digits alone.
    pub(super) fn number<N: TryFrom<u64> + Into<u64> + Copy>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<N>,
    ) -> Result<Option<N>, Problem> {
        let (min, max): (u64, u64) = ((*range.start()).into(), (*range.end()).into());
        self.read(name, |text| {
            let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
            let number =
                number.filter(|number| (min..=max).contains(number)).and_then(|number| N::try_from(number).ok());
            number.ok_or_else(|| format!("must be a whole number from {min} to {max}; it is `{}`", quoted(&text)))
        })
    }

    /// The number of a resource or a version.
    pub(super) fn id(&mut self, name: &'static str) -> Result<Option<u32>, Problem> {
        self.number(name, 1..=u32::MAX)
    }

    /// A line of text, not blank.
    pub(super) fn line(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        self.read(name, |text| fields::line(1..=TEXT_CHARS_MAX)(text.into()))
    }

    /// Yes or no, in the spellings of the field; callers in Python write `True`.
    pub(super) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Problem> {
        const TABLE: [(&str, bool); 8] = [
            ("true", true),
            ("false", false),
            ("1", true),
            ("0", false),
            ("yes", true),
            ("no", false),
            ("on", true),
            ("off", false),
        ];
        self.one_of(name, &TABLE)
    }

    /// A moment as RFC 3339 text; milliseconds since 1970.
    pub(super) fn moment(&mut self, name: &'static str) -> Result<Option<u64>, Problem> {
        self.read(name, |text| {
            parse_moment(&text).map_err(|detail| match text.contains(' ') {
                true => format!("{detail} (a `+` is written `%2B` in a URL)"),
                false => detail,
            })
        })
    }

    /// A name out of a table, in lower or upper case.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        name: &'static str,
        table: &[(&'static str, T)],
    ) -> Result<Option<T>, Problem> {
        self.read(name, |text| named(&text, table))
    }

    /// Names out of a table, separated by commas, in lower or upper case.
    pub(super) fn some_of<T: Copy>(
        &mut self,
        name: &'static str,
        table: &[(&'static str, T)],
    ) -> Result<Option<Vec<T>>, Problem> {
        self.read(name, |text| text.split(',').map(|one| named(one.trim(), table)).collect())
    }

    /// `limit`, 1 to [`LIMIT_MAX`].
    pub(super) fn limit(&mut self) -> Result<usize, Problem> {
        Ok(self.number("limit", 1..=LIMIT_MAX)?.map_or(LIMIT_DEFAULT, usize::from))
    }

    /// `skip`.
    fn skip(&mut self) -> Result<Option<usize>, Problem> {
        Ok(self.number("skip", 0..=u32::MAX)?.map(|skip| skip as usize))
    }

    /// `skip` and `limit`.
    pub(super) fn page(&mut self) -> Result<Page, Problem> {
        Ok(Page { skip: self.skip()?.unwrap_or(0), limit: self.limit()? })
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(String) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let text = self.text(name)?;
        text.map(|text| read(text).map_err(|detail| refused(name, &detail))).transpose()
    }

    /// Refuses what nobody asked for: a misspelt filter must not list everything.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let Some((name, _)) = self.given.first() else { return Ok(()) };
        let known = self.known.iter().copied();
        if self.known.is_empty() {
            return Err(refused(&quoted(name), "is not known; none are"));
        }
        Err(match nearest(name, known.clone()) {
            Some(near) => refused(&quoted(name), &format!("is not known; did you mean `{near}`?")),
            None => refused(&quoted(name), &format!("is not known; known are {}", listed(known))),
        })
    }
}

/// What stands in a table under a name.
fn named<T: Copy>(text: &str, table: &[(&'static str, T)]) -> Result<T, String> {
    let found = table.iter().find(|(known, _)| known.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| not_one_of(text, table.iter().map(|(known, _)| *known)))
}

fn refused(name: &str, detail: &str) -> Problem {
    Problem::new(Code::InvalidRequest, format!("query parameter `{name}` {detail}"))
}

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) skip: usize,
    pub(super) limit: usize,
}

/// A part of a list that is in memory.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Paged<T> {
    items: Vec<T>,
    total: usize,
    skip: usize,
    limit: usize,
}

impl Page {
    /// Cuts the page out; only what is on it is made.
    pub(super) fn of<R, T>(self, all: impl Iterator<Item = R>, view: impl Fn(R) -> T) -> Paged<T> {
        let mut items = Vec::new();
        let mut total = 0;
        for one in all {
            if total >= self.skip && items.len() < self.limit {
                items.push(view(one));
            }
            total += 1;
        }
        Paged { items, total, skip: self.skip, limit: self.limit }
    }
}

/// A part of a list that is on disk; `next` is the cursor of the following page, `null` at the end.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Slice<T> {
    pub(super) items: Vec<T>,
    pub(super) limit: usize,
    pub(super) next: Option<String>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) async fn params(query: &str) -> Params {
        let request = axum::http::Request::builder().uri(format!("/x?{query}")).body(()).expect("the query is valid");
        Params::from_request_parts(&mut request.into_parts().0, &()).await.expect("the query is readable")
    }

    #[tokio::test]
    async fn a_page_is_bounded_and_has_defaults() {
        assert_eq!(params("").await.page(), Ok(Page { skip: 0, limit: 100 }));
        assert_eq!(params("skip=5&limit=1000").await.page(), Ok(Page { skip: 5, limit: 1_000 }));
        for wrong in ["limit=0", "limit=1001", "limit=-1", "limit=x", "skip=-1", "limit=1&limit=2", "limit="] {
            let refused = params(wrong).await.page().expect_err(wrong);
            assert_eq!(refused.code, Code::InvalidRequest, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_misspelt_filter_is_refused_not_ignored() {
        let mut given = params("integation_id=3").await;
        assert_eq!(given.parsed::<u32>("integration_id", "a number"), Ok(None));
        let refused = given.finish().expect_err("it is misspelt");
        assert!(refused.detail.contains("did you mean `integration_id`"), "{}", refused.detail);
    }

    #[tokio::test]
    async fn several_names_are_separated_by_commas_and_each_must_be_known() {
        const TABLE: [(&str, u8); 2] = [("sms", 1), ("email", 2)];
        assert_eq!(params("").await.some_of("type", &TABLE), Ok(None));
        for (query, want) in [("type=SMS", vec![1]), ("type=email,sms", vec![2, 1]), ("type=sms,%20email", vec![1, 2])]
        {
            assert_eq!(params(query).await.some_of("type", &TABLE), Ok(Some(want)), "{query}");
        }
        for wrong in ["type=", "type=sms,", "type=sms,fax", "type=sms&type=email"] {
            let refused = params(wrong).await.some_of("type", &TABLE).expect_err(wrong);
            assert_eq!(refused.code, Code::InvalidRequest, "{wrong}");
        }
        let refused = params("type=sms,fax").await.some_of("type", &TABLE).expect_err("a fax is not known");
        assert!(refused.detail.contains("known are `sms`, `email`"), "{}", refused.detail);
    }

    #[tokio::test]
    async fn yes_and_no_have_the_spellings_of_the_field() {
        for (text, want) in [("true", true), ("True", true), ("1", true), ("off", false), ("FALSE", false)] {
            assert_eq!(params(&format!("active={text}")).await.boolean("active"), Ok(Some(want)), "{text}");
        }
        assert_eq!(params("").await.boolean("active"), Ok(None));
        for wrong in ["active=", "active=2", "active=tru"] {
            assert!(params(wrong).await.boolean("active").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_page_counts_all_and_makes_only_its_own() {
        let made = std::cell::Cell::new(0);
        let page = Page { skip: 2, limit: 3 }.of(0..10, |number| {
            made.set(made.get() + 1);
            number
        });
        assert_eq!((page.items, page.total, made.get()), (vec![2, 3, 4], 10, 3));
    }
}
