//! One turn: everything that waits for the scheduler is placed, ended, or told why not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nova_bus::Bus;
use nova_config::SchedulerConfig;
use nova_db::instances::Guard;
use nova_db::{Db, DbError, compute_nodes, instances, transaction};
use nova_service::{Turn, chain};
use nova_types::instance::{Instance, StateReason};
use nova_types::network::Network;
use nova_types::state::{Event, Task};
use nova_types::{HostName, InstanceId};
use nova_wire::{ComputeCall, NetworkCall};
use tracing::{info, warn};

use crate::Outcome;
use crate::choose::{Hosts, Place, Wish};
use crate::place::{PlaceError, demand, place};

/// Rows looked at together.
const BATCH: u32 = 500;
/// How often instances are planned anew in one turn when others take what was planned with.
const ROUNDS: usize = 4;
/// An instance that never had a host never had an address that DHCP could still know.
const NO_QUARANTINE: i32 = 0;

const NO_CAPACITY: &str = "Server.InsufficientInstanceCapacity";
const NO_ADDRESS: &str = "Server.InsufficientFreeAddressesInSubnet";

/// How it behaves.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How old the hosts in memory may be.
    keep_hosts: Duration,
    /// After how many seconds of silence a host gets no new instances.
    down_after_seconds: i64,
    /// Vcpus in use at which a host gets no new instances; 0 leaves that to what it reports.
    max_cores: u32,
    /// For how long after the start that no host is there is not believed: they may all be starting too.
    grace: Duration,
}

impl Settings {
    pub(crate) fn of(config: &SchedulerConfig) -> Self {
        Self {
            keep_hosts: config.common.tick_interval,
            down_after_seconds: i64::try_from(config.common.service_down_time.as_secs()).unwrap_or(i64::MAX),
            max_cores: config.scheduler.max_cores,
            grace: config.scheduler.host_grace,
        }
    }
}

/// Places what waits.
#[derive(Debug)]
pub(crate) struct Scheduler {
    db: Db,
    bus: Arc<dyn Bus>,
    settings: Settings,
    hosts: Hosts,
    seen: Option<Instant>,
    began: Instant,
}

/// What became of a host's share of a plan.
enum Share {
    Done,
    /// The plan was made with numbers that are no longer true.
    Outdated,
}

impl Scheduler {
    pub(crate) fn new(db: Db, bus: Arc<dyn Bus>, settings: Settings) -> Self {
        Self { db, bus, settings, hosts: Hosts::default(), seen: None, began: Instant::now() }
    }

    /// Finishes instances that were terminated before they had a host.
    async fn end(&self, ending: &[Instance]) -> Outcome<()> {
        for instance in ending {
            let (id, epoch) = (instance.id, instance.epoch);
            let db = &self.db;
            let ended = transaction!(db, |tx| { instances::finish_terminate(tx, id, epoch, NO_QUARANTINE).await });
            match ended {
                Ok(_) => info!(instance.id = %id, "Terminated {id}, which never had a host."),
                Err(DbError::Stale(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn schedule(&mut self, mut waiting: Vec<Instance>) -> Outcome<()> {
        for _ in 0..ROUNDS {
            if waiting.is_empty() {
                return Ok(());
            }
            let fresh = self.look_at_hosts().await?;
            if self.hosts.is_empty() && self.began.elapsed() < self.settings.grace {
                return Ok(());
            }
            let wishes: Vec<Wish> = waiting.iter().map(wish).collect();
            let plan = self.hosts.plan(&wishes);
            let by_id: HashMap<InstanceId, &Instance> =
                waiting.iter().map(|instance| (instance.id, instance)).collect();
            let mut again: Vec<InstanceId> = Vec::new();
            for (host, ids) in &plan.placed {
                let share: Vec<&Instance> = ids.iter().filter_map(|id| by_id.get(id).copied()).collect();
                if let Share::Outdated = self.give(host, &share).await? {
                    again.extend(ids);
                }
            }
            if fresh {
                for instance in plan.unplaced.iter().filter_map(|id| by_id.get(id)) {
                    self.refuse(instance, &no_capacity(instance)).await?;
                }
            } else {
                // What was seen a moment ago is good enough to give, but not to refuse.
                again.extend(&plan.unplaced);
            }
            if !again.is_empty() {
                self.seen = None;
            }
            waiting.retain(|instance| again.contains(&instance.id));
        }
        // Still losing against other schedulers: the next turn goes on.
        Ok(())
    }

    /// Reads the hosts again when they were last seen a tick ago, or what was seen proved wrong. Returns whether it did.
    async fn look_at_hosts(&mut self) -> Outcome<bool> {
        if self.seen.is_some_and(|seen| seen.elapsed() < self.settings.keep_hosts) {
            return Ok(false);
        }
        let nodes = compute_nodes::list(&mut self.db.read().await?, self.settings.down_after_seconds).await?;
        self.hosts = Hosts::new(nodes, self.settings.max_cores);
        self.seen = Some(Instant::now());
        Ok(true)
    }

    /// Gives a host its share. Where addresses are short, as many get one as there are.
    async fn give(&self, host: &HostName, share: &[&Instance]) -> Outcome<Share> {
        match place(&self.db, host, share).await {
            Ok(placed) => {
                self.tell(host, &placed.instances, &placed.networks).await;
                Ok(Share::Done)
            }
            Err(PlaceError::Full) => Ok(Share::Outdated),
            Err(PlaceError::Db(DbError::NoMoreAddresses { .. }) | PlaceError::NoNetwork(_)) if share.len() > 1 => {
                let (one, other) = share.split_at(share.len() / 2);
                let one = Box::pin(self.give(host, one)).await?;
                let other = Box::pin(self.give(host, other)).await?;
                Ok(if matches!((&one, &other), (Share::Done, Share::Done)) { Share::Done } else { Share::Outdated })
            }
            Err(PlaceError::Db(DbError::NoMoreAddresses { .. })) => {
                self.refuse_all(share, &StateReason::new(NO_ADDRESS, "The network has no free address.")).await?;
                // The capacity that was planned for it is still there.
                Ok(Share::Done)
            }
            Err(error @ PlaceError::NoNetwork(_)) => {
                let sentence =
                    format!("{}: an administrator can make one with nova-manage network create.", chain(&error));
                self.refuse_all(share, &StateReason::new(NO_ADDRESS, sentence)).await?;
                Ok(Share::Done)
            }
            Err(PlaceError::Db(error)) => Err(error),
        }
    }

    /// Tells those who act next. A message that is lost costs them a tick.
    async fn tell(&self, host: &HostName, placed: &[InstanceId], networks: &[Network]) {
        if placed.is_empty() {
            return;
        }
        metrics::counter!("nova_scheduler_placed_total").increment(placed.len() as u64);
        info!(host = %host, instances = placed.len(), first = %placed[0], "Placed {} instances on {host}.", placed.len());
        // The network's host must know the addresses before the guests ask for them.
        let mut by_host: BTreeMap<&HostName, Vec<u32>> = BTreeMap::new();
        for network in networks {
            if let Some(server) = &network.host {
                by_host.entry(server).or_default().push(network.id.number());
            }
        }
        for (server, network_ids) in by_host {
            let told = self.bus.cast_network(server.as_str(), NetworkCall::RefreshNetwork { network_ids }).await;
            if let Err(error) = told {
                warn!(host = %server, error = %chain(&error), "Telling nova-network failed; it finds out by itself.");
            }
        }
        let instance_ids = placed.iter().map(|id| id.number()).collect();
        if let Err(error) = self.bus.cast_compute(host.as_str(), ComputeCall::RunInstance { instance_ids }).await {
            warn!(host = %host, error = %chain(&error), "Telling nova-compute failed; it finds out by itself.");
        }
    }

    async fn refuse_all(&self, share: &[&Instance], reason: &StateReason) -> Outcome<()> {
        for instance in share {
            self.refuse(instance, reason).await?;
        }
        Ok(())
    }

    /// The instance ends in error, with a reason for its user; what it held is given back.
    async fn refuse(&self, instance: &Instance, reason: &StateReason) -> Outcome<()> {
        let (id, guard, db) = (instance.id, Guard::of(instance), &self.db);
        let failed =
            transaction!(db, |tx| { instances::fail(tx, id, &guard, Event::NotPlaced, reason, NO_QUARANTINE).await });
        match failed {
            Ok(_) => {
                metrics::counter!("nova_scheduler_refused_total", "code" => reason.code.clone()).increment(1);
                warn!(instance.id = %id, code = reason.code, "No place for {id}: {}", reason.message);
                Ok(())
            }
            Err(DbError::Stale(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Turn for Scheduler {
    type Error = DbError;

    /// Looks for what waits until nothing new is found. Costs one query when there is nothing.
    async fn turn(&mut self) -> Outcome<()> {
        let mut last = None;
        loop {
            let due = instances::due_scheduler(&mut self.db.read().await?, BATCH).await?;
            let newest = due.last().map(|instance| instance.id);
            let full = due.len() == usize::try_from(BATCH).unwrap_or(usize::MAX);
            let (waiting, ending): (Vec<_>, Vec<_>) =
                due.into_iter().partition(|instance| instance.state.task == Some(Task::Scheduling));
            self.end(&ending).await?;
            self.schedule(waiting).await?;
            if !full || newest == last {
                return Ok(());
            }
            last = newest;
        }
    }
}

fn wish(instance: &Instance) -> Wish {
    Wish { instance: instance.id, demand: demand(instance), place: Place::read(instance.availability_zone.as_deref()) }
}

fn no_capacity(instance: &Instance) -> StateReason {
    let place = match Place::read(instance.availability_zone.as_deref()) {
        Place::Any => "No host has".to_owned(),
        Place::Zone(zone) => format!("No host in zone {zone} has"),
        Place::Host(host) => format!("Host {host} has not"),
    };
    let Instance { flavor, memory_mb, vcpus, local_gb, .. } = instance;
    StateReason::new(
        NO_CAPACITY,
        format!("{place} room for {flavor}: {memory_mb} MiB of memory, {vcpus} vcpus, {local_gb} GiB of disk."),
    )
}
