//! `TerminateInstances`, `RebootInstances`, `StopInstances`, `StartInstances`: a wish for each of some instances.
//!
//! All ids are checked and all rows moved in one transaction: either every instance is on its way, or none.

use std::collections::BTreeMap;

use nova_aws::{Params, Return, Set};
use nova_db::{instances, transaction};
use nova_failpoint::{Point, hit};
use nova_types::instance::{Instance, StateReason};
use nova_types::state::{Event, State};
use nova_types::{HostName, InstanceId};
use nova_wire::ComputeCall;
use serde::Serialize;

use super::item::StateItem;
use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// The ids of the instances that are to change.
#[derive(Debug)]
struct Ids(Vec<InstanceId>);

impl Ids {
    fn parse(params: &mut Params) -> Result<Self, Error> {
        let mut ids: Vec<InstanceId> = params.list("InstanceId")?;
        if ids.is_empty() {
            return Err(params.missing("InstanceId").into());
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(Self(ids))
    }

    /// Asks for `event` on every instance in one transaction, then tells whoever must act.
    async fn request(&self, event: Event, reason: Option<StateReason>, wish: Wish<'_>) -> Result<Vec<Change>, Error> {
        let scope = wish.caller.scope();
        let changes = transaction!(wish.cloud.db, |tx| -> Error {
            let mut changes = Vec::with_capacity(self.0.len());
            for id in &self.0 {
                let asked = instances::request(tx, scope, *id, event, reason.as_ref()).await;
                let (before, instance) = asked.map_err(|error| Error::of_instance(*id, error))?;
                changes.push(Change { before, instance });
            }
            if let Some([accepting, _]) = points(event) {
                hit(accepting);
            }
            Ok(changes)
        })?;
        if let Some([_, accepted]) = points(event) {
            hit(accepted);
        }
        tell(event, &changes, wish.cloud).await;
        if event == Event::Terminate {
            hit(Point::TerminateHinted);
        }
        Ok(changes)
    }
}

/// Who wishes, and of which cloud.
struct Wish<'a> {
    caller: &'a Caller,
    cloud: &'a Cloud,
}

/// What became of one instance.
#[derive(Debug)]
struct Change {
    before: State,
    instance: Instance,
}

/// Where tests end the process: before and after the wish is committed.
const fn points(event: Event) -> Option<[Point; 2]> {
    match event {
        Event::Terminate => Some([Point::TerminateAccepting, Point::TerminateAccepted]),
        Event::Reboot => Some([Point::RebootAccepting, Point::RebootAccepted]),
        Event::Stop => Some([Point::StopAccepting, Point::StopAccepted]),
        Event::Start => Some([Point::StartAccepting, Point::StartAccepted]),
        _ => None,
    }
}

/// Sends each host one hint for all of its instances. The rows are stored: a lost hint costs a second, no more.
async fn tell(event: Event, changes: &[Change], cloud: &Cloud) {
    let mut by_host: BTreeMap<Option<&HostName>, Vec<u32>> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.instance.state.task.is_some()) {
        by_host.entry(change.instance.host.as_ref()).or_default().push(change.instance.id.number());
    }
    for (host, ids) in by_host {
        match host {
            Some(host) => cloud.hint_compute(host, call(event, ids)).await,
            None => cloud.hint_scheduler(ids).await,
        }
    }
}

fn call(event: Event, instance_ids: Vec<u32>) -> ComputeCall {
    match event {
        Event::Reboot => ComputeCall::RebootInstance { instance_ids },
        Event::Stop => ComputeCall::StopInstance { instance_ids },
        Event::Start => ComputeCall::StartInstance { instance_ids },
        _ => ComputeCall::TerminateInstance { instance_ids },
    }
}

/// An instance before and after, as the three calls that answer with a list show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangeItem {
    instance_id: String,
    current_state: StateItem,
    previous_state: StateItem,
}

/// The answer of the calls that show what became of each instance.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Changes {
    instances_set: Set<ChangeItem>,
}

impl From<Vec<Change>> for Changes {
    fn from(changes: Vec<Change>) -> Self {
        let item = |change: Change| ChangeItem {
            instance_id: change.instance.id.to_string(),
            current_state: change.instance.state.vm.into(),
            previous_state: change.before.vm.into(),
        };
        Self { instances_set: changes.into_iter().map(item).collect() }
    }
}

fn user_initiated(what: &str) -> Option<StateReason> {
    Some(StateReason::new("Client.UserInitiatedShutdown", format!("Client.UserInitiatedShutdown: {what}")))
}

/// Destroys instances, whatever state they are in.
#[derive(Debug)]
pub(crate) struct TerminateInstances(Ids);

impl Action for TerminateInstances {
    type Response = Changes;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Ids::parse(params).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Changes, Error> {
        let reason = user_initiated("User initiated shutdown");
        self.0.request(Event::Terminate, reason, Wish { caller, cloud }).await.map(Changes::from)
    }
}

/// Restarts running instances.
#[derive(Debug)]
pub(crate) struct RebootInstances(Ids);

impl Action for RebootInstances {
    type Response = Return;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Ids::parse(params).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Return, Error> {
        self.0.request(Event::Reboot, None, Wish { caller, cloud }).await?;
        Ok(Return)
    }
}

/// Powers instances off. Their disks and addresses stay.
#[derive(Debug)]
pub(crate) struct StopInstances(Ids);

impl Action for StopInstances {
    type Response = Changes;

    /// `Force` is known and changes nothing: a guest that does not halt in time is always forced.
    fn parse(params: &mut Params) -> Result<Self, Error> {
        params.flag("Force")?;
        if params.flag("Hibernate")? {
            return Err(params.malformed("Hibernate", true, "false: guests cannot hibernate").into());
        }
        Ids::parse(params).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Changes, Error> {
        let reason = user_initiated("User initiated shutdown");
        self.0.request(Event::Stop, reason, Wish { caller, cloud }).await.map(Changes::from)
    }
}

/// Powers stopped instances on.
#[derive(Debug)]
pub(crate) struct StartInstances(Ids);

impl Action for StartInstances {
    type Response = Changes;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Ids::parse(params).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Changes, Error> {
        self.0.request(Event::Start, None, Wish { caller, cloud }).await.map(Changes::from)
    }
}
