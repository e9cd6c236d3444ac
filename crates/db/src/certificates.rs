//! Which certificates were issued to whom. The certificates themselves are files of the certificate authority.

use nova_types::{ProjectId, UserId};
use time::OffsetDateTime;

use crate::{Conn, DbError, Row};

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its row.
    pub id: i32,
    /// For whom it speaks.
    pub user: UserId,
    /// In which project.
    pub project: ProjectId,
    /// The file in the authority's folder.
    pub file_name: String,
}

/// Stores that a certificate was issued.
///
/// # Errors
/// [`DbError::Duplicate`] with [`Unique::Certificate`](crate::Unique::Certificate) when the file is taken.
pub async fn create(conn: &mut Conn, user: &UserId, project: &ProjectId, file_name: &str) -> Result<i32, DbError> {
    const CREATE: &str = "insert into certificates (user_id, project_id, file_name) values (?, ?, ?)";
    conn.insert(CREATE, &[user.into(), project.into(), file_name.into()]).await
}

/// Lists the certificates of a user, oldest first.
///
/// # Errors
/// Only where the database fails.
pub async fn of_user(conn: &mut Conn, user: &UserId) -> Result<Vec<Certificate>, DbError> {
    const LIST: &str = "
        select id, user_id, project_id, file_name from certificates
         where user_id = ? and deleted = false order by id";
    conn.all(LIST, &[user.into()]).await?.iter().map(read).collect()
}

/// Lists the certificates of a project, oldest first.
///
/// # Errors
/// Only where the database fails.
pub async fn of_project(conn: &mut Conn, project: &ProjectId) -> Result<Vec<Certificate>, DbError> {
    const LIST: &str = "
        select id, user_id, project_id, file_name from certificates
         where project_id = ? and deleted = false order by id";
    conn.all(LIST, &[project.into()]).await?.iter().map(read).collect()
}

/// Lists the certificates of a user in a project, oldest first.
///
/// # Errors
/// Only where the database fails.
pub async fn of_user_and_project(
    conn: &mut Conn,
    user: &UserId,
    project: &ProjectId,
) -> Result<Vec<Certificate>, DbError> {
    const LIST: &str = "
        select id, user_id, project_id, file_name from certificates
         where user_id = ? and project_id = ? and deleted = false order by id";
    conn.all(LIST, &[user.into(), project.into()]).await?.iter().map(read).collect()
}

/// Lists all certificates that are good no longer, oldest first: their files, and since when. Their users may be gone.
///
/// # Errors
/// Only where the database fails.
pub async fn revoked(conn: &mut Conn) -> Result<Vec<(String, OffsetDateTime)>, DbError> {
    const LIST: &str = "select file_name, deleted_at from certificates where deleted = true order by id";
    let rows = conn.all(LIST, &[]).await?;
    rows.iter().map(|row| Ok((row.get("file_name")?, row.get("deleted_at")?))).collect()
}

/// Revokes a certificate. Succeeds if there is none.
///
/// # Errors
/// Only where the database fails.
pub async fn delete(conn: &mut Conn, id: i32) -> Result<(), DbError> {
    const DELETE: &str = "update certificates set deleted = true, deleted_at = {now} where id = ? and deleted = false";
    conn.execute(DELETE, &[id.into()]).await?;
    Ok(())
}

fn read(row: &Row) -> Result<Certificate, DbError> {
    Ok(Certificate {
        id: row.get("id")?,
        user: row.parse("user_id")?,
        project: row.parse("project_id")?,
        file_name: row.get("file_name")?,
    })
}

#[cfg(test)]
mod tests {
    use crate::{Db, DbError, Unique, dev};

    #[tokio::test]
    async fn certificates_are_found_by_user_and_by_project() {
        dev::each(async |db: &Db| {
            let mut conn = db.write().await.unwrap();
            let (ann, bob, p, q) =
                ("ann".parse().unwrap(), "bob".parse().unwrap(), "p".parse().unwrap(), "q".parse().unwrap());
            let first = super::create(&mut conn, &ann, &p, "1.pem").await.unwrap();
            super::create(&mut conn, &ann, &q, "2.pem").await.unwrap();
            super::create(&mut conn, &bob, &p, "3.pem").await.unwrap();
            let taken = super::create(&mut conn, &bob, &p, "3.pem").await.unwrap_err();
            assert!(matches!(taken, DbError::Duplicate(Unique::Certificate)), "{taken:?}");

            let files = |found: Vec<super::Certificate>| found.into_iter().map(|c| c.file_name).collect::<Vec<_>>();
            assert_eq!(files(super::of_user(&mut conn, &ann).await.unwrap()), ["1.pem", "2.pem"]);
            assert_eq!(files(super::of_project(&mut conn, &p).await.unwrap()), ["1.pem", "3.pem"]);
            assert_eq!(files(super::of_user_and_project(&mut conn, &ann, &p).await.unwrap()), ["1.pem"]);
            super::delete(&mut conn, first).await.unwrap();
            super::delete(&mut conn, first).await.unwrap();
            assert_eq!(files(super::of_user(&mut conn, &ann).await.unwrap()), ["2.pem"]);
            let revoked = super::revoked(&mut conn).await.unwrap();
            assert_eq!(revoked.into_iter().map(|(file, _)| file).collect::<Vec<_>>(), ["1.pem"]);
        })
        .await;
    }
}
