//! Flags of the compute daemon, of images and of the scheduler.

use std::path::PathBuf;
use std::time::Duration;

use super::flags;
use crate::{ConnectionType, HypervisorChoice, LibvirtType, Placement, SchedulerDriver};

flags! {
    "Compute"
    /// How instances are run.
    ComputeFlags {
        /// libvirt, or fake for guests that only seem to run.
        connection_type: ConnectionType = "libvirt",
        /// auto, libvirt or simulated; auto takes libvirt where it works.
        hypervisor: HypervisorChoice = "auto",
        /// Kind of libvirt domains: kvm (where KVM works) or qemu.
        libvirt_type: LibvirtType = "kvm",
        /// Where libvirt is [default: by --libvirt_type].
        libvirt_uri: Option<String> = "",
        /// Program that speaks to libvirt for nova-compute [default: beside it, or in PATH].
        libvirt_helper: Option<PathBuf> = "",
        /// Folder of instances.
        instances_path: PathBuf = "$state_path/instances",
        /// Accepted for old flag files: guests always get an overlay of the image.
        use_cow_images: bool = "true",
        /// Bytes that a root disk has at least, except for m1.tiny.
        minimum_root_size: u64 = "10737418240",
        /// Let guests of one project reach each other whatever their security groups say.
        allow_project_net_traffic: bool = "true",
        /// Give guests their configuration on a small disk, besides metadata.
        config_drive: bool = "false",
        /// MiB of this host's memory that guests do not get.
        reserved_host_memory_mb: u32 = "512",
        /// GiB of the disk of --instances_path that guests do not get.
        reserved_host_disk_gb: u32 = "1",
        /// Memory that may be promised to guests, as a multiple of what is there.
        ram_allocation_ratio: f64 = "1.0",
        /// Virtual processors that may be promised, as a multiple of those there.
        cpu_allocation_ratio: f64 = "16.0",
        /// Disk that may be promised, as a multiple of what is there.
        disk_allocation_ratio: f64 = "16.0",
        /// How long a launch waits for an object store that does not answer.
        image_fetch_timeout: Duration = "600",
        /// How many instances are built at once.
        concurrent_builds: u32 = "4",
        /// Virtual processors of a simulated host.
        simulated_vcpus: u32 = "256",
        /// MiB of memory of a simulated host.
        simulated_memory_mb: u32 = "524288",
        /// GiB of disk of a simulated host.
        simulated_local_gb: u32 = "16384",
        /// How many simulated hosts this process is, named by --host with -1, -2, … behind it; for tests and benches. 0
        /// is one host under its own name.
        simulated_hosts: u16 = "0",
        /// How long a simulated guest takes to boot.
        simulated_boot_time: Duration = "0.05",
    }
}

flags! {
    "Images"
    /// Where images are.
    ImageFlags {
        /// Folder of registered images.
        images_path: PathBuf = "$state_path/images",
        /// Folder of the object store's buckets.
        buckets_path: PathBuf = "$state_path/buckets",
    }
}

flags! {
    "Scheduler"
    /// How hosts are chosen.
    SchedulerFlags {
        /// How hosts are chosen: nova.scheduler.simple.SimpleScheduler, .chance.ChanceScheduler or .zone.ZoneScheduler.
        scheduler_driver: SchedulerDriver = "nova.scheduler.simple.SimpleScheduler",
        /// The simple scheduler takes the host with the fewest vcpus in use (spread) or left (fill).
        scheduler_placement: Placement = "spread",
        /// Virtual processors in use beyond which a host gets no new instance; 0 leaves it to what hosts report.
        max_cores: u32 = "0",
        /// How long after its start the scheduler waits for hosts to report before it says that there are none.
        host_grace: Duration = "60",
    }
}
