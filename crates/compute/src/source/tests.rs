//! Launches on a host that has no images, and an object store that is there, away, or of no use.

use nova_db::instances;
use nova_images::fake::{Does, FakeStore};
use nova_types::state::Event;

use crate::host::Host;
use crate::problem::Problem;
use crate::run_instance::run_instance;
use crate::testing::Bench;

use super::*;

/// What the bench registers.
const CONTENT: [u8; 4096] = [7; 4096];

/// A host of its own: without a folder of images.
fn host(bench: &Bench, remote: Remote, patience: Duration) -> Arc<Host> {
    std::fs::create_dir_all(bench.instances_path()).unwrap();
    let mut parts = bench.parts();
    let images = &mut parts.real.as_mut().unwrap().images;
    (images.remote, images.patience) = (Some(remote), patience);
    images.local = ImageStore::new(bench.folder.path().join("elsewhere"));
    parts.settings.builds = 50;
    Arc::new(Host::new(parts))
}

async fn launch(host: &Arc<Host>, bench: &Bench, id: InstanceId) -> Result<(), Problem> {
    let ticket = host.desk.take(id, None).unwrap();
    run_instance(host, bench.view(id).await, &ticket).await
}

#[tokio::test]
async fn fifty_launches_fetch_their_image_once() {
    let bench = Bench::new().await;
    let store = FakeStore::start(&CONTENT, [Does::CutBefore(1000)]).await.unwrap();
    let host = host(&bench, store.remote(), Duration::from_secs(60));
    let ids = bench.placed(50).await;
    let launches = ids.iter().map(|id| launch(&host, &bench, *id));
    for launched in nova_db::dev::at_once(launches).await {
        launched.unwrap();
    }
    for id in ids {
        assert_eq!(bench.state(id).await, "running");
    }
    assert_eq!(store.requests(), ["GET /_images/ami-00000001/image", "GET /_images/ami-00000001/image bytes=1000-"]);
}

#[tokio::test]
async fn an_object_store_that_is_away_is_waited_for_and_then_given_up_with_a_reason() {
    let bench = Bench::new().await;
    let away = FakeStore::start(&CONTENT, vec![Does::Status(503); 100]).await.unwrap();
    let ids = bench.placed(2).await;
    let patient = host(&bench, away.remote(), Duration::from_secs(600));
    let refused = launch(&patient, &bench, ids[0]).await;
    assert!(matches!(refused, Err(Problem::Later(_))), "{refused:?}");
    assert_eq!(bench.state(ids[0]).await, "pending/building");

    let impatient = host(&bench, away.remote(), Duration::ZERO);
    launch(&impatient, &bench, ids[1]).await.unwrap();
    let why = bench.state(ids[1]).await;
    assert!(why.starts_with("error/cleaning (Server.InternalError: The image ami-00000001 could not be fetched: the object store did not give it for "), "{why}");

    // It comes back in time.
    let store = FakeStore::start(&CONTENT, []).await.unwrap();
    let back = host(&bench, store.remote(), Duration::from_secs(600));
    launch(&back, &bench, ids[0]).await.unwrap();
    assert_eq!(bench.state(ids[0]).await, "running");
}

#[tokio::test(start_paused = true)]
async fn patience_is_an_instances_own_and_begins_anew_with_a_new_launch() {
    let from = ImageSource { local: ImageStore::new("/nowhere"), remote: None, patience: Duration::from_secs(100) };
    let source = Source::new(from, Path::new("/nowhere"), Arc::new(nova_types::clock::FixedClock::at(0)));
    let (image, url) = (ImageId::new(nova_types::ImageKind::Machine, 1), "http://store".to_owned());
    let waits = |by| {
        let error = FetchError::NotThere { id: image, url: url.clone() };
        matches!(source.wait(InstanceId::new(by), image, error), Problem::Later(_))
    };
    assert!(waits(1));
    tokio::time::advance(Duration::from_secs(99)).await;
    assert!(waits(1) && waits(2));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!waits(1) && waits(2) && waits(1), "who was given up may begin again");
    source.forget(InstanceId::new(2));
    tokio::time::advance(Duration::from_secs(99)).await;
    assert!(waits(2) && waits(1));
}

#[tokio::test]
async fn what_the_object_store_has_not_or_has_otherwise_ends_the_launch_at_once() {
    let bench = Bench::new().await;
    let ids = bench.placed(2).await;
    for (id, does, why) in [
        (ids[0], Does::Status(404), "The image ami-00000001 is not in the object store."),
        (ids[1], Does::Send(vec![8; CONTENT.len()]), "The image ami-00000001 could not be read."),
    ] {
        let store = FakeStore::start(&CONTENT, [does]).await.unwrap();
        let host = host(&bench, store.remote(), Duration::from_secs(600));
        launch(&host, &bench, id).await.unwrap();
        assert_eq!(bench.state(id).await, format!("error/cleaning (Server.InternalError: {why})"));
    }
}

#[tokio::test]
async fn a_file_on_this_host_is_taken_unless_it_is_another() {
    let bench = Bench::new().await;
    let store = FakeStore::start(&CONTENT, []).await.unwrap();
    for (file, requests) in [(CONTENT, 0), ([8; 4096], 1)] {
        let folder = tempfile::tempdir().unwrap();
        let local = ImageStore::new(folder.path().join("images"));
        local.put(bench.image, nova_types::image::DiskFormat::Raw, &mut &file[..]).unwrap();
        let from = ImageSource { local, remote: Some(store.remote()), patience: Duration::ZERO };
        let source = Source::new(from, folder.path(), Arc::new(nova_types::clock::FixedClock::at(0)));
        let base = source.base(&bench.db, InstanceId::new(1), bench.image).await.unwrap();
        assert_eq!(std::fs::read(base.path).unwrap(), CONTENT);
        assert_eq!(store.requests().len(), requests);
    }
}

#[tokio::test]
async fn a_launch_that_is_terminated_waits_for_no_image() {
    let bench = Bench::new().await;
    let silent = FakeStore::start(&CONTENT, vec![Does::SayNothing; 100]).await.unwrap();
    let remote = silent.remote().with_silence(Duration::from_secs(600));
    let (host, stop) = (host(&bench, remote, Duration::from_secs(600)), nova_service::Stop::new());
    let id = bench.placed(1).await[0];
    let working = crate::work::keep_working(&host, stop.clone());
    let story = async {
        bench.until("asked", async || !silent.requests().is_empty()).await;
        bench.ask(id, Event::Terminate).await;
        host.desk.tell([id]);
        bench
            .until("terminated", async || {
                let row = instances::get(&mut bench.db.read().await.unwrap(), id).await.unwrap();
                row.state.vm.as_str() == "terminated"
            })
            .await;
        stop.cancel();
    };
    tokio::join!(working, story);
}
