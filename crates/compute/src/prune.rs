//! Forgets cached images that nothing needs any more.

use std::collections::BTreeSet;
use std::time::Duration;

use nova_db::{images, instances};
use nova_service::{Stop, Ticks};

use crate::host::{Host, RealHost};
use crate::problem::Problem;

const EVERY: Duration = Duration::from_secs(3600);
/// An image that was used yesterday may be launched again today.
const GRACE: time::Duration = time::Duration::days(1);

/// Looks at the cache every hour.
pub(crate) async fn keep_pruned(host: &Host, stop: Stop) {
    let Some(real) = &host.real else { return stop.cancelled().await };
    Ticks::new("prune", EVERY).run(stop, || prune(host, real)).await;
}

/// Removes what is neither registered nor under a guest, and was not fetched lately. Guests of other hosts count: they may
/// share the folder, and what was evacuated from here has its disks here still.
async fn prune(host: &Host, real: &RealHost) -> Result<(), Problem> {
    let mut conn = host.db.read().await?;
    // Images first: one that is deregistered meanwhile is kept once more.
    let mut wanted: BTreeSet<String> =
        images::list(&mut conn, None).await?.into_iter().filter_map(|i| i.sha256).collect();
    for id in instances::images_in_use(&mut conn).await? {
        wanted.extend(images::get_any(&mut conn, id).await?.and_then(|image| image.sha256));
    }
    drop(conn);
    let gone = real.disks.prune(wanted, GRACE, host.clock.now()).await?;
    if !gone.is_empty() {
        tracing::info!(files = gone.len(), "Removed {} cached images that nothing needs.", gone.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nova_types::ImageKind;

    use super::*;
    use crate::testing::{Bench, later_by};

    #[tokio::test]
    async fn only_images_that_nothing_needs_are_forgotten_and_only_after_a_day() {
        let bench = Bench::new().await;
        let unused = bench.register(ImageKind::Machine, &[1; 512]).await;
        let under_a_guest = bench.register(ImageKind::Machine, &[2; 1024]).await;
        for image in [bench.image, unused, under_a_guest] {
            let host = bench.host();
            let id = bench.placed_as(1, |new| new.image = image).await[0];
            let ticket = host.desk.take(id, None).unwrap();
            crate::run_instance::run_instance(&host, bench.view(id).await, &ticket).await.unwrap();
            if image == unused {
                bench.ask(id, nova_types::state::Event::Terminate).await;
                crate::terminate::terminate(&host, bench.view(id).await, &ticket).await.unwrap();
            }
        }
        for image in [unused, under_a_guest] {
            images::deregister(&mut bench.db.write().await.unwrap(), None, image).await.unwrap();
        }
        let cached = || {
            let names = std::fs::read_dir(bench.instances_path().join("_base")).unwrap();
            names.filter(|name| !name.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count()
        };
        let mut counts = Vec::new();
        for days in [0, 2] {
            let mut parts = bench.parts();
            parts.clock = later_by(time::Duration::days(days));
            assert!(parts.clock.now().unix_timestamp() > 0);
            let host = Host::new(parts);
            prune(&host, host.real.as_ref().unwrap()).await.unwrap();
            counts.push(cached());
        }
        assert_eq!(counts, [3, 2]);
    }

    #[tokio::test]
    async fn what_is_under_a_guest_that_was_evacuated_from_here_is_kept() {
        let bench = Bench::new().await;
        let image = bench.register(ImageKind::Machine, &[2; 1024]).await;
        let mut parts = bench.parts();
        parts.clock = later_by(time::Duration::days(2));
        std::fs::create_dir_all(bench.instances_path()).unwrap();
        let host = Arc::new(Host::new(parts));
        let id = bench.placed_as(1, |new| new.image = image).await[0];
        let ticket = host.desk.take(id, None).unwrap();
        crate::run_instance::run_instance(&host, bench.view(id).await, &ticket).await.unwrap();
        images::deregister(&mut bench.db.write().await.unwrap(), None, image).await.unwrap();
        let reason = nova_types::instance::StateReason::new("Server.HostEvacuated", "gone");
        nova_db::transaction!(bench.db, |tx| { instances::evacuate(tx, &host.name, 10, &reason).await }).unwrap();
        let base = bench.view(id).await.instance.image;
        let hash = images::get_any(&mut bench.db.read().await.unwrap(), base).await.unwrap().unwrap().sha256.unwrap();
        prune(&host, host.real.as_ref().unwrap()).await.unwrap();
        assert!(bench.instances_path().join("_base").join(&hash).is_file());
        bench.ask(id, nova_types::state::Event::Terminate).await;
        let epoch = bench.view(id).await.instance.epoch;
        nova_db::transaction!(bench.db, |tx| { instances::finish_terminate(tx, id, epoch, 0).await }).unwrap();
        prune(&host, host.real.as_ref().unwrap()).await.unwrap();
        assert!(!bench.instances_path().join("_base").join(&hash).exists());
    }
}
