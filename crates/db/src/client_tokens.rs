//! Client tokens: a request that was accepted is answered again, not done again.

use nova_types::{ProjectId, ReservationId};

use crate::conn::Conn;
use crate::error::DbError;

#[cfg(test)]
mod tests;

/// What was accepted under a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientToken {
    /// The digest of the request's parameters: the same token with others is an error.
    pub digest: String,
    /// The reservation it made.
    pub reservation: ReservationId,
}

/// What a project has asked for under `token`.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn find(conn: &mut Conn, project: &ProjectId, token: &str) -> Result<Option<ClientToken>, DbError> {
    let row = conn.optional(FIND, &[project.into(), token.into()]).await?;
    row.map(|row| Ok(ClientToken { digest: row.get("digest")?, reservation: row.parse("reservation_id")? })).transpose()
}

/// Remembers a token in the transaction that accepts its request.
///
/// # Errors
/// [`DbError::Duplicate`] of [`ClientToken`](crate::Unique::ClientToken) when the request was accepted before, or just
/// now by another: roll back, then [`find`] it.
pub async fn remember(
    conn: &mut Conn,
    project: &ProjectId,
    token: &str,
    digest: &str,
    reservation: &ReservationId,
) -> Result<(), DbError> {
    conn.insert(REMEMBER, &[project.into(), token.into(), digest.into(), reservation.into()]).await.map(|_| ())
}

/// Forgets tokens older than `older_than_seconds`. Returns how many.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn expire(conn: &mut Conn, older_than_seconds: i32) -> Result<u64, DbError> {
    conn.execute("delete from client_tokens where created_at < {now-?}", &[older_than_seconds.into()]).await
}

const FIND: &str = "select digest, reservation_id from client_tokens where project_id = ? and token = ?";
const REMEMBER: &str = "insert into client_tokens (project_id, token, digest, reservation_id, created_at) \
     values (?, ?, ?, ?, {now})";
