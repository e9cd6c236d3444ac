//! The object store over TCP, asked by hand and by the compute hosts' own client.

mod client;
mod limits;
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nova_config::{Config as _, Surroundings};
use nova_db::dev::{TestDb, fixtures};
use nova_db::images::{self, Stored};
use nova_db::service_keys;
use nova_service::SystemClock;
use nova_types::image::{DiskFormat, NewImage};
use nova_types::{ImageId, ImageKind};
use nova_wire::CloudKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// An object store with a database and a folder.
struct Bench {
    db: TestDb,
    folder: tempfile::TempDir,
    address: SocketAddr,
    key: CloudKey,
    stop: Stop,
    serving: JoinHandle<Result<(), ObjectstoreError>>,
}

/// An answer as it came.
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Bench {
    async fn new() -> Self {
        let (db, folder) = (nova_db::dev::sqlite().await, tempfile::tempdir().unwrap());
        let (address, stop, serving) = serve(&db, folder.path()).await;
        let key = service_keys::ensure(&mut db.write().await.unwrap(), service_keys::IMAGES).await.unwrap();
        Self { db, folder, address, key: CloudKey::from_hex(&key).unwrap(), stop, serving }
    }

    fn images(&self) -> ImageStore {
        ImageStore::new(self.folder.path().join("images"))
    }

    /// Registers an image with these bytes, and stores them.
    async fn register(&self, kind: ImageKind, bytes: &[u8]) -> (ImageId, String) {
        let id = self.row(kind, bytes.len()).await;
        let stored = self.images().put(id, DiskFormat::Raw, &mut &*bytes).unwrap();
        self.available(id, &stored.sha256, bytes.len()).await;
        (id, stored.sha256)
    }

    /// The same without hashing them, which takes long where nothing is optimized.
    async fn register_large(&self, bytes: &[u8]) -> ImageId {
        let id = self.row(ImageKind::Machine, bytes.len()).await;
        std::fs::create_dir_all(self.images().path(id).parent().unwrap()).unwrap();
        std::fs::write(self.images().path(id), bytes).unwrap();
        self.available(id, &"0".repeat(64), bytes.len()).await;
        id
    }

    async fn row(&self, kind: ImageKind, size: usize) -> ImageId {
        let new = NewImage {
            kind,
            owner: fixtures::name("acme"),
            name: String::new(),
            description: String::new(),
            location: format!("{kind:?} {size}"),
            is_public: false,
            architecture: "x86_64".to_owned(),
            format: DiskFormat::Raw,
            kernel: None,
            ramdisk: None,
        };
        images::register(&mut self.db.write().await.unwrap(), &new).await.unwrap()
    }

    async fn available(&self, id: ImageId, sha256: &str, size: usize) {
        let stored = Stored { sha256, size_bytes: size as u64, virtual_size_bytes: size as u64 };
        images::available(&mut self.db.write().await.unwrap(), id, stored).await.unwrap();
    }

    fn authorization(&self, method: &str, path: &str) -> String {
        format!("authorization: {}\r\n", self.key.sign(method, path, SystemClock.now()))
    }

    /// A request that is signed as it should be; `more` are headers, each with its line's end.
    async fn signed(&self, method: &str, path: &str, more: &str) -> Answer {
        self.ask(method, path, &(self.authorization(method, path) + more)).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        tokio::time::timeout(SOON, stream.read_to_end(&mut read)).await.expect("an answer").unwrap();
        let end = read.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let body = read.split_off(end);
        Answer { head: String::from_utf8(read).unwrap(), body }
    }
}

impl Answer {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Status and S3 error code.
    fn refusal(&self) -> String {
        let body = String::from_utf8(self.body.clone()).unwrap();
        let code = body.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next()).unwrap_or("no code");
        format!("{} {code}", self.status())
    }
}

async fn serve(db: &Db, folder: &std::path::Path) -> (SocketAddr, Stop, JoinHandle<Result<(), ObjectstoreError>>) {
    let args =
        ["nova-objectstore".to_owned(), format!("--state_path={}", folder.display()), "--s3_listen_port=0".to_owned()]
            .map(Into::into);
    let config = ObjectstoreConfig::load_in(args, &Surroundings::bare()).unwrap().config;
    let (ready, stop) = (Ready::default(), Stop::new());
    let parts = prepare(config, db.clone(), Arc::new(SystemClock), ready.clone()).await.unwrap();
    let address = SocketAddr::new([127, 0, 0, 1].into(), parts.listener.local_addr().unwrap().port());
    let serving = tokio::spawn(run(parts, stop.clone()));
    tokio::time::timeout(SOON, ready.wait()).await.expect("the object store is ready");
    (address, stop, serving)
}

#[tokio::test]
async fn the_daemon_reports_that_it_lives_and_stops() {
    let bench = Bench::new().await;
    let reported = async {
        loop {
            let rows = nova_db::services::list(&mut bench.db.read().await.unwrap()).await.unwrap();
            if rows.iter().any(|row| row.binary == "nova-objectstore" && row.report_count > 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, reported).await.expect("a row of its own");
    bench.stop.cancel();
    bench.serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(bench.address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_a_database_of_another_nova_too() {
    let bench = Bench::new().await;
    let port = format!("--s3_listen_port={}", bench.address.port());
    let args = ["nova-objectstore", &port].map(Into::into);
    let config = ObjectstoreConfig::load_in(args, &Surroundings::bare()).unwrap().config;
    let (db, clock) = (bench.db.clone(), Arc::new(SystemClock));
    let told = prepare(config.clone(), db.clone(), clock.clone(), Ready::default()).await.unwrap_err().to_string();
    assert!(told.ends_with("(--s3_listen_host, --s3_listen_port)"), "{told}");

    let newer = "update migrate_version set version = 100000";
    db.write().await.unwrap().execute(newer, &[]).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let parts = Parts { db, clock, config, listener, ready: Ready::default() };
    let refused = tokio::time::timeout(SOON, run(parts, Stop::new())).await.expect("it ends");
    assert!(matches!(refused, Err(ObjectstoreError::Db(_))), "{refused:?}");
}
