//! The ports that a guest answers: who it is, then whatever is sent to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use crate::console::Console;

pub(crate) const PORTS: [u16; 2] = [22, 80];
/// Whoever comes when so many are served waits.
const AT_ONCE: usize = 64;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Who the guest is, once it knows.
#[derive(Clone, Debug)]
pub(crate) struct Me(Arc<watch::Sender<String>>);

impl Default for Me {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new("unknown".to_owned())))
    }
}

impl Me {
    pub(crate) fn is(&self, id: String) {
        self.0.send_replace(id);
    }

    fn name(&self) -> String {
        self.0.borrow().clone()
    }
}

/// Serves a port until the guest ends.
pub(crate) async fn listen(port: u16, me: Me, console: Arc<Console>) {
    // Where there is IPv6, this is both.
    let listener = match TcpListener::bind(("::", port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return console.say(&format!("port {port}: {error}")),
    };
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let name = me.name();
                tokio::spawn(async move {
                    // A caller that goes away is no matter.
                    let _ = echo(stream, &name).await;
                    drop(place);
                });
            }
            Err(_) => sleep(AGAIN_AFTER).await,
        }
    }
}

async fn echo(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.write_all(format!("{name}\n").as_bytes()).await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await.map(drop)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    #[tokio::test]
    async fn a_caller_hears_who_it_is_and_then_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { echo(listener.accept().await.unwrap().0, "i-0000000a").await });
        let mut lines = BufReader::new(TcpStream::connect(address).await.unwrap());
        lines.write_all(b"hello\n").await.unwrap();
        let mut heard = String::new();
        for _ in 0..2 {
            lines.read_line(&mut heard).await.unwrap();
        }
        assert_eq!(heard, "i-0000000a\nhello\n");
    }
}
