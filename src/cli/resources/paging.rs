//! Lists, page by page: shown as they come, so that a long one neither waits nor fills the memory.

use serde_json::Value;

use super::Paging;
use crate::cli::{
    client::{Call, Client},
    is_unread, note,
    show::{self, Column, OutputArgs, items},
};

/// As many as the API gives at once.
const PAGE_MAX: usize = 1_000;

/// How much of a list is wanted.
pub(super) struct Wanted {
    /// `None`: all.
    pub(super) limit: Option<usize>,
    pub(super) cursor: Option<String>,
}

/// Shows what is wanted of a list; says on standard error how to see more.
pub(super) async fn shown(
    client: &Client,
    call: Call,
    paging: Paging,
    wanted: Wanted,
    columns: &[Column],
    output: OutputArgs,
) -> anyhow::Result<()> {
    let mut pages = Pages { client, call, paging, next: wanted.cursor, skip: 0, is_done: false };
    let mut left = wanted.limit.unwrap_or(usize::MAX);
    // One document cannot be written in pieces.
    let mut whole = Vec::new();
    let mut is_first = true;
    while left > 0 && !pages.is_done && !is_unread() {
        let items = pages.next(left.min(PAGE_MAX)).await?;
        left = left.saturating_sub(items.len());
        if output.json {
            whole.extend(items);
        } else if output.jsonl {
            output.list(&items, None, columns)?;
        } else if !items.is_empty() || (is_first && pages.is_done) {
            show::rows(&items, columns, is_first)?;
            is_first = false;
        }
    }
    if output.json {
        return output.list(&whole, pages.next.as_deref().filter(|_| !pages.is_done), columns);
    }
    if !pages.is_done && !output.jsonl && !is_unread() {
        match &pages.next {
            Some(next) => note(format_args!("there is more: `--all`, or `--cursor {next}`")),
            None => note("there is more: `--all`, or a higher `--limit`"),
        }
    }
    Ok(())
}

/// The way through a list.
struct Pages<'a> {
    client: &'a Client,
    call: Call,
    paging: Paging,
    next: Option<String>,
    skip: usize,
    is_done: bool,
}

impl Pages<'_> {
    async fn next(&mut self, limit: usize) -> anyhow::Result<Vec<Value>> {
        let mut call = self.call.clone().with("limit", limit.to_string());
        match self.paging {
            Paging::Skip => {
                call = match &self.next {
                    Some(next) => call.with("cursor", next.as_str()),
                    None => call.with("skip", self.skip.to_string()),
                };
            }
            Paging::Cursor(parameter) => {
                if let Some(next) = &self.next {
                    call = call.with(parameter, next.as_str());
                }
            }
        }
        let mut reply = self.client.json(call).await?;
        let items = items(&mut reply);
        self.skip += items.len();
        match self.paging {
            // A list that gives cursors is read by them: nothing is passed over when it changes meanwhile.
            Paging::Skip if reply.get("next_cursor").is_some() => {
                self.next = reply["next_cursor"].as_str().map(str::to_owned);
                self.is_done = self.next.is_none();
            }
            Paging::Skip => {
                let total = reply["total"].as_u64().and_then(|total| usize::try_from(total).ok());
                self.is_done = total.map_or(items.len() < limit, |total| self.skip >= total) || items.is_empty();
            }
            Paging::Cursor(_) => {
                self.next = reply["next"].as_str().map(str::to_owned);
                self.is_done = self.next.is_none();
            }
        }
        Ok(items)
    }
}
