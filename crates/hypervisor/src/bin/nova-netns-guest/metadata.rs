//! What the guest learns of itself from `http://169.254.169.254/latest`, and says on its console.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nova_run::{Command, Host, Runner};
use sha2::{Digest, Sha256};
use tokio::net::UdpSocket;
use tokio::time::sleep;

use crate::console::Console;
use crate::serve::Me;

const SERVICE: &str = "169.254.169.254:80";
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
const LONGEST_BYTES: usize = 64 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Waits for an address, then for the service, as long as it takes.
pub(crate) async fn introduce(me: Me, console: Arc<Console>) {
    let address = loop {
        match own_address().await {
            Some(address) => break address,
            None => sleep(LOOK_EVERY).await,
        }
    };
    let mut asked = 0_u32;
    let id = loop {
        match fetch("meta-data/instance-id").await {
            Some(id) => break text(&id),
            None if asked == 0 => console.say(&format!("{address} waits for http://{SERVICE}/latest")),
            None => {}
        }
        asked = asked.saturating_add(1);
        sleep(ASK_EVERY).await;
    };
    let hostname = fetch("meta-data/hostname").await.map(|name| text(&name)).unwrap_or_default();
    let key = fetch("meta-data/public-keys/0/openssh-key").await;
    let user_data = fetch("user-data").await.unwrap_or_default();
    let sum = hex::encode(Sha256::digest(&user_data));
    console.say(&format!("ip={address} instance-id={id} hostname={hostname} user-data-sha256={sum}"));
    console.say(&key.map_or_else(|| "no key".to_owned(), |key| format!("key {}", text(&key))));
    me.is(id);
    console.say("ready");
}

/// The address from which the service would be asked; nothing is sent.
async fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.ok()?;
    socket.connect(SERVICE).await.ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// Fetches a page; nothing if there is none, or nobody answers.
async fn fetch(page: &str) -> Option<Vec<u8>> {
    // Debian's busybox crashes when wget is given a timeout.
    let wget = Command::new("busybox").args(["wget", "-q", "-O", "-"]).arg(format!("http://{SERVICE}/latest/{page}"));
    Host.run(wget.deadline(ANSWERS_WITHIN).output_cap(LONGEST_BYTES)).await.ok().map(|output| output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
