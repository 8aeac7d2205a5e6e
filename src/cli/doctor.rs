//! `hookmill doctor`: what is wrong with this machine, these files and these settings, and what to do.

use std::{fmt::Write, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{SettingsArgs, print};
use crate::{
    doctor::{Finding, Level, examine},
    settings::SettingsError,
};

const EXAMPLES: &str = "\
Examples:
  hookmill doctor --data-dir /var/lib/hookmill
  hookmill doctor --config /etc/hookmill.toml --json

Give it the flags, the environment and the user that the server has. Works beside a running server.
Exit code: 0 nothing fails (there may be warnings), 1 something does.";

/// What to look at.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// JSON for scripts
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let findings = match args.settings.load() {
        Ok(effective) => {
            let mut findings = examine(&effective.settings);
            findings.insert(0, Finding::ok("settings", "they can be read"));
            findings
        }
        Err(error) => vec![wrong_settings(&error)],
    };
    let fails = findings.iter().any(|finding| finding.level == Level::Fail);
    if args.json {
        print(format_args!("{:#}\n", json!({ "ok": !fails, "checks": findings })))?;
    } else {
        print(lines(&findings))?;
    }
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn wrong_settings(error: &SettingsError) -> Finding {
    Finding::fail("settings", error.to_string(), error.next_step())
}

fn lines(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        let _ = writeln!(text, "{level:<6}{:<16}{}", finding.check, finding.detail);
        if let Some(next) = &finding.next {
            let _ = writeln!(text, "{:<22}next: {next}", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_how_it_is_and_what_to_do() {
        let findings = [Finding::ok("clock", "fine"), Finding::fail("disk space", "none", "buy some")];
        let text = lines(&findings);
        assert_eq!(
            text,
            "ok    clock           fine\nFAIL  disk space      none\n                      next: buy some\n"
        );
    }
}
