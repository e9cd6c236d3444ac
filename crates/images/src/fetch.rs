//! Fetching base images from an object store: each once per host, going on where it broke off, and under its name only
//! once its hash is right.

use std::time::Duration;

use nova_types::image::DiskFormat;
use nova_types::{Clock, ImageId};
use nova_wire::CloudKey;
use tracing::{debug, info, warn};

use crate::cache::{Base, BaseCache, CacheError};
use crate::part::{Part, Whereabouts};
use crate::remote::{Answer, Coming, Get, Remote, RemoteError};

/// How much is written at once. Whole blocks of zeros become holes.
const BLOCK: usize = 256 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often to try in vain, above once for each address, before the caller is told and may do something else meanwhile.
const TRIES: usize = 3;

/// An image to be fetched.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Under which id the object store has it.
    pub id: ImageId,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: &'a str,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// Its format.
    pub format: DiskFormat,
    /// What requests are signed with.
    pub key: &'a CloudKey,
    /// When they are signed.
    pub clock: &'a dyn Clock,
}

/// Why a base was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The object store does not answer, or broke off again and again. What came is kept, and the next try goes on there.
    #[error("the image {id} cannot be fetched from {url} now")]
    Away {
        /// The image.
        id: ImageId,
        /// The object store.
        url: String,
        /// Whether anything came this time.
        progressed: bool,
        /// The last failure.
        #[source]
        source: RemoteError,
    },
    /// None of the object store's addresses has it.
    #[error("{url} has no image {id}")]
    NotThere {
        /// The image.
        id: ImageId,
        /// The object store.
        url: String,
    },
    /// The cache's folder failed, or what came is not what was registered.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// One image on its way.
struct Fetch<'a> {
    cache: &'a BaseCache,
    remote: &'a Remote,
    wanted: Wanted<'a>,
}

/// How one try ended.
enum Ended {
    /// All bytes are here.
    Whole(Part),
    /// Some are missing.
    Broken(Part, RemoteError),
    /// This address has no such image.
    NotThere(Part),
}

impl BaseCache {
    /// Returns the base with this hash, fetching it if it is not here. However many ask at once, one fetches; if that one
    /// is cancelled, the next goes on where it was.
    ///
    /// # Errors
    /// Any [`FetchError`]; after [`Away`](FetchError::Away) it is worth trying again.
    pub async fn fetch(&self, remote: &Remote, wanted: Wanted<'_>) -> Result<Base, FetchError> {
        let turn = self.turn(wanted.sha256);
        let _turn = turn.lock().await;
        let (cache, sha256) = (self.clone(), wanted.sha256.to_owned());
        match blocking(move || Part::begin(&cache, &sha256, wanted.format)).await? {
            Whereabouts::Here(base) => Ok(base),
            Whereabouts::Coming(part) => Fetch { cache: self, remote, wanted }.to_the_end(part).await,
        }
    }
}

impl Fetch<'_> {
    async fn to_the_end(&self, mut part: Part) -> Result<Base, FetchError> {
        info!(image.id = %self.wanted.id, from_bytes = part.size_bytes(), "Fetching {} from {}.", self.wanted.id, self.remote.url());
        let begun = tokio::time::Instant::now();
        let (mut tries, mut in_vain, mut absent, mut progressed) = (0, 0, 0, false);
        let mut pause = FIRST_PAUSE;
        loop {
            let before = part.size_bytes();
            let addresses = match self.remote.addresses().await {
                Ok(addresses) => addresses,
                Err(source) => return Err(self.away(progressed, source)),
            };
            // Another one each time: of several object stores some may be away.
            let address = addresses[tries % addresses.len()];
            tries += 1;
            let (rest, error) = match self.pull(part, address).await? {
                Ended::Whole(whole) if whole.is_inherited() => match self.finish(whole).await {
                    Err(CacheError::Hash { .. }) => {
                        warn!(image.id = %self.wanted.id, "What was here of {} was damaged; fetching all of it.", self.wanted.id);
                        part = self.again().await?;
                        continue;
                    }
                    finished => return Ok(finished?),
                },
                Ended::Whole(whole) => {
                    let base = self.finish(whole).await?;
                    let took_ms = begun.elapsed().as_millis();
                    info!(image.id = %self.wanted.id, size_bytes = self.wanted.size_bytes, took_ms, "Fetched {}.", self.wanted.id);
                    return Ok(base);
                }
                Ended::NotThere(rest) => {
                    absent += 1;
                    if absent >= addresses.len() {
                        return Err(FetchError::NotThere { id: self.wanted.id, url: self.remote.url() });
                    }
                    part = rest;
                    continue;
                }
                Ended::Broken(rest, error) => (rest, error),
            };
            absent = 0;
            if rest.size_bytes() > before {
                (progressed, in_vain, pause) = (true, 0, FIRST_PAUSE);
            } else {
                in_vain += 1;
            }
            if in_vain >= TRIES + addresses.len() {
                return Err(self.away(progressed, error));
            }
            debug!(image.id = %self.wanted.id, %address, %error, at_bytes = rest.size_bytes(), "Fetching broke off; going on.");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            part = rest;
        }
    }

    /// Asks for what is missing, and writes what comes.
    async fn pull(&self, part: Part, address: std::net::SocketAddr) -> Result<Ended, CacheError> {
        let Wanted { id, sha256, size_bytes, key, clock, .. } = self.wanted;
        if part.size_bytes() == size_bytes {
            return Ok(Ended::Whole(part));
        }
        let path = format!("/_images/{id}/image");
        let authorization = key.sign("GET", &path, clock.now());
        // More than all of it is of something else.
        let from = Some(part.size_bytes()).filter(|from| *from < size_bytes).unwrap_or_default();
        let get = Get { path: &path, authorization: &authorization, from, sha256 };
        match self.remote.get(address, get).await {
            Ok(Answer::Bytes(begins, coming)) => {
                let part = if begins == part.size_bytes() { part } else { start_over(part).await? };
                self.take(part, coming).await
            }
            Ok(Answer::NotThere) => Ok(Ended::NotThere(part)),
            Ok(Answer::PastTheEnd) => {
                Ok(Ended::Broken(start_over(part).await?, RemoteError::Odd("the image has fewer bytes")))
            }
            Err(error) => Ok(Ended::Broken(part, error)),
        }
    }

    /// Writes what comes, in whole blocks as long as it comes.
    async fn take(&self, mut part: Part, mut coming: Coming) -> Result<Ended, CacheError> {
        let mut block = Vec::with_capacity(BLOCK);
        let ended = loop {
            let mut bytes = match coming.next().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break RemoteError::Odd("the image has fewer bytes"),
                Err(error) => break error,
            };
            if part.size_bytes() + block.len() as u64 + bytes.len() as u64 > self.wanted.size_bytes {
                return Ok(Ended::Broken(start_over(part).await?, RemoteError::Odd("the image has more bytes")));
            }
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(room(&part) - block.len()));
                block.extend_from_slice(&piece);
                if block.len() == room(&part) {
                    (part, block) = add(part, block).await?;
                }
            }
            if part.size_bytes() + block.len() as u64 == self.wanted.size_bytes {
                (part, _) = add(part, block).await?;
                return Ok(Ended::Whole(part));
            }
        };
        (part, _) = add(part, block).await?;
        Ok(Ended::Broken(part, ended))
    }

    async fn finish(&self, part: Part) -> Result<Base, CacheError> {
        let (cache, sha256, format) = (self.cache.clone(), self.wanted.sha256.to_owned(), self.wanted.format);
        blocking(move || part.finish(&cache, &sha256, format)).await
    }

    /// A part with nothing in it.
    async fn again(&self) -> Result<Part, CacheError> {
        let (cache, sha256, format) = (self.cache.clone(), self.wanted.sha256.to_owned(), self.wanted.format);
        match blocking(move || Part::begin(&cache, &sha256, format)).await? {
            Whereabouts::Coming(part) => start_over(part).await,
            Whereabouts::Here(_) => Err(CacheError::Fetch(std::io::ErrorKind::AlreadyExists.into())),
        }
    }

    fn away(&self, progressed: bool, source: RemoteError) -> FetchError {
        FetchError::Away { id: self.wanted.id, url: self.remote.url(), progressed, source }
    }
}

/// How long the next block is, so that blocks begin at multiples of their length whatever broke off before.
fn room(part: &Part) -> usize {
    let block = BLOCK as u64;
    usize::try_from(block - part.size_bytes() % block).unwrap_or(BLOCK)
}

async fn add(mut part: Part, mut block: Vec<u8>) -> Result<(Part, Vec<u8>), CacheError> {
    if block.is_empty() {
        return Ok((part, block));
    }
    blocking(move || {
        part.add(&block)?;
        block.clear();
        Ok((part, block))
    })
    .await
}

async fn start_over(mut part: Part) -> Result<Part, CacheError> {
    blocking(move || part.start_over().map(|()| part)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, CacheError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|gone| Err(CacheError::Fetch(std::io::Error::other(gone))))
}

#[cfg(test)]
mod tests;
