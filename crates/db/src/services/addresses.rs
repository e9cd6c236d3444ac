//! Where hosts reach each other.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::conn::Conn;
use crate::error::DbError;
use crate::open::Db;

/// A thousand hosts that look each second would cost the database a core: with more hosts each looks less often.
const REST_PER_HOST: Duration = Duration::from_millis(10);

/// The addresses of all hosts whose daemons carry frames between guests. They are read again only when one has changed.
#[derive(Debug, Default)]
pub struct Addresses {
    known: BTreeSet<Ipv4Addr>,
    stamp: Option<Stamp>,
    looked: Option<Instant>,
}

/// How many rows there are, the latest of them, and how often one was taken. Rows are never there again once they are
/// deleted, and an address changes only as a row is taken: as long as this is the same, so are the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    count: i64,
    latest: Option<i64>,
    taken: i64,
}

impl Addresses {
    /// The addresses as they are now; where there are more than a hundred, as they were some seconds ago.
    ///
    /// A host counts from its first report until its rows are deleted, also while it is silent: its guests may be well.
    ///
    /// # Errors
    /// [`DbError::Unavailable`]: then nothing may be concluded.
    pub async fn follow(&mut self, db: &Db) -> Result<&BTreeSet<Ipv4Addr>, DbError> {
        let rest = REST_PER_HOST * u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        if self.looked.is_some_and(|last| last.elapsed() < rest) {
            return Ok(&self.known);
        }
        let (begun, mut conn) = (Instant::now(), db.read().await?);
        let row = conn.one(STAMP, &[]).await?;
        let stamp = Stamp { count: row.get("n")?, latest: row.get("latest")?, taken: row.get("taken")? };
        if self.stamp != Some(stamp) {
            // The stamp was first: what changes in between is seen the next time.
            self.known = addresses(&mut conn).await?;
            self.stamp = Some(stamp);
        }
        self.looked = Some(begun);
        Ok(&self.known)
    }
}

/// The addresses of all hosts whose daemons carry frames between guests.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn addresses(conn: &mut Conn) -> Result<BTreeSet<Ipv4Addr>, DbError> {
    conn.all(ADDRESSES, &[]).await?.iter().map(|row| row.parse("address")).collect()
}

const STAMP: &str = "select count(*) as n, max(id) as latest, cast(coalesce(sum(epoch), 0) as {big}) as taken from services \
     where address is not null and deleted = false";
const ADDRESSES: &str = "select distinct address from services where address is not null and deleted = false";
