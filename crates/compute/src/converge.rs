//! Compares rows, guests and folders, both ways, and repairs what differs.
//!
//! Only what is at rest is judged: a row with a task has its owner, and what was in hand while the pictures were taken
//! proves nothing. A thing that nobody knows is removed only after it was unknown twice and for a while, but a guest that
//! the database proves to be evacuated at once. Rows are never deleted because something is missing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_db::evacuations::{self, Evacuation};
use nova_db::{DbError, instances};
use nova_hypervisor::{Change, Guest, Power};
use nova_service::{Hint, Stop, Ticks, Turn};
use nova_types::InstanceId;
use nova_types::instance::{InstanceView, StateReason};
use nova_types::state::{Event, State, VmState};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::desk::Ticket;
use crate::host::Host;
use crate::ledger::Outcome;
use crate::problem::Problem;
use crate::start;

/// A guest that we switched off ourselves may be heard of so much later.
const ECHO: Duration = Duration::from_secs(3);
/// Several guests often change together.
const GATHER: Duration = Duration::from_millis(200);
/// So many unknown guests and not one known mean that we look at the wrong database, not that all must go.
const SUSPICIOUS: usize = 3;

/// A difference between the rows and the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Finding {
    /// The row says that it runs; the guest is off.
    Off(InstanceId),
    /// The row says that it runs; there is no guest.
    Missing(InstanceId),
    /// The row says that it is stopped; the guest runs.
    Runs(InstanceId),
    /// There is a guest or a folder, and no row.
    Unknown(InstanceId),
    /// There is a guest of an instance that was taken from this host.
    Evacuated(InstanceId),
}

/// Lists what differs. `busy` is not judged.
pub(crate) fn compare(
    rows: &BTreeMap<InstanceId, State>,
    guests: &[Guest],
    folders: &[InstanceId],
    busy: &HashSet<InstanceId>,
) -> BTreeSet<Finding> {
    let power: BTreeMap<InstanceId, Power> = guests.iter().map(|guest| (guest.id, guest.power)).collect();
    let mut findings = BTreeSet::new();
    for (id, state) in rows {
        match (state.vm, state.task, power.get(id)) {
            (VmState::Running, None, Some(Power::Off)) => findings.insert(Finding::Off(*id)),
            (VmState::Running, None, None) => findings.insert(Finding::Missing(*id)),
            (VmState::Stopped, None, Some(Power::On)) => findings.insert(Finding::Runs(*id)),
            _ => false,
        };
    }
    let unknown = power.keys().chain(folders).filter(|id| !rows.contains_key(id));
    findings.extend(unknown.map(|id| Finding::Unknown(*id)));
    findings.retain(|finding| !busy.contains(&finding.id()));
    findings
}

impl Finding {
    const fn id(self) -> InstanceId {
        match self {
            Self::Off(id) | Self::Missing(id) | Self::Runs(id) | Self::Unknown(id) | Self::Evacuated(id) => id,
        }
    }

    /// Tells whether it has been seen long enough to be acted upon.
    fn is_certain(self, first_seen: Option<Instant>, stranger_grace: Duration) -> bool {
        match self {
            // The hypervisor itself says so; and the database.
            Self::Off(_) | Self::Evacuated(_) => true,
            Self::Missing(_) | Self::Runs(_) => first_seen.is_some(),
            Self::Unknown(_) => first_seen.is_some_and(|then| then.elapsed() >= stranger_grace),
        }
    }
}

/// Compares until the daemon stops: every few seconds, and when a guest goes off by itself.
pub(crate) async fn keep_equal(host: &Arc<Host>, stop: Stop) {
    let hint = Hint::default();
    let events = host.hypervisor.events();
    let turns = Ticks::new("converge", host.settings.converge).hinted_by(&hint);
    let turns = if host.settings.one_of_many { turns.spread() } else { turns };
    let comparing = turns.run(stop.clone(), Comparison { host: Arc::clone(host), seen: HashMap::new() });
    let hearing = async {
        tokio::select! { () = stop.cancelled() => {}, () = hear(host, events, &hint) => {} }
    };
    tokio::join!(comparing, hearing);
}

async fn hear(host: &Host, mut events: Receiver<Change>, hint: &Hint) {
    loop {
        off_by_itself(host, &mut events).await;
        sleep(GATHER).await;
        hint.give();
    }
}

/// What one comparison must know of the last.
#[derive(Debug)]
pub(crate) struct Comparison {
    host: Arc<Host>,
    /// Since when each difference is known.
    seen: HashMap<Finding, Instant>,
}

#[async_trait]
impl Turn for Comparison {
    type Error = Problem;

    async fn turn(&mut self) -> Result<(), Problem> {
        pass(&self.host, &mut self.seen).await
    }
}

/// Waits until a guest went off that nobody has in hand.
async fn off_by_itself(host: &Host, events: &mut Receiver<Change>) {
    loop {
        match events.recv().await {
            Ok(Change { power: Power::On, .. }) => {}
            Ok(Change { id, power: Power::Off }) => {
                let now = Instant::now();
                if !host.desk.busy_since(now.checked_sub(ECHO).unwrap_or(now)).contains(&id) {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Looks at everything once. `seen` remembers since when each difference is known.
pub(crate) async fn pass(host: &Arc<Host>, seen: &mut HashMap<Finding, Instant>) -> Result<(), Problem> {
    let begun = Instant::now();
    // Guests and folders before rows: whatever is there by now has a row by then.
    let guests = host.hypervisor.list().await.map_err(Problem::later)?;
    let folders = match &host.real {
        Some(real) => real.disks.list().await?,
        None => Vec::new(),
    };
    let rows = instances::on_host(&mut host.db.read().await?, &host.name).await?;
    let rows: BTreeMap<InstanceId, InstanceView> = rows.into_iter().map(|view| (view.instance.id, view)).collect();
    let states = rows.iter().map(|(id, view)| (*id, view.instance.state)).collect();
    let mut findings = compare(&states, &guests, &folders, &host.desk.busy_since(begun));
    let evacuated = evacuations::of_host(&mut host.db.read().await?, &host.name).await?;
    for evacuation in &evacuated {
        judge(&mut findings, evacuation, &guests);
        let (id, there) = (evacuation.instance, |guest: &Guest| guest.id == evacuation.instance);
        if rows.contains_key(&id) || !guests.iter().any(there) && !folders.contains(&id) {
            evacuations::done(&mut host.db.write().await?, &host.name, evacuation).await?;
        }
    }

    leave_others(host, &mut findings, &guests).await?;

    let known = guests.iter().filter(|guest| rows.contains_key(&guest.id)).count();
    let moved = |guest: &&Guest| evacuated.iter().any(|evacuation| evacuation.instance == guest.id);
    let strangers = guests.len() - known - guests.iter().filter(moved).filter(|g| !rows.contains_key(&g.id)).count();
    let trusted = known > 0 || strangers <= SUSPICIOUS;
    if !trusted {
        warn!(
            guests = guests.len(),
            "None of the guests here has a row; is this the right database? They are left alone."
        );
    }
    let mut all_well = true;
    for finding in &findings {
        let certain = finding.is_certain(seen.get(finding).copied(), host.settings.stranger_grace);
        if certain && (trusted || !matches!(finding, Finding::Unknown(_))) {
            all_well &= repair(host, *finding, &rows).await;
        }
        all_well &= !matches!(finding, Finding::Missing(_));
    }
    if let (true, Some(real)) = (all_well, &host.real) {
        real.boot.set();
    }
    *seen = findings.into_iter().map(|finding| (finding, seen.get(&finding).copied().unwrap_or(begun))).collect();
    Ok(())
}

/// Puts what is known of an evacuated instance in the place of what was guessed: its guest must go, and its folder stays
/// until the instance is over, for it may be the only copy of its data, or shared with the host that has it now.
fn judge(findings: &mut BTreeSet<Finding>, evacuation: &Evacuation, guests: &[Guest]) {
    let id = evacuation.instance;
    let guest = guests.iter().any(|guest| guest.id == id);
    if !findings.contains(&Finding::Unknown(id)) {
        return;
    }
    if guest || !evacuation.over {
        findings.remove(&Finding::Unknown(id));
    }
    if guest {
        findings.insert(Finding::Evacuated(id));
    }
}

/// A folder without a guest whose instance lives on another host is nobody's leftover: hosts may share their folders.
async fn leave_others(host: &Host, findings: &mut BTreeSet<Finding>, guests: &[Guest]) -> Result<(), Problem> {
    let folder_only = |finding: &Finding| match finding {
        Finding::Unknown(id) => (!guests.iter().any(|guest| guest.id == *id)).then_some(*id),
        _ => None,
    };
    let folders: Vec<InstanceId> = findings.iter().filter_map(folder_only).collect();
    if !folders.is_empty() {
        let living = instances::living(&mut host.db.read().await?, &folders).await?;
        findings.retain(|finding| folder_only(finding).is_none_or(|id| !living.contains(&id)));
    }
    Ok(())
}

/// Repairs one difference; `false` if that has to wait.
async fn repair(host: &Arc<Host>, finding: Finding, rows: &BTreeMap<InstanceId, InstanceView>) -> bool {
    let id = finding.id();
    let Some(ticket) = host.desk.take(id, None) else { return false };
    info!(instance.id = %id, "Repairing: {finding:?}.");
    let repaired = match (finding, rows.get(&id)) {
        (Finding::Off(_), Some(view)) => switched_off(host, view, &ticket).await,
        (Finding::Missing(_), Some(view)) => start::revive(host, view.clone(), &ticket).await,
        (Finding::Runs(_), Some(_)) => host.hypervisor.stop(id, host.settings.stop_grace).await.map_err(Problem::later),
        (Finding::Unknown(_), _) => remove_unknown(host, id).await,
        (Finding::Evacuated(_), _) => remove_evacuated(host, id).await,
        (Finding::Off(_) | Finding::Missing(_) | Finding::Runs(_), None) => Ok(()),
    };
    match repaired {
        // Somebody else was faster; that is as good.
        Ok(()) | Err(Problem::MovedOn) => {
            host.desk.rested(id);
            true
        }
        Err(problem) => {
            let rest = host.desk.rest(id, None);
            let error = nova_service::chain(&problem);
            warn!(instance.id = %id, %error, again_in_s = rest.as_secs(), "{finding:?} cannot be repaired now.");
            false
        }
    }
}

/// A guest that is off because its host was is started again; one that went off by itself is stopped.
async fn switched_off(host: &Arc<Host>, view: &InstanceView, ticket: &Ticket) -> Result<(), Problem> {
    if host.real.as_ref().is_some_and(|real| real.boot.host_was_restarted()) {
        return start::revive(host, view.clone(), ticket).await;
    }
    let reason = StateReason::new("Client.InstanceInitiatedShutdown", "Instance initiated shutdown");
    host.ledger.record(Outcome::moved(&view.instance, Event::Halted, Some(reason))).await
}

/// Removes what bears our mark and has no row, after one more look: an instance that lives on another host is not ours
/// to judge.
async fn remove_unknown(host: &Host, id: InstanceId) -> Result<(), Problem> {
    match instances::get(&mut host.db.read().await?, id).await {
        Err(DbError::NotFound(_)) => {}
        Ok(instance) if instance.state.vm.is_over() && instance.state.task.is_none() => {}
        Ok(instance) => {
            let at = instance.host.as_ref().map_or("no host", |host| host.as_str());
            warn!(instance.id = %id, "{id} belongs to {at}, but a guest or files of it are here; left alone.");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    host.hypervisor.destroy(id).await.map_err(Problem::later)?;
    if let Some(real) = &host.real {
        real.disks.remove(id).await?;
        real.groups.forget(id).await?;
    }
    info!(instance.id = %id, "Removed a guest that no row knows.");
    Ok(())
}

/// Destroys the guest of an instance that was taken from this host, after one more look: it may have been placed here again.
async fn remove_evacuated(host: &Host, id: InstanceId) -> Result<(), Problem> {
    match instances::get(&mut host.db.read().await?, id).await {
        Ok(instance) if instance.host.as_ref() == Some(&host.name) => return Ok(()),
        Ok(_) | Err(DbError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    host.hypervisor.destroy(id).await.map_err(Problem::later)?;
    if let Some(real) = &host.real {
        real.groups.forget(id).await?;
    }
    info!(instance.id = %id, "Destroyed the guest of {id}, which was evacuated from this host.");
    Ok(())
}

#[cfg(test)]
mod tests;
