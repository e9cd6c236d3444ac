//! Replicas that answer what need not be of this very moment, and who must not be sent to them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tracing::{info, warn};

use crate::conn::Conn;
use crate::error::DbError;
use crate::open::Inner;
use crate::pools::Pools;

/// How often replicas are asked how far they are.
const PERIOD: Duration = Duration::from_millis(500);
/// How long one may take to say it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most callers whose writes are remembered one by one.
const MOST_WRITERS: usize = 10_000;

/// Runs a body that only reads: on a replica that is fresh enough for `$callers`, otherwise on the primary, and there
/// again when the replica failed. `$conn` is a `&mut Conn`. For answers to show, not for decisions.
///
/// ```ignore
/// let pairs = describe!(db, &[user.as_str()], |conn| -> DbError { key_pairs::list(conn, &user).await })?;
/// ```
#[macro_export]
macro_rules! describe {
    ($db:expr, $callers:expr, |$conn:ident| -> $error:ty $body:block) => {{
        let mut replica = $db.replica($callers).await;
        loop {
            let may_fail = replica.is_some();
            let mut held = match replica.take() {
                Some(held) => held,
                None => match $db.read().await {
                    Ok(held) => held,
                    Err(error) => break Err(<$error>::from(error)),
                },
            };
            let outcome: ::core::result::Result<_, $error> = {
                let $conn: &mut $crate::Conn = &mut held;
                async { $body }.await
            };
            if outcome.is_err() && may_fail && held.is_lost() {
                continue;
            }
            break outcome;
        }
    }};
}

pub(crate) struct Replicas {
    all: Vec<Replica>,
    /// Whose turn it is.
    next: AtomicUsize,
    most_lag: Duration,
    writers: Mutex<Writers>,
}

struct Replica {
    pools: Pools,
    /// All that was committed before is there. `None` while it is not known.
    knows_until: Mutex<Option<Instant>>,
}

impl Replicas {
    pub(crate) fn new(pools: Vec<Pools>, most_lag: Duration) -> Self {
        let all = pools.into_iter().map(|pools| Replica { pools, knows_until: Mutex::new(None) }).collect();
        Self { all, next: AtomicUsize::new(0), most_lag, writers: Mutex::new(Writers::default()) }
    }

    pub(crate) fn wrote(&self, callers: &[&str]) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.iter().for_each(|caller| writers.note(caller, Instant::now(), self.most_lag));
    }

    /// A connection to the next replica that is good enough, if there is one.
    pub(crate) async fn choose(&self, callers: &[&str]) -> Option<Conn> {
        let wrote = {
            let writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
            callers.iter().filter_map(|caller| writers.last(caller)).max()
        };
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let fresh =
            (0..self.all.len()).map(|n| &self.all[(turn.wrapping_add(n)) % self.all.len()]).find(|replica| {
                let known = *replica.knows_until.lock().unwrap_or_else(PoisonError::into_inner);
                known.is_some_and(|known| known.elapsed() <= self.most_lag && wrote.is_none_or(|at| at < known))
            })?;
        match fresh.pools.read().await {
            Ok(conn) => Some(conn),
            Err(_) => {
                fresh.learn(None);
                None
            }
        }
    }

    pub(crate) async fn close(&self) {
        for replica in &self.all {
            replica.pools.close().await;
        }
    }

    async fn measure(&self, primary: &Pools) -> Result<(), DbError> {
        let asked = Instant::now();
        let mut conn = primary.write().await?;
        if conn.execute(BEAT, &[1.into()]).await? == 0 && conn.optional(ARRIVED, &[]).await?.is_none() {
            let first = conn.execute(FIRST, &[]).await;
            if !matches!(first, Ok(_) | Err(DbError::Duplicate(_))) {
                return first.map(drop);
            }
        }
        let now = conn.now().await?;
        drop(conn);
        futures::future::join_all(self.all.iter().map(|replica| replica.ask(asked, now))).await;
        Ok(())
    }
}

impl Replica {
    /// Asks for the last heartbeat that arrived. `now` is an instant of the primary's clock not before `asked`.
    async fn ask(&self, asked: Instant, now: OffsetDateTime) {
        let beat = async {
            let mut conn = self.pools.read().await?;
            conn.one(ARRIVED, &[]).await?.get::<OffsetDateTime>("beat_at")
        };
        let known = match tokio::time::timeout(PATIENCE, beat).await {
            Ok(Ok(beat)) => asked.checked_sub(Duration::try_from(now - beat).unwrap_or_default()),
            Ok(Err(_)) | Err(_) => None,
        };
        self.learn(known);
    }

    fn learn(&self, known: Option<Instant>) {
        let before = std::mem::replace(&mut *self.knows_until.lock().unwrap_or_else(PoisonError::into_inner), known);
        match (before, known) {
            (None, Some(_)) => info!("A replica answers."),
            (Some(_), None) => warn!("A replica does not answer; the primary does its work."),
            _ => {}
        }
    }
}

/// Measures until the database is closed or forgotten.
pub(crate) fn watch(db: Weak<Inner>) {
    tokio::spawn(async move {
        while let Some(inner) = db.upgrade() {
            if let Some(replicas) = &inner.replicas {
                // When the primary cannot be asked, what is known of the replicas grows old by itself.
                if let Err(DbError::Unavailable(sqlx::Error::PoolClosed)) = replicas.measure(&inner.pools).await {
                    return;
                }
            }
            drop(inner);
            tokio::time::sleep(PERIOD).await;
        }
    });
}

/// When callers wrote last, as far as it matters.
#[derive(Default)]
struct Writers {
    each: HashMap<String, Instant>,
    /// Who is not in `each` may have written then.
    others: Option<Instant>,
}

impl Writers {
    fn note(&mut self, caller: &str, now: Instant, matters_for: Duration) {
        if self.each.len() >= MOST_WRITERS {
            self.each.retain(|_, at| now.duration_since(*at) <= matters_for);
        }
        if self.each.len() >= MOST_WRITERS {
            self.each.clear();
            self.others = Some(now);
        }
        self.each.insert(caller.to_owned(), now);
    }

    fn last(&self, caller: &str) -> Option<Instant> {
        self.each.get(caller).copied().max(self.others)
    }
}

/// By whichever process finds the last one a second old: one write a second, however many processes there are.
const BEAT: &str = "update replication_heartbeat set beat_at = {now} where id = 1 and beat_at <= {now-?}";
const FIRST: &str = "insert into replication_heartbeat (id, beat_at) values (1, {now})";
const ARRIVED: &str = "select beat_at from replication_heartbeat where id = 1";

#[cfg(test)]
mod tests;
