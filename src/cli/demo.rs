//! `hookmill demo`: a server, a service for it to deliver to and three providers, all in this process and in a
//! temporary directory, so that what hookmill does can be watched before anything is configured.

mod gateway;
mod service;
mod view;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;

use self::{
    gateway::{BY_HAND, Gateway},
    service::Service,
    view::View,
};
use crate::app;

/// What to show.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemoArgs {
    /// How long webhooks are sent, seconds
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..=3_600))]
    seconds: u64,
    /// Webhooks a second, over all providers
    #[arg(long, default_value_t = 150, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=5_000))]
    rate: u64,
}

const EXAMPLES: &str = "\
Examples:
  hookmill demo              # 15 seconds of webhooks of three providers
  hookmill demo --rate 1000  # more of them
  hookmill demo | cat        # plain lines instead of a live view";

/// The schemes that the demo speaks, each signed as the provider does.
const PROVIDERS: [&str; 3] = ["stripe", "github", "generic_hmac"];
/// One of the two services is down from a fifth of the time to the half of it.
const DOWN_FROM: f64 = 0.2;
const DOWN_UNTIL: f64 = 0.5;
/// What was retried last has a second to arrive, and some more where the machine is busy.
const SETTLE_MAX: Duration = Duration::from_secs(15);

/// Runs the demo; needs no settings, no network and no other service.
pub(super) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    app::control_runtime()?.block_on(show(args))
}

async fn show(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let service = Arc::new(Service::start().await?);
    let gateway = Gateway::start(dir.path(), &service).await?;
    let view = View::new(&gateway, &service);
    let outcome = tokio::select! {
        outcome = send(args, &gateway, &service, &view) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    let settled = settle(&gateway, &view).await;
    view.finish(settled);
    gateway.stop().await?;
    outcome?;
    crate::cli::print(BY_HAND)?;
    Ok(if settled { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn send(args: &DemoArgs, gateway: &Gateway, service: &Service, view: &View<'_>) -> anyhow::Result<()> {
    let length = Duration::from_secs(args.seconds);
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut sent = 0;
    while began.elapsed() < length {
        tick.tick().await;
        let share = began.elapsed().as_secs_f64() / length.as_secs_f64();
        service.set_down((DOWN_FROM..DOWN_UNTIL).contains(&share));
        let due = (began.elapsed().as_secs_f64() * rate(args.rate)).floor();
        while f64::from(sent) < due {
            gateway.post(PROVIDERS[sent as usize % PROVIDERS.len()], sent).await?;
            sent += 1;
        }
        view.refresh().await;
    }
    service.set_down(false);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "at most 5,000")]
fn rate(per_second: u64) -> f64 {
    per_second as f64
}

/// Waits until everything accepted is delivered; whether it was.
async fn settle(gateway: &Gateway, view: &View<'_>) -> bool {
    let began = Instant::now();
    loop {
        let totals = view.refresh().await;
        if totals.delivered == totals.accepted * gateway.subscriptions_each() {
            return true;
        }
        if began.elapsed() > SETTLE_MAX {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
