//! Secrets at rest: AES-256-GCM under a key file, so that a dump of the database signs nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::access::{RandomError, Secret, random};
use crate::files::{self, FileError};

/// Starts a sealed text; what does not start so was stored by an old Nova, in the clear.
const PREFIX: &str = "v1:";
const KEY_BYTES: usize = 32;

/// Seals and opens secrets with one key.
#[derive(Clone)]
pub struct SecretBox {
    key: Arc<RandomizedNonceKey>,
}

impl std::fmt::Debug for SecretBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBox")
    }
}

impl SecretBox {
    /// Reads the key from `path` (`--secret_key_file`), as 64 hex digits; makes the file (mode 0400) if there is none.
    ///
    /// Processes that start at the same instant end with the same key.
    ///
    /// # Errors
    /// When the file cannot be read or made, others than its owner may read it, or it holds no key.
    pub fn open_or_create(path: &Path) -> Result<Self, SecretBoxError> {
        let path = path.to_owned();
        let text = match files::read(&path) {
            Err(e) if e.is_absent() => {
                if let Some(folder) = path.parent() {
                    files::ensure_folder(folder, 0o755)?;
                }
                let fresh = hex::encode(random::<KEY_BYTES>()?) + "\n";
                files::create_once(&path, 0o400, &fresh)?
            }
            other => other?,
        };
        let mode = std::fs::metadata(&path).map_err(|e| FileError::new("looking at", &path, e))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(SecretBoxError::Exposed { path, mode: mode & 0o777 });
        }
        let bytes = hex::decode(text.trim()).map_err(|_| SecretBoxError::NotAKey(path.clone()))?;
        Self::with_key(&bytes).map_err(|_| SecretBoxError::NotAKey(path))
    }

    /// Makes one with a random key that ends with the process.
    ///
    /// # Errors
    /// [`SecretBoxError::Random`] when the system gives no random bytes.
    pub fn in_memory() -> Result<Self, SecretBoxError> {
        Self::with_key(&random::<KEY_BYTES>()?)
    }

    /// Seals `secret` for `owner`; it opens for no other owner, so rows cannot be swapped.
    ///
    /// # Errors
    /// [`SecretBoxError::Seal`] when the cipher fails, which takes a system without random bytes.
    pub fn seal(&self, owner: &str, secret: &Secret) -> Result<String, SecretBoxError> {
        let mut bytes = secret.expose().as_bytes().to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(owner.as_bytes()), &mut bytes)
            .map_err(|_| SecretBoxError::Seal)?;
        let mut whole = nonce.as_ref().to_vec();
        whole.extend(bytes);
        Ok(format!("{PREFIX}{}", STANDARD.encode(whole)))
    }

    /// Opens what [`seal`](Self::seal) made. A text of an old Nova, never sealed, comes back as it is.
    ///
    /// # Errors
    /// [`SecretBoxError::Open`] when the text was changed, is another owner's, or was sealed with
    /// another key.
    pub fn open(&self, owner: &str, text: &str) -> Result<Secret, SecretBoxError> {
        let Some(sealed) = text.strip_prefix(PREFIX) else {
            return Ok(Secret::new(text));
        };
        let failed = || SecretBoxError::Open { owner: owner.to_owned() };
        let mut bytes = STANDARD.decode(sealed).map_err(|_| failed())?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let plain = self.key.open_in_place(nonce, Aad::from(owner.as_bytes()), sealed).map_err(|_| failed())?;
        let plain = std::str::from_utf8(plain).map_err(|_| failed())?;
        Ok(Secret::new(plain))
    }

    fn with_key(bytes: &[u8]) -> Result<Self, SecretBoxError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| SecretBoxError::Seal)?;
        Ok(Self { key: Arc::new(key) })
    }
}

/// Why a secret could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretBoxError {
    /// The key file cannot be read or made.
    #[error(transparent)]
    File(#[from] FileError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Others than the owner may read the key file.
    #[error("{} has mode {mode:04o}: others can read the key of all secrets; chmod 0400 it", path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file holds something else.
    #[error("{} holds no key (64 hex digits)", .0.display())]
    NotAKey(PathBuf),
    /// The cipher failed.
    #[error("sealing a secret")]
    Seal,
    /// The text does not open for this owner with this key.
    #[error(
        "the secret of {owner} does not open with this host's secret.key; copy the key file of the host that made it"
    )]
    Open {
        /// Whose secret it was said to be.
        owner: String,
    },
}

#[cfg(test)]
mod tests {
    use super::{Secret, SecretBox};

    #[test]
    fn what_was_sealed_opens_for_its_owner_only() {
        let keys = SecretBox::in_memory().unwrap();
        let text = keys.seal("dub", &Secret::new("hunter2")).unwrap();
        assert!(text.starts_with("v1:") && !text.contains("hunter2"), "{text}");
        assert_eq!(keys.open("dub", &text).unwrap(), Secret::new("hunter2"));
        assert_ne!(keys.seal("dub", &Secret::new("hunter2")).unwrap(), text, "nonces differ");

        let mut changed = text.clone().into_bytes();
        changed[20] = if changed[20] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        for (owner, text) in
            [("joe", text.as_str()), ("dub", &changed), ("dub", "v1:"), ("dub", "v1:AAAA"), ("dub", "v1:%")]
        {
            assert!(keys.open(owner, text).is_err(), "{owner} {text}");
        }
        assert!(SecretBox::in_memory().unwrap().open("dub", &text).is_err(), "another key");
    }

    #[test]
    fn a_secret_stored_by_an_old_nova_is_read_as_it_is() {
        let keys = SecretBox::in_memory().unwrap();
        assert_eq!(keys.open("dub", "6fa459ea").unwrap(), Secret::new("6fa459ea"));
    }

    #[test]
    fn the_key_file_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/secret.key");
        let text = SecretBox::open_or_create(&file).unwrap().seal("a", &Secret::new("s")).unwrap();
        assert_eq!(SecretBox::open_or_create(&file).unwrap().open("a", &text).unwrap(), Secret::new("s"));

        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o400);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = SecretBox::open_or_create(&file).unwrap_err().to_string();
        assert!(error.ends_with("has mode 0640: others can read the key of all secrets; chmod 0400 it"), "{error}");
    }

    #[test]
    fn a_damaged_key_file_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        for content in ["", "zz", "00ff"] {
            let file = folder.path().join("secret.key");
            std::fs::write(&file, content).unwrap();
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
            let error = SecretBox::open_or_create(&file).unwrap_err().to_string();
            assert!(error.ends_with("holds no key (64 hex digits)"), "{content:?}: {error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
            std::fs::remove_file(&file).unwrap();
        }
    }
}
