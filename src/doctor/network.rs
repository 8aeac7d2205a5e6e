//! The listeners: free, or answered by hookmill.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use super::Finding;
use crate::{
    app::{Listener, published_address},
    settings::Settings,
    storage::{OpenError, StoreDir, store_format},
};

const WAIT_MAX: Duration = Duration::from_secs(3);
const REPLY_BYTES_MAX: u64 = 16 << 10;

/// Both of them. A running server says itself where it listens, whatever the settings given here say.
pub(super) fn listeners(settings: &Settings) -> Vec<Finding> {
    let dir = settings.store_dir();
    let served =
        matches!(store_format(&dir), Ok(Some(_))) && matches!(StoreDir::open(&dir), Err(OpenError::Locked { .. }));
    let addresses = [
        ("webhook port", "ingress.address", settings.ingress.address, Listener::Ingress),
        ("admin port", "admin.address", settings.admin.address, Listener::Admin),
    ];
    let look = |(check, setting, configured, listener)| {
        if !served {
            return free(check, setting, configured);
        }
        match published_address(&settings.data_dir, listener) {
            Some(told) => answering(check, told, "look at the server's log"),
            None => {
                let next = format!("set `{setting}` as the running server has it; else look at its log");
                answering(check, configured, &next)
            }
        }
    };
    addresses.into_iter().map(look).collect()
}

fn free(check: &'static str, setting: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(check, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::fail(
            check,
            format!("{address} is taken by another program"),
            format!("stop that one (`ss -ltnp` names it), or set `{setting}`"),
        ),
        Err(error) => {
            let next = format!("set `{setting}` to an address of this machine and a port that this user may take");
            Finding::fail(check, format!("{address}: {error}"), next)
        }
    }
}

fn answering(check: &'static str, address: SocketAddr, next: &str) -> Finding {
    match readiness(reachable(address)) {
        Ok((200, _)) => Finding::ok(check, format!("the running server answers at {address} and is ready")),
        Ok((503, body)) => Finding::warn(
            check,
            format!("the running server answers at {address} and is not ready: {body}"),
            "see what it says; its log says more",
        ),
        Ok((status, _)) => {
            Finding::fail(check, format!("{address} answers {status} to `/readyz`: it is not this hookmill"), next)
        }
        Err(error) => Finding::fail(
            check,
            format!("a server works in the data directory, and {address} does not answer: {error}"),
            next,
        ),
    }
}

/// From this machine, where it listens on every address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The status of `/readyz`, and the reply's body.
fn readiness(address: SocketAddr) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT_MAX)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.set_write_timeout(Some(WAIT_MAX))?;
    // In one write: a server that answers and hangs up at its first part would break a second one.
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut reply = Vec::new();
    stream.take(REPLY_BYTES_MAX).read_to_end(&mut reply)?;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let no_http = || io::Error::new(io::ErrorKind::InvalidData, "the reply is no HTTP");
    let status = reply.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(no_http)?;
    let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.chars().filter(|c| !c.is_control()).take(500).collect()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{super::Level, *};

    /// Answers one connection with this.
    fn answers(reply: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn a_port_is_free_taken_or_nobody_s() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = free("admin port", "admin.address", address);
        assert!(taken.level == Level::Fail && taken.next.unwrap().contains("admin.address"));
        drop(listener);
        assert_eq!(free("admin port", "admin.address", address).level, Level::Ok);
        assert_eq!(free("admin port", "admin.address", "192.0.2.1:80".parse().unwrap()).level, Level::Fail);
    }

    #[test]
    fn a_server_is_ready_not_ready_foreign_or_silent() {
        for (reply, level, word) in [
            ("HTTP/1.1 200 OK\r\n\r\n{}", Level::Ok, "is ready"),
            ("HTTP/1.1 503 No\r\n\r\n{\"reasons\":[\"the disk\"]}", Level::Warn, "the disk"),
            ("HTTP/1.1 404 No\r\n\r\n", Level::Fail, "not this hookmill"),
            ("SSH-2.0-OpenSSH\r\n", Level::Fail, "no HTTP"),
        ] {
            let finding = answering("admin port", answers(reply), "look at the log");
            assert_eq!((finding.level, finding.detail.contains(word)), (level, true), "{finding:?}");
        }
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()), "127.0.0.1:80".parse().unwrap());
        assert_eq!(reachable("[::]:80".parse().unwrap()), "[::1]:80".parse().unwrap());
    }
}
