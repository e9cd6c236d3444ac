//! Writes outcomes. All that wait when a transaction ends go into the next one, so that a burst of launches costs a
//! handful of commits.

use nova_db::instances::{self, Guard};
use nova_db::{Conn, Db, DbError, transaction};
use nova_failpoint::{Point, hit};
use nova_types::InstanceId;
use nova_types::instance::{Instance, StateReason};
use nova_types::state::{Event, Task};
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

    /// Where tests end the process: before and after it is committed.
    const fn points(&self) -> Option<[Point; 2]> {
        match self {
            Self::Moved { event, guard, .. } => match (event, guard.state.task) {
                (Event::Booted, Some(Task::Building)) => Some([Point::LaunchRecording, Point::LaunchRecorded]),
                (Event::Booted, Some(Task::Starting)) => Some([Point::StartRecording, Point::StartRecorded]),
                (Event::Halted, Some(Task::Stopping)) => Some([Point::StopRecording, Point::StopRecorded]),
                (Event::Rebooted, _) => Some([Point::RebootRecording, Point::RebootRecorded]),
                _ => None,
            },
            Self::Gone { .. } => Some([Point::TerminateRecording, Point::TerminateRecorded]),
            Self::Failed { .. } | Self::Cleaned { .. } => None,
        }
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
    if let [only @ Outcome::Moved { .. }] = outcomes
        && let Some(written) = write_alone(db, only, quarantine_seconds).await?
    {
        return Ok(vec![written]);
    }
    let points: Vec<[Point; 2]> = outcomes.iter().filter_map(Outcome::points).collect();
    let written = transaction!(db, |tx| {
        let mut results = vec![true; outcomes.len()];
        let (alike, others) = sorted(outcomes);
        for ((event, guard), ids) in alike {
            instances::apply_all(tx, &ids, event, &guard).await?;
        }
        for at in others {
            match outcomes[at].write(tx, quarantine_seconds).await {
                Ok(()) => {}
                Err(DbError::Stale(_) | DbError::NotFound(_)) => results[at] = false,
                Err(error) => return Err(error),
            }
        }
        points.iter().for_each(|[recording, _]| hit(*recording));
        Ok(results)
    });
    if written.is_ok() {
        points.iter().for_each(|[_, recorded]| hit(*recorded));
    }
    written
}

/// One outcome that is one statement needs no transaction around it. `None` when it lost against others, or nobody knows:
/// it is safe to write it again, for a row that has moved on stays as it is.
async fn write_alone(db: &Db, outcome: &Outcome, quarantine_seconds: i32) -> Result<Option<bool>, DbError> {
    let points = outcome.points();
    if let Some([recording, _]) = points {
        hit(recording);
    }
    let written = async { outcome.write(&mut db.write().await?, quarantine_seconds).await }.await;
    match written {
        Ok(()) => {
            if let Some([_, recorded]) = points {
                hit(recorded);
            }
            Ok(Some(true))
        }
        Err(DbError::Stale(_) | DbError::NotFound(_)) => Ok(Some(false)),
        Err(error) if error.is_retryable() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Instances that come from the same state to the same other.
type Alike = ((Event, Guard), Vec<InstanceId>);

/// Puts together what one statement can write, as in a burst of launches, and tells the places of the rest. If not all
/// that stand together are where they should be, all outcomes are written one by one.
fn sorted(outcomes: &[Outcome]) -> (Vec<Alike>, Vec<usize>) {
    let (mut alike, mut others): (Vec<Alike>, Vec<usize>) = (Vec::new(), Vec::new());
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Moved { id, event, guard, reason: None } if outcomes.len() > 1 => {
                match alike.iter_mut().find(|(kind, _)| *kind == (*event, *guard)) {
                    Some((_, ids)) => ids.push(*id),
                    None => alike.push(((*event, *guard), vec![*id])),
                }
            }
            _ => others.push(at),
        }
    }
    (alike, others)
}

#[cfg(test)]
mod tests {
    use nova_types::state::{State, VmState};

    use super::*;
    use crate::testing::Bench;

    #[tokio::test]
    async fn of_a_burst_all_are_written_but_those_that_have_moved_on() {
        let bench = Bench::new().await;
        let ids = bench.placed(4).await;
        let mut outcomes = Vec::new();
        for id in &ids {
            outcomes.push(Outcome::moved(&bench.view(*id).await.instance, Event::Booted, None));
        }
        assert_eq!(sorted(&outcomes).0.len(), 1);
        bench.ask(ids[2], Event::Terminate).await;
        let reason = StateReason::new("Server.InternalError", "why");
        outcomes.push(Outcome::failed(&bench.view(ids[3]).await.instance, reason));
        let ledger = Ledger::open(bench.db.clone(), 0);
        let written = futures_of(&ledger, outcomes[..3].to_vec()).await;
        assert_eq!(written, [true, true, false]);
        assert_eq!(futures_of(&ledger, outcomes[3..].to_vec()).await, [true, false]);
        let booted = State::new(VmState::Running, None);
        let states = [booted, booted, State::new(VmState::ShuttingDown, Some(Task::Terminating)), booted];
        for (id, state) in ids.iter().zip(states) {
            assert_eq!(bench.view(*id).await.instance.state, state);
        }
    }

    /// Hands all in at once, and tells which were written.
    async fn futures_of(ledger: &Ledger, outcomes: Vec<Outcome>) -> Vec<bool> {
        let all = outcomes.into_iter().map(|outcome| ledger.record(outcome));
        nova_db::dev::at_once(all).await.into_iter().map(|written| written.is_ok()).collect()
    }
}
