//! What one client may take. That slow heads end, that many clients wait, and what stopping does is tested with the API's
//! router, in `nova-api`.

use std::convert::Infallible;

use hyper::service::service_fn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::*;

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_cut_off_and_who_is_slow_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    // More than the kernel keeps for a client that does not read.
    const SIZE: usize = 32 << 20;
    let answer = |_| service_fn(async |_| Ok::<_, Infallible>(Response::new("x".repeat(SIZE))));
    let limits = Limits { stall: Duration::from_millis(500), ..Limits::default() };
    let serving = tokio::spawn(serve(listener, answer, limits, stop.clone().cancelled_owned()));
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        stream
    };

    let mut idle = ask().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut read = Vec::new();
    // The end comes as a reset, or as an end that is too early.
    let _ = timeout(Duration::from_secs(10), idle.read_to_end(&mut read)).await.expect("cut off");
    assert!(read.len() < SIZE, "all of it came");

    let (mut slow, mut count, began) = (ask().await, 0, Instant::now());
    let mut piece = vec![0; 4 << 20];
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        match timeout(Duration::from_secs(10), slow.read_exact(&mut piece)).await.unwrap() {
            Ok(read) => count += read,
            Err(_) => break,
        }
    }
    assert!(count >= SIZE / (4 << 20) * (4 << 20) && began.elapsed() > Duration::from_millis(700), "{count}");
    stop.cancel();
    serving.await.unwrap();
}

#[test]
fn an_address_has_so_many_places_and_gets_them_back() {
    let addresses = PerAddress::default();
    let (here, there, loopback) =
        ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), "127.0.0.1".parse().unwrap());
    let first = addresses.enter(here, 2);
    let second = addresses.enter(here, 2);
    assert!(first.is_some() && second.is_some());
    assert!(addresses.enter(here, 2).is_none());
    assert!(addresses.enter(there, 2).is_some());
    drop(first);
    assert!(addresses.enter(here, 2).is_some());
    let local: Vec<_> = (0..9).map(|_| addresses.enter(loopback, 2)).collect();
    assert!(local.iter().all(Option::is_some), "loopback has no bound of its own");
    drop((second, local));
    assert!(addresses.0.lock().unwrap().is_empty(), "nothing is kept of those who left");
}
