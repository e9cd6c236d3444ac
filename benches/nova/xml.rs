//! Rendering 1,000 instances as XML, against copying as many bytes.
//!
//! The API's own types are not public; these have the same fields, and `describe_instances` checks that the documents
//! are as long.

use nova_aws::{RequestId, Set, Timestamp, response_document};
use nova_types::instance::InstanceView;
use serde::Serialize;

use crate::{cloud::Cloud, measure::Sample};

const COUNT: usize = 1_000;
const ROUNDS: u32 = 100;

/// The answer to `DescribeInstances`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reservations {
    reservation_set: Set<Reservation>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reservation {
    reservation_id: String,
    owner_id: String,
    group_set: Set<Group>,
    instances_set: Set<Instance>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    group_id: String,
    group_name: String,
}

#[derive(Debug, Serialize)]
struct State {
    code: u8,
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Placement {
    availability_zone: String,
    tenancy: &'static str,
}

#[derive(Debug, Serialize)]
struct Monitoring {
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct Tag {
    key: &'static str,
    value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    instance_id: String,
    image_id: String,
    instance_state: State,
    private_dns_name: String,
    public_dns_name: String,
    dns_name: String,
    reason: String,
    key_name: String,
    ami_launch_index: u32,
    product_codes: Set<String>,
    instance_type: String,
    launch_time: Timestamp,
    placement: Placement,
    monitoring: Monitoring,
    private_ip_address: String,
    display_name: String,
    display_description: String,
    #[serde(flatten)]
    modern: Modern,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Modern {
    architecture: &'static str,
    root_device_type: &'static str,
    root_device_name: &'static str,
    block_device_mapping: Set<String>,
    virtualization_type: &'static str,
    hypervisor: &'static str,
    group_set: Set<Group>,
    network_interface_set: Set<String>,
    tag_set: Set<Tag>,
    ebs_optimized: bool,
    source_dest_check: bool,
}

impl Reservations {
    /// What the API answers for instances that come in the order of their reservations.
    pub(crate) fn of(views: &[InstanceView]) -> Self {
        let of_one = |views: &[InstanceView]| Reservation {
            reservation_id: views[0].instance.reservation.to_string(),
            owner_id: views[0].instance.project.to_string(),
            group_set: groups(&views[0]),
            instances_set: views.iter().map(Instance::of).collect(),
        };
        let same = |one: &InstanceView, next: &InstanceView| one.instance.reservation == next.instance.reservation;
        Self { reservation_set: views.chunk_by(same).map(of_one).collect() }
    }
}

impl Instance {
    fn of(view: &InstanceView) -> Self {
        let instance = &view.instance;
        let address = view.fixed_ip.map(|(address, _)| address.to_string()).unwrap_or_default();
        let name = instance.display_name.clone().unwrap_or_default();
        Self {
            instance_id: instance.id.to_string(),
            image_id: instance.image.to_string(),
            instance_state: State { code: instance.state.vm.ec2_code(), name: instance.state.vm.ec2_name() },
            private_dns_name: address.clone(),
            public_dns_name: String::new(),
            dns_name: address.clone(),
            reason: String::new(),
            key_name: instance.key.as_ref().map(|(name, _)| name.to_string()).unwrap_or_default(),
            ami_launch_index: instance.launch_index,
            product_codes: Set::default(),
            instance_type: instance.flavor.clone(),
            launch_time: Timestamp(instance.created_at),
            placement: Placement { availability_zone: view.host_zone.clone().unwrap_or_default(), tenancy: "default" },
            monitoring: Monitoring { state: "disabled" },
            private_ip_address: address,
            display_name: name.clone(),
            display_description: String::new(),
            modern: Modern {
                architecture: "x86_64",
                root_device_type: "instance-store",
                root_device_name: "/dev/vda",
                block_device_mapping: Set::default(),
                virtualization_type: "hvm",
                hypervisor: "xen",
                group_set: groups(view),
                network_interface_set: Set::default(),
                tag_set: [Tag { key: "Name", value: name }].into_iter().collect(),
                ebs_optimized: false,
                source_dest_check: true,
            },
        }
    }
}

fn groups(view: &InstanceView) -> Set<Group> {
    let group =
        |(id, name): &(_, _)| Group { group_id: ToString::to_string(id), group_name: ToString::to_string(name) };
    view.groups.iter().map(group).collect()
}

/// Renders an answer the way the API does.
pub(crate) fn render(answer: &Reservations) -> anyhow::Result<String> {
    let id = RequestId::from_random([7; 20]);
    Ok(response_document("DescribeInstances", "2016-11-15".parse()?, id, answer)?)
}

pub(crate) async fn bench() -> anyhow::Result<()> {
    let cloud = Cloud::start_api().await?;
    let answer = Reservations::of(&cloud.tenant.run(&cloud.db, COUNT).await?);
    let document = render(&answer)?;
    let (mut ours, mut peer) = (Sample::default(), Sample::default());
    for _ in 0..ROUNDS {
        ours.time_many(1, || render(&answer));
        peer.time_many(1, || document.clone());
    }
    let what = format!("{COUNT} instances, {} bytes", document.len());
    println!("  {what:<34} {ours}  = {:.0} × copying it", ours.ratio(peer.median()));
    println!("  {:<34} {peer}", "copying the document");
    cloud.stop().await
}
