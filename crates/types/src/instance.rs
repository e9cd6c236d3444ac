//! A virtual machine as the database knows it.

use std::net::{Ipv4Addr, Ipv6Addr};

use time::OffsetDateTime;

use crate::state::State;
use crate::{
    GroupName, HostName, ImageId, InstanceId, KeyName, Mac, NetworkId, ProjectId, ReservationId, SecurityGroupId,
    UserId,
};

/// Why an instance is where it is, for the user to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateReason {
    /// EC2's code: `Server.InsufficientInstanceCapacity`, `Client.UserInitiatedShutdown`, ….
    pub code: String,
    /// A sentence.
    pub message: String,
}

impl StateReason {
    /// Puts code and sentence together.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// What every instance of one `RunInstances` call has in common, and what each needs of its own.
#[derive(Clone, Debug)]
pub struct NewInstances {
    /// The call's reservation.
    pub reservation: ReservationId,
    /// Who launched.
    pub user: UserId,
    /// For whom.
    pub project: ProjectId,
    /// The root disk.
    pub image: ImageId,
    /// The kernel, for images that do not boot by themselves.
    pub kernel: Option<ImageId>,
    /// The ramdisk that goes with the kernel.
    pub ramdisk: Option<ImageId>,
    /// The type's name.
    pub flavor: &'static str,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// Disk beside the root disk, in GiB.
    pub local_gb: u32,
    /// The key pair's name and its public key, copied so that deleting the pair changes nothing.
    pub key: Option<(KeyName, String)>,
    /// User data, decoded.
    pub user_data: Option<Vec<u8>>,
    /// The zone asked for; for administrators `zone:host`.
    pub availability_zone: Option<String>,
    /// The name shown, where one was given.
    pub display_name: Option<String>,
    /// The description shown, where one was given.
    pub display_description: Option<String>,
    /// The groups each becomes a member of.
    pub groups: Vec<SecurityGroupId>,
    /// The caller's idempotency key.
    pub client_token: Option<String>,
    /// One hardware address for each instance: their number is the number of instances.
    pub macs: Vec<Mac>,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// The call it was launched by.
    pub reservation: ReservationId,
    /// Its place in that call, from 0.
    pub launch_index: u32,
    /// Who launched it.
    pub user: UserId,
    /// Who owns it.
    pub project: ProjectId,
    /// What the user sees, and the work under way.
    pub state: State,
    /// Why it is there.
    pub reason: Option<StateReason>,
    /// Counts takeovers by another host; every write says which it knew.
    pub epoch: i32,
    /// The root disk.
    pub image: ImageId,
    /// The kernel, if any.
    pub kernel: Option<ImageId>,
    /// The ramdisk, if any.
    pub ramdisk: Option<ImageId>,
    /// The type's name.
    pub flavor: String,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// Disk beside the root disk, in GiB.
    pub local_gb: u32,
    /// The key pair's name and public key at launch.
    pub key: Option<(KeyName, String)>,
    /// User data, decoded.
    pub user_data: Option<Vec<u8>>,
    /// The zone asked for.
    pub availability_zone: Option<String>,
    /// The compute host, once chosen.
    pub host: Option<HostName>,
    /// The hardware address of its interface.
    pub mac: Mac,
    /// The name that the guest is given: its id.
    pub hostname: String,
    /// The name shown.
    pub display_name: Option<String>,
    /// The description shown.
    pub display_description: Option<String>,
    /// The caller's idempotency key.
    pub client_token: Option<String>,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
    /// When it first ran.
    pub launched_at: Option<OffsetDateTime>,
    /// When its termination was asked for.
    pub terminated_at: Option<OffsetDateTime>,
}

impl Instance {
    /// Returns the name of its domain and of its folder: old Nova's `instance_name_template` (nova-core §1.1).
    #[must_use]
    pub fn domain_name(id: InstanceId) -> String {
        format!("instance-{:08x}", id.number())
    }

    /// Returns the name of its tap device, which fits the kernel's 15 characters.
    #[must_use]
    pub fn tap_name(id: InstanceId) -> String {
        format!("tap{:08x}", id.number())
    }
}

/// An instance with what is kept in other tables: all that a description or a launch needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// The instance.
    pub instance: Instance,
    /// Its fixed address and the network it is from, while it has one.
    pub fixed_ip: Option<(Ipv4Addr, NetworkId)>,
    /// The address that it makes of its network's prefix of IPv6, which counts where `--use_ipv6` is on.
    pub address6: Option<Ipv6Addr>,
    /// Its public address, while one is associated.
    pub floating_ip: Option<Ipv4Addr>,
    /// Its security groups.
    pub groups: Vec<(SecurityGroupId, GroupName)>,
    /// The availability zone of its host, once it has one.
    pub host_zone: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_host_follow_from_the_id() {
        assert_eq!(Instance::domain_name(InstanceId::new(0x1f)), "instance-0000001f");
        assert_eq!(Instance::tap_name(InstanceId::new(u32::MAX)).len(), 11);
    }
}
