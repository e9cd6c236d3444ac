//! A daemon's right to its name: one process at a time works as `nova-compute` of a host, and its row in `services`
//! says that it lives.
//!
//! The right is a lease in the database. The installation that has it may take it again at once, after a crash; another
//! must wait until it is given up or over.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nova_db::services::{self, Claim, ClaimError};
use nova_db::{Db, DbError, transaction};
use nova_types::HostName;
use rand::RngExt;
use tracing::{debug, info, warn};

use crate::wiring::usable_or;
use crate::{Holder, Ready, Stop, chain};

/// How long a database that says nothing is waited for before it counts as absent, as one that refuses does at once.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long passes between tries while the database is away.
const RETRY: Duration = Duration::from_secs(1);
/// How long giving up the name may take when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(2);
const SHORTEST_LEASE: u64 = 5;

/// Who wants to work under which names, and how often it reports.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Where the rows are.
    pub db: Db,
    /// The names: this host, or all simulated ones.
    pub hosts: Vec<HostName>,
    /// The daemon, as `nova-compute`.
    pub binary: &'static str,
    /// The zone that the rows are in: flag `--node_availability_zone`.
    pub zone: String,
    /// Whether a new row takes part at once: flag `--enable_new_services`.
    pub enable_new: bool,
    /// Where other hosts reach this one, if the daemon carries frames between guests: flag `--my_ip`.
    pub address: Option<Ipv4Addr>,
    /// The installation that it belongs to.
    pub holder: Holder,
    /// Flag `--report_interval`.
    pub interval: Duration,
}

/// Why a daemon may not work, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum TenureError {
    /// Another works under its name.
    #[error(transparent)]
    Refused(ClaimError),
    /// Another took over its name while it could not report.
    #[error("this daemon was silent for too long")]
    TakenOver(#[source] ClaimError),
    /// The database is there, but not one that this program can work with.
    #[error("the database cannot be used")]
    Database(#[source] DbError),
}

/// The right to work, while it is kept.
#[derive(Debug)]
pub struct Tenure {
    db: Db,
    claim: Claim,
    interval: Duration,
}

/// Takes the names. Waits for database and schema if need be, and sets `ready` then: a daemon that waits is as ready as it
/// can be. Returns nothing when told to stop while it waits.
///
/// # Errors
/// [`TenureError`]: another has a name, or the schema is newer than this program.
pub async fn enter(wanted: Membership, ready: &Ready, stop: &Stop) -> Result<Option<Tenure>, TenureError> {
    let tenure = Tenure::new(wanted);
    let entering = async {
        let mut entered = std::pin::pin!(tenure.enter(ready));
        if let Ok(early) = tokio::time::timeout(PATIENCE, &mut entered).await {
            return early;
        }
        ready.set();
        entered.await
    };
    tokio::select! {
        entered = entering => entered?,
        () = stop.cancelled() => return Ok(None),
    }
    Ok(Some(tenure))
}

impl Tenure {
    fn new(wanted: Membership) -> Self {
        let Membership { db, hosts, binary, zone, enable_new, address, holder, interval } = wanted;
        let lease = (interval * 3).as_secs().max(SHORTEST_LEASE);
        let lease_seconds = i32::try_from(lease).unwrap_or(i32::MAX);
        let holder = holder.as_str().to_owned();
        Self { db, claim: Claim { hosts, binary, zone, enable_new, address, holder, lease_seconds }, interval }
    }

    async fn enter(&self, ready: &Ready) -> Result<(), TenureError> {
        usable_or(&self.db, || ready.set()).await.map_err(TenureError::Database)?;
        let mut told = false;
        loop {
            match self.acquire().await {
                Ok(()) => return Ok(()),
                Err(ClaimError::Db(error)) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(error = %chain(&error), "Taking this daemon's name failed; trying again.");
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(held) => return Err(TenureError::Refused(held)),
            }
        }
    }

    async fn acquire(&self) -> Result<(), ClaimError> {
        services::introduce(&mut self.db.write().await?, &self.claim).await?;
        transaction!(self.db, |tx| -> ClaimError { services::acquire(tx, &self.claim).await })
    }

    /// Does `work` and reports every interval meanwhile; rows that were deleted are made again. When the work is done the
    /// names are given up, so that another may have them at once; if the database is away then, they come free later.
    ///
    /// # Errors
    /// [`TenureError::TakenOver`]: the work was dropped at once, unfinished, for another does it.
    pub async fn hold<T>(self, work: impl Future<Output = T>) -> Result<T, TenureError> {
        let done = tokio::select! {
            biased;
            done = work => done,
            lost = self.keep() => return Err(TenureError::TakenOver(lost)),
        };
        self.leave().await;
        Ok(done)
    }

    /// Reports until another has taken over.
    async fn keep(&self) -> ClaimError {
        let mut failures: u32 = 0;
        loop {
            let rest = if failures == 0 { self.interval } else { self.interval.min(RETRY) };
            let rest = rest.mul_f64(rand::rng().random_range(0.9..1.1));
            tokio::time::sleep(rest).await;
            let began = Instant::now();
            match self.report().await {
                Ok(()) if failures > 0 => {
                    info!(failures, "The heartbeat succeeds again.");
                    failures = 0;
                }
                Ok(()) => {}
                Err(ClaimError::Db(error)) => {
                    failures += 1;
                    metrics::counter!("nova_tick_failures_total", "tick" => "heartbeat").increment(1);
                    if failures == 1 {
                        warn!(error = %chain(&error), "The heartbeat failed; trying again.");
                    }
                }
                Err(held) => return held,
            }
            metrics::histogram!("nova_tick_seconds", "tick" => "heartbeat").record(began.elapsed().as_secs_f64());
        }
    }

    async fn report(&self) -> Result<(), ClaimError> {
        if services::renew(&mut self.db.write().await?, &self.claim).await? {
            return Ok(());
        }
        // A row was deleted, or the lease ran out and nobody wanted it; or somebody did.
        self.acquire().await
    }

    async fn leave(&self) {
        let release = async { services::release(&mut self.db.write().await?, &self.claim).await };
        match tokio::time::timeout(FAREWELL, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(error = %chain(&error), "The name of this daemon could not be given up."),
            Err(_) => debug!("The name of this daemon could not be given up in time."),
        }
    }
}

#[cfg(test)]
mod tests;
