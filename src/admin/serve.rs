//! The socket side: a bounded number of connections, each with a deadline for its request heads.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::ServiceExt;

use super::auth::Peer;

/// Connections at once: operators and their scripts; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 256;
/// A request head must be complete after so long; an idle connection is closed after the same time.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Header lines of a request.
const HEADERS_MAX: usize = 100;
/// Requests under way may take so long at a stop.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Accepting fails while file descriptors are short; asking again at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` resolves, then lets requests under way finish.
pub(super) async fn until(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        match accepted {
            Some((stream, permit)) => serve_one(stream, permit, router.clone(), &graceful),
            None => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_WAIT_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!("admin requests were still under way at the stop and are cut off");
    }
}

async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "the admin listener could not accept");
            None
        }
    }
}

fn serve_one(stream: TcpStream, permit: OwnedSemaphorePermit, router: Router, graceful: &GracefulShutdown) {
    let Ok(peer) = stream.peer_addr() else { return };
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let router = router.clone();
        async move {
            Ok::<_, Infallible>(router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // What a peer does wrong on its own connection is no concern of the log.
        let _ = connection.await;
        drop(permit);
    });
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
    };

    use super::*;

    async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("the server closes after its reply");
        reply
    }

    #[tokio::test]
    async fn a_stop_finishes_what_is_under_way() {
        let (entered, mut in_handler) = tokio::sync::mpsc::channel::<()>(1);
        let (finish, may_finish) = tokio::sync::watch::channel(false);
        let handler = async move || {
            entered.send(()).await.expect("the test listens");
            let mut may_finish = may_finish.clone();
            may_finish.wait_for(|finish| *finish).await.expect("the test lives");
            "done"
        };
        let router = Router::new().route("/", get(handler));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(until(listener, router, async { stopped.await.unwrap_or_default() }));

        let client = tokio::spawn(async move {
            exchange(address, "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await
        });
        in_handler.recv().await.expect("the request arrived");
        stop.send(()).expect("the server waits for it");
        finish.send(true).expect("the handler waits for it");
        assert!(client.await.expect("the client is sound").ends_with("done"));
        server.await.expect("the server ends");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn handlers_learn_the_peer_and_a_huge_head_is_refused() {
        let router = Router::new()
            .route("/", get(async |axum::Extension(Peer(peer)): axum::Extension<Peer>| peer.ip().to_string()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
        let address = listener.local_addr().expect("it is bound");
        let server = tokio::spawn(until(listener, router, std::future::pending()));
        let reply = exchange(address, "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        assert!(reply.ends_with("127.0.0.1"), "{reply}");
        let many = "x: y\r\n".repeat(HEADERS_MAX + 1);
        let reply = exchange(address, &format!("GET / HTTP/1.1\r\nhost: localhost\r\n{many}\r\n")).await;
        assert!(reply.starts_with("HTTP/1.1 431"), "{reply}");
        server.abort();
    }
}
