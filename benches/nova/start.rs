//! `nova-combined` on an existing state folder: how long until it is ready, and how much memory it takes.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use nova_db::{Db, Options};
use nova_identity::SecretBox;

use crate::client::Client;
use crate::cloud::FLAGS;
use crate::combined::{self, binary};
use crate::measure::Sample;
use crate::tenant::{self, Tenant};

const STARTS: usize = 15;
/// What is allocated for the start alone is given back, or not, by then.
const REST: Duration = Duration::from_secs(1);
const LAUNCHES: usize = 1_000;
const AT_ONCE: usize = 50;
const PREFIX: u8 = 20;
const MOST_TO_READY: Duration = Duration::from_millis(150);
const MOST_RESIDENT: u64 = 60 << 20;

pub(crate) async fn bench() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let state = folder.path();
    let tenant = fill(state).await?;
    // A port that is free now; should another take it, the start fails and says so.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let own = ["--flagfile=/dev/null".to_owned(), format!("--state_path={}", state.display())];
    let port = format!("--ec2_listen_port={}", address.port());
    let flags: Vec<String> = own.into_iter().chain(FLAGS.iter().map(|flag| (*flag).to_owned())).chain([port]).collect();

    let (mut ready, mut stopped) = (Sample::default(), Sample::default());
    for _ in 0..STARTS {
        let (combined, took) = combined::start(state, &flags).await?;
        ready.push(took);
        stopped.push(combined.stop().await?);
    }
    let which = binary().map_or_else(|| "this program in its role".into(), |binary| binary.display().to_string());
    println!("  {:<34} {ready}  = {:.2} × the bound", "exec to ready", ready.ratio(MOST_TO_READY));
    println!("  {:<34} {stopped}", "SIGTERM to its end");

    let (combined, _) = combined::start(state, &flags).await?;
    tokio::time::sleep(REST).await;
    print_resident("resident, idle", combined.resident()?);
    let mut client = Client::connect(address).await?;
    for _ in 0..LAUNCHES / AT_ONCE {
        let count = AT_ONCE.to_string();
        let parameters = [("ImageId", tenant.image.to_string()), ("MinCount", count.clone()), ("MaxCount", count)];
        client.send(&client.request("RunInstances", &parameters)).await?;
    }
    client.send(&client.request("DescribeInstances", &[])).await?;
    tokio::time::sleep(REST).await;
    print_resident(&format!("resident, {LAUNCHES} launches later"), combined.resident()?);
    combined.stop().await?;
    println!("  measured: {which}");
    Ok(())
}

/// Makes the state folder that is found at the start.
async fn fill(state: &Path) -> anyhow::Result<Tenant> {
    let secrets = SecretBox::open_or_create(&state.join("secret.key"))?;
    let url = format!("sqlite:///{}", state.join("nova.sqlite").display());
    let db = Db::open(&url, &Options::default()).await?;
    db.migrate().await?;
    let tenant = tenant::create(&db, &secrets, PREFIX).await?;
    db.close().await;
    Ok(tenant)
}

#[expect(clippy::cast_precision_loss, reason = "three digits are told")]
fn print_resident(what: &str, bytes: u64) {
    let mib = bytes as f64 / f64::from(1 << 20);
    println!("  {what:<34} {mib:>13.1} MiB  = {:.2} × the bound", bytes as f64 / MOST_RESIDENT as f64);
}
