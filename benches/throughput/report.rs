//! What the measurements print: plain tables, the machine they ran on, and all of it as JSON.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::load::LoadReport;

/// Prints a table: the first column to the left, numbers to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    print!("{}", render(head, rows));
}

fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let width = |column: usize| {
        std::iter::once(&head).chain(rows).filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = String::new();
    for row in [&head, &rule].into_iter().chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The machine, and the disk below `directory`: figures mean little without them.
pub(crate) fn machine(directory: &Path) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value_of = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    json!({
        "cpu": value_of(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": value_of(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "filesystem": filesystem_of(directory, &read("/proc/mounts")),
        "profile": if cfg!(debug_assertions) { "debug: these figures say nothing about speed" } else { "optimised" },
    })
}

/// Prints the machine in one paragraph.
pub(crate) fn print_machine(machine: &Value) {
    let of = |key: &str| machine[key].to_string().trim_matches('"').to_owned();
    println!("{}, {} cores, {}, Linux {}", of("cpu"), of("cores"), of("memory"), of("kernel"));
    println!("data on {}; build: {}\n", of("filesystem"), of("profile"));
}

/// Writes the results where `--json` says.
pub(crate) fn write_json(file: Option<&Path>, measured: &str, machine: &Value, results: &Value) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let whole = json!({"measured": measured, "machine": machine, "results": results});
    fs::write(file, format!("{whole:#}\n")).with_context(|| format!("cannot write {}", file.display()))
}

/// A load's figures as JSON, without the histogram's buckets.
pub(crate) fn load_json(report: &LoadReport) -> Value {
    json!({
        "per_second": report.per_second(),
        "p50_us": report.latency.permille(500),
        "p99_us": report.latency.permille(990),
        "p999_us": report.latency.permille(999),
        "max_us": report.latency.max(),
        "replies": report.replies,
        "sent": report.sent,
        "accepted": report.accepted,
        "refused": report.refused(),
        "unanswered": report.unanswered(),
        "failures": report.failures,
    })
}

/// The middle value; the mean of the middle two when they are even in number. 0 for none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The filesystem's type and mount point: the longest that the directory is below.
fn filesystem_of(directory: &Path, mounts: &str) -> String {
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(point, _)| directory.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map_or_else(|| "an unknown filesystem".to_owned(), |(point, kind)| format!("{kind} ({point})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = vec![vec!["bare".to_owned(), "12,000".to_owned()], vec!["hookmill".to_owned(), "7".to_owned()]];
        assert_eq!(
            render(&["server", "req/s"], &rows),
            "server     req/s\n--------  ------\nbare      12,000\nhookmill       7\n"
        );
    }

    #[test]
    fn the_median_is_the_middle() {
        for (values, expected) in
            [(vec![], 0.0), (vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 9.0], 3.0)]
        {
            assert!((median(&values) - expected).abs() < f64::EPSILON, "{values:?}");
        }
    }

    #[test]
    fn the_deepest_mount_is_the_one() {
        let mounts = "overlay / overlay rw 0 0\ntmpfs /nowhere/x tmpfs rw 0 0\nbroken\n";
        assert_eq!(filesystem_of(Path::new("/nowhere/x/y"), mounts), "tmpfs (/nowhere/x)");
        assert_eq!(filesystem_of(Path::new("/nowhere/xy"), mounts), "overlay (/)");
        assert_eq!(filesystem_of(Path::new("/nowhere"), ""), "an unknown filesystem");
    }
}
