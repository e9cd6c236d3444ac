//! Key pairs: what a guest trusts at its first boot.

use time::OffsetDateTime;

use crate::{KeyName, KeyPairId, UserId};

/// A public key that a user has given a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// Its id.
    pub id: KeyPairId,
    /// Whose it is. Key pairs belong to users, not to projects (nova-api §4.4).
    pub user: UserId,
    /// Its name.
    pub name: KeyName,
    /// The fingerprint shown to the user.
    pub fingerprint: String,
    /// One line in OpenSSH's form.
    pub public_key: String,
    /// When it was made or imported.
    pub created_at: OffsetDateTime,
}
