//! SSH key pairs: made for `CreateKeyPair`, read for `ImportKeyPair`.

mod import;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::KeyPair as _;
use md5::{Digest, Md5};
use ssh_key::private::Ed25519Keypair;
use ssh_key::public::{KeyData, RsaPublicKey};
use ssh_key::{LineEnding, Mpint, PrivateKey, PublicKey};

use crate::access::{RandomError, Secret, random};
use crate::{der, pem};

pub use import::import_public_key;

/// What kind of key to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA of 2048 bits; its private half is a PKCS#1 PEM, which every client reads.
    Rsa,
    /// Ed25519; its private half is in OpenSSH's own format.
    Ed25519,
}

/// A key pair just made. The private half exists here and nowhere else.
#[derive(Debug)]
pub struct NewKeyPair {
    /// One line, as `authorized_keys` wants it.
    pub public_line: String,
    /// MD5 of the OpenSSH blob, as sixteen pairs of hex digits.
    pub fingerprint: String,
    /// What the user must keep.
    pub private_pem: Secret,
}

/// A public key that a user brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedKey {
    /// One line, as `authorized_keys` wants it: parsed and written anew, so it holds no surprise.
    pub public_line: String,
    /// MD5 of the OpenSSH blob, as sixteen pairs of hex digits.
    pub fingerprint: String,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyPairError {
    /// What the user sent is not a public key that we take; the text says why.
    #[error("{0}")]
    BadMaterial(&'static str),
    /// The library made no RSA key.
    #[error("making an RSA key")]
    Rsa,
    /// The key does not go into OpenSSH's form.
    #[error("writing a key in OpenSSH's form")]
    OpenSsh(#[source] ssh_key::Error),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Makes a key pair; `comment` ends the public line.
///
/// Finding an RSA key takes 50 to 500 ms of a processor: not for an async thread.
///
/// # Errors
/// When the system gives no random bytes, or a library fails.
pub fn create_key_pair(kind: KeyKind, comment: &str) -> Result<NewKeyPair, KeyPairError> {
    let comment = clean_comment(comment);
    match kind {
        KeyKind::Rsa => rsa(&comment),
        KeyKind::Ed25519 => ed25519(&comment),
    }
}

fn rsa(comment: &str) -> Result<NewKeyPair, KeyPairError> {
    let key = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyPairError::Rsa)?;
    let pkcs8 = key.as_der().map_err(|_| KeyPairError::Rsa)?;
    let pkcs1 = der::pkcs1_of_pkcs8(pkcs8.as_ref()).ok_or(KeyPairError::Rsa)?;
    let (n, e) = der::rsa_public(key.public_key().as_ref()).ok_or(KeyPairError::Rsa)?;
    let public = PublicKey::new(rsa_key_data(n, e)?, comment);
    let ImportedKey { public_line, fingerprint } = describe(&public)?;
    Ok(NewKeyPair { public_line, fingerprint, private_pem: Secret::new(pem::encode("RSA PRIVATE KEY", pkcs1)) })
}

fn ed25519(comment: &str) -> Result<NewKeyPair, KeyPairError> {
    let pair = Ed25519Keypair::from_seed(&random::<32>()?);
    let key = PrivateKey::new(pair.into(), comment).map_err(KeyPairError::OpenSsh)?;
    let private = key.to_openssh(LineEnding::LF).map_err(KeyPairError::OpenSsh)?;
    let ImportedKey { public_line, fingerprint } = describe(key.public_key())?;
    Ok(NewKeyPair { public_line, fingerprint, private_pem: Secret::new(private.as_str()) })
}

fn rsa_key_data(modulus: &[u8], exponent: &[u8]) -> Result<KeyData, KeyPairError> {
    let number = |bytes| Mpint::from_positive_bytes(bytes).map_err(KeyPairError::OpenSsh);
    Ok(KeyData::Rsa(RsaPublicKey { e: number(exponent)?, n: number(modulus)? }))
}

fn describe(key: &PublicKey) -> Result<ImportedKey, KeyPairError> {
    let public_line = key.to_openssh().map_err(KeyPairError::OpenSsh)?;
    let blob = key.to_bytes().map_err(KeyPairError::OpenSsh)?;
    let pairs: Vec<String> = Md5::digest(&blob).iter().map(|b| format!("{b:02x}")).collect();
    Ok(ImportedKey { public_line, fingerprint: pairs.join(":") })
}

/// A comment stays on its line and is one word; longer names are cut.
fn clean_comment(comment: &str) -> String {
    let word = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    comment.trim().chars().map(word).take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::{KeyKind, clean_comment, create_key_pair, import_public_key};

    #[test]
    fn an_rsa_pair_has_the_old_form() {
        let made = create_key_pair(KeyKind::Rsa, "my key").unwrap();
        let private = made.private_pem.expose();
        assert!(private.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"), "{private}");
        assert!(private.ends_with("-----END RSA PRIVATE KEY-----\n"));
        let words: Vec<&str> = made.public_line.split(' ').collect();
        assert_eq!((words[0], words[2], words.len()), ("ssh-rsa", "my_key", 3));
        assert_eq!(made.fingerprint.len(), 47);
        let imported = import_public_key(&made.public_line).unwrap();
        assert_eq!((imported.public_line, imported.fingerprint), (made.public_line, made.fingerprint));
    }

    #[test]
    fn an_ed25519_pair_opens_again() {
        let made = create_key_pair(KeyKind::Ed25519, "k").unwrap();
        let key = ssh_key::PrivateKey::from_openssh(made.private_pem.expose()).unwrap();
        assert_eq!(key.public_key().to_openssh().unwrap(), made.public_line);
        assert!(made.public_line.starts_with("ssh-ed25519 AAAA"));
    }

    /// The one judge that is not ours.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test asks ssh-keygen, which production code never runs")]
    fn ssh_keygen_reads_both_halves_and_finds_the_same_fingerprint() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let keygen = |arguments: &[&str]| {
            let out =
                std::process::Command::new("ssh-keygen").args(arguments).current_dir(folder.path()).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        for kind in [KeyKind::Rsa, KeyKind::Ed25519] {
            let made = create_key_pair(kind, "web").unwrap();
            let (private, public) = (folder.path().join("key"), folder.path().join("key.pub"));
            std::fs::write(&private, made.private_pem.expose()).unwrap();
            std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::write(&public, &made.public_line).unwrap();
            let listed = keygen(&["-l", "-E", "md5", "-f", "key.pub"]);
            assert!(listed.contains(&format!("MD5:{} web", made.fingerprint)), "{listed}");
            let derived = keygen(&["-y", "-f", "key"]);
            let words = |line: &str| line.split(' ').take(2).map(|w| w.trim().to_owned()).collect::<Vec<_>>();
            assert_eq!(words(&derived), words(&made.public_line));
        }
    }

    #[test]
    fn a_comment_cannot_leave_its_line() {
        assert_eq!(clean_comment("  a b\nssh-rsa evil\0 "), "a_b_ssh-rsa_evil_");
        assert_eq!(clean_comment(&"x".repeat(999)).len(), 255);
    }
}
