//! The compute hosts' own client against the object store.

use nova_images::{BaseCache, FetchError, Remote, Wanted};
use nova_types::ImageKind;

use super::*;

/// A cable that is cut after so many bytes of an answer, once for each number.
async fn cable(to: SocketAddr, cuts: &'static [usize]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut cuts = cuts.iter();
        while let Ok((mut here, _)) = listener.accept().await {
            let cut = cuts.next().copied();
            tokio::spawn(async move {
                let mut there = TcpStream::connect(to).await.unwrap();
                let (mut read, mut write) = there.split();
                let (mut in_, mut out) = here.split();
                let mut answer = (&mut read).take(cut.unwrap_or(usize::MAX) as u64);
                tokio::select! {
                    _ = tokio::io::copy(&mut in_, &mut write) => {}
                    _ = tokio::io::copy(&mut answer, &mut out) => {}
                }
            });
        }
    });
    address
}

async fn fetch(
    bench: &Bench,
    address: SocketAddr,
    id: ImageId,
    sha256: &str,
    size: usize,
) -> Result<Vec<u8>, FetchError> {
    let folder = tempfile::tempdir().unwrap();
    let remote = Remote::new(address.ip().to_string(), address.port());
    let (key, clock, size_bytes) = (&bench.key, &SystemClock, size as u64);
    let wanted = Wanted { id, sha256, size_bytes, format: DiskFormat::Raw, key, clock };
    let base = BaseCache::new(folder.path()).fetch(&remote, wanted).await?;
    Ok(std::fs::read(base.path).unwrap())
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| u8::try_from(n / 3 % 253).unwrap()).collect()
}

#[tokio::test]
async fn an_image_comes_whole_through_a_cable_that_is_cut_again_and_again() {
    let bench = Bench::new().await;
    let content = content(3_000_000);
    let (id, sha256) = bench.register(ImageKind::Machine, &content).await;
    assert!(fetch(&bench, bench.address, id, &sha256, content.len()).await.unwrap() == content);
    // In the head of the answer, at its end, in the middle of blocks.
    let cut = cable(bench.address, &[10, 260_000, 600, 1_200_000, 0, 700_000]).await;
    assert!(fetch(&bench, cut, id, &sha256, content.len()).await.unwrap() == content);
}

#[tokio::test]
async fn two_object_stores_of_one_database_are_as_good_as_one() {
    let bench = Bench::new().await;
    let (id, sha256) = bench.register(ImageKind::Machine, b"bytes").await;
    // It draws no key of its own, and has the same folder.
    let (other, stop, serving) = serve(&bench.db, bench.folder.path()).await;
    assert_eq!(fetch(&bench, other, id, &sha256, 5).await.unwrap(), b"bytes");
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(fetch(&bench, bench.address, id, &sha256, 5).await.unwrap(), b"bytes");
}

#[tokio::test]
async fn what_the_object_store_has_not_is_told_at_once() {
    let bench = Bench::new().await;
    let (id, sha256) = bench.register(ImageKind::Machine, b"bytes").await;
    bench.images().remove(id).unwrap();
    let refused = fetch(&bench, bench.address, id, &sha256, 5).await.unwrap_err();
    assert!(matches!(refused, FetchError::NotThere { .. }), "{refused:?}");
    let foreign = Bench { key: CloudKey::from_hex(&"00".repeat(32)).unwrap(), ..Bench::new().await };
    let refused = fetch(&foreign, foreign.address, id, &sha256, 5).await.unwrap_err();
    assert!(refused.to_string().starts_with("the image ami-00000001 cannot be fetched"), "{refused}");
}
