//! Key pairs. They belong to users, and their names are unique per user.

use nova_types::key_pair::KeyPair;
use nova_types::{KeyName, KeyPairId, UserId};

use crate::{Conn, DbError, Row};

/// A key pair that is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewKeyPair<'a> {
    /// Whose it is.
    pub user: &'a UserId,
    /// Its name.
    pub name: &'a KeyName,
    /// The fingerprint shown to the user.
    pub fingerprint: &'a str,
    /// One line in OpenSSH's form.
    pub public_key: &'a str,
}

/// Stores a key pair.
///
/// # Errors
/// [`DbError::Duplicate`] with [`Unique::KeyPair`](crate::Unique::KeyPair) when the user has one of that name.
pub async fn create(conn: &mut Conn, new: &NewKeyPair<'_>) -> Result<KeyPairId, DbError> {
    const CREATE: &str = "insert into key_pairs (user_id, name, fingerprint, public_key) values (?, ?, ?, ?)";
    let args = [new.user.into(), new.name.into(), new.fingerprint.into(), new.public_key.into()];
    conn.insert(CREATE, &args).await.map(KeyPairId::from_row)
}

/// Lists the key pairs of a user, oldest first.
///
/// # Errors
/// Only where the database fails.
pub async fn list(conn: &mut Conn, user: &UserId) -> Result<Vec<KeyPair>, DbError> {
    const LIST: &str = "
        select id, user_id, name, fingerprint, public_key, created_at from key_pairs
         where user_id = ? and deleted = false order by id";
    conn.all(LIST, &[user.into()]).await?.iter().map(read).collect()
}

/// Finds a key pair by its name.
///
/// # Errors
/// Only where the database fails.
pub async fn get(conn: &mut Conn, user: &UserId, name: &KeyName) -> Result<Option<KeyPair>, DbError> {
    const FIND: &str = "
        select id, user_id, name, fingerprint, public_key, created_at from key_pairs
         where user_id = ? and name = ? and deleted = false";
    conn.optional(FIND, &[user.into(), name.into()]).await?.as_ref().map(read).transpose()
}

/// Deletes a key pair and tells whether there was one. Guests keep the key they were started with.
///
/// # Errors
/// Only where the database fails.
pub async fn delete(conn: &mut Conn, user: &UserId, name: &KeyName) -> Result<bool, DbError> {
    const DELETE: &str = "
        update key_pairs set deleted = true, deleted_at = {now} where user_id = ? and name = ? and deleted = false";
    Ok(conn.execute(DELETE, &[user.into(), name.into()]).await? > 0)
}

fn read(row: &Row) -> Result<KeyPair, DbError> {
    Ok(KeyPair {
        id: KeyPairId::from_row(row.get("id")?),
        user: row.parse("user_id")?,
        name: row.parse("name")?,
        fingerprint: row.get("fingerprint")?,
        public_key: row.get("public_key")?,
        created_at: row.get("created_at")?,
    })
}

#[cfg(test)]
mod tests {
    use nova_types::{KeyName, UserId};

    use super::NewKeyPair;
    use crate::{Conn, Db, DbError, Unique, dev};

    async fn add(conn: &mut Conn, user: &str, name: &str) -> Result<(), DbError> {
        let (user, name): (UserId, KeyName) = (user.parse().unwrap(), name.parse().unwrap());
        let new =
            NewKeyPair { user: &user, name: &name, fingerprint: "aa:bb", public_key: "ssh-ed25519 AAAA ann@host" };
        super::create(conn, &new).await.map(|_| ())
    }

    async fn names(conn: &mut Conn, user: &str) -> Vec<String> {
        let all = super::list(conn, &user.parse().unwrap()).await.unwrap();
        all.into_iter().map(|pair| pair.name.to_string()).collect()
    }

    #[tokio::test]
    async fn a_name_is_unique_for_its_user_and_free_again_once_deleted() {
        dev::each(async |db: &Db| {
            let mut conn = db.write().await.unwrap();
            add(&mut conn, "ann", "my key").await.unwrap();
            add(&mut conn, "bob", "my key").await.unwrap();
            add(&mut conn, "ann", "My Key").await.expect("names differ by case");
            let again = add(&mut conn, "ann", "my key").await.unwrap_err();
            assert!(matches!(again, DbError::Duplicate(Unique::KeyPair)), "{again:?}");

            let (ann, key): (UserId, KeyName) = ("ann".parse().unwrap(), "my key".parse().unwrap());
            let found = super::get(&mut conn, &ann, &key).await.unwrap().unwrap();
            assert_eq!((found.fingerprint.as_str(), found.public_key.as_str()), ("aa:bb", "ssh-ed25519 AAAA ann@host"));
            assert!(super::delete(&mut conn, &ann, &key).await.unwrap());
            assert!(!super::delete(&mut conn, &ann, &key).await.unwrap(), "nothing is left to delete");
            assert_eq!(super::get(&mut conn, &ann, &key).await.unwrap(), None);
            add(&mut conn, "ann", "my key").await.unwrap();
            assert_eq!(names(&mut conn, "ann").await, ["My Key", "my key"]);
            assert_eq!(names(&mut conn, "bob").await, ["my key"]);
        })
        .await;
    }
}
