//! Servers for the tests: each on a free port, stopped when dropped.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server in a process of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    arguments: (String, Vec<String>),
    _dir: TempDir,
}

impl Server {
    fn start(program: &str, port: u16, arguments: Vec<String>, dir: TempDir) -> Self {
        let child = spawn(program, &arguments);
        let server = Self { child, port, arguments: (program.to_owned(), arguments), _dir: dir };
        server.until_it_listens();
        server
    }

    /// A Redis without persistence.
    pub(crate) fn redis(more: &[&str]) -> Self {
        let (port, dir) = (free_port(), TempDir::new().unwrap());
        let mut arguments: Vec<String> =
            ["--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--loglevel", "warning"].map(Into::into).into();
        arguments.extend(["--port".to_owned(), port.to_string()]);
        arguments.extend(["--dir".to_owned(), dir.path().display().to_string()]);
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        Self::start("redis-server", port, arguments, dir)
    }

    /// A NATS server with `JetStream`.
    pub(crate) fn nats(more: &[&str]) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let program = target.join("nats/bin/nats-server");
        assert!(program.exists(), "{} is missing; run .ci/setup", program.display());
        let (port, dir) = (free_port(), TempDir::new().unwrap());
        let mut arguments: Vec<String> = ["--addr", "127.0.0.1", "--jetstream", "--store_dir"].map(Into::into).into();
        arguments.extend([dir.path().display().to_string(), "--port".to_owned(), port.to_string()]);
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        Self::start(&program.display().to_string(), port, arguments, dir)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// On the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.arguments.0, &self.arguments.1);
        self.until_it_listens();
    }

    /// Stops it without closing its connections, as a network that has gone.
    pub(crate) fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn until_it_listens(&self) {
        let began = Instant::now();
        while std::net::TcpStream::connect(self.address()).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "{} does not listen", self.arguments.0);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn spawn(program: &str, arguments: &[String]) -> Child {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; run .ci/setup"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
