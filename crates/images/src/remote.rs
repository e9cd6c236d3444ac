//! One GET of an image from an object store, over plain HTTP/1.1.
//!
//! Redirects are not followed, and nothing is believed but bytes: whoever fetches checks their hash.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_RANGE, HOST, IF_RANGE, RANGE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long finding out an address, and connecting to it, may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an object store may say nothing: it may have to ask its database, or wait for its disk.
const SILENCE: Duration = Duration::from_secs(30);

/// An object store, or several under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    host: String,
    port: u16,
    silence: Duration,
}

/// Why there are no, or no more, bytes.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Its name has no address.
    #[error("finding the address of {host}")]
    Name {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("connecting to {address}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The connection is there, but nothing comes.
    #[error("nothing came for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// It refused, or could not.
    #[error("it answered with status {0}")]
    Status(u16),
    /// It answered in a way that we cannot use.
    #[error("its answer makes no sense: {0}")]
    Odd(&'static str),
}

/// What an object store answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Bytes, from this one on.
    Bytes(u64, Coming),
    /// There is no such image.
    NotThere,
    /// The image has no byte there: what was fetched before is of another.
    PastTheEnd,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Get<'a> {
    pub(crate) path: &'a str,
    pub(crate) authorization: &'a str,
    /// The bytes before this one are here.
    pub(crate) from: u64,
    /// Of which content they are.
    pub(crate) sha256: &'a str,
}

/// The bytes of an answer as they come.
#[derive(Debug)]
pub(crate) struct Coming {
    body: Incoming,
    silence: Duration,
}

impl Remote {
    /// The object store at `host`, which may be a name with several addresses: if one does not answer, the next may.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, silence: SILENCE }
    }

    /// Gives up when nothing comes for so long.
    #[must_use]
    pub fn with_silence(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// Where it is, for messages.
    #[must_use]
    pub fn url(&self) -> String {
        // An IPv6 address needs brackets to have a port.
        if self.host.contains(':') {
            format!("http://[{}]:{}", self.host, self.port)
        } else {
            format!("http://{}:{}", self.host, self.port)
        }
    }

    /// Its addresses now.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, RemoteError> {
        let failed = |source| RemoteError::Name { host: self.host.clone(), source };
        let found = timeout(CONNECT, lookup_host((self.host.as_str(), self.port))).await;
        let found: Vec<_> = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?.collect();
        if found.is_empty() { Err(failed(io::ErrorKind::NotFound.into())) } else { Ok(found) }
    }

    pub(crate) async fn get(&self, address: SocketAddr, wanted: Get<'_>) -> Result<Answer, RemoteError> {
        let stream = timeout(CONNECT, TcpStream::connect(address)).await;
        let stream = stream
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| RemoteError::Connect { address, source })?;
        let silent = |_| RemoteError::Silent(self.silence);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(RemoteError::Broken)?;
        // It ends with the answer, or when the answer is dropped; why it ended is told to whoever reads the answer.
        tokio::spawn(connection);
        let answer = timeout(self.silence, sender.send_request(self.request(wanted)?)).await.map_err(silent)?;
        understand(answer.map_err(RemoteError::Broken)?, wanted.from, self.silence)
    }

    fn request(&self, wanted: Get<'_>) -> Result<Request<String>, RemoteError> {
        let mut request = Request::get(wanted.path)
            .header(HOST, self.url().trim_start_matches("http://"))
            .header(AUTHORIZATION, wanted.authorization);
        if wanted.from > 0 {
            let range = format!("bytes={}-", wanted.from);
            request = request.header(RANGE, range).header(IF_RANGE, format!("\"{}\"", wanted.sha256));
        }
        request.body(String::new()).map_err(|_| RemoteError::Odd("its name cannot be asked for"))
    }
}

impl Coming {
    /// What came next; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, RemoteError> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
            let frame = timeout(self.silence, frame).await.map_err(|_| RemoteError::Silent(self.silence))?;
            match frame.transpose().map_err(RemoteError::Broken)?.map(hyper::body::Frame::into_data) {
                None => return Ok(None),
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                // Trailers say nothing to us.
                Some(Err(_)) => {}
            }
        }
    }
}

fn understand(answer: Response<Incoming>, from: u64, silence: Duration) -> Result<Answer, RemoteError> {
    let begins = match answer.status() {
        StatusCode::OK => 0,
        StatusCode::PARTIAL_CONTENT => {
            let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
            first.filter(|first| *first == from).ok_or(RemoteError::Odd("other bytes than were asked for"))?
        }
        StatusCode::NOT_FOUND => return Ok(Answer::NotThere),
        StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Answer::PastTheEnd),
        other => return Err(RemoteError::Status(other.as_u16())),
    };
    Ok(Answer::Bytes(begins, Coming { body: answer.into_body(), silence }))
}
