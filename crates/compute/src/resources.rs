//! Reports what guests may have of this host.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nova_db::compute_nodes;
use nova_run::{Command, Runner};
use nova_service::{Stop, Ticks, Turn};
use nova_types::service::ComputeNode;

use crate::host::Host;
use crate::problem::{BoxError, Problem};

const MEMINFO: &str = "/proc/meminfo";
/// How often unchanged resources are reported again.
const REPORT_AGAIN: Duration = Duration::from_secs(60);

/// What of a host guests may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Capacity {
    /// So much, whatever is there; for simulated guests.
    Fixed {
        /// Memory in MiB.
        memory_mb: u32,
        /// Virtual processors.
        vcpus: u32,
        /// Disk in GiB.
        local_gb: u32,
    },
    /// What is there, less what the host keeps, times what may be promised of the rest.
    Measured {
        /// Memory that the host keeps, in MiB.
        reserved_memory_mb: u32,
        /// Disk that the host keeps, in GiB.
        reserved_disk_gb: u32,
        /// Promised memory per memory.
        ram_ratio: f64,
        /// Virtual processors per processor.
        cpu_ratio: f64,
        /// Promised disk per disk.
        disk_ratio: f64,
    },
}

/// Reports at the start, when something changed, and now and then in case that somebody deleted the row; for all hosts of
/// this process in one statement.
pub(crate) async fn keep_reporting(hosts: &[Arc<Host>], stop: Stop) {
    let Some(first) = hosts.first() else { return };
    let reports = Reports { hosts: hosts.to_vec(), last: None };
    Ticks::new("resources", first.settings.report).run(stop, reports).await;
}

/// What was reported last, and when.
pub(crate) struct Reports {
    hosts: Vec<Arc<Host>>,
    last: Option<(Vec<ComputeNode>, Instant)>,
}

#[async_trait]
impl Turn for Reports {
    type Error = Problem;

    async fn turn(&mut self) -> Result<(), Problem> {
        let Some(first) = self.hosts.first() else { return Ok(()) };
        let mut nodes = Vec::with_capacity(self.hosts.len());
        for host in &self.hosts {
            nodes.push(node(host).await?);
        }
        let fresh = |(last, at): &(Vec<ComputeNode>, Instant)| *last == nodes && at.elapsed() < REPORT_AGAIN;
        if self.last.as_ref().is_some_and(fresh) {
            return Ok(());
        }
        compute_nodes::upsert_all(&mut first.db.write().await?, &nodes).await?;
        self.last = Some((nodes, Instant::now()));
        Ok(())
    }
}

async fn node(host: &Host) -> Result<ComputeNode, Problem> {
    let (memory_mb, vcpus, local_gb) = match host.settings.capacity {
        Capacity::Fixed { memory_mb, vcpus, local_gb } => (memory_mb, vcpus, local_gb),
        measured @ Capacity::Measured { .. } => measure(host, measured).await.map_err(Problem::later)?,
    };
    Ok(ComputeNode {
        host: host.name.clone(),
        availability_zone: host.settings.zone.clone(),
        memory_mb,
        memory_mb_used: 0,
        vcpus,
        vcpus_used: 0,
        local_gb,
        local_gb_used: 0,
        hypervisor_type: host.hypervisor_type.clone(),
        eligible: true,
    })
}

async fn measure(host: &Host, capacity: Capacity) -> Result<(u32, u32, u32), BoxError> {
    let Capacity::Measured { reserved_memory_mb, reserved_disk_gb, ram_ratio, cpu_ratio, disk_ratio } = capacity else {
        return Ok((0, 0, 0));
    };
    let memory_mb = memory_mb(&std::fs::read_to_string(MEMINFO)?).ok_or("there is no MemTotal in /proc/meminfo")?;
    let processors = u32::try_from(std::thread::available_parallelism()?.get())?;
    let disk_gb = match &host.real {
        Some(real) => disk_gb(real.runner.as_ref(), &real.instances_path).await?,
        None => 0,
    };
    Ok((
        times(memory_mb.saturating_sub(reserved_memory_mb), ram_ratio),
        times(processors, cpu_ratio),
        times(disk_gb.saturating_sub(reserved_disk_gb), disk_ratio),
    ))
}

fn memory_mb(meminfo: &str) -> Option<u32> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    u32::try_from(kib / 1024).ok()
}

/// The size of the file system of a folder.
async fn disk_gb(runner: &dyn Runner, folder: &Path) -> Result<u32, BoxError> {
    let asked = runner.run(Command::new("df").args(["--block-size=1G", "--output=size"]).path(folder)?).await?;
    let text = asked.text();
    let size = text.lines().nth(1).ok_or("df printed no size")?;
    Ok(size.trim().parse()?)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped just before")]
fn times(amount: u32, ratio: f64) -> u32 {
    (f64::from(amount) * ratio).clamp(0.0, f64::from(i32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use nova_run::fake::Script;

    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(memory_mb("MemTotal:       16308268 kB\nMemFree: 1 kB\n"), Some(15926));
        assert_eq!(memory_mb("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn what_may_be_promised_is_a_multiple_of_what_is_there() {
        for (amount, ratio, wanted) in [(100, 1.0, 100), (3, 16.0, 48), (7, 0.5, 3), (u32::MAX, 16.0, 2_147_483_647)] {
            assert_eq!(times(amount, ratio), wanted);
        }
    }

    #[tokio::test]
    async fn the_disk_is_what_df_says() {
        let script = Script::new().prints("df --block-size=1G --output=size /i", "1G-blocks\n      252\n");
        assert_eq!(disk_gb(&script, Path::new("/i")).await.unwrap(), 252);
        assert!(disk_gb(&Script::new().prints("df", ""), Path::new("/i")).await.is_err());
    }
}
