//! Slow clients, many clients, and the end.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};

use nova_service::http::Limits;

use super::serve;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const SLOW_REQUEST: &[u8] = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
const SOON: Duration = Duration::from_secs(5);

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

async fn start(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (stop, stopped)) = (listener.local_addr().unwrap(), oneshot::channel::<()>());
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "slow"
    };
    let router = Router::new().route("/", get(|| async { "quick" })).route("/slow", get(slow));
    let ended = tokio::spawn(serve(listener, router, limits, async {
        let _ = stopped.await;
    }));
    Server { address, stop, ended }
}

fn limits() -> Limits {
    Limits { head: Duration::from_millis(200), ..Limits::default() }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    timeout(SOON, stream.read_to_end(&mut read)).await.expect("the server closes").unwrap();
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn who_sends_half_a_head_is_cut_off_in_time() {
    let server = start(limits()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let started = Instant::now();
    let answer = read_to_end(&mut stream).await;
    assert!(!answer.contains("quick"), "{answer}");
    assert!(started.elapsed() >= Duration::from_millis(150), "not before its time");
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let server = start(limits()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    assert!(read_to_end(&mut stream).await.ends_with("quick"));
}

#[tokio::test]
async fn a_thousand_ids_fit_into_a_get() {
    let server = start(limits()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let ids: String = (1..=1_000).map(|n| format!("&InstanceId.{n}=i-{n:08x}")).collect();
    let head = format!("GET /?Action=DescribeInstances{ids} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_to_end(&mut stream).await.ends_with("quick"));
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let server = start(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET /?{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000));
    let _ = stream.write_all(head.as_bytes()).await; // the server may close before it has taken all
    let mut answer = [0; 12];
    if timeout(SOON, stream.read_exact(&mut answer)).await.expect("an answer or a close").is_ok() {
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn more_connections_than_there_are_places_wait_for_one() {
    let server = start(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(REQUEST).await.unwrap();
    let mut byte = [0; 1];
    first.read_exact(&mut byte).await.unwrap();
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(REQUEST).await.unwrap();
    assert!(
        timeout(Duration::from_millis(200), second.read_exact(&mut byte)).await.is_err(),
        "the only place is taken"
    );
    drop(first);
    timeout(SOON, second.read_exact(&mut byte)).await.expect("the place is free").unwrap();
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_the_daemon_stops() {
    let server = start(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(SLOW_REQUEST).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.send(()).unwrap();
    assert!(read_to_end(&mut stream).await.ends_with("slow"));
    timeout(SOON, server.ended).await.expect("the server ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let server = start(Limits { drain: Duration::from_millis(50), ..Limits::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(SLOW_REQUEST).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.send(()).unwrap();
    timeout(Duration::from_millis(200), server.ended).await.expect("the server ends").unwrap();
}
