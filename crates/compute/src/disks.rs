//! The files of guests: their disks on cached images, and the disk that tells them who they are.
//!
//! Everything here blocks, so it runs on threads of its own; a step that was given up still ends before anybody else
//! gets the instance in hand, for its thread holds the ticket.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nova_db::Db;
use nova_hypervisor::{Disk, KernelBoot};
use nova_images::{Base, InstanceFolders, Seed, create_blank, create_overlay, create_seed_disk};
use nova_types::InstanceId;
use nova_types::image::DiskFormat;
use nova_types::instance::Instance;
use time::OffsetDateTime;

use crate::desk::Ticket;
use crate::problem::{BoxError, Problem};
use crate::source::Source;
use crate::{Settings, seed};

const ROOT: &str = "disk";
const LOCAL: &str = "disk.local";
const SEED: &str = "disk.config";
const GIB: u64 = 1 << 30;
/// The one type whose root disk stays as small as its image, as it always was.
const TINY: &str = "m1.tiny";
const CMDLINE: &str = "root=/dev/vda console=ttyS0";

/// The files of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) disks: Vec<Disk>,
    pub(crate) seed: Option<PathBuf>,
    pub(crate) boot: Option<KernelBoot>,
}

/// The images that a guest is made of, here on this host.
#[derive(Clone, Debug)]
pub(crate) struct Bases {
    root: Base,
    kernel: Option<Base>,
    ramdisk: Option<Base>,
}

#[derive(Clone, Debug)]
pub(crate) struct Disks {
    source: Source,
    folders: InstanceFolders,
    minimum_root_bytes: u64,
}

impl Disks {
    pub(crate) fn new(source: Source, instances_path: &Path, settings: &Settings) -> Self {
        Self { source, folders: InstanceFolders::new(instances_path), minimum_root_bytes: settings.minimum_root_bytes }
    }

    /// Sees to it that the images of an instance are on this host; fetching takes as long as it takes.
    pub(crate) async fn fetch(&self, db: &Db, instance: &Instance) -> Result<Bases, Problem> {
        let root = self.source.base(db, instance.id, instance.image).await?;
        let kernel = match instance.kernel {
            Some(kernel) => Some(self.source.base(db, instance.id, kernel).await?),
            None => None,
        };
        // A ramdisk without a kernel has nothing to be used by.
        let ramdisk = match instance.ramdisk.filter(|_| kernel.is_some()) {
            Some(ramdisk) => Some(self.source.base(db, instance.id, ramdisk).await?),
            None => None,
        };
        self.source.forget(instance.id);
        Ok(Bases { root, kernel, ramdisk })
    }

    /// Makes what is missing of a guest's files. What is there stays as it is.
    pub(crate) async fn make(
        &self,
        instance: &Instance,
        bases: &Bases,
        seed: Option<seed::Content>,
        ticket: &Ticket,
    ) -> Result<(), Problem> {
        let (this, bases, ticket) = (self.clone(), bases.clone(), ticket.clone());
        let (id, local_gb) = (instance.id, instance.local_gb);
        let minimum = if instance.flavor == TINY { 0 } else { self.minimum_root_bytes };
        blocking(move || {
            let made = this.make_now(id, &bases.root, minimum, local_gb, seed.as_ref());
            drop(ticket);
            made
        })
        .await?
        .map_err(|cause| Problem::never("The host could not make the disks of the instance.", cause))
    }

    fn make_now(
        &self,
        id: InstanceId,
        root: &Base,
        minimum_bytes: u64,
        local_gb: u32,
        seed: Option<&seed::Content>,
    ) -> Result<(), BoxError> {
        self.folders.ensure(id)?;
        create_overlay(&self.folders.file(id, ROOT), root, minimum_bytes)?;
        if local_gb > 0 {
            create_blank(&self.folders.file(id, LOCAL), u64::from(local_gb) * GIB)?;
        }
        if let Some(seed) = seed {
            let content = Seed {
                meta_data: &seed.meta_data,
                user_data: &seed.user_data,
                network_config: seed.network_config.as_deref(),
            };
            create_seed_disk(&self.folders.file(id, SEED), &content)?;
        }
        Ok(())
    }

    /// Lists the files of a guest for the hypervisor, without looking at them.
    pub(crate) fn files(&self, instance: &Instance, bases: &Bases, seed: bool) -> Files {
        let disk = |name, format| Disk { path: self.folders.file(instance.id, name), format };
        let mut disks = vec![disk(ROOT, DiskFormat::Qcow2)];
        if instance.local_gb > 0 {
            disks.push(disk(LOCAL, DiskFormat::Raw));
        }
        let boot = bases.kernel.as_ref().map(|kernel| KernelBoot {
            kernel: kernel.path.clone(),
            ramdisk: bases.ramdisk.as_ref().map(|base| base.path.clone()),
            cmdline: CMDLINE.to_owned(),
        });
        Files { disks, seed: seed.then(|| self.folders.file(instance.id, SEED)), boot }
    }

    /// Tells whether a guest that ran before still has its root disk.
    pub(crate) fn has_root(&self, id: InstanceId) -> bool {
        self.folders.file(id, ROOT).is_file()
    }

    /// Removes all files of a guest.
    pub(crate) async fn remove(&self, id: InstanceId) -> Result<(), Problem> {
        self.source.forget(id);
        let folders = self.folders.clone();
        blocking(move || folders.remove(id)).await?.map_err(Problem::later)
    }

    /// Forgets cached images but the `wanted` ones and those fetched within `grace`. Returns their files' names.
    pub(crate) async fn prune(
        &self,
        wanted: BTreeSet<String>,
        grace: time::Duration,
        now: OffsetDateTime,
    ) -> Result<Vec<String>, Problem> {
        let cache = self.source.cache.clone();
        blocking(move || cache.prune(&wanted, grace, now)).await?.map_err(Problem::later)
    }

    /// Lists the guests that have a folder.
    pub(crate) async fn list(&self) -> Result<Vec<InstanceId>, Problem> {
        let folders = self.folders.clone();
        blocking(move || folders.list()).await?.map_err(Problem::later)
    }
}

/// Runs what blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(Problem::later)
}
