//! Writes outcomes. All that wait when a transaction ends go into the next one, so that a burst of launches costs a
//! handful of commits.

use nova_db::instances::{self, Guard};
use nova_db::{Conn, Db, DbError, transaction};
use nova_types::InstanceId;
use nova_types::instance::{Instance, StateReason};
use nova_types::state::Event;
use tokio::sync::{mpsc, oneshot};

use crate::problem::Problem;

const MOST_AT_ONCE: usize = 100;

/// What became of an instance.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It changed its state and keeps what it has.
    Moved { id: InstanceId, event: Event, guard: Guard, reason: Option<StateReason> },
    /// Its launch failed.
    Failed { id: InstanceId, guard: Guard, reason: StateReason },
    /// What a failed launch left is gone.
    Cleaned { id: InstanceId, epoch: i32 },
    /// It is gone, with all it had on this host.
    Gone { id: InstanceId, epoch: i32 },
}

impl Outcome {
    pub(crate) fn moved(instance: &Instance, event: Event, reason: Option<StateReason>) -> Self {
        Self::Moved { id: instance.id, event, guard: guard(instance), reason }
    }

    pub(crate) fn failed(instance: &Instance, reason: StateReason) -> Self {
        Self::Failed { id: instance.id, guard: guard(instance), reason }
    }

    async fn write(&self, tx: &mut Conn, quarantine_seconds: i32) -> Result<(), DbError> {
        match self {
            Self::Moved { id, event, guard, reason } => {
                instances::apply(tx, *id, *event, guard, reason.as_ref()).await.map(drop)
            }
            Self::Failed { id, guard, reason } => {
                instances::fail(tx, *id, guard, Event::Failed, reason, quarantine_seconds).await.map(drop)
            }
            Self::Cleaned { id, epoch } => instances::cleaned(tx, *id, *epoch, quarantine_seconds).await.map(drop),
            Self::Gone { id, epoch } => {
                instances::finish_terminate(tx, *id, *epoch, quarantine_seconds).await.map(drop)
            }
        }
    }
}

pub(crate) fn guard(instance: &Instance) -> Guard {
    Guard { state: instance.state, epoch: instance.epoch }
}

/// Where outcomes are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Ledger(mpsc::Sender<Entry>);

#[derive(Debug)]
struct Entry {
    outcome: Outcome,
    /// Told whether it was written; `false` when the row had moved on.
    written: oneshot::Sender<Result<bool, String>>,
}

impl Ledger {
    /// Must be called within a Tokio runtime.
    pub(crate) fn open(db: Db, quarantine_seconds: i32) -> Self {
        let (hand_in, handed_in) = mpsc::channel(1024);
        tokio::spawn(write_all(db, quarantine_seconds, handed_in));
        Self(hand_in)
    }

    /// Writes an outcome and waits until it is committed.
    pub(crate) async fn record(&self, outcome: Outcome) -> Result<(), Problem> {
        let (written, told) = oneshot::channel();
        let ended = |_| Problem::later("the ledger has ended");
        self.0.send(Entry { outcome, written }).await.map_err(|_| Problem::later("the ledger has ended"))?;
        match told.await.map_err(ended)? {
            Ok(true) => Ok(()),
            Ok(false) => Err(Problem::MovedOn),
            Err(error) => Err(Problem::later(error)),
        }
    }
}

async fn write_all(db: Db, quarantine_seconds: i32, mut handed_in: mpsc::Receiver<Entry>) {
    let mut entries = Vec::with_capacity(MOST_AT_ONCE);
    while handed_in.recv_many(&mut entries, MOST_AT_ONCE).await > 0 {
        let (outcomes, tellers): (Vec<Outcome>, Vec<_>) =
            entries.drain(..).map(|entry| (entry.outcome, entry.written)).unzip();
        match write_together(&db, &outcomes, quarantine_seconds).await {
            Ok(results) => {
                for (teller, written) in tellers.into_iter().zip(results) {
                    let _ = teller.send(Ok(written));
                }
            }
            // One that makes no sense must not keep the others from being written.
            Err(_) if outcomes.len() > 1 => {
                for (teller, outcome) in tellers.into_iter().zip(outcomes) {
                    let _ = teller.send(write_one(&db, outcome, quarantine_seconds).await);
                }
            }
            Err(error) => {
                for teller in tellers {
                    let _ = teller.send(Err(nova_service::chain(&error).to_string()));
                }
            }
        }
    }
}

async fn write_one(db: &Db, outcome: Outcome, quarantine_seconds: i32) -> Result<bool, String> {
    match write_together(db, &[outcome], quarantine_seconds).await {
        Ok(results) => Ok(results == [true]),
        Err(error) => Err(nova_service::chain(&error).to_string()),
    }
}

async fn write_together(db: &Db, outcomes: &[Outcome], quarantine_seconds: i32) -> Result<Vec<bool>, DbError> {
    transaction!(db, |tx| {
        let mut results = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            match outcome.write(tx, quarantine_seconds).await {
                Ok(()) => results.push(true),
                Err(DbError::Stale(_) | DbError::NotFound(_)) => results.push(false),
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    })
}
