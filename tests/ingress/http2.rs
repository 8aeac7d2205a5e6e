//! HTTP/2 with prior knowledge.

use std::time::Duration;

use bytes::Bytes;
use hookmill::ingress::IngressOptions;

use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{bench::*, ports::*};

async fn connect(bench: &Bench) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(bench.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, path: &str, body: &str) -> (StatusCode, String) {
    let request = Request::post(format!("http://shop.example{path}"))
        .header("x-signature", "good")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    sender.ready().await.unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

async fn until_events(bench: &Bench, count: usize) {
    while bench.log.events().len() < count {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn prior_knowledge_is_enough() {
    let bench = start();
    let mut sender = connect(&bench).await;
    for _ in 0..3 {
        let (status, body) = ask(&mut sender, "/webhooks/receive/orders?q=1", "hello").await;
        assert_eq!(status, 200, "{body}");
    }
    let arrival = bench.log.events()[0].arrival.clone();
    assert_eq!((arrival.body, &*arrival.query), (Bytes::from("hello"), "q=1"));
    assert_eq!(arrival.headers.all("host").collect::<Vec<_>>(), [b"shop.example"]);
    let long = format!("/{}", "x".repeat(5_000));
    for (path, body, want) in [
        ("/nobody", "x", 404),
        ("/webhooks/receive/small", "01234567890", 413),
        (long.as_str(), "x", 414),
        ("/healthz", "x", 405),
    ] {
        assert_eq!(ask(&mut sender, path, body).await.0, want, "{path:.40}");
    }
    assert_eq!(ask(&mut sender, "/webhooks/receive/orders", "still").await.0, 200);
    assert_eq!(bench.totals().accepted, 4);
}

#[tokio::test]
async fn streams_go_side_by_side_and_a_panic_costs_one() {
    let bench = start();
    bench.log.is(Mood::Waits);
    let sender = connect(&bench).await;
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { ask(&mut sender, "/webhooks/receive/orders", "x").await.0 })
        })
        .collect();
    until_events(&bench, 10).await;
    let mut panicking = sender.clone();
    let panicked = tokio::spawn(async move { ask(&mut panicking, "/webhooks/receive/orders", "panic").await.0 });
    assert!(panicked.await.is_err(), "its stream is reset");
    bench.log.release();
    for status in waiting {
        assert_eq!(status.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let bench = start_with(IngressOptions { idle_timeout: Duration::from_millis(200), ..options() });
    let mut sender = connect(&bench).await;
    assert_eq!(ask(&mut sender, "/webhooks/receive/orders", "x").await.0, 200);
    tokio::time::timeout(Duration::from_secs(2), async {
        while !sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("closed in time");
}

#[tokio::test]
async fn a_drain_finishes_the_streams_under_way() {
    let mut bench = start();
    bench.log.is(Mood::Waits);
    let mut sender = connect(&bench).await;
    let answer = tokio::spawn(async move { ask(&mut sender, "/webhooks/receive/orders", "x").await.0 });
    until_events(&bench, 1).await;
    let drained = tokio::spawn(bench.ingress.take().unwrap().drain());
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.log.release();
    assert_eq!(answer.await.unwrap(), 200);
    tokio::time::timeout(Duration::from_millis(1_500), drained).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_preface_in_pieces_is_a_preface() {
    let bench = start();
    let mut stream = tokio::net::TcpStream::connect(bench.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "a SETTINGS frame");
}
