//! How replies are shown: tables for people, JSON for scripts. Texts of others never steer a terminal.

use std::io::{self, IsTerminal as _};

use clap::Args;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, presets::NOTHING};
use serde_json::{Map, Value, json};

use super::{no_color, print};

/// Blanks beside a cell's text.
const PADDING: u16 = 2;
/// Columns of a terminal that a text needs to be broken into lines that can be read.
const TEXT_COLUMNS_MIN: u16 = 20;

/// In which form a result is wanted.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// One JSON document, as the API replies
    #[arg(long, conflicts_with = "jsonl")]
    pub(super) json: bool,
    /// A JSON document on each line; of a list, an item on each
    #[arg(long)]
    pub(super) jsonl: bool,
}

/// A column of a table: where in an item its value stands, and how it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    /// JSON pointer.
    pointer: &'static str,
    how: How,
}

/// How a value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// As it is.
    Text,
    /// A state, coloured by how good it is.
    State,
    /// Cut to whole seconds.
    Time,
    /// Bytes, in a unit of fitting size.
    Bytes,
}

impl Column {
    pub(super) const fn new(title: &'static str, pointer: &'static str, how: How) -> Self {
        Self { title, pointer, how }
    }

    /// A value as it is.
    pub(super) const fn text(title: &'static str, pointer: &'static str) -> Self {
        Self::new(title, pointer, How::Text)
    }

    /// A state.
    pub(super) const fn state(title: &'static str, pointer: &'static str) -> Self {
        Self::new(title, pointer, How::State)
    }

    /// A moment.
    pub(super) const fn time(title: &'static str, pointer: &'static str) -> Self {
        Self::new(title, pointer, How::Time)
    }

    fn cell(&self, item: &Value, colours: bool) -> Cell {
        let value = item.pointer(self.pointer).unwrap_or(&Value::Null);
        let text = match (self.how, value) {
            (How::Time, Value::String(time)) => whole_seconds(time),
            (How::Bytes, value) if value.is_u64() => bytes(value.as_u64().unwrap_or_default()),
            (_, value) => plain(value),
        };
        let colour = (self.how == How::State).then(|| colour_of(&text)).flatten().filter(|_| colours);
        let cell = Cell::new(text);
        match colour {
            Some(colour) => cell.fg(colour),
            None => cell,
        }
    }
}

impl OutputArgs {
    /// Whether a script reads.
    pub(super) fn is_json(self) -> bool {
        self.json || self.jsonl
    }

    /// One thing: its members, one on a line.
    pub(super) fn one(self, value: &Value) -> anyhow::Result<()> {
        if self.is_json() {
            return self.document(value);
        }
        let mut lines = Vec::new();
        flatten("", value, &mut lines);
        let mut table = table();
        for (name, value) in lines {
            let state = name.rsplit('.').next().is_some_and(|last| matches!(last, "status" | "state" | "result"));
            let colour = state.then(|| colour_of(&value)).flatten().filter(|_| colours());
            let name = Cell::new(name);
            let name = if colours() { name.add_attribute(Attribute::Bold) } else { name };
            let value = Cell::new(value);
            table.add_row([name, colour.map_or(value.clone(), |colour| value.fg(colour))]);
        }
        shown(&mut table)
    }

    /// A list; `next` is the cursor of what follows.
    pub(super) fn list(self, items: &[Value], next: Option<&str>, columns: &[Column]) -> anyhow::Result<()> {
        if self.jsonl {
            return items.iter().try_for_each(|item| self.document(item));
        }
        if self.json {
            return self.document(&json!({"items": items, "next": next}));
        }
        rows(items, columns, true)
    }

    /// JSON, on one line where lines are wanted.
    pub(super) fn document(self, value: &Value) -> anyhow::Result<()> {
        let text = if self.jsonl { serde_json::to_string(value) } else { serde_json::to_string_pretty(value) }?;
        // JSON leaves these as they are, and a terminal obeys some of them.
        let text: String = if io::stdout().is_terminal() {
            text.chars().flat_map(|it| if is_control_beyond_ascii(it) { json_escape(it) } else { vec![it] }).collect()
        } else {
            text
        };
        print(format_args!("{text}\n"))
    }
}

/// Lines of a table that is printed piece by piece.
pub(super) fn rows(items: &[Value], columns: &[Column], header: bool) -> anyhow::Result<()> {
    if items.is_empty() && header {
        if io::stdout().is_terminal() {
            super::note("there is none");
        }
        return Ok(());
    }
    let colours = colours();
    let mut table = table();
    if header {
        table.set_header(columns.iter().map(|column| {
            let title = Cell::new(column.title);
            if colours { title.add_attribute(Attribute::Bold) } else { title }
        }));
    }
    for item in items {
        table.add_row(columns.iter().map(|column| column.cell(item, colours)).collect::<Vec<_>>());
    }
    shown(&mut table)
}

fn is_control_beyond_ascii(it: char) -> bool {
    ('\u{7f}'..='\u{9f}').contains(&it) || is_reordering(it)
}

/// Marks that make a terminal show a line in another order than it has.
fn is_reordering(it: char) -> bool {
    matches!(it, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn json_escape(it: char) -> Vec<char> {
    format!("\\u{:04x}", u32::from(it)).chars().collect()
}

/// A text of somebody else's for a terminal: what would steer it is shown as an escape.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for it in text.chars() {
        if it.is_control() || is_reordering(it) {
            shown.extend(it.escape_default());
        } else {
            shown.push(it);
        }
    }
    shown
}

/// Whether results are coloured.
pub(super) fn colours() -> bool {
    io::stdout().is_terminal() && !no_color()
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if !io::stdout().is_terminal() {
        table.force_no_tty();
    }
    table
}

/// The last column, which has the long texts, is broken into lines where the terminal leaves room for that. All others
/// stay whole, as they are copied from, and so does the table on a terminal that is narrow or does not tell its width.
fn arrange(table: &mut Table) {
    let widths = table.column_max_content_widths();
    let Some((last, others)) = widths.split_last() else { return };
    let whole: u16 = others.iter().map(|width| width.saturating_add(PADDING)).fold(PADDING, u16::saturating_add);
    let needed = whole.saturating_add(TEXT_COLUMNS_MIN.min(*last));
    if table.width().is_some_and(|columns| needed <= columns) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        for column in table.column_iter_mut().take(others.len()) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

fn shown(table: &mut Table) -> anyhow::Result<()> {
    if table.row_count() == 0 && table.header().is_none() {
        return Ok(());
    }
    arrange(table);
    // Without borders each line begins with the first column's padding.
    let lines = table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned() + "\n");
    print(lines.collect::<String>())
}

/// A value in a cell.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => escaped(text),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) if items.iter().all(|it| !it.is_object() && !it.is_array()) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            if items.is_empty() { "-".to_owned() } else { items.join(", ") }
        }
        Value::Object(members) if members.is_empty() => "-".to_owned(),
        other => escaped(&other.to_string()),
    }
}

fn flatten(name: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    let below = |key: &str| if name.is_empty() { escaped(key) } else { format!("{name}.{}", escaped(key)) };
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(key, value)| flatten(&below(key), value, lines));
        }
        Value::Array(items) if items.iter().any(|it| it.is_object() || it.is_array()) => {
            items.iter().enumerate().for_each(|(index, value)| flatten(&below(&index.to_string()), value, lines));
        }
        value => lines.push((if name.is_empty() { "result".to_owned() } else { name.to_owned() }, plain(value))),
    }
}

fn whole_seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, rest)) if rest.ends_with('Z') => escaped(&format!("{seconds}Z")),
        _ => escaped(time),
    }
}

fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is rounded to one decimal")]
    let of = |unit: u64| count as f64 / unit as f64;
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=9_999_999 => format!("{:.1} KiB", of(1 << 10)),
        10_000_000..=9_999_999_999 => format!("{:.1} MiB", of(1 << 20)),
        _ => format!("{:.1} GiB", of(1 << 30)),
    }
}

fn colour_of(state: &str) -> Option<Color> {
    match state {
        "active" | "delivered" | "success" | "succeeded" | "ok" | "done" | "closed" | "running" | "ready"
        | "passed" => Some(Color::Green),
        "failed" | "failure" | "dead" | "open" | "denied" | "error" | "revoked" | "expired" => Some(Color::Red),
        "pending" | "paused" | "processing" | "planning" | "planned" | "retrying" | "half_open" | "inactive"
        | "cancelled" | "interrupted" => Some(Color::Yellow),
        _ => None,
    }
}

/// The items of a reply: of a list, or the steps of a patch.
pub(super) fn items(reply: &mut Value) -> Vec<Value> {
    match reply {
        Value::Array(items) => std::mem::take(items),
        Value::Object(members) => ["items", "patch"]
            .into_iter()
            .find_map(|name| match members.get_mut(name).map(Value::take) {
                Some(Value::Array(items)) => Some(items),
                _ => None,
            })
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// The members of an object.
pub(super) fn members(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(escaped("a\u{1b}[2J\r\n\u{9b}1m\u{202e}é"), "a\\u{1b}[2J\\r\\n\\u{9b}1m\\u{202e}é");
        assert_eq!(plain(&json!({"a\u{1b}": 1})), "{\"a\\u001b\":1}");
        let mut lines = Vec::new();
        flatten("", &json!({"a\u{1b}": {"b": "\u{7}"}}), &mut lines);
        assert_eq!(lines, [("a\\u{1b}.b".to_owned(), "\\u{7}".to_owned())]);
    }

    #[test]
    fn only_the_last_column_is_broken_and_only_where_there_is_room() {
        let id = "01a22094-90fa-7000-8000-000000016c18";
        for (columns, lines) in [(0, 1), (40, 1), (70, 3), (200, 1)] {
            let mut made = Table::new();
            made.load_style(NOTHING).force_no_tty().set_width(columns);
            made.add_row([id, "dead", "connection refused by the service of yours after ten attempts"]);
            arrange(&mut made);
            let shown: Vec<String> = made.lines().collect();
            assert!(shown.len() == lines && shown[0].contains(id), "{columns}: {shown:#?}");
        }
    }

    #[test]
    fn values_are_shown_as_people_read_them() {
        for (value, text) in
            [(json!(null), "-"), (json!(true), "yes"), (json!(["a", 1]), "a, 1"), (json!([]), "-"), (json!(1.5), "1.5")]
        {
            assert_eq!(plain(&value), text);
        }
        assert_eq!(whole_seconds("2026-01-31T08:00:00.123Z"), "2026-01-31T08:00:00Z");
        assert_eq!(whole_seconds("2026-01-31T08:00:00Z"), "2026-01-31T08:00:00Z");
        for (count, text) in [(9_999, "9999 B"), (10_240, "10.0 KiB"), (64 << 20, "64.0 MiB"), (20 << 30, "20.0 GiB")] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn members_stand_one_on_a_line() {
        let mut lines = Vec::new();
        flatten(
            "",
            &json!({"id": 1, "limits": {"rate": null}, "secrets": [{"f": "x"}], "types": ["a", "b"]}),
            &mut lines,
        );
        let lines: Vec<String> = lines.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(lines, ["id=1", "limits.rate=-", "secrets.0.f=x", "types=a, b"]);
    }
}
