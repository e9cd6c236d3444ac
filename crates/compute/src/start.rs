//! Starts a guest that was stopped, or that this host lost when it went down.

use std::sync::Arc;

use nova_types::instance::InstanceView;
use nova_types::state::Event;

use crate::desk::Ticket;
use crate::host::Host;
use crate::launch::Launch;
use crate::ledger::Outcome;
use crate::problem::Problem;
use crate::run_instance::{BuildBridge, LetNobodyIn};
use crate::steps::{self, Step};

/// What must be there before a guest boots again; its disks are.
pub(crate) const BEFORE: &[&dyn Step<Launch>] = &[&LetNobodyIn, &BuildBridge];

/// Boots the guest. One that cannot be booted stays stopped, and says why.
pub(crate) async fn start(host: &Arc<Host>, view: InstanceView, ticket: &Ticket) -> Result<(), Problem> {
    let mut launch = Launch::new(Arc::clone(host), view, ticket.clone());
    let started = boot_again(&mut launch).await;
    nova_failpoint::hit(nova_failpoint::Point::StartBooted);
    conclude(&launch, started, Event::Booted).await
}

/// Boots a guest whose row says that it runs, although it does not. The row changes only if that fails.
pub(crate) async fn revive(host: &Arc<Host>, view: InstanceView, ticket: &Ticket) -> Result<(), Problem> {
    let mut launch = Launch::new(Arc::clone(host), view, ticket.clone());
    match boot_again(&mut launch).await {
        Err(Problem::Never { reason, cause }) => {
            tracing::warn!(instance.id = %launch.instance().id, error = %nova_service::chain(cause.as_ref()), "A lost guest cannot be started.");
            host.ledger.record(Outcome::moved(launch.instance(), Event::Halted, Some(reason))).await
        }
        other => other,
    }
}

async fn boot_again(launch: &mut Launch) -> Result<(), Problem> {
    steps::act(BEFORE, launch).await?;
    let spec = launch.gather_again().await?;
    Ok(launch.host.hypervisor.ensure_running(&spec).await?)
}

/// Writes that it worked, or that it never will.
pub(crate) async fn conclude(launch: &Launch, done: Result<(), Problem>, event: Event) -> Result<(), Problem> {
    let host = &launch.host;
    match done {
        Ok(()) => host.ledger.record(Outcome::moved(launch.instance(), event, None)).await,
        Err(Problem::Never { reason, cause }) => {
            tracing::warn!(instance.id = %launch.instance().id, error = %nova_service::chain(cause.as_ref()), "Starting failed.");
            // What is half started must not run while its row says that it is stopped.
            host.hypervisor.stop(launch.instance().id, std::time::Duration::ZERO).await.map_err(Problem::later)?;
            host.ledger.record(Outcome::moved(launch.instance(), Event::Failed, Some(reason))).await
        }
        Err(problem) => Err(problem),
    }
}
