//! Clears away registrations that nobody completes, because who began them was killed.
//!
//! Nothing is concluded from silence alone: the row is a day old, and nobody holds the image's folder, as who registers does
//! until the end.

use std::time::Duration;

use nova_db::{Db, DbError, images};
use nova_images::{FileError, ImageStore};
use nova_service::{Stop, Ticks};
use nova_types::ImageId;
use nova_types::image::ImageState;
use tracing::info;

const EVERY: Duration = Duration::from_secs(3600);
/// No copy of a file takes as long.
const AGE_SECONDS: i32 = 24 * 3600;

/// Why a turn failed; the next one begins anew.
#[derive(Debug, thiserror::Error)]
enum ClearError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Looks every hour until the daemon stops.
pub(crate) async fn keep_clear(db: Db, images: ImageStore, stop: Stop) {
    Ticks::new("abandoned", EVERY).run(stop, || clear(&db, &images, AGE_SECONDS)).await;
}

async fn clear(db: &Db, store: &ImageStore, age_seconds: i32) -> Result<(), ClearError> {
    let old = images::pending_since(&mut db.read().await?, age_seconds).await?;
    let mut outcome = Ok(());
    // One that cannot be cleared keeps no other.
    for image in old {
        outcome = outcome.and(clear_one(db, store, image.id).await);
    }
    outcome
}

async fn clear_one(db: &Db, store: &ImageStore, id: ImageId) -> Result<(), ClearError> {
    // Held until the row says so too, so that nobody begins to complete it meanwhile.
    let Some(_held) = store.hold(id)? else { return Ok(()) };
    // It may have been completed before it was held.
    let image = images::get_any(&mut db.read().await?, id).await?;
    if image.is_none_or(|image| image.state != ImageState::Pending) {
        return Ok(());
    }
    store.remove(id)?;
    if images::abandon(&mut db.write().await?, id).await? {
        info!(image.id = %id, "Took {id} back, whose registration was never completed.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nova_db::dev::{self, fixtures};
    use nova_db::images::Stored;
    use nova_types::ImageKind;
    use nova_types::image::{DiskFormat, NewImage};

    use super::*;

    async fn begun(db: &Db, location: &str) -> ImageId {
        let new = NewImage {
            kind: ImageKind::Machine,
            owner: fixtures::name("acme"),
            name: String::new(),
            description: String::new(),
            location: location.to_owned(),
            is_public: false,
            architecture: "x86_64".to_owned(),
            format: DiskFormat::Raw,
            kernel: None,
            ramdisk: None,
        };
        images::register(&mut db.write().await.unwrap(), &new).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_old_and_held_by_nobody_is_cleared_with_its_files() {
        let (db, folder) = (dev::sqlite().await, tempfile::tempdir().unwrap());
        let store = ImageStore::new(folder.path());
        let mut ids = Vec::new();
        for location in ["dead", "held", "done"] {
            let id = begun(&db, location).await;
            store.put(id, DiskFormat::Raw, &mut &[7_u8; 512][..]).unwrap();
            ids.push(id);
        }
        let stored = Stored { sha256: "ab", size_bytes: 512, virtual_size_bytes: 512 };
        images::available(&mut db.write().await.unwrap(), ids[2], stored).await.unwrap();
        let held = store.hold(ids[1]).unwrap().unwrap();
        let there = || ids.iter().map(|id| store.path(*id).exists()).collect::<Vec<_>>();

        clear(&db, &store, AGE_SECONDS).await.unwrap();
        assert_eq!(there(), [true, true, true], "they are young");
        clear(&db, &store, 0).await.unwrap();
        assert_eq!(there(), [false, true, true]);
        drop(held);
        clear(&db, &store, 0).await.unwrap();
        assert_eq!(there(), [false, false, true]);
        let left = images::list(&mut db.read().await.unwrap(), None).await.unwrap();
        assert_eq!(left.iter().map(|image| image.id).collect::<Vec<_>>(), [ids[2]]);
    }

    #[tokio::test]
    async fn one_that_was_completed_after_it_was_found_keeps_its_files() {
        let (db, folder) = (dev::sqlite().await, tempfile::tempdir().unwrap());
        let store = ImageStore::new(folder.path());
        let id = begun(&db, "done").await;
        store.put(id, DiskFormat::Raw, &mut &[7_u8; 512][..]).unwrap();
        let stored = Stored { sha256: "ab", size_bytes: 512, virtual_size_bytes: 512 };
        images::available(&mut db.write().await.unwrap(), id, stored).await.unwrap();
        clear_one(&db, &store, id).await.unwrap();
        assert!(store.path(id).exists());
        assert_eq!(images::list(&mut db.read().await.unwrap(), None).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn one_that_cannot_be_cleared_keeps_no_other() {
        let (db, folder) = (dev::sqlite().await, tempfile::tempdir().unwrap());
        let store = ImageStore::new(folder.path());
        let broken = begun(&db, "broken").await;
        begun(&db, "other").await;
        std::fs::write(folder.path().join(broken.to_string()), "no folder").unwrap();
        clear(&db, &store, 0).await.unwrap_err();
        let left = images::pending(&mut db.read().await.unwrap()).await.unwrap();
        assert_eq!(left.iter().map(|image| image.id).collect::<Vec<_>>(), [broken]);
    }
}
