//! Readiness: each part says when it serves, and when all do, init and the log are told.

use std::time::Instant;

use tracing::info;

use crate::Stop;

/// Given to a part of a daemon, which [`set`](Self::set)s it when it serves.
#[derive(Clone, Debug, Default)]
pub struct Ready(Stop);

impl Ready {
    /// Says that the part serves. Saying it again changes nothing.
    pub fn set(&self) {
        self.0.cancel();
    }

    /// Whether it was said.
    pub fn is_set(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it is said.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}

/// Waits for all parts, then tells init (systemd's `Type=notify`) and the log.
pub(crate) async fn announce(binary: &'static str, parts: Vec<Ready>, began: Instant, all: Ready) {
    for part in parts {
        part.wait().await;
    }
    all.set();
    let took_ms = began.elapsed().as_millis();
    tell_init(&[sd_notify::NotifyState::Ready]);
    info!(binary, took_ms, pid = std::process::id(), "Ready in {took_ms} ms.");
}

/// Tells init that the daemon stops, so that it counts its time.
pub(crate) fn stopping() {
    tell_init(&[sd_notify::NotifyState::Stopping]);
}

fn tell_init(state: &[sd_notify::NotifyState<'_>]) {
    // Without systemd this does nothing; with it, failing to tell must not stop a daemon.
    let _ = sd_notify::notify(state);
}
