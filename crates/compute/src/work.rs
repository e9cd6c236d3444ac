//! Looks at the rows whose task is this host's, and does what is due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nova_db::DbError;
use nova_db::instances::{self, Guard};
use nova_failpoint::{Point, hit};
use nova_service::{Stop, Ticks};
use nova_types::HostName;
use nova_types::instance::InstanceView;
use nova_types::state::Task;
use tokio::sync::{AcquireError, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::desk::Ticket;
use crate::host::Host;
use crate::problem::Problem;
use crate::{reboot, run_instance, start, stop as stop_guest, terminate};

/// How many rows are looked at beyond those in hand.
const ROWS_AT_ONCE: usize = 500;
/// How often one of many hosts looks by itself; [`keep_looking`] tells it of work long before.
const ONE_OF_MANY: Duration = Duration::from_secs(120);

/// Works until the daemon stops, and then finishes what is begun.
pub(crate) async fn keep_working(host: &Arc<Host>, stop: Stop) {
    let begun = TaskTracker::new();
    let ticks = match host.settings.one_of_many {
        true => Ticks::new("work", ONE_OF_MANY).spread(),
        false => Ticks::new("work", host.settings.tick),
    };
    ticks.hinted_by(host.desk.hint()).run(stop, || look(host, &begun)).await;
    begun.close();
    begun.wait().await;
}

/// Looks for work on behalf of many hosts, with one question for all.
pub(crate) async fn keep_looking(hosts: &[Arc<Host>], stop: Stop) {
    let Some(first) = hosts.first().filter(|host| host.settings.one_of_many) else { return };
    let by_name: HashMap<&HostName, &Arc<Host>> = hosts.iter().map(|host| (&host.name, host)).collect();
    let names: Vec<HostName> = by_name.keys().copied().cloned().collect();
    let look = async || {
        for name in instances::hosts_with_tasks(&mut first.db.read().await?, &names).await? {
            if let Some(host) = by_name.get(&name) {
                host.desk.hint().give();
            }
        }
        Ok::<(), DbError>(())
    };
    Ticks::new("look", first.settings.tick).run(stop, look).await;
}

/// Begins whatever is due and not in hand; what is too much for now waits for the next look.
async fn look(host: &Arc<Host>, begun: &TaskTracker) -> Result<(), Problem> {
    let limit = host.desk.in_hand() + ROWS_AT_ONCE;
    let asked = u32::try_from(limit).unwrap_or(u32::MAX);
    let rows = instances::due_on_host(&mut host.db.read().await?, &host.name, asked).await?;
    let (full, mut taken) = (rows.len() >= limit, 0);
    for view in rows {
        if let Some(ticket) = host.desk.take(view.instance.id, view.instance.state.task) {
            taken += 1;
            let performed = tokio::spawn(perform(Arc::clone(host), view, ticket));
            begun.spawn(async {
                if let Err(panic) = performed.await {
                    error!(error = %panic, "An operation panicked; its row is looked at again.");
                }
            });
        }
    }
    if full && taken > 0 {
        host.desk.hint().give();
    }
    Ok(())
}

async fn perform(host: Arc<Host>, view: InstanceView, ticket: Ticket) {
    let (id, task, guard) = (view.instance.id, view.instance.state.task, Guard::of(&view.instance));
    let begun = Instant::now();
    let done = tokio::select! {
        done = operate(&host, view, &ticket) => done,
        () = overtaken(&host, id, guard, &ticket) => Err(Problem::MovedOn),
    };
    let word = task.map_or("nothing", Task::as_str);
    match done {
        Ok(()) => {
            host.desk.rested(id);
            info!(instance.id = %id, task = word, took_ms = begun.elapsed().as_millis(), "Done with {id}: {word}.");
        }
        Err(Problem::MovedOn) => {
            host.desk.rested(id);
            ticket.look_again();
            debug!(instance.id = %id, task = word, "{id} has moved on.");
        }
        Err(problem) => {
            let rest = host.desk.rest(id, task);
            let error = nova_service::chain(&problem);
            warn!(instance.id = %id, task = word, %error, again_in_s = rest.as_secs(), "{id} has to wait: {word}.");
        }
    }
}

/// Waits until the row is no longer what it was; only a message can tell of that while it is in hand.
async fn overtaken(host: &Host, id: nova_types::InstanceId, guard: Guard, ticket: &Ticket) {
    loop {
        ticket.news().await;
        let Ok(mut conn) = host.db.read().await else { continue };
        match instances::get(&mut conn, id).await {
            Ok(now) if Guard::of(&now) == guard => {}
            Ok(_) | Err(nova_db::DbError::NotFound(_)) => return,
            Err(_) => {}
        }
    }
}

async fn operate(host: &Arc<Host>, view: InstanceView, ticket: &Ticket) -> Result<(), Problem> {
    let Some(task) = view.instance.state.task else { return Ok(()) };
    let _place = place(host, task).await.map_err(Problem::later)?;
    taken(task);
    match task {
        // The scheduler's; a row with a host is never in it.
        Task::Scheduling => Ok(()),
        Task::Building => run_instance::run_instance(host, view, ticket).await,
        Task::Rebooting => reboot::reboot(host, view, ticket).await,
        Task::Stopping => stop_guest::stop(host, view).await,
        Task::Starting => start::start(host, view, ticket).await,
        Task::Terminating => terminate::terminate(host, view, ticket).await,
        Task::Cleaning => terminate::clean(host, view, ticket).await,
    }
}

/// Where tests end the process before anything is done.
fn taken(task: Task) {
    match task {
        Task::Building => hit(Point::LaunchTaken),
        Task::Rebooting => hit(Point::RebootTaken),
        Task::Stopping => hit(Point::StopTaken),
        Task::Starting => hit(Point::StartTaken),
        Task::Terminating => hit(Point::TerminateTaken),
        Task::Scheduling | Task::Cleaning => {}
    }
}

async fn place(host: &Host, task: Task) -> Result<SemaphorePermit<'_>, AcquireError> {
    match task {
        Task::Building | Task::Starting => host.builds.acquire().await,
        Task::Scheduling | Task::Rebooting | Task::Stopping | Task::Terminating | Task::Cleaning => {
            host.quiet.acquire().await
        }
    }
}

#[cfg(test)]
mod tests;
