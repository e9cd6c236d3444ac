//! An instance and its reservation as clients read them, for the parsers of every year.

use nova_aws::{ApiVersion, Set, Timestamp};
use nova_types::ProjectId;
use nova_types::instance::{InstanceView, StateReason};
use serde::Serialize;

use crate::cloud::Cloud;

// What is the same of every instance: shown, and filtered by.
pub(super) const ARCHITECTURE: &str = "x86_64";
pub(super) const HYPERVISOR: &str = "xen"; // EC2 knows no other word that clients of its time could read
pub(super) const MONITORING: &str = "disabled";
pub(super) const ROOT_DEVICE: &str = "/dev/vda";
pub(super) const ROOT_DEVICE_TYPE: &str = "instance-store";
pub(super) const SOURCE_DEST_CHECK: bool = true;
pub(super) const TENANCY: &str = "default";
pub(super) const VIRTUALIZATION: &str = "hvm";

/// The instances of one launch.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReservationItem {
    pub(crate) reservation_id: String,
    pub(crate) owner_id: String,
    pub(crate) group_set: Set<GroupItem>,
    pub(crate) instances_set: Set<InstanceItem>,
}

/// A security group by reference. Clients before 2011 know groups by their name, and read it as `groupId`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupItem {
    group_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_name: Option<String>,
}

/// `instanceState`, and what follows from the same two columns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct StateItem {
    code: u8,
    name: &'static str,
}

impl From<nova_types::state::VmState> for StateItem {
    fn from(state: nova_types::state::VmState) -> Self {
        Self { code: state.ec2_code(), name: state.ec2_name() }
    }
}

#[derive(Debug, Serialize)]
struct ReasonItem {
    code: String,
    message: String,
}

impl From<&StateReason> for ReasonItem {
    fn from(reason: &StateReason) -> Self {
        Self { code: reason.code.clone(), message: reason.message.clone() }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PlacementItem {
    availability_zone: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenancy: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct MonitoringItem {
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct TagItem {
    key: &'static str,
    value: String,
}

/// One instance. What a client of 1.x would take for another instance is left out for its version.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InstanceItem {
    instance_id: String,
    image_id: String,
    instance_state: StateItem,
    private_dns_name: String,
    public_dns_name: String,
    dns_name: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_name: Option<String>,
    ami_launch_index: u32,
    product_codes: Set<String>,
    instance_type: String,
    launch_time: Timestamp,
    placement: PlacementItem,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ramdisk_id: Option<String>,
    monitoring: MonitoringItem,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_ip_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_address: Option<String>,
    display_name: String,
    display_description: String,
    /// Old Nova's, in the answer to its own action only.
    #[serde(rename = "dnsNameV6", skip_serializing_if = "Option::is_none")]
    dns_name_v6: Option<String>,
    #[serde(flatten)]
    modern: Option<ModernPart>,
}

/// What only clients after 2010 know how to read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ModernPart {
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason: Option<ReasonItem>,
    architecture: &'static str,
    root_device_type: &'static str,
    root_device_name: &'static str,
    block_device_mapping: Set<String>,
    virtualization_type: &'static str,
    hypervisor: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<String>,
    group_set: Set<GroupItem>,
    network_interface_set: Set<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6_address: Option<String>,
    tag_set: Set<TagItem>,
    ebs_optimized: bool,
    source_dest_check: bool,
}

/// Lists an instance's groups for a client of `version`.
pub(crate) fn groups(view: &InstanceView, version: ApiVersion) -> Set<GroupItem> {
    let modern = version.knows_nested_lists();
    let item = |(id, name): &(nova_types::SecurityGroupId, nova_types::GroupName)| GroupItem {
        group_id: if modern { id.to_string() } else { name.to_string() },
        group_name: modern.then(|| name.to_string()),
    };
    view.groups.iter().map(item).collect()
}

impl InstanceItem {
    /// Shows `view` to a client of `version`, with old Nova's name of its IPv6 or without.
    pub(crate) fn new(view: &InstanceView, version: ApiVersion, names6: bool) -> Self {
        let instance = &view.instance;
        let private = view.fixed_ip.map(|(address, _)| address.to_string());
        let public = view.floating_ip.map(|address| address.to_string());
        Self {
            instance_id: instance.id.to_string(),
            image_id: instance.image.to_string(),
            instance_state: instance.state.vm.into(),
            private_dns_name: private.clone().unwrap_or_default(),
            public_dns_name: public.clone().unwrap_or_default(),
            dns_name: public.clone().or_else(|| private.clone()).unwrap_or_default(),
            reason: instance.reason.as_ref().map(|reason| reason.message.clone()).unwrap_or_default(),
            key_name: instance.key.as_ref().map(|(name, _)| name.to_string()),
            ami_launch_index: instance.launch_index,
            product_codes: Set::default(),
            instance_type: instance.flavor.clone(),
            launch_time: Timestamp(instance.created_at),
            placement: PlacementItem {
                availability_zone: zone(view),
                tenancy: version.knows_nested_lists().then_some(TENANCY),
            },
            kernel_id: instance.kernel.map(|id| id.to_string()),
            ramdisk_id: instance.ramdisk.map(|id| id.to_string()),
            monitoring: MonitoringItem { state: MONITORING },
            private_ip_address: private,
            ip_address: public,
            display_name: display_name(view),
            display_description: instance.display_description.clone().unwrap_or_default(),
            dns_name_v6: view.address6.filter(|_| names6).map(|address| address.to_string()),
            modern: version.knows_nested_lists().then(|| ModernPart::new(view, version)),
        }
    }
}

impl ModernPart {
    fn new(view: &InstanceView, version: ApiVersion) -> Self {
        let instance = &view.instance;
        let name = instance.display_name.iter().map(|name| TagItem { key: "Name", value: name.clone() });
        Self {
            state_reason: instance.reason.as_ref().map(ReasonItem::from),
            architecture: ARCHITECTURE,
            root_device_type: ROOT_DEVICE_TYPE,
            root_device_name: ROOT_DEVICE,
            block_device_mapping: Set::default(),
            virtualization_type: VIRTUALIZATION,
            hypervisor: HYPERVISOR,
            client_token: instance.client_token.clone(),
            group_set: groups(view, version),
            network_interface_set: Set::default(),
            ipv6_address: view.address6.map(|address| address.to_string()),
            tag_set: name.collect(),
            ebs_optimized: false,
            source_dest_check: SOURCE_DEST_CHECK,
        }
    }
}

/// Leaves no address of IPv6 where guests have none, whatever a network's row says.
pub(crate) fn heed_ipv6(views: &mut [InstanceView], cloud: &Cloud) {
    if !cloud.config.common.use_ipv6 {
        views.iter_mut().for_each(|view| view.address6 = None);
    }
}

/// The zone of the host, or before there is one the zone asked for.
pub(crate) fn zone(view: &InstanceView) -> String {
    let asked =
        || view.instance.availability_zone.as_ref().map(|zone| zone.split(':').next().unwrap_or(zone).to_owned());
    view.host_zone.clone().or_else(asked).unwrap_or_default()
}

/// The name given, or old Nova's `Server <row>`.
fn display_name(view: &InstanceView) -> String {
    let instance = &view.instance;
    instance.display_name.clone().unwrap_or_else(|| format!("Server {}", instance.id.number()))
}

/// Groups instances, which come in the order of their ids, into their reservations, in the order of the first of each.
pub(crate) fn reservations(views: &[InstanceView], version: ApiVersion, names6: bool) -> Vec<ReservationItem> {
    let mut order: Vec<(&str, &ProjectId, Vec<&InstanceView>)> = Vec::new();
    let mut place = std::collections::HashMap::new();
    for view in views {
        let id = view.instance.reservation.as_str();
        let index = *place.entry(id).or_insert_with(|| {
            order.push((id, &view.instance.project, Vec::new()));
            order.len() - 1
        });
        order[index].2.push(view);
    }
    order.into_iter().map(|(id, owner, views)| reservation(id, owner, &views, version, names6)).collect()
}

fn reservation(
    id: &str,
    owner: &ProjectId,
    views: &[&InstanceView],
    version: ApiVersion,
    names6: bool,
) -> ReservationItem {
    ReservationItem {
        reservation_id: id.to_owned(),
        owner_id: owner.to_string(),
        // An instance that is over has left its groups; the launch had the same for all.
        group_set: views.iter().map(|view| groups(view, version)).find(|set| !set.is_empty()).unwrap_or_default(),
        instances_set: views.iter().map(|view| InstanceItem::new(view, version, names6)).collect(),
    }
}
