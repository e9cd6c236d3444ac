//! A file as a stream of blocks: read on threads of their own, one block ahead of what is sent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use nova_images::{FileError, ImageStore};
use nova_types::ImageId;

/// How much is read at once: enough that handing it over costs little beside reading it.
const BLOCK: usize = 256 * 1024;
/// How many blocks a connection may hold besides the one that is being sent.
const AHEAD: usize = 2;

/// The file of an image.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: Arc<File>,
    pub(crate) length: u64,
}

/// Opens the file of an image; `None` if it has none here.
pub(crate) async fn open(images: &ImageStore, id: ImageId) -> Result<Option<Opened>, FileError> {
    let images = images.clone();
    let opened = tokio::task::spawn_blocking(move || images.find(id)).await;
    let found = opened.unwrap_or(Ok(None))?;
    Ok(found.map(|(file, length)| Opened { file: Arc::new(file), length }))
}

/// The bytes of `file` from `first` to before `end`. If it has become shorter, the stream ends with an error, and so does
/// the answer: it breaks off instead of ending.
pub(crate) fn bytes(file: Arc<File>, first: u64, end: u64) -> impl Stream<Item = io::Result<Bytes>> {
    let starts = std::iter::successors(Some(first), |start| start.checked_add(BLOCK as u64));
    let reads = starts.take_while(move |start| *start < end).map(move |start| {
        let (file, length) = (Arc::clone(&file), usize::try_from(end - start).unwrap_or(BLOCK).min(BLOCK));
        async move { tokio::task::spawn_blocking(move || read(&file, start, length)).await.map_err(io::Error::other)? }
    });
    stream::iter(reads).buffered(AHEAD)
}

fn read(file: &File, start: u64, length: usize) -> io::Result<Bytes> {
    let mut block = vec![0; length];
    file.read_exact_at(&mut block, start)?;
    Ok(block.into())
}
