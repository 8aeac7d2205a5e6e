//! The bytes of HTTP/1.1 as the load generator speaks it: one request that is built once and re-stamped in place,
//! and the least parser that finds a reply's status and end. Pure, no I/O.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The secret of the endpoint that is measured.
pub(crate) const SECRET: &str = "throughput-0123456789abcdef0123456789abcdef";
/// Where the load goes: a path's number follows, of [`PATH_DIGITS`].
pub(crate) const TARGET: &str = "/webhooks/receive/bench-";
/// Digits of a path's number.
pub(crate) const PATH_DIGITS: usize = 5;
/// Stands before the time of sending in each body.
pub(crate) const SENT_KEY: &[u8] = b"\"sent_us\":\"";

/// What events are called, of one length. Each but the last is as frequent as the others.
pub(crate) const TYPES: [&str; 3] = ["bench.tick", "bench.tock", "bench.rare"];
/// One event in so many has the last of [`TYPES`].
pub(crate) const RARE: u64 = 100_000;

/// Digits of the number and of the time in a body.
const DIGITS: usize = 20;
/// A reply's head above this is an error of the server.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A whole request in one buffer: signed once, or signed again with each stamp.
#[derive(Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    path: Range<usize>,
    signature: Range<usize>,
    number: Range<usize>,
    kind: Range<usize>,
    sent: Range<usize>,
    body: Range<usize>,
    mac: Hmac<Sha256>,
}

impl Request {
    /// A request to `host` with a JSON body of exactly `body_bytes`.
    pub(crate) fn new(host: &str, body_bytes: usize) -> Result<Self> {
        let open = format!(
            "{{\"id\":\"evt_{:0DIGITS$}\",\"type\":\"{}\",\"sent_us\":\"{:0DIGITS$}\",\"data\":\"",
            0, TYPES[0], 0
        );
        let close = "\"}";
        let least = open.len() + close.len();
        ensure!(body_bytes >= least, "a body of {body_bytes} bytes is too small; {least} is the least");
        let head = format!(
            "POST {TARGET}{:0PATH_DIGITS$} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {body_bytes}\r\nx-signature: {:064}\r\n\r\n",
            0, 0
        );
        let path_start = "POST ".len() + TARGET.len();
        let signature_start = head.len() - 4 - 64;
        let body_start = head.len();
        let number_start = body_start + "{\"id\":\"evt_".len();
        let kind_start = number_start + DIGITS + "\",\"type\":\"".len();
        let kind = kind_start..kind_start + TYPES[0].len();
        let sent_start = kind.end + "\",\"sent_us\":\"".len();

        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(open.as_bytes());
        bytes.resize(body_start + body_bytes - close.len(), b'x');
        bytes.extend_from_slice(close.as_bytes());
        let mut request = Self {
            path: path_start..path_start + PATH_DIGITS,
            signature: signature_start..signature_start + 64,
            number: number_start..number_start + DIGITS,
            kind,
            sent: sent_start..sent_start + DIGITS,
            body: body_start..bytes.len(),
            mac: Hmac::new_from_slice(SECRET.as_bytes())?,
            bytes,
        };
        request.stamp(0, 0);
        Ok(request)
    }

    /// Makes it another event: puts in its number and the time of sending, and signs it.
    pub(crate) fn stamp(&mut self, number: u64, sent_us: u64) {
        write_digits(&mut self.bytes[self.number.clone()], number);
        write_digits(&mut self.bytes[self.sent.clone()], sent_us);
        let digest = self.mac.clone().chain_update(&self.bytes[self.body.clone()]).finalize().into_bytes();
        hex::encode_to_slice(digest, &mut self.bytes[self.signature.clone()]).expect("64 places hold 32 bytes in hex");
    }

    /// Gives it the type that its number has where [`TYPES`] are mixed; before it is stamped.
    pub(crate) fn name(&mut self, number: u64) {
        let kind = if number.is_multiple_of(RARE) { TYPES[2] } else { TYPES[usize::from(number / 64 % 2 == 1)] };
        self.bytes[self.kind.clone()].copy_from_slice(kind.as_bytes());
    }

    /// Sends it to another path; the signature does not cover that.
    pub(crate) fn address(&mut self, path: u64) {
        write_digits(&mut self.bytes[self.path.clone()], path);
    }

    /// What goes onto the wire.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn write_digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// The time of sending that a body carries, microseconds since 1970; `None` if it carries none near its start.
pub(crate) fn sent_us(body: &[u8]) -> Option<u64> {
    let near = &body[..body.len().min(512)];
    let start = find(near, SENT_KEY)? + SENT_KEY.len();
    let digits = near.get(start..start + DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A reply's status and extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) status: u16,
    /// Where the body begins.
    pub(crate) body_start: usize,
    /// Where the reply ends; the bytes up to here need not have come yet.
    pub(crate) end: usize,
    /// The server closes the connection after it.
    pub(crate) close: bool,
}

/// Reads a reply's head. `None`: more bytes are needed. Only bodies with `content-length`, or none at all, are known.
pub(crate) fn parse_reply(bytes: &[u8]) -> Result<Option<Reply>> {
    let Some(head_len) = find(bytes, b"\r\n\r\n") else {
        ensure!(bytes.len() <= HEAD_BYTES_MAX, "no end of the reply's head in {} bytes", bytes.len());
        return Ok(None);
    };
    let mut lines = bytes[..head_len].split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    ensure!(first.starts_with(b"HTTP/1."), "not an HTTP/1 reply: {}", String::from_utf8_lossy(first));
    let status = number(first.get(9..12).unwrap_or_default())?;
    let (mut length, mut close) = (None, false);
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            length = Some(number(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            bail!("a reply with a transfer encoding; one with `content-length` was expected");
        } else if name.eq_ignore_ascii_case(b"connection") {
            close = value.eq_ignore_ascii_case(b"close");
        }
    }
    let length = match (length, status) {
        (Some(length), _) => length,
        (None, 204 | 304) => 0,
        (None, _) => bail!("a reply of status {status} without `content-length`"),
    };
    let body_start = head_len + 4;
    Ok(Some(Reply { status: u16::try_from(status)?, body_start, end: body_start + length, close }))
}

fn number(digits: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(digits)?;
    match text.parse() {
        // Ten digits are more than any reply here; it keeps sums of lengths far from overflow.
        Ok(value) if text.len() <= 10 => Ok(value),
        _ => bail!("`{text}` is not a number"),
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_request_is_signed_over_its_own_body() {
        let mut request = Request::new("127.0.0.1:1", 1_536).expect("large enough");
        request.name(3 * RARE);
        request.stamp(42, 1_700_000_000_000_123);
        let text = String::from_utf8(request.bytes().to_vec()).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert_eq!(body.len(), 1_536);
        assert!(head.contains("content-length: 1536\r\n"), "{head}");
        let json: serde_json::Value = serde_json::from_str(body).expect("the body is JSON");
        assert_eq!(
            (json["id"].as_str(), json["type"].as_str()),
            (Some("evt_00000000000000000042"), Some("bench.rare"))
        );
        assert_eq!(sent_us(body.as_bytes()), Some(1_700_000_000_000_123));
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length").chain_update(body);
        let expected = format!("x-signature: {}", hex::encode(mac.finalize().into_bytes()));
        assert!(head.ends_with(&expected), "{head}");
    }

    #[test]
    fn the_least_body_is_told() {
        let error = Request::new("h", 10).err().expect("too small").to_string();
        let least: usize = error.split_whitespace().rev().nth(3).expect("a number").parse().expect("digits");
        assert!(Request::new("h", least - 1).is_err());
        assert!(Request::new("h", least).is_ok());
    }

    #[test]
    fn replies_are_found_byte_by_byte() {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";
        for upto in 0..reply.len() - 4 {
            assert_eq!(parse_reply(&reply[..upto]).expect("a good prefix"), None, "{upto} bytes");
        }
        let expected = Reply { status: 200, body_start: reply.len() - 4, end: reply.len(), close: true };
        assert_eq!(parse_reply(reply).expect("a good reply"), Some(expected));
    }

    #[test]
    fn replies_without_a_known_end_are_errors() {
        for bad in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 2\r\n\r\n",
        ] {
            assert!(parse_reply(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse_reply(&vec![b'x'; HEAD_BYTES_MAX + 1]).is_err());
        let empty = parse_reply(b"HTTP/1.1 204 No Content\r\n\r\n").expect("no body").expect("whole");
        assert_eq!((empty.status, empty.end), (204, 27));
    }

    #[test]
    fn a_body_without_a_time_has_none() {
        for body in [&b"{}"[..], b"{\"sent_us\":\"12\"}", b"{\"sent_us\":\"0000000000000000000x\"}", b""] {
            assert_eq!(sent_us(body), None);
        }
    }
}
