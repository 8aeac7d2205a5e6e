//! The head of one request: where it ends, whether it is clean, how its body is delimited. Pure.

use super::{Fault, HeadLimits};

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By so many bytes; none when 0.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// The length of a complete head, or `None` while its end has not come. Holds every line end to CR LF, and lines and
/// head to their limits, as soon as the bytes are there.
pub(super) fn head_end(bytes: &[u8], line_start: &mut usize, limits: &HeadLimits) -> Result<Option<usize>, Fault> {
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
pub(super) fn check_head(head: &[u8], limits: &HeadLimits) -> Result<Framing, Fault> {
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
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
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
pub(in crate::ingress) fn trim(mut value: &[u8]) -> &[u8] {
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
fn is_host(value: &[u8]) -> bool {
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
pub(in crate::ingress) fn check_http2(head: &hyper::http::request::Parts, limits: &HeadLimits) -> Result<(), Fault> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
