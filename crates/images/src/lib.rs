//! Disk images: inspected, stored, cached on the host, put under guests.
//!
//! **Bytes a tenant sent are looked at here, by our own few lines, before qemu sees them; disks a guest has
//! written to are never looked at again.** Nothing here runs a program, mounts anything, or guesses a format.
//!
//! All calls block on the disk: call them from `spawn_blocking`. Each can be done twice. Only fetching from an object
//! store waits for the network, and is async.

mod cache;
mod copy;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod fetch;
mod files;
mod inspect;
mod instances;
mod overlay;
mod part;
mod remote;
mod seed;
mod store;

pub use cache::{Base, BaseCache, CacheError};
pub use fetch::{FetchError, Wanted};
pub use files::FileError;
pub use inspect::{InspectError, Inspected, inspect};
pub use instances::InstanceFolders;
pub use overlay::{create_blank, create_overlay};
pub use remote::{Remote, RemoteError};
pub use seed::{Seed, SeedError, create_seed_disk};
pub use store::{ImageStore, StoreError, StoredImage};
