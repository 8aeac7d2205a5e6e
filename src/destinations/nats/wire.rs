//! The NATS client protocol as far as publishing to a stream needs it
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>). Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Deserialize;

/// A line of control at most; `INFO` is the longest.
const LINE_BYTES_MAX: usize = 64 << 10;
/// A message to us at most: only acknowledgements are.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Begins the headers of a message.
const HEADER_VERSION: &[u8] = b"NATS/1.0";

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Info(Info),
    /// A message to one of our subscriptions.
    Message {
        subject: String,
        /// The status in its headers, such as 503 when nobody listens.
        status: Option<u16>,
        payload: Bytes,
    },
    Ping,
    Pong,
    Ok,
    /// In the server's words.
    Error(String),
}

/// What a server says of itself.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    pub(super) headers: bool,
    pub(super) max_payload: usize,
    pub(super) tls_required: bool,
    pub(super) jetstream: bool,
}

/// Not NATS, or larger than anything that is meant for us.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server does not speak NATS as expected: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Takes the next thing said out of what was read; `None` while it is not all there.
pub(super) fn next(read: &mut BytesMut) -> Result<Option<Said>, Malformed> {
    let Some(end) = read.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if read.len() >= LINE_BYTES_MAX { Err(Malformed("an endless line")) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&read[..end]).map_err(|_| Malformed("a line that is no text"))?.trim_end();
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let said = match verb.to_ascii_uppercase().as_str() {
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "+OK" => Said::Ok,
        "-ERR" => Said::Error(rest.trim().trim_matches('\'').to_owned()),
        "INFO" => Said::Info(serde_json::from_str(rest).map_err(|_| Malformed("an INFO that is no JSON"))?),
        "MSG" => return message(read, end + 1, false),
        "HMSG" => return message(read, end + 1, true),
        _ => return Err(Malformed("an unknown verb")),
    };
    read.advance(end + 1);
    Ok(Some(said))
}

/// `MSG subject sid [reply] bytes`, `HMSG subject sid [reply] header-bytes bytes`.
fn message(read: &mut BytesMut, head: usize, has_headers: bool) -> Result<Option<Said>, Malformed> {
    let line = std::str::from_utf8(&read[..head]).map_err(|_| Malformed("a line that is no text"))?;
    let mut words = line.split_ascii_whitespace().skip(1);
    let subject = words.next().ok_or(Malformed("a message without a subject"))?.to_owned();
    let rest: Vec<&str> = words.collect();
    let number = |from_end: usize| {
        let at = rest.len().checked_sub(from_end)?;
        rest.get(at)?.parse::<usize>().ok().filter(|number| *number <= MESSAGE_BYTES_MAX)
    };
    let total = number(1).ok_or(Malformed("a message of no acceptable length"))?;
    let headers = match has_headers {
        true => number(2).filter(|headers| *headers <= total).ok_or(Malformed("headers of no acceptable length"))?,
        false => 0,
    };
    if read.len() < head + total + 2 {
        return Ok(None);
    }
    read.advance(head);
    let block = read.split_to(headers);
    let payload = read.split_to(total - headers).freeze();
    read.advance(2);
    Ok(Some(Said::Message { subject, status: status(&block), payload }))
}

/// `NATS/1.0 503 No Responders`.
fn status(headers: &[u8]) -> Option<u16> {
    let line = headers.split(|byte| *byte == b'\r').next()?;
    let words = line.strip_prefix(HEADER_VERSION)?.trim_ascii();
    std::str::from_utf8(words.get(..3)?).ok()?.parse().ok()
}

/// The headers of a message to publish.
pub(super) struct Headers(BytesMut);

impl Headers {
    pub(super) fn new() -> Self {
        let mut block = BytesMut::with_capacity(512);
        block.put_slice(HEADER_VERSION);
        block.put_slice(b"\r\n");
        Self(block)
    }

    /// Adds a line. The value holds no line end: it is a header's.
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        self.0.put_slice(name.as_bytes());
        self.0.put_slice(b": ");
        self.0.extend(value.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        self.0.put_slice(b"\r\n");
    }

    pub(super) fn finish(mut self) -> Bytes {
        self.0.put_slice(b"\r\n");
        self.0.freeze()
    }
}

/// Writes a message with headers that wants an answer at `reply`.
pub(super) fn publish(out: &mut BytesMut, subject: &str, reply: &str, headers: &[u8], payload: &[u8]) {
    let line = format!("HPUB {subject} {reply} {} {}\r\n", headers.len(), headers.len() + payload.len());
    out.reserve(line.len() + headers.len() + payload.len() + 2);
    out.put_slice(line.as_bytes());
    out.put_slice(headers);
    out.put_slice(payload);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8]) -> Result<Vec<Said>, Malformed> {
        let (mut read, mut said) = (BytesMut::from(text), Vec::new());
        while let Some(one) = next(&mut read)? {
            said.push(one);
        }
        assert!(read.is_empty(), "{read:?} is left");
        Ok(said)
    }

    const TALK: &[u8] = b"INFO {\"headers\":true,\"max_payload\":1024,\"x\":[]} \r\n+OK\r\nping\r\n-ERR 'No'\r\n\
        MSG _I.a.7 1 2\r\n{}\r\nHMSG _I.a.8 1 30 30\r\nNATS/1.0 503 No Responders\r\n\r\n\r\nPONG\r\n";

    #[test]
    fn understands_a_server() {
        let said = all(TALK).unwrap();
        let message = |subject: &str, status, payload: &'static [u8]| Said::Message {
            subject: subject.into(),
            status,
            payload: Bytes::from_static(payload),
        };
        assert_eq!(
            said,
            [
                Said::Info(Info { headers: true, max_payload: 1024, ..Info::default() }),
                Said::Ok,
                Said::Ping,
                Said::Error("No".into()),
                message("_I.a.7", None, b"{}"),
                message("_I.a.8", Some(503), b""),
                Said::Pong,
            ]
        );
    }

    #[test]
    fn a_talk_that_comes_in_pieces_is_the_same() {
        let whole = all(TALK).unwrap();
        let (mut read, mut said) = (BytesMut::new(), Vec::new());
        for byte in TALK {
            read.put_u8(*byte);
            said.extend(next(&mut read).unwrap());
        }
        assert_eq!(said, whole);
    }

    #[test]
    fn what_is_no_nats_or_too_large_is_refused() {
        for text in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"INFO nonsense\r\n",
            b"MSG\r\n",
            b"MSG a 1 99999999999\r\n",
            b"MSG a 1 -1\r\n",
            b"HMSG a 1 9 3\r\nabc\r\n",
            b"\xff\xff\r\n",
        ] {
            assert!(all(text).is_err(), "{text:?}");
        }
        assert!(next(&mut BytesMut::from(&vec![b'x'; LINE_BYTES_MAX][..])).is_err());
    }

    #[test]
    fn a_value_ends_no_header() {
        let mut headers = Headers::new();
        headers.add("a", b"1\r\nb: 2");
        assert_eq!(&headers.finish()[..], b"NATS/1.0\r\na: 1b: 2\r\n\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), verb in "(H?MSG|INFO|-ERR) ?") {
            let mut read = BytesMut::from(verb.as_bytes());
            read.extend_from_slice(&bytes);
            while let Ok(Some(_)) = next(&mut read) {}
        }
    }
}
