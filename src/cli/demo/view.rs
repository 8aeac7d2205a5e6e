//! The demo on the screen: live lines on a terminal, one plain line a second elsewhere.

use std::{
    io::IsTerminal,
    sync::Mutex,
    time::{Duration, Instant},
};

use hookmill_actors::metrics::{Report, Totals};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{gateway::Gateway, service::Service};

/// What is shown, and when it was last.
pub(super) struct View<'a> {
    gateway: &'a Gateway,
    service: &'a Service,
    lines: Option<Lines>,
    shown: Mutex<Option<Instant>>,
}

struct Lines {
    gateway: ProgressBar,
    deliveries: ProgressBar,
    service: ProgressBar,
}

const LIVE_EVERY: Duration = Duration::from_millis(100);
const PLAIN_EVERY: Duration = Duration::from_secs(1);

impl<'a> View<'a> {
    pub(super) fn new(gateway: &'a Gateway, service: &'a Service) -> Self {
        let live = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        Self { gateway, service, lines: live.then(Lines::new), shown: Mutex::new(None) }
    }

    /// Shows the present counts, where it is time to; returns them in any case.
    pub(super) async fn refresh(&self) -> Totals {
        let report = self.gateway.report().await;
        let every = if self.lines.is_some() { LIVE_EVERY } else { PLAIN_EVERY };
        let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if shown.is_none_or(|at| at.elapsed() >= every) {
            *shown = Some(Instant::now());
            self.show(&report);
        }
        report.totals
    }

    /// The last word.
    pub(super) fn finish(&self, settled: bool) {
        if let Some(lines) = &self.lines {
            lines.gateway.finish();
            lines.deliveries.finish();
            lines.service.finish();
        }
        let word = if settled {
            "Everything that was accepted has been delivered, what failed first too."
        } else {
            "Some deliveries were still waiting for their next attempt; a running server would go on."
        };
        // Nothing can be done where standard output is gone.
        let _ = crate::cli::print(format!("{word}\n"));
    }

    fn show(&self, report: &Report) {
        let Totals { accepted, delivered, retried, dead, attempts, .. } = report.totals;
        let waiting = (accepted * self.gateway.subscriptions_each()).saturating_sub(delivered + dead);
        let (steady, shaky, refused) = self.service.counts();
        let state = if self.service.is_down() { "DOWN, answers 503" } else { "up" };
        let accepts = format!(
            "accepted   {accepted:>7}  {:>7.0}/s  signed by stripe, github and generic_hmac, on disk",
            report.accepted_per_s
        );
        let deliveries = format!(
            "delivered  {delivered:>7}  {:>7.0}/s  attempts {attempts}, to be retried {retried}, waiting {waiting}, dead {dead}",
            report.delivered_per_s
        );
        let service = format!("service    /orders {steady} (up)   /ledger {shaky} ({state}, refused {refused})");
        match &self.lines {
            Some(lines) => {
                lines.gateway.set_message(accepts);
                lines.deliveries.set_message(deliveries);
                lines.service.set_message(service);
            }
            // A reader that has gone ends the demo's words, not the demo.
            None => drop(crate::cli::print(format!("{accepts}\n{deliveries}\n{service}\n\n"))),
        }
    }
}

impl Lines {
    fn new() -> Self {
        let all = MultiProgress::new();
        let line = || {
            let style =
                ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = all.add(ProgressBar::new_spinner().with_style(style));
            bar.enable_steady_tick(LIVE_EVERY);
            bar
        };
        Self { gateway: line(), deliveries: line(), service: line() }
    }
}
