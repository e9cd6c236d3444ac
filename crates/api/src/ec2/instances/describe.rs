//! `DescribeInstances`, old Nova's `DescribeInstancesV6`, and `DescribeInstanceStatus`.

use std::collections::BTreeSet;

use nova_aws::{Filter, Filters, Page, Params, Set, Timestamp};
use nova_db::{describe, instances};
use nova_types::InstanceId;
use nova_types::instance::InstanceView;
use nova_types::state::VmState;
use serde::Serialize;

use super::item::{
    ARCHITECTURE, HYPERVISOR, MONITORING, ROOT_DEVICE, ROOT_DEVICE_TYPE, ReservationItem, SOURCE_DEST_CHECK, StateItem,
    TENANCY, VIRTUALIZATION, heed_ipv6, reservations, zone,
};
use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// Every filter that an instance has a field for.
const FILTERS: &[Filter<InstanceView>] = &[
    ("architecture", |_| vec![ARCHITECTURE.to_owned()]),
    ("availability-zone", |view| vec![zone(view)]),
    ("client-token", |view| view.instance.client_token.iter().cloned().collect()),
    ("dns-name", |view| vec![public_or_private(view)]),
    ("group-id", |view| view.groups.iter().map(|(id, _)| id.to_string()).collect()),
    ("group-name", |view| view.groups.iter().map(|(_, name)| name.to_string()).collect()),
    ("hypervisor", |_| vec![HYPERVISOR.to_owned()]),
    ("image-id", |view| vec![view.instance.image.to_string()]),
    ("instance-id", |view| vec![view.instance.id.to_string()]),
    ("instance-state-code", |view| vec![view.instance.state.vm.ec2_code().to_string()]),
    ("instance-state-name", |view| vec![view.instance.state.vm.ec2_name().to_owned()]),
    ("instance-type", |view| vec![view.instance.flavor.clone()]),
    ("instance.group-id", |view| view.groups.iter().map(|(id, _)| id.to_string()).collect()),
    ("instance.group-name", |view| view.groups.iter().map(|(_, name)| name.to_string()).collect()),
    ("ip-address", |view| view.floating_ip.iter().map(ToString::to_string).collect()),
    ("ipv6-address", |view| view.address6.iter().map(ToString::to_string).collect()),
    ("kernel-id", |view| view.instance.kernel.iter().map(ToString::to_string).collect()),
    ("key-name", |view| view.instance.key.iter().map(|(name, _)| name.to_string()).collect()),
    ("launch-index", |view| vec![view.instance.launch_index.to_string()]),
    ("launch-time", |view| vec![Timestamp(view.instance.created_at).to_string()]),
    ("monitoring-state", |_| vec![MONITORING.to_owned()]),
    ("owner-id", |view| vec![view.instance.project.to_string()]),
    ("placement-group-name", |_| vec![]),
    ("platform", |_| vec![]),
    ("private-dns-name", |view| view.fixed_ip.iter().map(|(address, _)| address.to_string()).collect()),
    ("private-ip-address", |view| view.fixed_ip.iter().map(|(address, _)| address.to_string()).collect()),
    ("product-code", |_| vec![]),
    ("ramdisk-id", |view| view.instance.ramdisk.iter().map(ToString::to_string).collect()),
    ("reason", |view| view.instance.reason.iter().map(|reason| reason.message.clone()).collect()),
    ("reservation-id", |view| vec![view.instance.reservation.to_string()]),
    ("root-device-name", |_| vec![ROOT_DEVICE.to_owned()]),
    ("root-device-type", |_| vec![ROOT_DEVICE_TYPE.to_owned()]),
    ("source-dest-check", |_| vec![SOURCE_DEST_CHECK.to_string()]),
    ("state-reason-code", |view| view.instance.reason.iter().map(|reason| reason.code.clone()).collect()),
    ("state-reason-message", |view| view.instance.reason.iter().map(|reason| reason.message.clone()).collect()),
    ("tag:Name", |view| view.instance.display_name.iter().cloned().collect()),
    ("tag-key", |view| view.instance.display_name.iter().map(|_| "Name".to_owned()).collect()),
    ("tag-value", |view| view.instance.display_name.iter().cloned().collect()),
    ("tenancy", |_| vec![TENANCY.to_owned()]),
    ("virtualization-type", |_| vec![VIRTUALIZATION.to_owned()]),
];

/// Every filter that an instance's status has a field for; there are no events.
const STATUS_FILTERS: &[Filter<InstanceView>] = &[
    ("availability-zone", |view| vec![zone(view)]),
    ("instance-state-code", |view| vec![view.instance.state.vm.ec2_code().to_string()]),
    ("instance-state-name", |view| vec![view.instance.state.vm.ec2_name().to_owned()]),
    ("instance-status.reachability", |view| Summary::of(view.instance.state.vm).reachability()),
    ("instance-status.status", |view| vec![Summary::of(view.instance.state.vm).status.to_owned()]),
    ("system-status.reachability", |view| Summary::of(view.instance.state.vm).reachability()),
    ("system-status.status", |view| vec![Summary::of(view.instance.state.vm).status.to_owned()]),
];

fn public_or_private(view: &InstanceView) -> String {
    let address = view.floating_ip.or(view.fixed_ip.map(|(address, _)| address));
    address.map(|address| address.to_string()).unwrap_or_default()
}

/// Which instances are asked for.
#[derive(Debug)]
struct Selection {
    ids: Vec<InstanceId>,
    filters: Filters<InstanceView>,
    page: Page<InstanceId>,
}

impl Selection {
    fn parse(params: &mut Params, action: &'static str, known: &[Filter<InstanceView>]) -> Result<Self, Error> {
        let ids = params.list("InstanceId")?;
        let filters = Filters::parse(params, known)?;
        Ok(Self { ids, filters, page: Page::parse(params, action)? })
    }

    /// Reads one page of what is selected and `wanted`, in the order of ids.
    async fn read(
        &self,
        caller: &Caller,
        cloud: &Cloud,
        wanted: impl Fn(&InstanceView) -> bool,
    ) -> Result<(Vec<InstanceView>, Option<String>), Error> {
        let mut views = describe!(cloud.db, &caller.names(), |conn| -> Error {
            Ok(instances::describe(conn, caller.scope(), &self.ids).await?)
        })?;
        heed_ipv6(&mut views, cloud);
        let found: BTreeSet<InstanceId> = views.iter().map(|view| view.instance.id).collect();
        if let Some(absent) = self.ids.iter().find(|id| !found.contains(id)) {
            return Err(Error::NoSuchInstance(*absent));
        }
        let selected = views.into_iter().filter(|view| wanted(view) && self.filters.admit(view));
        Ok(self.page.cut(selected, |view| view.instance.id))
    }

    async fn by_reservation(
        &self,
        caller: &Caller,
        cloud: &Cloud,
        names6: bool,
    ) -> Result<DescribeInstancesResponse, Error> {
        let (views, next_token) = self.read(caller, cloud, |_| true).await?;
        let reservation_set = reservations(&views, caller.version, names6).into();
        Ok(DescribeInstancesResponse { reservation_set, next_token })
    }
}

/// Lists instances by reservation.
#[derive(Debug)]
pub(crate) struct DescribeInstances(Selection);

/// The answer to [`DescribeInstances`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeInstancesResponse {
    reservation_set: Set<ReservationItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl Action for DescribeInstances {
    type Response = DescribeInstancesResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Selection::parse(params, "DescribeInstances", FILTERS).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<DescribeInstancesResponse, Error> {
        self.0.by_reservation(caller, cloud, false).await
    }
}

/// The same with each instance's name of IPv6, which is its address.
#[derive(Debug)]
pub(crate) struct DescribeInstancesV6(Selection);

impl Action for DescribeInstancesV6 {
    type Response = DescribeInstancesResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Selection::parse(params, "DescribeInstancesV6", FILTERS).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<DescribeInstancesResponse, Error> {
        self.0.by_reservation(caller, cloud, true).await
    }
}

/// Tells how instances fare: only running ones, unless all are asked for.
#[derive(Debug)]
pub(crate) struct DescribeInstanceStatus {
    selection: Selection,
    include_all: bool,
}

/// One instance's status. Nova makes no checks of its own: a running guest passes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusItem {
    instance_id: String,
    availability_zone: String,
    instance_state: StateItem,
    system_status: Summary,
    instance_status: Summary,
    events_set: Set<String>,
}

#[derive(Debug, Serialize)]
struct Summary {
    status: &'static str,
    details: Set<Detail>,
}

#[derive(Debug, Serialize)]
struct Detail {
    name: &'static str,
    status: &'static str,
}

impl Summary {
    fn of(state: VmState) -> Self {
        let (status, detail) = match state {
            VmState::Running => ("ok", "passed"),
            VmState::Pending => ("initializing", "initializing"),
            VmState::Stopping | VmState::Stopped | VmState::ShuttingDown | VmState::Terminated | VmState::Error => {
                ("not-applicable", "")
            }
        };
        let details = (!detail.is_empty()).then_some(Detail { name: "reachability", status: detail });
        Self { status, details: details.into_iter().collect() }
    }

    fn reachability(&self) -> Vec<String> {
        self.details.iter().map(|detail| detail.status.to_owned()).collect()
    }
}

/// The answer to [`DescribeInstanceStatus`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeInstanceStatusResponse {
    instance_status_set: Set<StatusItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl Action for DescribeInstanceStatus {
    type Response = DescribeInstanceStatusResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        let include_all = params.flag("IncludeAllInstances")?;
        Ok(Self { selection: Selection::parse(params, "DescribeInstanceStatus", STATUS_FILTERS)?, include_all })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<DescribeInstanceStatusResponse, Error> {
        let wanted = |view: &InstanceView| self.include_all || view.instance.state.vm == VmState::Running;
        let (views, next_token) = self.selection.read(caller, cloud, wanted).await?;
        let item = |view: &InstanceView| StatusItem {
            instance_id: view.instance.id.to_string(),
            availability_zone: zone(view),
            instance_state: view.instance.state.vm.into(),
            system_status: Summary::of(view.instance.state.vm),
            instance_status: Summary::of(view.instance.state.vm),
            events_set: Set::default(),
        };
        let instance_status_set = views.iter().map(item).collect();
        Ok(DescribeInstanceStatusResponse { instance_status_set, next_token })
    }
}
