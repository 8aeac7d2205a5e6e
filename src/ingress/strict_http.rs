//! Refuses the HTTP that hyper lets through. Every byte of an HTTP/1 connection passes [`Scanner::take_in`] before
//! hyper sees it: it follows the framing of its own accord (heads, lengths, chunks) and stops at the first thing that
//! is invalid or that two readers could understand differently (RFC 9112). Pure: no I/O, no time.

/// Bounds of a request's head.
#[derive(Clone, Copy, Debug)]
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

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
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
        (ChunkPlace::Size { digits: 1.., size }, b'\r') | (ChunkPlace::Extension { size, .. }, b'\r') => {
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

/// The length of a complete head, or `None` while its end has not come. Holds every line end to CR LF, and lines and
/// head to their limits, as soon as the bytes are there.
fn head_end(bytes: &[u8], line_start: &mut usize, limits: &HeadLimits) -> Result<Option<usize>, Fault> {
    loop {
        let line = &bytes[*line_start..];
        let newline = line.iter().position(|byte| *byte == b'\n');
        if newline.unwrap_or(line.len()) > limits.line_bytes_max + 1 {
            return Err(if *line_start == 0 { Fault::TargetTooLong } else { Fault::HeadersTooLarge });
        }
        let Some(newline) = newline else {
            return if bytes.len() > limits.bytes_max { Err(Fault::HeadersTooLarge) } else { Ok(None) };
        };
        if newline == 0 || line[newline - 1] != b'\r' {
            return Err(Fault::Malformed("a line does not end with CR LF"));
        }
        *line_start += newline + 1;
        if *line_start > limits.bytes_max {
            return Err(Fault::HeadersTooLarge);
        }
        if newline == 1 {
            return Ok(Some(*line_start));
        }
    }
}

/// Checks a complete head, and tells how its body is delimited.
fn check_head(head: &[u8], limits: &HeadLimits) -> Result<Framing, Fault> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let is_11 = check_request_line(lines.next().unwrap_or_default(), limits)?;
    let (mut hosts, mut length, mut chunked) = (0, None, false);
    let mut count = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        count += 1;
        if count > limits.count_max {
            return Err(Fault::HeadersTooLarge);
        }
        let (name, value) = split_header(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                hosts += 1;
                if !is_host(value) {
                    return Err(Fault::Malformed("the Host header is invalid"));
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let repeated = length.replace(content_length(value)?).is_some();
                if repeated {
                    return Err(Fault::Malformed("Content-Length occurs more than once"));
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Malformed("Transfer-Encoding may only be `chunked`, once"));
                }
                chunked = true;
            }
            _ => {}
        }
    }
    if hosts > 1 || (hosts == 0 && is_11) {
        return Err(Fault::Malformed("there must be exactly one Host header"));
    }
    match (chunked, length) {
        (true, Some(_)) => Err(Fault::Malformed("Content-Length and Transfer-Encoding exclude each other")),
        (true, None) if !is_11 => Err(Fault::Malformed("HTTP/1.0 has no Transfer-Encoding")),
        (true, None) => Ok(Framing::Chunked),
        (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// Checks `method SP target SP version`; whether it is HTTP/1.1.
fn check_request_line(line: &[u8], limits: &HeadLimits) -> Result<bool, Fault> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::Malformed("the request line is not `method target version`"));
    };
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(Fault::Malformed("the method is invalid"));
    }
    if target.len() > limits.target_bytes_max {
        return Err(Fault::TargetTooLong);
    }
    // Absolute form is for proxies, authority form for CONNECT, `*` for OPTIONS: none is served here.
    if target.first() != Some(&b'/') || !target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(Fault::Malformed("the target is not a path of visible ASCII"));
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(Fault::Malformed("the version is neither HTTP/1.1 nor HTTP/1.0")),
    }
}

/// Splits a header line. Values keep every byte but control characters; UTF-8 and Latin-1 pass.
fn split_header(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
    let (name, value) = line.split_at(colon);
    // Also refuses folded lines and spaces before the colon.
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Fault::Malformed("a header name is invalid"));
    }
    let value = trim(&value[1..]);
    if value.iter().fold(false, |bad, byte| bad | ((*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)) {
        return Err(Fault::Malformed("a header value holds a control character"));
    }
    Ok((name, value))
}

fn content_length(value: &[u8]) -> Result<u64, Fault> {
    const BAD: Fault = Fault::Malformed("Content-Length is not a number");
    // 18 digits cannot overflow, and no limit is that high.
    if value.is_empty() || value.len() > 18 {
        return Err(BAD);
    }
    value.iter().try_fold(0, |length, byte| match byte {
        b'0'..=b'9' => Ok(length * 10 + u64::from(byte - b'0')),
        _ => Err(BAD),
    })
}

/// Cuts spaces and tabs off both ends.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether it is `host[:port]` (RFC 9110 section 7.2, RFC 3986 section 3.2.2). An empty one is refused.
pub(super) fn is_host(value: &[u8]) -> bool {
    let (name, port) = if let Some(literal) = value.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|byte| *byte == b']') else { return false };
        let (address, port) = (&literal[..end], &literal[end + 1..]);
        if !address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
            return false;
        }
        (address, port)
    } else {
        let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
        let (name, port) = value.split_at(end);
        if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte)) {
            return false;
        }
        (name, port)
    };
    let port_is_fine = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !name.is_empty() && port_is_fine
}

/// Checks an HTTP/2 request, whose framing is h2's business: what is left is who it is for, and how large it is.
pub(super) fn check_http2(head: &hyper::http::request::Parts, limits: &HeadLimits) -> Result<(), Fault> {
    use hyper::http::header::HOST;

    let Some(authority) = head.uri.authority() else {
        return Err(Fault::Malformed("there must be an :authority"));
    };
    if !is_host(authority.as_str().as_bytes()) {
        return Err(Fault::Malformed("the :authority is invalid"));
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    if hosts.next().is_some_and(|host| host.as_bytes() != authority.as_str().as_bytes()) || hosts.next().is_some() {
        return Err(Fault::Malformed("Host and :authority differ"));
    }
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.target_bytes_max {
        return Err(Fault::TargetTooLong);
    }
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::Malformed("the target is not a path of visible ASCII"));
    }
    let longest = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 2).max().unwrap_or(0);
    if head.headers.len() > limits.count_max || longest > limits.line_bytes_max {
        return Err(Fault::HeadersTooLarge);
    }
    Ok(())
}

/// What is below `/webhooks/receive`, as endpoints are looked up: one leading slash, a fixed alphabet, no empty and no
/// dot segments. `None` for any other path; two spellings of one path are never both served, save for the leading
/// slash that operators write in front of their paths.
pub(super) fn endpoint_path(path: &str) -> Option<&str> {
    let path = path.strip_prefix("/webhooks/receive")?;
    let path = if path.starts_with("//") { &path[1..] } else { path };
    let segments = path.strip_prefix('/')?;
    let is_fine = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    segments.split('/').all(is_fine).then_some(path)
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

    #[test]
    fn hosts() {
        for host in ["a", "a.example:8080", "127.0.0.1", "[::1]", "[::1]:80", "a:", "xn--bcher-kva.example"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in
            ["", ":80", "a:b", "a:999999", "[::1", "[]", "[x]", "[::1]x", "a:1:2", "a b", "a,\u{e9}", "a@b", "a?"]
        {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn endpoint_paths_have_one_spelling() {
        for (path, endpoint) in [
            ("/webhooks/receive/a", Some("/a")),
            ("/webhooks/receive//a", Some("/a")),
            ("/webhooks/receive/a/b-c._~D9", Some("/a/b-c._~D9")),
            ("/webhooks/receive///a", None),
            ("/webhooks/receive", None),
            ("/webhooks/receive/", None),
            ("/webhooks/receive//", None),
            ("/webhooks/received", None),
            ("/webhooks/receive/a/", None),
            ("/webhooks/receive/a//b", None),
            ("/webhooks/receive/./a", None),
            ("/webhooks/receive/a/..", None),
            ("/webhooks/receive/..a", Some("/..a")),
            ("/webhooks/receive/%61", None),
            ("/webhooks/receive/a;b", None),
            ("/a", None),
        ] {
            assert_eq!(endpoint_path(path), endpoint, "{path}");
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
