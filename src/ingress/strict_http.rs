//! Refuses the HTTP that hyper lets through. Every byte of an HTTP/1 connection passes [`Scanner::take_in`] before
//! hyper sees it: it follows the framing of its own accord (heads, lengths, chunks) and stops at the first thing that
//! is invalid or that two readers could understand differently (RFC 9112). Pure: no I/O, no time.

use head::{Framing, check_head, head_end};

pub(super) use head::{check_http2, trim};

mod head;

/// Bounds of a request's head.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "a bound is named `_max` everywhere")]
pub(super) struct HeadLimits {
    /// Header lines.
    pub(super) count_max: usize,
    /// The whole head, request line included, bytes.
    pub(super) bytes_max: usize,
    /// One line, bytes.
    pub(super) line_bytes_max: usize,
    /// Path and query, bytes.
    pub(super) target_bytes_max: usize,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Malformed or ambiguous; in words, without anything the client sent.
    Malformed(&'static str),
    /// The target is too long.
    TargetTooLong,
    /// Too many header lines, too many bytes of them, or one that is too long.
    HeadersTooLarge,
}

/// Where a byte stream stopped being acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// How many of the bytes just handed in are still fine: whole messages before the faulty one, or a body's part.
    pub(super) passed: usize,
    /// What is wrong with what follows.
    pub(super) fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Head,
    Body(u64),
    Chunk(ChunkPlace),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkPlace {
    Size { digits: u8, size: u64 },
    Extension { size: u64, bytes: usize },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer { line: usize, total: usize },
    TrailerLf { line: usize, total: usize },
}

/// Follows the messages of one HTTP/1 connection.
#[derive(Debug)]
pub(super) struct Scanner {
    limits: HeadLimits,
    place: Place,
    /// The part of a head that has arrived, when it did not come in one piece.
    partial: Vec<u8>,
    /// Where its last, unfinished line begins.
    line_start: usize,
}

/// Chunk extensions mean nothing to anybody; a few bytes are let pass, as RFC 9112 section 7.1.1 asks.
const CHUNK_EXTENSION_BYTES_MAX: usize = 256;
/// Trailers are read and dropped.
const TRAILER_BYTES_MAX: usize = 4096;
/// 2^60 bytes: beyond any limit, and it cannot overflow.
const CHUNK_SIZE_DIGITS_MAX: u8 = 15;

impl Scanner {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self { limits, place: Place::Head, partial: Vec::new(), line_start: 0 }
    }

    /// Whether a head has begun to arrive but is not complete.
    pub(super) fn inside_head(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Takes the next bytes of the connection; after a violation it must not be called again.
    pub(super) fn take_in(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            let used = match self.place {
                Place::Head => self.head(rest),
                Place::Body(left) => {
                    let used = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - used as u64;
                    self.place = if left == 0 { Place::Head } else { Place::Body(left) };
                    Ok(used)
                }
                Place::Chunk(place) => self.chunk(place, rest),
            };
            passed += used.map_err(|fault| Violation { passed, fault })?;
        }
        Ok(())
    }

    /// Takes bytes of a head; how many belonged to it.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if self.partial.is_empty() {
            // Empty lines before a request line are ignored (RFC 9112 section 2.2).
            if bytes.starts_with(b"\r\n") {
                return Ok(2);
            }
            return if let Some(end) = head_end(bytes, &mut self.line_start, &self.limits)? {
                self.finish_head(&bytes[..end])?;
                Ok(end)
            } else {
                self.partial.extend_from_slice(bytes);
                Ok(bytes.len())
            };
        }
        if self.partial == b"\r" && bytes[0] == b'\n' {
            self.reset_head();
            return Ok(1);
        }
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        match head_end(&self.partial, &mut self.line_start, &self.limits)? {
            Some(end) => {
                let partial = std::mem::take(&mut self.partial);
                self.finish_head(&partial[..end])?;
                Ok(end - before)
            }
            None => Ok(bytes.len()),
        }
    }

    fn finish_head(&mut self, head: &[u8]) -> Result<(), Fault> {
        self.reset_head();
        self.place = match check_head(head, &self.limits)? {
            Framing::Length(0) => Place::Head,
            Framing::Length(length) => Place::Body(length),
            Framing::Chunked => Place::Chunk(ChunkPlace::Size { digits: 0, size: 0 }),
        };
        Ok(())
    }

    fn reset_head(&mut self) {
        self.partial = Vec::new();
        self.line_start = 0;
    }

    /// Takes bytes of a chunked body; how many belonged to it.
    fn chunk(&mut self, mut place: ChunkPlace, bytes: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        while at < bytes.len() {
            if let ChunkPlace::Data { left } = place {
                let used = (bytes.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
                at += used;
                let left = left - used as u64;
                place = if left == 0 { ChunkPlace::DataCr } else { ChunkPlace::Data { left } };
                continue;
            }
            let next = chunk_step(place, bytes[at])?;
            at += 1;
            let Some(next) = next else {
                self.place = Place::Head;
                return Ok(at);
            };
            place = next;
        }
        self.place = Place::Chunk(place);
        Ok(at)
    }
}

/// One byte of chunked framing; `None` after the last.
fn chunk_step(place: ChunkPlace, byte: u8) -> Result<Option<ChunkPlace>, Fault> {
    const BAD: Fault = Fault::Malformed("the chunked body is malformed");
    Ok(Some(match (place, byte) {
        (ChunkPlace::Size { digits, size }, _) if byte.is_ascii_hexdigit() && digits < CHUNK_SIZE_DIGITS_MAX => {
            let digit = (byte as char).to_digit(16).unwrap_or(0);
            ChunkPlace::Size { digits: digits + 1, size: size * 16 + u64::from(digit) }
        }
        (ChunkPlace::Size { digits: 1.., size }, b';') => ChunkPlace::Extension { size, bytes: 0 },
        (ChunkPlace::Size { digits: 1.., size } | ChunkPlace::Extension { size, .. }, b'\r') => {
            ChunkPlace::SizeLf { size }
        }
        (ChunkPlace::Extension { size, bytes }, b'\t' | 0x20..=0x7e | 0x80..) if bytes < CHUNK_EXTENSION_BYTES_MAX => {
            ChunkPlace::Extension { size, bytes: bytes + 1 }
        }
        (ChunkPlace::SizeLf { size: 0 }, b'\n') => ChunkPlace::Trailer { line: 0, total: 0 },
        (ChunkPlace::SizeLf { size }, b'\n') => ChunkPlace::Data { left: size },
        (ChunkPlace::DataCr, b'\r') => ChunkPlace::DataLf,
        (ChunkPlace::DataLf, b'\n') => ChunkPlace::Size { digits: 0, size: 0 },
        (ChunkPlace::Trailer { line, total }, b'\r') => ChunkPlace::TrailerLf { line, total },
        (ChunkPlace::Trailer { line, total }, b'\t' | 0x20..=0x7e | 0x80..) if total < TRAILER_BYTES_MAX => {
            ChunkPlace::Trailer { line: line + 1, total: total + 1 }
        }
        (ChunkPlace::TrailerLf { line: 0, .. }, b'\n') => return Ok(None),
        (ChunkPlace::TrailerLf { total, .. }, b'\n') => ChunkPlace::Trailer { line: 0, total },
        _ => return Err(BAD),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { count_max: 5, bytes_max: 512, line_bytes_max: 200, target_bytes_max: 100 };

    fn scan(bytes: &[u8]) -> Result<Scanner, Violation> {
        let mut scanner = Scanner::new(LIMITS);
        scanner.take_in(bytes).map(|()| scanner)
    }

    #[test]
    fn heads_are_refused_for_what_is_wrong_with_them() {
        let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100));
        let longer_target = format!("GET /{}", "x".repeat(300));
        let long_line = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(300));
        let flood = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(5));
        let fat = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", format!("a: {}\r\n", "x".repeat(190)).repeat(3));
        let malformed: &[&str] = &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            " / HTTP/1.1\r\nHost: a\r\n\r\n",
        ];
        for head in malformed {
            let violation = scan(head.as_bytes()).expect_err(head);
            assert!(matches!(violation.fault, Fault::Malformed(_)), "{head:?}: {violation:?}");
            assert!(violation.passed == 0, "{head:?}: {violation:?}");
        }
        assert_eq!(scan(long_target.as_bytes()).expect_err("long target").fault, Fault::TargetTooLong);
        assert_eq!(scan(longer_target.as_bytes()).expect_err("longer target").fault, Fault::TargetTooLong);
        for head in [&long_line, &flood, &fat] {
            assert_eq!(scan(head.as_bytes()).expect_err(head).fault, Fault::HeadersTooLarge);
        }
    }

    #[test]
    fn messages_follow_each_other_however_they_are_cut() {
        let stream = b"\r\nPOST /a HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\n\n\r\n\r\n\
            POST /b HTTP/1.1\r\nhost: [::1]:8080\r\ntransfer-encoding: Chunked\r\n\r\n\
            5;ext=\"a\"\r\nhe\r\nl\r\n0A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n\
            GET /c?d=%20 HTTP/1.0\r\nX: \xe2\x82\xac\xff\t\r\n\r\n";
        for size in 1..stream.len() {
            let mut scanner = Scanner::new(LIMITS);
            for piece in stream.chunks(size) {
                assert_eq!(scanner.take_in(piece), Ok(()), "in pieces of {size}");
            }
            assert_eq!(scanner.place, Place::Head);
            assert!(!scanner.inside_head());
        }
    }

    #[test]
    fn what_came_before_the_fault_passes() {
        let good = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let mut stream = good.to_vec();
        stream.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        let violation = scan(&stream).expect_err("no host");
        assert_eq!(violation.passed, good.len());
    }

    #[test]
    fn chunks_are_refused_for_what_is_wrong_with_them() {
        let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(300));
        let long_trailer = format!("0\r\nA: {}\r\n\r\n", "x".repeat(5000));
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "1 \r\na\r\n",
            "1\na\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "0\r\n\n",
            "0\n\r\n",
            "1;a\nb\r\n",
            "0\r\nA: b\n\r\n",
            "ffffffffffffffff\r\n",
            ";\r\n",
            &long_extension,
            &long_trailer,
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            assert!(scan(request.as_bytes()).is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_cuts_change_nothing(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b':')], 0..300),
            cut in 0usize..300,
        ) {
            let mut stream = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n".to_vec();
            stream.extend(bytes);
            let whole = scan(&stream).map(|scanner| scanner.place).map_err(|violation| violation.fault);
            let (first, second) = stream.split_at(cut.min(stream.len()));
            let mut scanner = Scanner::new(LIMITS);
            let cut = scanner.take_in(first).and_then(|()| scanner.take_in(second));
            prop_assert_eq!(whole, cut.map(|()| scanner.place).map_err(|violation| violation.fault));
        }
    }
}
