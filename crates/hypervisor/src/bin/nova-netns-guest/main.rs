//! A guest that is a network namespace: `nova-netns-guest boot NAME UUID CONSOLE`, run in the namespace by `nova-compute`.
//!
//! It brings its interface up, takes an address by DHCP and keeps the lease, says what it made of a router's word, asks the metadata service who it is, says so
//! on its console, and answers two TCP ports with its id and an echo. SIGTERM is its power button. User data is only
//! summed up, never run: it would run on the host.
//!
//! udhcpc calls the same program with one word, `bound` and the like, when the lease changes.

mod console;
mod dhcp;
mod ipv6;
mod metadata;
mod serve;

use std::process::ExitCode;
use std::sync::Arc;

use nova_run::{Command, Host, Runner};
use tokio::signal::unix::{SignalKind, signal};

use console::Console;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    match &args[..] {
        [boot, _name, _uuid, log] if boot == "boot" => runtime.block_on(run(Console::new(log.into()))),
        [event] => runtime.block_on(dhcp::changed(event)),
        _ => ExitCode::from(2),
    }
}

async fn run(console: Console) -> ExitCode {
    let console = Arc::new(console);
    match live(&console).await {
        Ok(()) => {
            console.say("power down");
            ExitCode::SUCCESS
        }
        Err(why) => {
            console.say(&why);
            ExitCode::FAILURE
        }
    }
}

async fn live(console: &Arc<Console>) -> Result<(), String> {
    let mut button = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    // From here on it goes down in order.
    console.say("power up");
    for device in ["lo", "eth0"] {
        let up = Command::new("ip").args(["link", "set", "dev", device, "up"]);
        Host.run(up).await.map_err(|error| error.to_string())?;
    }
    let me = serve::Me::default();
    for port in serve::PORTS {
        tokio::spawn(serve::listen(port, me.clone(), Arc::clone(console)));
    }
    tokio::spawn(metadata::introduce(me, Arc::clone(console)));
    tokio::spawn(ipv6::watch(Arc::clone(console)));
    tokio::select! {
        // Dropped with this, it takes udhcpc along.
        why = dhcp::keep_lease(console) => Err(why),
        _ = button.recv() => Ok(()),
    }
}
