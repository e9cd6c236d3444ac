//! A client on one connection that stays open, signing with version 2.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use nova_service::SystemClock;
use nova_types::Clock as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::tenant::{ACCESS_KEY, SECRET};

const PATH: &str = "/services/Cloud/";

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(256 * 1024, stream), host: address.to_string() })
    }

    /// A signed request, ready to be sent for the next five minutes.
    pub(crate) fn request(&self, action: &str, parameters: &[(&str, String)]) -> String {
        let headers = [("host".to_owned(), self.host.clone())];
        let own = [("Action", action.to_owned()), ("Version", "2016-11-15".to_owned())];
        let pairs = own.iter().chain(parameters).map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let query = nova_aws::signed_query(("GET", PATH, &headers), pairs, (ACCESS_KEY, SECRET), SystemClock.now());
        format!("GET {PATH}?{query} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host)
    }

    /// Sends a request and returns the document that answers it.
    ///
    /// # Errors
    /// For anything but 200.
    pub(crate) async fn send(&mut self, request: &str) -> anyhow::Result<String> {
        self.stream.write_all(request.as_bytes()).await?;
        let (mut status, mut length, mut line) = (String::new(), None, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line).await?;
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if status.is_empty() {
                status.clone_from(&header);
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        let mut body = vec![0; length.context("an answer without a length")?];
        self.stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body)?;
        ensure!(status == "http/1.1 200 ok", "{status}: {body}");
        Ok(body)
    }
}
