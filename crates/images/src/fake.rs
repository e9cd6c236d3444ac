//! An object store for tests: it has one content under every id, and does what it is told, also what is wrong.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::Remote;

/// What the object store does with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    /// What is right.
    Serve,
    /// Breaks off before this byte of the content.
    CutBefore(usize),
    /// Sends all, whatever range was asked for.
    SendAll,
    /// Sends this, and says that it is what was asked for.
    Send(Vec<u8>),
    /// Answers with this status and nothing else.
    Status(u16),
    /// Accepts, and says nothing.
    SayNothing,
}

/// The object store. Dropped, it is away.
#[derive(Debug)]
pub struct FakeStore {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    content: Vec<u8>,
    script: Mutex<VecDeque<Does>>,
    requests: Mutex<Vec<String>>,
}

impl FakeStore {
    /// Does what `script` says, one for each request, and then what is right.
    ///
    /// # Errors
    /// When it cannot listen on loopback.
    pub async fn start(content: &[u8], script: impl IntoIterator<Item = Does>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let script = Mutex::new(script.into_iter().collect());
        let shared = Arc::new(Shared { content: content.to_vec(), script, requests: Mutex::default() });
        let serving = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, serving })
    }

    /// What asks it.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote::new(self.address.ip().to_string(), self.address.port()).with_silence(Duration::from_millis(500))
    }

    /// What it was asked: method, path and range.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Whoever asked sees what is wrong.
            let _ = answer(stream, &shared).await;
        });
    }
}

async fn answer(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut request, mut from) = (String::new(), None);
    stream.read_line(&mut request).await?;
    let mut asked = request.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim_end();
        if let Some(range) = line.strip_prefix("range: ") {
            from = range.strip_prefix("bytes=").and_then(|range| range.trim_end_matches('-').parse().ok());
            asked = format!("{asked} {range}");
        }
        if line.is_empty() {
            break;
        }
    }
    lock(&shared.requests).push(asked);
    let does = lock(&shared.script).pop_front().unwrap_or(Does::Serve);
    let from = from.filter(|_| does != Does::SendAll);
    let (content, first) = (&shared.content, from.unwrap_or_default());
    let status = if from.is_some() { "206 Partial" } else { "200 OK" };
    let (status, body, cut) = match &does {
        Does::SayNothing => return std::future::pending().await,
        Does::Status(status) => (format!("{status} As told"), &[][..], None),
        Does::Send(body) => (status.to_owned(), &body[..], None),
        Does::CutBefore(at) => (status.to_owned(), content.get(first..).unwrap_or_default(), at.checked_sub(first)),
        Does::Serve | Does::SendAll => (status.to_owned(), content.get(first..).unwrap_or_default(), None),
    };
    let range = from.map(|_| format!("content-range: bytes {first}-{}/{}\r\n", content.len(), content.len()));
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{}\r\n", body.len(), range.unwrap_or_default());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.get(..cut.unwrap_or(body.len())).unwrap_or(body)).await?;
    stream.shutdown().await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
