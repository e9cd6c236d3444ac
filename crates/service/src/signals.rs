//! Signals: TERM and INT stop a daemon, a second one at once; HUP opens its log again.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use crate::{ServiceError, Stop, chain, logging};

/// How a process ends that was told twice to stop: as the shell counts SIGINT.
const STOPPED_TWICE: i32 = 130;

/// Listens from now on, and cancels `stop` when told to stop.
pub(crate) fn listen(stop: Stop) -> Result<(), ServiceError> {
    let on = |kind| signal(kind).map_err(ServiceError::Signals);
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let mut hangup = on(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                () = received(&mut terminate) => "SIGTERM",
                () = received(&mut interrupt) => "SIGINT",
                () = received(&mut hangup) => {
                    if let Err(error) = logging::reopen() {
                        error!(error = %chain(&error), "Opening the log again failed; writing on in the old one.");
                    }
                    continue;
                }
            };
            if stop.is_cancelled() {
                info!(signal = name, "Told to stop twice; stopping at once.");
                std::process::exit(STOPPED_TWICE);
            }
            info!(signal = name, "Told to stop.");
            stop.cancel();
        }
    });
    Ok(())
}

/// Never returns once no more signals can come.
async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending().await
    }
}
