//! Disk images: inspected, stored, cached on the host, put under guests.
//!
//! **Bytes a tenant sent are looked at here, by our own few lines, before qemu sees them; disks a guest has
//! written to are never looked at again.** Nothing here runs a program, mounts anything, or guesses a format.
//!
//! All calls block on the disk: call them from `spawn_blocking`. Each can be done twice.

mod cache;
mod copy;
mod files;
mod inspect;
mod instances;
mod overlay;
mod seed;
mod store;

pub use cache::{Base, BaseCache, CacheError};
pub use files::FileError;
pub use inspect::{InspectError, Inspected, inspect};
pub use instances::InstanceFolders;
pub use overlay::{create_blank, create_overlay};
pub use seed::{Seed, SeedError, create_seed_disk};
pub use store::{ImageStore, StoreError, StoredImage};
