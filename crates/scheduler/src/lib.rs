//! `nova-scheduler`: chooses a host for each new instance.
//!
//! The rows that wait for a host are its own: it looks at those that a message names, and at every tick at all of them,
//! through an index. It plans in memory (`hosts`, kept current by `view`) and makes each host's share true in one
//! transaction (`place`): the instances are given to the host, its capacity is claimed, their addresses are taken.
//! Whoever is too late claims nothing and plans again.

mod choose;
mod hosts;
mod housekeeping;
mod inbox;
mod order;
mod pass;
mod place;
mod view;

use std::sync::Arc;

use async_trait::async_trait;
use nova_bus::{Bus, BusError, Handler, Subscription};
use nova_config::{Config, SchedulerConfig};
use nova_db::{Db, DbError};
use nova_service::{Holder, Membership, Ready, Stop, TenureError, Ticks};
use nova_types::InstanceId;
use nova_wire::{Context, Failure, SchedulerCall, Topic};
use serde_json::Value;

use inbox::Inbox;
use pass::{Scheduler, Settings};

pub use choose::{Place, Plan, Why, Wish};
pub use hosts::{Hosts, Rules};
pub use order::Policy;

/// A message only makes the scheduler look, so many may wait at once.
const PREFETCH: u16 = 64;

/// What the daemon is made of.
#[derive(Debug)]
pub struct Parts {
    /// The rows.
    pub db: Db,
    /// Hints from the API, and to compute and network.
    pub bus: Arc<dyn Bus>,
    /// How it behaves.
    pub config: SchedulerConfig,
    /// Set when it serves.
    pub ready: Ready,
}

/// Why the daemon ended although it was not told to.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// Messages cannot be listened to, and waiting would not mend it.
    #[error("listening to messages")]
    Bus(#[from] BusError),
    /// Another works as this host's nova-scheduler.
    #[error(transparent)]
    Tenure(#[from] TenureError),
}

/// Places instances until `stop`; a transaction that has begun is finished. Several schedulers may run at once,
/// each under a host name of its own.
///
/// # Errors
/// [`SchedulerError`] when messages can never be listened to, or another has this host's name.
pub async fn run(parts: Parts, stop: Stop) -> Result<(), SchedulerError> {
    let Parts { db, bus, config, ready } = parts;
    let (common, host) = (&config.common, config.common.host.clone());
    let subscription = Subscription { topic: Topic::Scheduler, host: host.as_str().to_owned(), prefetch: PREFETCH };
    let membership = Membership {
        db: db.clone(),
        hosts: vec![host],
        binary: SchedulerConfig::BINARY,
        zone: common.node_availability_zone.clone(),
        enable_new: common.enable_new_services,
        address: None,
        holder: Holder::of(&common.state_path),
        interval: common.report_interval,
    };
    let Some(tenure) = nova_service::enter(membership, &ready, &stop).await? else { return Ok(()) };
    let inbox = Inbox::default();
    let schedule = Ticks::new("schedule", common.tick_interval).hinted_by(inbox.hint());
    let housekeeping = Ticks::new("housekeeping", common.periodic_interval);
    let scheduler = Scheduler::new(db.clone(), Arc::clone(&bus), Settings::of(&config), inbox.clone());
    let served = nova_bus::serve(bus, subscription, Arc::new(Messages(inbox)), stop.clone());
    let work = async {
        tokio::join!(
        biased;
        async {
            let served = served.await;
            // Whatever ends the messages ends the rest.
            stop.cancel();
            served
        },
        // It has listened by now, or the broker must be waited for, which readiness does not do.
        async { ready.set() },
        schedule.run(stop.clone(), scheduler),
        housekeeping.run(stop.clone(), || housekeeping::clean(&db)),
        )
        .0
    };
    Ok(tenure.hold(work).await??)
}

/// Every message is a hint.
struct Messages(Inbox);

#[async_trait]
impl Handler for Messages {
    type Call = SchedulerCall;

    async fn handle(&self, call: SchedulerCall, _: &Context) -> Result<Value, Failure> {
        match call {
            SchedulerCall::RunInstance { instance_ids } => {
                self.0.put(instance_ids.into_iter().map(InstanceId::new));
            }
        }
        Ok(Value::Null)
    }
}

/// What a turn of the scheduler can fail with: what concerns one instance is written to its row instead.
type Outcome<T> = Result<T, DbError>;

#[cfg(test)]
mod tests;
