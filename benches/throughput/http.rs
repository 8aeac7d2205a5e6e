//! One blocking HTTP/1.1 exchange a connection: for the admin API, health and counts, where speed does not matter.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::wire::parse_reply;

/// For connecting, and for each read and write.
const STEP_WAIT: Duration = Duration::from_secs(10);
/// No reply asked for here is larger.
const REPLY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// `GET`: status and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>)> {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    exchange(address, head.as_bytes())
}

/// `GET` with a bearer token: status and body.
pub(crate) fn get_with_token(address: SocketAddr, path: &str, token: &str) -> Result<(u16, Vec<u8>)> {
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    exchange(address, head.as_bytes())
}

/// `POST` of a JSON body with a bearer token: status and body.
pub(crate) fn post_json(
    address: SocketAddr,
    path: &str,
    token: &str,
    json: &serde_json::Value,
) -> Result<(u16, Vec<u8>)> {
    let body = json.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(address, request.as_bytes())
}

/// Sends the bytes and reads one reply: status and body.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> Result<(u16, Vec<u8>)> {
    let mut stream =
        TcpStream::connect_timeout(&address, STEP_WAIT).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(STEP_WAIT))?;
    stream.set_write_timeout(Some(STEP_WAIT))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some(reply) = parse_reply(&bytes)?
            && bytes.len() >= reply.end
        {
            return Ok((reply.status, bytes[reply.body_start..reply.end].to_vec()));
        }
        let read = stream.read(&mut chunk).with_context(|| format!("read from {address}"))?;
        ensure!(read > 0, "{address} closed the connection before its reply");
        bytes.extend_from_slice(&chunk[..read]);
        ensure!(bytes.len() as u64 <= REPLY_BYTES_MAX, "a reply of more than {REPLY_BYTES_MAX} bytes");
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn a_reply_in_pieces_is_put_together() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 1_024];
            let read = stream.read(&mut request).expect("a request");
            for piece in ["HTTP/1.1 201 Created\r\ncontent-", "length: 8\r\n\r\n{\"id\"", ":1}"] {
                stream.write_all(piece.as_bytes()).expect("a reader");
                stream.flush().expect("a reader");
            }
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let (status, body) = post_json(address, "/x", "secret", &serde_json::json!({"a": 1})).expect("a reply");
        assert_eq!((status, body.as_slice()), (201, &b"{\"id\":1}"[..]));
        let request = server.join().expect("no panic");
        assert!(request.starts_with("POST /x HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer secret\r\n"), "{request}");
        assert!(request.ends_with("content-length: 7\r\n\r\n{\"a\":1}"), "{request}");
    }
}
