//! One turn: everything that waits for the scheduler is placed, ended, or told why not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::join_all;
use nova_bus::Bus;
use nova_config::{Placement, SchedulerConfig, SchedulerDriver};
use nova_db::instances::{Due, Guard};
use nova_db::{Db, DbError, instances, transaction};
use nova_failpoint::{Point, hit};
use nova_service::{Turn, chain};
use nova_types::instance::{Instance, StateReason};
use nova_types::state::{Event, Task};
use nova_types::{HostName, InstanceId};
use nova_wire::{ComputeCall, NetworkCall};
use tracing::{info, warn};

use crate::Outcome;
use crate::choose::{Place, Why, Wish};
use crate::hosts::Rules;
use crate::inbox::Inbox;
use crate::order::Policy;
use crate::place::{PlaceError, Placed, Share, demand, place};
use crate::view::View;

/// Rows looked at together.
const BATCH: usize = 500;
/// Instances ended or refused in one transaction.
const FEW: usize = 50;
/// How often instances are planned anew in one turn when others take what was planned with.
const ROUNDS: usize = 8;

const NO_CAPACITY: &str = "Server.InsufficientInstanceCapacity";
const NO_ADDRESS: &str = "Server.InsufficientFreeAddressesInSubnet";

/// How it behaves.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How old the hosts in memory may be, and how often all that waits is looked at.
    tick: Duration,
    rules: Rules,
    /// For how long after the start that no host is there is not believed: they may all be starting too.
    grace: Duration,
    /// How long an address is kept from others that an instance held on a former host.
    quarantine_seconds: i32,
}

impl Settings {
    pub(crate) fn of(config: &SchedulerConfig) -> Self {
        let flags = &config.scheduler;
        let policy = match (flags.scheduler_driver, flags.scheduler_placement) {
            (SchedulerDriver::Chance | SchedulerDriver::Zone, _) => Policy::Chance,
            (SchedulerDriver::Simple, Placement::Spread) => Policy::Spread,
            (SchedulerDriver::Simple, Placement::Fill) => Policy::Fill,
        };
        Self {
            tick: config.common.tick_interval,
            rules: Rules { policy, max_cores: flags.max_cores, down_after: config.common.service_down_time },
            grace: flags.host_grace,
            quarantine_seconds: i32::try_from(config.network.dhcp_lease_time.as_secs()).unwrap_or(i32::MAX),
        }
    }
}

/// Places what waits.
#[derive(Debug)]
pub(crate) struct Scheduler {
    db: Db,
    bus: Arc<dyn Bus>,
    settings: Settings,
    view: View,
    inbox: Inbox,
    began: Instant,
    /// When all that waits was last looked at, and all went well since.
    looked: Option<Instant>,
}

impl Scheduler {
    pub(crate) fn new(db: Db, bus: Arc<dyn Bus>, settings: Settings, inbox: Inbox) -> Self {
        let view = View::new(settings.rules, settings.tick);
        Self { db, bus, settings, view, inbox, began: Instant::now(), looked: None }
    }

    /// Looks at what messages named; at every tick, and after a failure, at everything. So several schedulers do not all
    /// try to place the same instances at once.
    async fn look(&mut self) -> Outcome<()> {
        let named = self.inbox.take();
        let recently = self.looked.is_some_and(|looked| looked.elapsed() < self.settings.tick);
        if !recently || named.is_empty() {
            self.looked = Some(Instant::now());
            return self.look_at_all().await;
        }
        for some in named.chunks(BATCH) {
            let due = instances::due_of(&mut self.db.read().await?, some).await?;
            self.handle(due).await?;
        }
        Ok(())
    }

    /// Looks at everything that waits until nothing new is found. Costs one query when there is nothing.
    async fn look_at_all(&mut self) -> Outcome<()> {
        let mut last = None;
        loop {
            let limit = u32::try_from(BATCH).unwrap_or(u32::MAX);
            let due = instances::due_scheduler(&mut self.db.read().await?, limit).await?;
            let (newest, full) = (due.last().map(|due| due.instance.id), due.len() == BATCH);
            self.handle(due).await?;
            if !full || newest == last {
                return Ok(());
            }
            last = newest;
        }
    }

    async fn handle(&mut self, due: Vec<Due>) -> Outcome<()> {
        let (waiting, ending): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|due| due.instance.state.task == Some(Task::Scheduling));
        self.end(&ending).await?;
        self.schedule(waiting).await
    }

    /// Finishes instances that were terminated before they had a host, or after they had lost it.
    async fn end(&self, ending: &[Due]) -> Outcome<()> {
        let (db, quarantine) = (&self.db, self.settings.quarantine_seconds);
        for few in ending.chunks(FEW) {
            let ended = transaction!(db, |tx| {
                let mut ended = 0;
                for Due { instance, .. } in few {
                    match instances::finish_terminate(tx, instance.id, instance.epoch, quarantine).await {
                        Ok(_) => ended += 1,
                        Err(DbError::Stale(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
                hit(Point::UnplacedEnding);
                Ok(ended)
            })?;
            hit(Point::UnplacedEnded);
            info!(instances = ended, first = %few[0].instance.id, "Terminated {ended} instances that had no host.");
        }
        Ok(())
    }

    async fn schedule(&mut self, mut waiting: Vec<Due>) -> Outcome<()> {
        if !waiting.is_empty() {
            hit(Point::LaunchScheduling);
        }
        let (mut urgent, mut placed_any) = (false, false);
        for _ in 0..ROUNDS {
            if waiting.is_empty() {
                return Ok(());
            }
            let fresh = self.view.refresh(&self.db, urgent).await?;
            let now = Instant::now();
            if self.view.hosts.is_empty(now) && self.began.elapsed() < self.settings.grace {
                return Ok(());
            }
            let wishes: Vec<Wish> = waiting.iter().map(|due| wish(&due.instance)).collect();
            let plan = self.view.hosts.plan(&wishes, now);
            let by_id: HashMap<InstanceId, &Due> = waiting.iter().map(|due| (due.instance.id, due)).collect();
            let share = |ids: &Vec<InstanceId>| ids.iter().filter_map(|id| by_id.get(id).copied()).collect();
            let shares: Vec<Share<'_>> = plan.placed.iter().map(|(host, ids)| (host, share(ids))).collect();
            let given = self.give(shares).await?;
            placed_any |= given.placed_any;
            // The table counts what was planned; what did not come true must not count.
            given.suspects.iter().for_each(|host| self.view.suspect(host));
            let mut again = given.again;
            let unplaced = plan.unplaced.iter().filter_map(|(id, why)| Some((&by_id.get(id)?.instance, *why)));
            if fresh && !given.overtaken {
                let refused: Vec<_> =
                    unplaced.map(|(instance, why)| (instance, self.no_capacity(instance, why))).collect();
                self.refuse(&refused).await?;
            } else {
                // What was seen a moment ago is good enough to give, but not to refuse; nor is a plan that kept room for
                // instances that others placed meanwhile.
                again.extend(unplaced.map(|(instance, _)| instance.id));
                urgent = true;
            }
            waiting.retain(|due| again.contains(&due.instance.id));
        }
        if placed_any && !waiting.is_empty() {
            // Losing against other schedulers, but not always: go on at once.
            self.inbox.put(waiting.iter().map(|due| due.instance.id));
        }
        Ok(())
    }

    /// Gives hosts their shares. Where addresses are short, as many get one as there are.
    async fn give(&self, mut shares: Vec<Share<'_>>) -> Outcome<Given> {
        let mut given = Given::default();
        while !shares.is_empty() {
            match place(&self.db, &shares).await {
                Ok(placed) => {
                    hit(Point::LaunchPlaced);
                    given.note(&shares, &placed);
                    self.tell(placed).await;
                    shares.clear();
                }
                Err(PlaceError::Full) => {
                    given.note(&shares, &Placed::full(&shares));
                    shares.clear();
                }
                Err(PlaceError::NoAddress { without, lack }) => {
                    let reason = StateReason::new(NO_ADDRESS, lack.to_string());
                    let mut refused = Vec::new();
                    for (host, share) in &mut shares {
                        let (short, rest): (Vec<&Due>, Vec<&Due>) =
                            share.iter().partition(|due| without.contains(&due.instance.id));
                        if !short.is_empty() {
                            given.suspects.push((*host).clone());
                        }
                        refused.extend(short.iter().map(|due| (&due.instance, reason.clone())));
                        *share = rest;
                    }
                    self.refuse(&refused).await?;
                    if refused.is_empty() {
                        return Ok(given);
                    }
                    shares.retain(|(_, share)| !share.is_empty());
                }
                Err(PlaceError::Db(error)) => return Err(error),
            }
        }
        Ok(given)
    }

    /// Tells those who act next, all at once. A message that is lost costs them a tick.
    async fn tell(&self, placed: Placed) {
        // The network's host must know the addresses before the guests ask for them.
        let mut by_server: BTreeMap<&HostName, Vec<u32>> = BTreeMap::new();
        for network in placed.networks.iter().filter(|_| !placed.instances.is_empty()) {
            // Where each host serves its own guests, it is those that get some.
            let own = placed.instances.iter().map(|(host, _)| host).filter(|_| network.multi_host);
            for server in own.chain(&network.host) {
                by_server.entry(server).or_default().push(network.id.number());
            }
        }
        join_all(by_server.into_iter().map(async |(server, network_ids)| {
            let told = self.bus.cast_network(server.as_str(), NetworkCall::RefreshNetwork { network_ids }).await;
            if let Err(error) = told {
                warn!(host = %server, error = %chain(&error), "Telling nova-network failed; it finds out by itself.");
            }
        }))
        .await;
        hit(Point::LaunchToldNetwork);
        join_all(placed.instances.iter().map(|(host, ids)| self.tell_compute(host, ids))).await;
        hit(Point::LaunchToldCompute);
    }

    async fn tell_compute(&self, host: &HostName, placed: &[InstanceId]) {
        metrics::counter!("nova_scheduler_placed_total").increment(placed.len() as u64);
        info!(host = %host, instances = placed.len(), first = %placed[0], "Placed {} instances on {host}.", placed.len());
        let instance_ids = placed.iter().map(|id| id.number()).collect();
        if let Err(error) = self.bus.cast_compute(host.as_str(), ComputeCall::RunInstance { instance_ids }).await {
            warn!(host = %host, error = %chain(&error), "Telling nova-compute failed; it finds out by itself.");
        }
    }

    /// The instances end in error, with a reason for their users; what they held is given back.
    async fn refuse(&self, refused: &[(&Instance, StateReason)]) -> Outcome<()> {
        let (db, quarantine) = (&self.db, self.settings.quarantine_seconds);
        for few in refused.chunks(FEW) {
            let told = transaction!(db, |tx| {
                let mut told = Vec::with_capacity(few.len());
                for (instance, reason) in few {
                    let guard = Guard::of(instance);
                    match instances::fail(tx, instance.id, &guard, Event::NotPlaced, reason, quarantine).await {
                        Ok(_) => told.push((instance.id, reason)),
                        Err(DbError::Stale(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
                hit(Point::RefuseRecording);
                Ok(told)
            })?;
            hit(Point::RefuseRecorded);
            for (id, reason) in told {
                metrics::counter!("nova_scheduler_refused_total", "code" => reason.code.clone()).increment(1);
                warn!(instance.id = %id, code = reason.code, "No place for {id}: {}", reason.message);
            }
        }
        Ok(())
    }

    fn no_capacity(&self, instance: &Instance, why: Why) -> StateReason {
        let Instance { flavor, memory_mb, vcpus, local_gb, .. } = instance;
        let room = format!("room for {flavor}: {memory_mb} MiB of memory, {vcpus} vcpus, {local_gb} GiB of disk");
        let sentence = match (Place::read(instance.availability_zone.as_deref()), why) {
            (Place::Any, _) => format!("No host has {room}."),
            (Place::Zone(zone), _) => format!("No host in zone {zone} has {room}."),
            (Place::Host(host), Why::Full) => format!("Host {host} has no {room}."),
            (Place::Host(host), Why::NoSuchHost) => format!("There is no compute host {host}."),
            (Place::Host(host), Why::Disabled) => format!("Host {host} is disabled."),
            (Place::Host(host), Why::Silent) => {
                format!("Host {host} has not reported for {} s.", self.settings.rules.down_after.as_secs())
            }
        };
        StateReason::new(NO_CAPACITY, sentence)
    }
}

/// What became of a plan.
#[derive(Debug, Default)]
struct Given {
    placed_any: bool,
    /// Those for whom the plan was made with numbers that are no longer true. The rest of it needs no host any more.
    again: HashSet<InstanceId>,
    /// Hosts that did not get all of what was planned.
    suspects: Vec<HostName>,
    /// Whether some instances did not wait any more.
    overtaken: bool,
}

impl Given {
    fn note(&mut self, shares: &[Share<'_>], placed: &Placed) {
        for (host, share) in shares {
            let got = placed.instances.iter().find(|(known, _)| known == *host).map_or(0, |(_, ids)| ids.len());
            self.placed_any |= got > 0;
            if got < share.len() {
                self.suspects.push((*host).clone());
            }
            if placed.full.contains(*host) {
                self.again.extend(share.iter().map(|due| due.instance.id));
            } else {
                self.overtaken |= got < share.len();
            }
        }
    }
}

#[async_trait]
impl Turn for Scheduler {
    type Error = DbError;

    async fn turn(&mut self) -> Outcome<()> {
        let done = self.look().await;
        if done.is_err() {
            // Messages were taken and shares were planned that did not come true.
            self.looked = None;
            self.view.distrust();
        }
        done
    }
}

fn wish(instance: &Instance) -> Wish {
    Wish { instance: instance.id, demand: demand(instance), place: Place::read(instance.availability_zone.as_deref()) }
}
