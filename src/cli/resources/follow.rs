//! A replay while it runs: a bar on a terminal, a line now and then elsewhere.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cli::{
    client::{Call, Client},
    note,
    show::{OutputArgs, escaped},
};

const LOOK_EVERY: Duration = Duration::from_millis(500);
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Follows a replay until it ends, or needs somebody to start it. Ctrl-C ends only the looking.
pub(super) async fn follow(client: &Client, reply: Value, output: OutputArgs) -> anyhow::Result<ExitCode> {
    let Some(id) = reply["id"].as_u64() else {
        output.one(&reply)?;
        return Ok(ExitCode::SUCCESS);
    };
    let view = View::new(id);
    let mut job = reply;
    loop {
        let is_over = view.show(&job);
        if is_over {
            break;
        }
        sleep(LOOK_EVERY).await;
        job = client.json(Call::get(format!("/replays/{id}"))).await?;
    }
    view.end(&job);
    if output.is_json() || job["status"] == "planned" {
        output.one(&job)?;
    }
    let is_well = matches!(job["status"].as_str(), Some("done" | "planned" | "paused"));
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct View {
    id: u64,
    bar: Option<ProgressBar>,
    said: std::cell::Cell<Option<Instant>>,
}

impl View {
    fn new(id: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("replay {prefix} [{bar:32}] {pos}/{len} {msg}");
            ProgressBar::new(0)
                .with_style(style.expect("the template is fixed").progress_chars("=> "))
                .with_prefix(id.to_string())
        });
        Self { id, bar, said: std::cell::Cell::default() }
    }

    /// Whether it is over: ended, or waiting for a person.
    fn show(&self, job: &Value) -> bool {
        let count = |name: &str| job["progress"][name].as_u64().unwrap_or_default();
        let status = job["status"].as_str().unwrap_or_default();
        let (gone, all) =
            (count("replayed") + count("skipped"), job["plan"]["deliveries"].as_u64().unwrap_or_default());
        let note_of_job = job["note"].as_str().map(|note| format!(", {}", escaped(note))).unwrap_or_default();
        let rest = match count("remaining_s") {
            0 => String::new(),
            seconds => format!(", {seconds} s left"),
        };
        let words = format!("{}{rest}{note_of_job}", escaped(status));
        match &self.bar {
            Some(bar) => {
                bar.set_length(all);
                bar.set_position(gone);
                bar.set_message(words);
            }
            None if self.said.get().is_none_or(|at| at.elapsed() >= SAY_EVERY) => {
                self.said.set(Some(Instant::now()));
                note(format_args!("replay {}: {gone} of {all}, {words}", self.id));
            }
            None => {}
        }
        match status {
            "planning" | "running" => false,
            // Planned and about to start by itself.
            "planned" => job["start"] != true,
            _ => true,
        }
    }

    fn end(&self, job: &Value) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let count = |name: &str| job["progress"][name].as_u64().unwrap_or_default();
        note(format_args!(
            "replay {} is {}: {} replayed, {} skipped, {} remaining",
            self.id,
            escaped(job["status"].as_str().unwrap_or("?")),
            count("replayed"),
            count("skipped"),
            count("remaining"),
        ));
    }
}
