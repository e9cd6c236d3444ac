//! Ends an instance, and cleans up after one that could not be built.

use std::sync::Arc;

use nova_types::instance::InstanceView;

use crate::desk::Ticket;
use crate::host::Host;
use crate::launch::Launch;
use crate::ledger::Outcome;
use crate::problem::Problem;
use crate::run_instance;

/// Destroys the guest, its files and its rules; then, in one transaction, the row is terminated and gives back its
/// address, capacity and quota.
pub(crate) async fn terminate(host: &Arc<Host>, view: InstanceView, ticket: &Ticket) -> Result<(), Problem> {
    let (id, epoch) = (view.instance.id, view.instance.epoch);
    run_instance::tear_down(&mut Launch::new(Arc::clone(host), view, ticket.clone())).await?;
    host.ledger.record(Outcome::Gone { id, epoch }).await
}

/// The same after a failed launch, whose row stays `error`.
pub(crate) async fn clean(host: &Arc<Host>, view: InstanceView, ticket: &Ticket) -> Result<(), Problem> {
    let (id, epoch) = (view.instance.id, view.instance.epoch);
    run_instance::tear_down(&mut Launch::new(Arc::clone(host), view, ticket.clone())).await?;
    host.ledger.record(Outcome::Cleaned { id, epoch }).await
}
