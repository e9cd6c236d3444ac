//! Whole transactions, tried again when they lose against others.

use std::time::Duration;

use rand::RngExt as _;

use crate::error::DbError;

/// Runs a body in a transaction, commits it, and runs all of it again when it lost against another transaction
/// or its connection broke before the commit.
///
/// The body may therefore run several times: it must touch nothing but the database. It ends in a `Result`;
/// an `Err` rolls back. `tx` is a `&mut Tx`, which is a `&mut Conn` wherever one is asked for.
///
/// ```ignore
/// let id = transaction!(db, |tx| {
///     let id = key_pairs::create(tx, &new).await?;
///     Ok(id)
/// })?;
/// // With an error type of one's own, `E: From<DbError>`:
/// transaction!(db, |tx| -> ApiError { … })?;
/// ```
#[macro_export]
macro_rules! transaction {
    ($db:expr, |$tx:ident| $body:block) => {
        $crate::transaction!($db, |$tx| -> $crate::DbError $body)
    };
    ($db:expr, |$tx:ident| -> $error:ty $body:block) => {{
        let mut attempts = $crate::Attempts::new();
        loop {
            let mut begun = match $db.begin().await {
                Ok(begun) => begun,
                Err(error) => {
                    if attempts.again(&error).await {
                        continue;
                    }
                    break Err(<$error>::from(error));
                }
            };
            let outcome: ::core::result::Result<_, $error> = {
                let $tx: &mut $crate::Tx = &mut begun;
                async { $body }.await
            };
            match outcome {
                Ok(value) => match begun.commit().await {
                    Ok(()) => break Ok(value),
                    Err(error) => {
                        if !attempts.again(&error).await {
                            break Err(<$error>::from(error));
                        }
                    }
                },
                Err(error) => {
                    let lost = begun.is_lost();
                    // A connection that cannot roll back is thrown away by the pool; the error to tell is the first.
                    let _ = begun.rollback().await;
                    if !(lost && attempts.pause().await) {
                        break Err(error);
                    }
                }
            }
        }
    }};
}

/// How often a transaction was tried. Used by [`transaction!`](crate::transaction!).
#[derive(Debug, Default)]
pub struct Attempts(u32);

impl Attempts {
    const MOST: u32 = 12;

    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to try again after `error`; waits a little first. A pool that found no connection in its whole time has
    /// tried enough.
    pub async fn again(&mut self, error: &DbError) -> bool {
        let hopeless = matches!(error, DbError::Unavailable(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed));
        error.is_retryable() && !hopeless && self.pause().await
    }

    /// Waits longer each time, by a random part so that two losers do not meet again. False when it is enough.
    pub async fn pause(&mut self) -> bool {
        self.0 += 1;
        if self.0 >= Self::MOST {
            return false;
        }
        let most_ms = 2u64 << self.0.min(7);
        let wait = rand::rng().random_range(1..=most_ms);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        true
    }
}

#[cfg(test)]
mod tests;
