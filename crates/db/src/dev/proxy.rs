//! A TCP proxy that loses what a test wants lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of the next COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Commit {
    /// It goes through.
    Through = 0,
    /// The server never hears of it.
    Lost = 1,
    /// The server does it; the client never hears of that.
    Unanswered = 2,
}

/// Stands between a client and a database server.
#[derive(Debug)]
pub struct Proxy {
    next: Arc<AtomicU8>,
    port: u16,
}

impl Proxy {
    /// Stands before the server of `url`, until the runtime ends.
    ///
    /// # Panics
    /// When there is no port free or `url` has none.
    pub async fn before(url: &str) -> (Self, String) {
        let authority = url.split('/').nth(2).unwrap_or_default();
        let server = authority.rsplit('@').next().unwrap_or_default().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| panic!("a port: {error}"));
        let port = listener.local_addr().map_or(0, |address| address.port());
        let proxy = Self { next: Arc::new(AtomicU8::new(0)), port };
        let (next, to) = (Arc::clone(&proxy.next), server.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (next, to) = (Arc::clone(&next), to.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(&to).await {
                        let _ = carry(client, server, &next).await;
                    }
                });
            }
        });
        let through = url.replacen(&server, &format!("127.0.0.1:{}", proxy.port), 1);
        (proxy, through)
    }

    /// Says what is to become of the next COMMIT.
    pub fn next_commit(&self, what: Commit) {
        self.next.store(what as u8, Ordering::SeqCst);
    }

    /// Whether that COMMIT has come by.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.next.load(Ordering::SeqCst) == Commit::Through as u8
    }
}

/// Carries bytes both ways until one side ends, or a COMMIT is to be lost.
async fn carry(mut client: TcpStream, mut server: TcpStream, next: &AtomicU8) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let sent = &up[..read?];
                if sent.is_empty() {
                    return Ok(());
                }
                let commit = sent.windows(6).any(|word| word == b"COMMIT");
                match if commit { next.swap(0, Ordering::SeqCst) } else { 0 } {
                    0 => server.write_all(sent).await?,
                    1 => return Ok(()),
                    _ => {
                        server.write_all(sent).await?;
                        let _ = server.read(&mut down).await?;
                        return Ok(());
                    }
                }
            }
            read = server.read(&mut down) => {
                let answer = &down[..read?];
                if answer.is_empty() {
                    return Ok(());
                }
                client.write_all(answer).await?;
            }
        }
    }
}
