//! `hookmill verify`: says why the signature of a stored request holds or fails, or runs a file of test vectors.
//! Secrets come from files or standard input, never from the command line, which other users can read.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use hookmill_actors::{
    domain::{headers::HeaderBlock, secret::Secret},
    ports::provider::{Provider, Providers},
};
use hyper::header::HeaderName;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::providers::{doctor::Case, registry};

pub mod vectors;

/// The request or the command line cannot be read: neither "holds" nor "fails".
const EXIT_USAGE: u8 = 2;
/// Far above any header block that a server takes.
const HEADER_FILE_BYTES_MAX: u64 = 1 << 20;
const BODY_FILE_BYTES_MAX: u64 = 64 << 20;
const VECTORS_FILE_BYTES_MAX: u64 = 256 << 20;

const EXAMPLES: &str = "\
Examples:
  hookmill verify --provider stripe --secret-file key.txt \\
    --headers headers.txt --body body.json
  hookmill verify --provider generic_hmac --settings verification.json \\
    --headers headers.txt --body body.bin --now 1768465800 \\
    --secret-file - < key.txt
  hookmill verify --vectors vectors.json

The header file has a `Name: value` on each line; what `curl -v` or `curl -D` writes will do.
Exit code: 0 the signature holds, 1 it fails, 2 something could not be read.";

/// What to verify.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// The scheme, such as `stripe` or `generic_hmac`
    #[arg(long, required_unless_present = "vectors")]
    provider: Option<String>,
    /// A file with one secret, or `-` for standard input; again for each further active secret
    #[arg(long = "secret-file", value_name = "FILE")]
    secret_files: Vec<PathBuf>,
    /// The request's header lines
    #[arg(long, value_name = "FILE", required_unless_present = "vectors")]
    headers: Option<PathBuf>,
    /// The request's body, exactly as received, or `-`
    #[arg(long, value_name = "FILE", required_unless_present = "vectors")]
    body: Option<PathBuf>,
    /// The endpoint's verification settings, a JSON object
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The clock, seconds since 1970 [default: now]
    #[arg(long, value_name = "UNIX")]
    now: Option<u64>,
    /// The request's method
    #[arg(long, default_value = "POST")]
    method: String,
    /// The request's path and query
    #[arg(long, default_value = "/")]
    target: String,
    /// Run a file of signature test vectors instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["provider", "secret_files", "headers", "body", "settings", "now"])]
    vectors: Option<PathBuf>,
}

/// Runs the command. What cannot be read is told on standard error, with exit code 2.
pub fn run(args: &VerifyArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match verify(args, out) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => {
            writeln!(io::stderr(), "error: {error:#}")?;
            Ok(ExitCode::from(EXIT_USAGE))
        }
    }
}

/// Whether all is well.
fn verify(args: &VerifyArgs, out: &mut impl Write) -> anyhow::Result<bool> {
    if let Some(file) = &args.vectors {
        return vectors::run(&read(file, VECTORS_FILE_BYTES_MAX)?, out);
    }
    let (Some(name), Some(headers), Some(body)) = (&args.provider, &args.headers, &args.body) else {
        bail!("`--provider`, `--headers` and `--body` are needed");
    };
    let from_stdin = [headers, body].into_iter().chain(&args.secret_files).filter(|file| is_stdin(file)).count();
    if from_stdin > 1 {
        bail!("only one of the files can be `-`: standard input is read once");
    }
    let case = Case {
        provider: provider(name)?,
        settings: args.settings.as_deref().map(read_settings).transpose()?.unwrap_or_default(),
        secrets: args.secret_files.iter().map(|file| read_secret(file)).collect::<Result<_, _>>()?,
        former: Vec::new(),
        headers: header_lines(&read(headers, HEADER_FILE_BYTES_MAX)?)
            .with_context(|| format!("{} has no line of the form `Name: value`", headers.display()))?,
        body: read(body, BODY_FILE_BYTES_MAX)?.into(),
        method: args.method.clone(),
        target: args.target.clone(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        now_ms: args.now.map_or_else(now_ms, |seconds| seconds.saturating_mul(1_000)),
    };
    tell(&case, out)
}

/// Larger bodies are hashed once, not once for every guess.
const GUESS_BODY_BYTES_MAX: usize = 256 << 10;

/// Writes the diagnosis; whether the signature holds.
fn tell(case: &Case, out: &mut impl Write) -> anyhow::Result<bool> {
    let name = case.provider.name();
    let diagnosis = case
        .diagnose(GUESS_BODY_BYTES_MAX)
        .map_err(|error| anyhow::anyhow!("these settings or secrets do not fit `{name}`: {error}"))?;
    if let Some(signed_at_s) = diagnosis.signed_at_s {
        writeln!(out, "timestamp  {signed_at_s}, {}", age(case.now_ms / 1_000, signed_at_s))?;
    }
    match diagnosis.verdict {
        Ok(verified) => {
            let secret = Some(case.which_secret(verified)).filter(|secret| !secret.is_empty());
            let with = secret.map(|secret| format!(", with {secret}")).unwrap_or_default();
            writeln!(out, "holds      by the rules of `{name}`{with}")?;
            return Ok(true);
        }
        Err(refusal) => writeln!(out, "fails      by the rules of `{name}`: {refusal}")?,
    }
    for cause in diagnosis.causes {
        writeln!(out, "likely     {cause}")?;
    }
    if let Some(signed_at_s) = diagnosis.signed_at_s.filter(|_| diagnosis.only_age) {
        writeln!(out, "try        `--now {signed_at_s}`, which checks it at its own time")?;
    }
    Ok(false)
}

fn age(now_s: u64, signed_at_s: u64) -> String {
    if signed_at_s > now_s {
        format!("{} s ahead", signed_at_s - now_s)
    } else {
        format!("{} s old", now_s - signed_at_s)
    }
}

/// The provider of that name, or which there are.
pub(super) fn provider(name: &str) -> anyhow::Result<&'static dyn Provider> {
    registry().get(name).with_context(|| {
        let names = registry().names();
        let nearest = names.iter().max_by(|a, b| strsim::jaro(name, a).total_cmp(&strsim::jaro(name, b)));
        let hint = nearest.filter(|it| strsim::jaro(name, it) > 0.7).map(|it| format!("; did you mean `{it}`?"));
        format!("there is no provider `{name}`{}; there are {}", hint.unwrap_or_default(), names.join(", "))
    })
}

/// A JSON object from a file.
pub(super) fn read_settings(file: &Path) -> anyhow::Result<Map<String, Value>> {
    serde_json::from_slice(&read(file, HEADER_FILE_BYTES_MAX)?)
        .with_context(|| format!("{} is not a JSON object", file.display()))
}

/// A secret from a file, without the one line end that editors and `echo` put after it.
pub(super) fn read_secret(file: &Path) -> anyhow::Result<Secret> {
    let bytes = Zeroizing::new(read(file, HEADER_FILE_BYTES_MAX)?);
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() {
        bail!("{} holds no secret", file.display());
    }
    Ok(Secret::new(text))
}

/// A file, or standard input for `-`, up to a bound.
pub(super) fn read(file: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = if is_stdin(file) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot open {}", file.display()))?)
    };
    let read = source.take(bytes_max + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {}", file.display()))?;
    if bytes.len() as u64 > bytes_max {
        bail!("{} is larger than {bytes_max} bytes", file.display());
    }
    Ok(bytes)
}

pub(super) fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// Wall clock, milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}

/// The header lines of a text; request lines, status lines and a trace's other lines are read over.
fn header_lines(text: &[u8]) -> Option<HeaderBlock> {
    let lines: Vec<(&str, &[u8])> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let line = line.strip_prefix(b"> ").unwrap_or(line);
            let colon = line.iter().position(|byte| *byte == b':')?;
            HeaderName::from_bytes(&line[..colon]).ok()?;
            Some((std::str::from_utf8(&line[..colon]).ok()?, line[colon + 1..].trim_ascii()))
        })
        .collect();
    (!lines.is_empty()).then(|| HeaderBlock::from_lines(lines.iter().copied()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: VerifyArgs,
    }

    fn parse(args: &[&str]) -> Result<VerifyArgs, clap::Error> {
        Cli::try_parse_from(["verify"].iter().chain(args)).map(|cli| cli.args)
    }

    fn write(folder: &tempfile::TempDir, name: &str, content: &str) -> String {
        let file = folder.path().join(name);
        std::fs::write(&file, content).expect("writes");
        file.to_str().expect("text").to_owned()
    }

    #[test]
    fn header_files_are_what_tools_write() {
        let text = b"POST /hook?x=http://a HTTP/1.1\r\nHost: a.example\r\nX-Signature:  abc \r\n> X-Curl: 1\n< HTTP/1.1 200 OK\n< X-Reply: no\n* Connected: no\n\n";
        let block = header_lines(text).expect("lines");
        let lines: Vec<(&str, &[u8])> = block.iter().collect();
        assert_eq!(lines, [("host", b"a.example".as_slice()), ("x-signature", b"abc"), ("x-curl", b"1")]);
        assert!(header_lines(b"HTTP/1.1 200 OK\n\n").is_none());
    }

    #[test]
    fn the_command_line_is_all_or_vectors() {
        assert!(parse(&["--vectors", "f"]).is_ok());
        assert!(parse(&["--vectors", "f", "--provider", "stripe"]).is_err());
        assert!(parse(&["--provider", "stripe", "--headers", "h"]).is_err());
        assert!(parse(&["--provider", "stripe", "--headers", "h", "--body", "b"]).is_ok());
    }

    #[test]
    fn a_stored_request_is_checked_from_its_files() {
        let folder = tempfile::tempdir().expect("folder");
        let provider = registry().get("github").expect("registered");
        let signed = provider.sign(&Map::new(), &Secret::new("s3cret-7"), "d-1", b"{}", 0).expect("signs");
        let lines: Vec<String> = signed.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let headers = write(&folder, "headers", &lines.join("\n"));
        let body = write(&folder, "body", "{}");
        let secret = write(&folder, "secret", "s3cret-7\r\n");
        let other = write(&folder, "other", "nope-99\n");
        let run = |secrets: &[&str], headers: &str| {
            let mut args = vec!["--provider", "github", "--headers", headers, "--body", &body];
            args.extend(secrets.iter().flat_map(|file| ["--secret-file", file]));
            let mut out = Vec::new();
            let verdict = verify(&parse(&args).expect("parses"), &mut out);
            let out = String::from_utf8(out).expect("text");
            assert!(!out.contains("s3cret-7") && !out.contains("nope-99"), "a secret is shown: {out}");
            (verdict.ok(), out)
        };
        let (verdict, out) = run(&[&other, &secret], &headers);
        assert_eq!(verdict, Some(true), "{out}");
        assert!(out.contains("secret 2 of 2"), "{out}");
        let (verdict, out) = run(&[&other], &headers);
        assert_eq!(verdict, Some(false), "{out}");
        assert_eq!(run(&[&other], "/nonexistent").0, None);
    }

    #[test]
    fn unknown_providers_get_a_suggestion() {
        let Err(error) = provider("strip") else { panic!("there is none") };
        assert!(error.to_string().contains("did you mean `stripe`?"), "{error}");
    }
}
