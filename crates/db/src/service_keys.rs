//! Keys that the daemons of one cloud share, and nobody else: whoever may ask the database is one of them.

use crate::{Conn, DbError};

/// The name of the key with which compute hosts sign for images.
pub const IMAGES: &str = "images";

/// The key of this name, 64 hexadecimal digits. It is drawn when it is first asked for; of several who ask for the first
/// time at once, all get the same. Not in a transaction, which a lost race would end.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn ensure(conn: &mut Conn, name: &str) -> Result<String, DbError> {
    if let Some(secret) = find(conn, name).await? {
        return Ok(secret);
    }
    let drawn = hex::encode(rand::random::<[u8; 32]>());
    match conn.execute(KEEP, &[name.into(), drawn.as_str().into()]).await {
        Ok(_) => Ok(drawn),
        Err(DbError::Duplicate(_)) => find(conn, name).await?.ok_or(DbError::NotFound("service key")),
        Err(error) => Err(error),
    }
}

async fn find(conn: &mut Conn, name: &str) -> Result<Option<String>, DbError> {
    const FIND: &str = "select secret from service_keys where name = ?";
    conn.optional(FIND, &[name.into()]).await?.map(|row| row.get("secret")).transpose()
}

const KEEP: &str = "insert into service_keys (name, secret, created_at) values (?, ?, {now})";

#[cfg(test)]
mod tests {
    use super::{IMAGES, ensure};
    use crate::{Db, dev};

    #[tokio::test]
    async fn a_key_is_drawn_once_however_many_ask_for_it_at_once() {
        dev::each(async |db: &Db| {
            let ask = async |name: &'static str| ensure(&mut db.write().await.unwrap(), name).await.unwrap();
            let mut keys = dev::at_once((0..8).map(|_| ask(IMAGES))).await;
            assert!(keys[0].len() == 64 && keys[0].bytes().all(|b| b.is_ascii_hexdigit()), "{keys:?}");
            keys.push(ask(IMAGES).await);
            keys.dedup();
            assert_eq!(keys.len(), 1, "{keys:?}");
            assert_ne!(ask("other").await, keys[0]);
        })
        .await;
    }
}
