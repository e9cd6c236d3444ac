//! Fetching from an object store that breaks off, lies, or is not there.

use std::path::Path;

use nova_types::ImageKind;
use nova_types::clock::FixedClock;
use sha2::{Digest, Sha256};

use super::*;
use crate::fake::{Does, FakeStore};
use crate::files::names_in;

const ID: ImageId = ImageId::new(ImageKind::Machine, 10);
/// Not whole blocks, and a hole in the middle.
const SIZE: usize = 3 * BLOCK + 1234;

struct Fetched {
    folder: tempfile::TempDir,
    content: Vec<u8>,
    sha256: String,
    cache: BaseCache,
    key: CloudKey,
    clock: FixedClock,
}

impl Fetched {
    fn new() -> Self {
        let mut content: Vec<u8> = (0..SIZE).map(|n| u8::try_from(n % 251).unwrap()).collect();
        content[BLOCK..2 * BLOCK].fill(0);
        let folder = tempfile::tempdir().unwrap();
        let (sha256, cache) = (hex::encode(Sha256::digest(&content)), BaseCache::new(folder.path()));
        let key = CloudKey::from_hex(&"07".repeat(32)).unwrap();
        Self { folder, content, sha256, cache, key, clock: FixedClock::at(1_300_000_000) }
    }

    async fn store(&self, script: impl IntoIterator<Item = Does>) -> FakeStore {
        FakeStore::start(&self.content, script).await.unwrap()
    }

    async fn fetch(&self, remote: &Remote) -> Result<Base, FetchError> {
        let Self { sha256, key, clock, .. } = self;
        let size_bytes = SIZE as u64;
        self.cache.fetch(remote, Wanted { id: ID, sha256, size_bytes, format: DiskFormat::Raw, key, clock }).await
    }

    /// Fetches, looks at the result, and tells which requests it took.
    async fn requests(&self, store: &FakeStore) -> Vec<String> {
        let base = self.fetch(&store.remote()).await.unwrap();
        assert!(std::fs::read(&base.path).unwrap() == self.content, "other bytes");
        assert_eq!(base.virtual_size_bytes, SIZE as u64);
        assert_eq!(self.left(), [format!(".{}.lock", self.sha256), self.sha256.clone()]);
        store.requests().iter().map(|asked| asked.replace("GET /_images/ami-0000000a/image", "GET")).collect()
    }

    fn left(&self) -> Vec<String> {
        names_in(&self.base()).unwrap()
    }

    fn base(&self) -> std::path::PathBuf {
        self.folder.path().join("_base")
    }

    fn part(&self) -> std::path::PathBuf {
        self.base().join(format!(".{}.part", self.sha256))
    }
}

fn disk_blocks(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    path.metadata().unwrap().blocks() * 512
}

#[tokio::test]
async fn what_breaks_off_goes_on_at_the_byte_where_it_stopped() {
    let this = Fetched::new();
    let store = this.store([Does::CutBefore(100), Does::CutBefore(BLOCK + 7), Does::Status(503)]).await;
    let asked = this.requests(&store).await;
    assert_eq!(
        asked,
        ["GET", "GET bytes=100-", &format!("GET bytes={}-", BLOCK + 7), &format!("GET bytes={}-", BLOCK + 7)]
    );
    assert_eq!(this.fetch(&store.remote()).await.unwrap().path, this.base().join(&this.sha256));
    assert_eq!(store.requests().len(), 4, "what is here is not asked for");
}

#[tokio::test]
async fn zeros_stay_holes() {
    let this = Fetched::new();
    let store = this.store([]).await;
    this.requests(&store).await;
    let path = this.base().join(&this.sha256);
    assert!(disk_blocks(&path) <= (SIZE - BLOCK + 65536) as u64, "{}", disk_blocks(&path));
}

#[tokio::test]
async fn fifty_at_once_make_one_request() {
    let this = std::sync::Arc::new(Fetched::new());
    let store = this.store([]).await;
    let all: Vec<_> = (0..50)
        .map(|_| {
            let (this, remote) = (std::sync::Arc::clone(&this), store.remote());
            tokio::spawn(async move { this.fetch(&remote).await.unwrap().path })
        })
        .collect();
    for fetched in all {
        assert_eq!(fetched.await.unwrap(), this.base().join(&this.sha256));
    }
    assert_eq!(store.requests().len(), 1);
    assert!(this.cache.turn(&this.sha256).try_lock().is_ok(), "nobody waits any more");
}

#[tokio::test]
async fn two_caches_of_one_folder_fetch_once_as_two_processes_do() {
    let (this, store) = (Fetched::new(), FakeStore::start(&Fetched::new().content, []).await.unwrap());
    let other = Fetched { cache: BaseCache::new(this.folder.path()), ..Fetched::new() };
    let remote = store.remote();
    let (a, b) = tokio::join!(this.fetch(&remote), other.fetch(&remote));
    assert_eq!((a.unwrap(), store.requests().len()), (b.unwrap(), 1));
}

#[tokio::test]
async fn a_fetch_that_is_cancelled_or_cut_off_by_a_crash_is_gone_on_with() {
    let this = Fetched::new();
    let store = this.store([Does::CutBefore(2 * BLOCK), Does::SayNothing]).await;
    let remote = store.remote().with_silence(Duration::from_secs(60));
    // The first two blocks come, then nothing: whoever waited is terminated.
    assert!(tokio::time::timeout(Duration::from_secs(2), this.fetch(&remote)).await.is_err());
    assert_eq!(store.requests().len(), 2);
    let asked = this.requests(&store).await;
    // The hole at the end of what came was not written, so it is fetched again.
    assert_eq!(asked[2..], [format!("GET bytes={BLOCK}-")]);
}

#[tokio::test]
async fn a_part_that_is_damaged_too_long_or_complete_does_no_harm() {
    for (part, requests) in [
        (vec![1; BLOCK], vec![format!("GET bytes={BLOCK}-"), "GET".to_owned()]),
        (vec![1; SIZE + 1], vec!["GET".to_owned()]),
        (vec![1; SIZE], vec!["GET".to_owned()]),
        (Fetched::new().content, vec![]),
    ] {
        let this = Fetched::new();
        std::fs::create_dir_all(this.base()).unwrap();
        std::fs::write(this.part(), &part).unwrap();
        let store = this.store([]).await;
        assert_eq!(this.requests(&store).await, requests);
    }
}

#[tokio::test]
async fn an_object_store_that_cannot_send_ranges_sends_all() {
    let this = Fetched::new();
    let store = this.store([Does::CutBefore(5), Does::SendAll]).await;
    assert_eq!(this.requests(&store).await, ["GET", "GET bytes=5-"]);
    let this = Fetched::new();
    let store = this.store([Does::CutBefore(5), Does::Status(416)]).await;
    assert_eq!(this.requests(&store).await, ["GET", "GET bytes=5-", "GET"]);
}

#[tokio::test]
async fn other_bytes_than_were_registered_never_get_the_name() {
    let this = Fetched::new();
    let store = this.store([Does::Send(vec![1; SIZE])]).await;
    let refused = this.fetch(&store.remote()).await.unwrap_err();
    assert!(matches!(refused, FetchError::Cache(CacheError::Hash { .. })), "{refused:?}");
    assert_eq!(this.left(), [format!(".{}.lock", this.sha256)]);
    let store = this.store([Does::Send(vec![1; SIZE + 1]), Does::Send(vec![1; SIZE - 1])]).await;
    let refused = this.fetch(&store.remote()).await.map(|_| ());
    assert!(matches!(refused, Err(FetchError::Cache(CacheError::Hash { .. }))), "{refused:?}");
}

#[tokio::test]
async fn what_is_not_there_is_told_at_once_and_what_does_not_answer_after_some_tries() {
    let this = Fetched::new();
    let store = this.store([Does::Status(404)]).await;
    let refused = this.fetch(&store.remote()).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("{} has no image ami-0000000a", store.remote().url()));
    assert_eq!(store.requests().len(), 1);

    let cases = [Does::Status(503), Does::Status(403), Does::Status(302), Does::SayNothing].map(|does| {
        tokio::spawn(async move {
            let this = Fetched::new();
            let store = this.store(vec![does.clone(); 20]).await;
            let refused = this.fetch(&store.remote()).await.unwrap_err();
            assert!(matches!(refused, FetchError::Away { progressed: false, .. }), "{does:?} {refused:?}");
            assert_eq!(store.requests().len(), 4);
        })
    });
    for case in cases {
        case.await.unwrap();
    }
    let store = this.store(vec![Does::CutBefore(10); 20]).await;
    let refused = this.fetch(&store.remote()).await.unwrap_err();
    assert!(matches!(refused, FetchError::Away { progressed: true, .. }), "{refused:?}");

    let nobody = store.remote();
    drop(store);
    tokio::task::yield_now().await;
    let refused = this.fetch(&nobody).await.unwrap_err();
    let FetchError::Away { source: RemoteError::Connect { .. }, .. } = refused else { panic!("{refused:?}") };
    let nameless = Remote::new("no.such.host.invalid", 1);
    let refused = this.fetch(&nameless).await.unwrap_err();
    let FetchError::Away { source: RemoteError::Name { .. }, .. } = refused else { panic!("{refused:?}") };
}
