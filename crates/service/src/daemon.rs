//! A daemon from its first line to its last.

use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use nova_bus::Bus;
use nova_config::{CommonFlags, Warning};
use nova_db::{Db, DbError};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::lock::{self, Lock};
use crate::ready::announce;
use crate::status::Health;
use crate::ticks::message;
use crate::{Ready, ServiceError, Stop, chain, logging, ready, signals, state, status};

/// A process made of parts that begin and end together.
#[derive(Debug)]
pub struct Daemon {
    binary: &'static str,
    began: Instant,
    stop: Stop,
    ready: Ready,
    health: Health,
    expected: Vec<Ready>,
    parts: JoinSet<Result<&'static str, ServiceError>>,
    drain_timeout: Duration,
    _lock: Lock,
}

impl Daemon {
    /// Begins: logging, the state folder, the lock that keeps a second process of `roles` away, signals, metrics.
    /// `began` is when the process did, `warnings` are those of its configuration.
    ///
    /// # Errors
    /// Any [`ServiceError`] but those of parts.
    pub async fn start(
        binary: &'static str,
        roles: &[&str],
        flags: &CommonFlags,
        warnings: &[Warning],
        began: Instant,
    ) -> Result<Self, ServiceError> {
        logging::init(binary, flags)?;
        state::prepare(&flags.state_path)?;
        let lock = lock::take(&flags.lock_path, &flags.state_path, roles)?;
        let (stop, ready, health) = (Stop::new(), Ready::default(), Health::default());
        signals::listen(stop.clone())?;
        info!(binary, host = %flags.host, version = env!("CARGO_PKG_VERSION"), "Starting {binary}.");
        for warning in warnings {
            warn!("{warning}");
        }
        status::serve(flags.status_port, ready.clone(), health.clone(), stop.clone()).await;
        Ok(Self {
            binary,
            began,
            stop,
            ready,
            health,
            expected: Vec::new(),
            parts: JoinSet::new(),
            drain_timeout: flags.drain_timeout,
            _lock: lock,
        })
    }

    /// What tells the parts to stop.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// What a part sets when it serves; the daemon is ready when all these are set.
    pub fn expect(&mut self) -> Ready {
        let ready = Ready::default();
        self.expected.push(ready.clone());
        ready
    }

    /// Lets `/healthz` say so while the database cannot be reached.
    pub fn watch_database(&self, db: &Db) {
        let db = db.clone();
        self.watch("database", move || {
            let db = db.clone();
            async move {
                db.read().await?.now().await?;
                Ok::<(), DbError>(())
            }
        });
    }

    /// Lets `/healthz` say so while the broker cannot be reached.
    pub fn watch_bus(&self, bus: &Arc<dyn Bus>) {
        let bus = Arc::clone(bus);
        self.watch("broker", move || {
            let bus = Arc::clone(&bus);
            async move { bus.reachable().await }
        });
    }

    /// Lets `/healthz` say so while something else outside cannot be reached. `ask` finds out, when it is asked for.
    pub fn watch<F, E>(&self, what: &'static str, ask: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + 'static,
    {
        let probe = move || ask().map(|answer| answer.map_err(|error| chain(&error).to_string())).boxed();
        self.health.add(what, Arc::new(probe));
    }

    /// Runs a part of the daemon. When it ends, by itself or by an error, the others are told to stop.
    pub fn spawn<E: Error + Send + Sync + 'static>(
        &mut self,
        part: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.parts.spawn(async move {
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(Ok(())) => Ok(part),
                Ok(Err(error)) => Err(ServiceError::Part { part, source: Box::new(error) }),
                Err(panic) => Err(ServiceError::Panicked { part, message: message(&*panic) }),
            }
        });
    }

    /// Runs until told to stop, or until a part ends; then gives the parts `--drain_timeout` to finish.
    ///
    /// # Errors
    /// The first part's that failed, panicked or ended unasked.
    pub async fn run(mut self) -> Result<(), ServiceError> {
        let announcing = announce(self.binary, std::mem::take(&mut self.expected), self.began, self.ready.clone());
        let announcing = tokio::spawn(announcing);
        let stop = self.stop.clone();
        let mut outcome = tokio::select! {
            () = stop.cancelled() => Ok(()),
            Some(ended) = self.parts.join_next() => Self::judge(ended, stop.is_cancelled()),
        };
        announcing.abort();
        stop.cancel();
        ready::stopping();
        let drain = async {
            while let Some(ended) = self.parts.join_next().await {
                let ended = Self::judge(ended, true);
                if let (Err(error), true) = (&ended, outcome.is_err()) {
                    error!(error = %chain(error), "A part failed while stopping.");
                }
                outcome = std::mem::replace(&mut outcome, Ok(())).and(ended);
            }
        };
        if tokio::time::timeout(self.drain_timeout, drain).await.is_err() {
            warn!(
                parts = self.parts.len(),
                "Stopping although not all work is finished; it goes on at the next start."
            );
        }
        info!(binary = self.binary, "Stopped.");
        outcome
    }

    fn judge(
        ended: Result<Result<&'static str, ServiceError>, tokio::task::JoinError>,
        told: bool,
    ) -> Result<(), ServiceError> {
        match ended {
            Ok(Ok(part)) if !told => Err(ServiceError::Ended(part)),
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(error),
        }
    }
}

/// Turns a daemon's end into its exit status: 1 for an error, which is told in one line on stderr.
pub fn finish<E: Error + 'static>(binary: &str, outcome: Result<(), E>) -> ExitCode {
    use std::io::Write;
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if logging::in_file() {
                error!(error = %chain(&error), "Stopped by an error.");
            }
            let _ = writeln!(std::io::stderr(), "{binary}: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
