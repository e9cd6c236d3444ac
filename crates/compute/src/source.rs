//! Where this host gets images from: its own folder of images, if they are there, else the object store.
//!
//! Either way they come once, into the cache. An object store that is away is waited for, within bounds; what it does not
//! have, or is not what was registered, ends the launch at once.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_db::{Db, images, service_keys};
use nova_images::{Base, BaseCache, FetchError, ImageStore, Remote, Wanted};
use nova_types::image::Image;
use nova_types::{Clock, ImageId, InstanceId};
use nova_wire::CloudKey;
use tokio::time::Instant;
use tracing::warn;

use crate::disks::blocking;
use crate::problem::{BoxError, Problem};

/// Where images are.
#[derive(Clone, Debug)]
pub struct ImageSource {
    /// The folder of images, which is not there on a host of its own.
    pub local: ImageStore,
    /// The object store.
    pub remote: Option<Remote>,
    /// How long a launch waits for an object store that does not answer.
    pub patience: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Source {
    from: ImageSource,
    pub(crate) cache: BaseCache,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    key: Option<CloudKey>,
    /// Since when whose images do not come.
    waiting: HashMap<InstanceId, Instant>,
}

impl Source {
    pub(crate) fn new(from: ImageSource, instances_path: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { from, cache: BaseCache::new(instances_path), clock, state: Arc::default() }
    }

    /// Sees to it that an image is in the cache. `by` is who is to be made of it.
    pub(crate) async fn base(&self, db: &Db, by: InstanceId, id: ImageId) -> Result<Base, Problem> {
        let image = images::get_any(&mut db.read().await?, id).await?;
        let Some((image, sha256)) = image.and_then(|image| Some((image.clone(), image.sha256?))) else {
            return Err(gone(id, "the image has no bytes, or no row"));
        };
        let local = self.from.local.clone();
        let is_here = blocking(move || local.find(id)).await?.is_ok_and(|found| found.is_some());
        let Some(remote) = &self.from.remote else { return self.copied(&image, sha256).await };
        if is_here {
            match self.copied(&image, sha256.clone()).await {
                // A folder of another cloud, or a damaged file: the object store may do better.
                Err(Problem::Never { cause, .. }) => {
                    warn!(image.id = %id, error = %nova_service::chain(cause.as_ref()), "{id} is here and of no use.");
                }
                copied => return copied,
            }
        }
        self.fetched(db, by, &image, &sha256, remote).await
    }

    /// Forgets that somebody waited.
    pub(crate) fn forget(&self, by: InstanceId) {
        self.state().waiting.remove(&by);
    }

    async fn copied(&self, image: &Image, sha256: String) -> Result<Base, Problem> {
        let (cache, local, id, format) = (self.cache.clone(), self.from.local.clone(), image.id, image.format);
        blocking(move || cache.ensure(&sha256, format, || local.open(id).map_err(io::Error::other)))
            .await?
            .map_err(|cause| gone(id, cause))
    }

    async fn fetched(
        &self,
        db: &Db,
        by: InstanceId,
        image: &Image,
        sha256: &str,
        remote: &Remote,
    ) -> Result<Base, Problem> {
        let id = image.id;
        let size_bytes = image.size_bytes.ok_or_else(|| gone(id, "the image has no length"))?;
        let key = self.key(db).await?;
        let wanted = Wanted { id, sha256, size_bytes, format: image.format, key: &key, clock: &*self.clock };
        match self.cache.fetch(remote, wanted).await {
            Ok(base) => Ok(base),
            Err(FetchError::Away { progressed, .. }) if progressed => {
                self.state().waiting.insert(by, Instant::now());
                Err(Problem::later("the image comes in pieces"))
            }
            Err(error @ FetchError::Away { .. }) => Err(self.wait(by, id, error)),
            Err(error @ FetchError::NotThere { .. }) => {
                Err(Problem::never(format!("The image {id} is not in the object store."), error))
            }
            Err(FetchError::Cache(cause)) => Err(gone(id, cause)),
        }
    }

    /// What becomes of a launch whose image does not come now.
    fn wait(&self, by: InstanceId, id: ImageId, error: FetchError) -> Problem {
        let mut state = self.state();
        // It may have been the key.
        state.key = None;
        // Counted from the first failure: before that, others may have fetched for long.
        let since = *state.waiting.entry(by).or_insert_with(Instant::now);
        if since.elapsed() < self.from.patience {
            return Problem::later(error);
        }
        state.waiting.remove(&by);
        let waited = since.elapsed().as_secs();
        Problem::never(
            format!("The image {id} could not be fetched: the object store did not give it for {waited} seconds."),
            error,
        )
    }

    /// The key of the cloud. It hardly ever changes; if it has, the object store refuses, and it is asked for again.
    async fn key(&self, db: &Db) -> Result<CloudKey, Problem> {
        if let Some(key) = self.state().key.clone() {
            return Ok(key);
        }
        let text = service_keys::ensure(&mut db.write().await?, service_keys::IMAGES).await?;
        let key = CloudKey::from_hex(&text).ok_or_else(|| {
            Problem::later("the key of the cloud in the database makes no sense (table service_keys)")
        })?;
        self.state().key = Some(key.clone());
        Ok(key)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone(id: ImageId, cause: impl Into<BoxError>) -> Problem {
    Problem::never(format!("The image {id} could not be read."), cause)
}

#[cfg(test)]
mod tests;
