//! Daemons and hosts as the database sees them.

use time::OffsetDateTime;

use crate::HostName;

/// One daemon on one host: a row of `services`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The row's key.
    pub id: i32,
    /// Where it runs.
    pub host: HostName,
    /// The program's name: `nova-compute`.
    pub binary: String,
    /// The binary without `nova-`, which is also its queue's name.
    pub topic: String,
    /// How often it has reported.
    pub report_count: i32,
    /// Whether an administrator keeps new work away from it.
    pub disabled: bool,
    /// The zone it is in.
    pub availability_zone: String,
    /// When it last reported, by the database's clock.
    pub updated_at: Option<OffsetDateTime>,
    /// Seconds since then, by the database's clock.
    pub silent_seconds: i64,
    /// Whether it gave up its name, as a daemon does that is told to stop. One that never takes it gives nothing up.
    pub gave_up: bool,
}

impl Service {
    /// Tells whether the service reported within `down_after_seconds`: flag `--service_down_time`.
    #[must_use]
    pub const fn is_up(&self, down_after_seconds: i64) -> bool {
        self.silent_seconds <= down_after_seconds
    }
}

/// What a compute host has and what of it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputeNode {
    /// The host.
    pub host: HostName,
    /// The zone of its `nova-compute`.
    pub availability_zone: String,
    /// Memory that guests may have in all, in MiB.
    pub memory_mb: u32,
    /// Memory that guests have, in MiB.
    pub memory_mb_used: u32,
    /// Virtual processors that guests may have in all.
    pub vcpus: u32,
    /// Virtual processors that guests have.
    pub vcpus_used: u32,
    /// Disk that guests may have in all, in GiB.
    pub local_gb: u32,
    /// Disk that guests have, in GiB.
    pub local_gb_used: u32,
    /// `libvirt (kvm)`, `libvirt (qemu)`, `simulated`, ….
    pub hypervisor_type: String,
    /// Whether new instances may be placed here: enabled, and reported lately.
    pub eligible: bool,
}

/// What one or more instances take of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// Disk in GiB.
    pub local_gb: u32,
}

impl Demand {
    /// Returns what `count` times as much takes.
    #[must_use]
    pub const fn times(self, count: u32) -> Self {
        Self { memory_mb: self.memory_mb * count, vcpus: self.vcpus * count, local_gb: self.local_gb * count }
    }
}

impl ComputeNode {
    /// Returns how many instances of `demand` still fit.
    #[must_use]
    pub fn room_for(&self, demand: Demand) -> u32 {
        let fit = |total: u32, used: u32, each: u32| total.saturating_sub(used).checked_div(each).unwrap_or(u32::MAX);
        fit(self.memory_mb, self.memory_mb_used, demand.memory_mb)
            .min(fit(self.vcpus, self.vcpus_used, demand.vcpus))
            .min(fit(self.local_gb, self.local_gb_used, demand.local_gb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_scarcest_resource_leaves() {
        let node = ComputeNode {
            host: "h1".parse().unwrap(),
            availability_zone: "nova".to_owned(),
            memory_mb: 4096,
            memory_mb_used: 1024,
            vcpus: 8,
            vcpus_used: 7,
            local_gb: 100,
            local_gb_used: 200,
            hypervisor_type: "simulated".to_owned(),
            eligible: true,
        };
        assert_eq!(node.room_for(Demand { memory_mb: 512, vcpus: 1, local_gb: 0 }), 1);
        assert_eq!(node.room_for(Demand { memory_mb: 512, vcpus: 0, local_gb: 0 }), 6);
        assert_eq!(node.room_for(Demand { memory_mb: 1, vcpus: 1, local_gb: 1 }), 0);
    }
}
