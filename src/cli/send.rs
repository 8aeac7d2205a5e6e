//! `hookmill send`: signs a request as a provider does and posts it, to see an endpoint work.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hookmill_actors::{domain::secret::Secret, ports::provider::Provider};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, Uri, header};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use super::{
    client::http::{self, HttpClient},
    verify::{is_stdin, now_ms, provider, read, read_secret, read_settings},
};

const EXIT_USAGE: u8 = 2;
/// Longer than any provider waits for its own.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(30);
const REPLY_BYTES_MAX: usize = 64 << 10;
const REPLY_CHARS_SHOWN: usize = 500;
const BODY_FILE_BYTES_MAX: u64 = 64 << 20;

const EXAMPLES: &str = "\
Examples:
  hookmill send --provider stripe --secret-file key.txt \\
    --url http://localhost:8080/webhooks/receive/stripe
  hookmill send --provider generic_hmac --settings verification.json \\
    --url https://hooks.example.com/webhooks/receive/sms \\
    --body event.json --count 10 --secret-file - < key.txt

Exit code: 0 every reply was 2xx, 1 one was not, 2 something could not be read.";

/// What to send where.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SendArgs {
    /// The scheme, such as `stripe` or `generic_hmac`
    #[arg(long)]
    provider: String,
    /// A file with the endpoint's secret, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Where to post it
    #[arg(long)]
    url: Uri,
    /// A body to sign, or `-`, in place of the provider's sample
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The endpoint's verification settings, a JSON object
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// How many to send, one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
}

/// Runs the command; needs a tokio runtime. What cannot be read is told on standard error, with exit code 2.
pub async fn run(args: &SendArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let sender = match Sender::new(args) {
        Ok(sender) => sender,
        Err(error) => {
            writeln!(io::stderr(), "error: {error:#}")?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let mut is_well = true;
    for _ in 0..args.count {
        let id = format!("evt_{:032x}", fastrand::u128(..));
        is_well &= sender.send(&id, out).await?;
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Sender {
    provider: &'static dyn Provider,
    settings: Map<String, Value>,
    secret: Secret,
    url: Uri,
    body: Option<Vec<u8>>,
    client: HttpClient,
}

impl Sender {
    fn new(args: &SendArgs) -> anyhow::Result<Self> {
        let is_absolute = matches!(args.url.scheme_str(), Some("http" | "https")) && args.url.host().is_some();
        if !is_absolute {
            bail!("`{}` is not a URL to post to; it must begin with http:// or https://", args.url);
        }
        let files = [&args.secret_file, &args.body, &args.settings];
        if files.into_iter().flatten().filter(|file| is_stdin(file)).count() > 1 {
            bail!("only one of the files can be `-`: standard input is read once");
        }
        let sender = Self {
            provider: provider(&args.provider)?,
            settings: args.settings.as_deref().map(read_settings).transpose()?.unwrap_or_default(),
            secret: match &args.secret_file {
                Some(file) => read_secret(file)?,
                None => Secret::new(""),
            },
            url: args.url.clone(),
            body: args.body.as_deref().map(|file| read(file, BODY_FILE_BYTES_MAX)).transpose()?,
            client: http::client(None)?,
        };
        // Settings and secret are tried before anything is sent.
        sender.request("evt_0", now_ms()).map_err(|error| match &args.secret_file {
            None => error.context("give the endpoint's secret with `--secret-file`"),
            Some(_) => error,
        })?;
        Ok(sender)
    }

    /// The request as the provider would send it.
    fn request(&self, id: &str, now_ms: u64) -> anyhow::Result<Request<Full<Bytes>>> {
        let (content_type, body) = match &self.body {
            Some(body) => ("application/json", body.clone()),
            None => self.provider.sample(id),
        };
        let signed = self
            .provider
            .sign(&self.settings, &self.secret, id, &body, now_ms)
            .map_err(|error| anyhow::anyhow!("`{}` cannot sign with this: {error}", self.provider.name()))?;
        let mut request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, content_type)
            .header(header::USER_AGENT, http::USER_AGENT);
        for (name, value) in &signed.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(Bytes::from(body))).context("this makes no HTTP request")
    }

    /// Sends one and writes a line about it; whether the reply was 2xx.
    async fn send(&self, id: &str, out: &mut impl Write) -> anyhow::Result<bool> {
        let request = self.request(id, now_ms())?;
        let started = Instant::now();
        let exchange = async {
            let reply = self.client.request(request).await.context("no reply")?;
            let status = reply.status();
            let body = Limited::new(reply.into_body(), REPLY_BYTES_MAX).collect().await;
            anyhow::Ok((status, body.map(http_body_util::Collected::to_bytes).unwrap_or_default()))
        };
        match timeout(REPLY_WAIT_MAX, exchange).await {
            Ok(Ok((status, body))) => {
                let took = started.elapsed().as_millis();
                writeln!(out, "{} {id} in {took} ms {}", Line(status), excerpt(&body))?;
                Ok(status.is_success())
            }
            Ok(Err(error)) => {
                writeln!(out, "failed {id}: {error:#}")?;
                Ok(false)
            }
            Err(_) => {
                writeln!(out, "failed {id}: no reply within {} s", REPLY_WAIT_MAX.as_secs())?;
                Ok(false)
            }
        }
    }
}

/// A status as `200 OK`, also where it has no name.
struct Line(StatusCode);

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.canonical_reason() {
            Some(reason) => write!(f, "{} {reason}", self.0.as_str()),
            None => f.write_str(self.0.as_str()),
        }
    }
}

/// The start of a reply on one line; what would steer a terminal is shown as an escape.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut shown = String::new();
    for c in text.chars().take(REPLY_CHARS_SHOWN) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: SendArgs,
    }

    fn parse(args: &[&str]) -> SendArgs {
        Cli::try_parse_from(["send"].iter().chain(args)).expect("parses").args
    }

    /// Answers each connection with the next reply, and hands the requests' bytes back.
    async fn receiver(replies: Vec<&'static str>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}/hook", listener.local_addr().expect("address"));
        let serve = async move {
            let mut requests = Vec::new();
            for reply in replies {
                let (mut socket, _) = listener.accept().await.expect("accepts");
                let mut request = Vec::new();
                while !is_whole(&request) {
                    assert_ne!(socket.read_buf(&mut request).await.expect("reads"), 0);
                }
                let head = format!("HTTP/1.1 {reply}\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhi\x1b\n!");
                socket.write_all(head.as_bytes()).await.expect("writes");
                requests.push(String::from_utf8(request).expect("text"));
            }
            requests
        };
        (url, tokio::spawn(serve))
    }

    fn is_whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        body.len() == length.parse::<usize>().expect("digits")
    }

    #[tokio::test]
    async fn sends_signed_samples_and_reports_each() {
        let folder = tempfile::tempdir().expect("folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "whsec_k\n").expect("writes");
        let (url, receiver) = receiver(vec!["200 OK", "503 Service Unavailable"]).await;
        let secret = secret.to_str().expect("text");
        let args = parse(&["--provider", "stripe", "--secret-file", secret, "--url", &url, "--count", "2"]);
        let mut out = Vec::new();
        let code = run(&args, &mut out).await.expect("runs");
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
        let out = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("200 OK evt_") && lines[0].ends_with("hi\\u{1b}\\n!"), "{out}");
        assert!(lines[1].starts_with("503 Service Unavailable evt_"), "{out}");

        let requests = receiver.await.expect("served");
        assert!(requests[0].starts_with("POST /hook HTTP/1.1\r\n"), "{}", requests[0]);
        assert!(requests[0].contains("\r\nstripe-signature: t="), "{}", requests[0]);
        assert!(requests.iter().all(|request| request.contains("payment_intent.succeeded")));
    }

    #[tokio::test]
    async fn what_cannot_be_signed_is_not_sent() {
        for args in [
            ["--provider", "stripe", "--url", "http://127.0.0.1:9/"].as_slice(),
            &["--provider", "no_such", "--url", "http://127.0.0.1:9/"],
            &["--provider", "none", "--url", "/path-only"],
            &["--provider", "none", "--url", "http://127.0.0.1:9/", "--body", "/nonexistent"],
        ] {
            let mut out = Vec::new();
            let code = run(&parse(args), &mut out).await.expect("runs");
            assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(EXIT_USAGE)), "{args:?}");
            assert!(out.is_empty());
        }
    }
}
