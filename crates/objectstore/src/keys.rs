//! The key of the cloud, asked for now and then: requests with made-up signatures must not cost a query each.

use std::time::Duration;

use nova_db::{Db, service_keys};
use nova_wire::CloudKey;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::refusal::Refusal;

/// How long a key is used before it is asked for again: an administrator may have had it drawn anew.
const KEPT: Duration = Duration::from_secs(5);

/// The key as it was a moment ago.
#[derive(Debug)]
pub(crate) struct Keys {
    db: Db,
    known: Mutex<Option<(CloudKey, Instant)>>,
}

impl Keys {
    pub(crate) fn new(db: Db) -> Self {
        Self { db, known: Mutex::default() }
    }

    pub(crate) async fn get(&self) -> Result<CloudKey, Refusal> {
        // Held while asking, so that many who come at once ask once.
        let mut known = self.known.lock().await;
        if let Some((key, _)) = known.as_ref().filter(|(_, since)| since.elapsed() < KEPT) {
            return Ok(key.clone());
        }
        let text = service_keys::ensure(&mut self.db.write().await?, service_keys::IMAGES).await?;
        let key = CloudKey::from_hex(&text).ok_or(Refusal::Key)?;
        *known = Some((key.clone(), Instant::now()));
        Ok(key)
    }
}
