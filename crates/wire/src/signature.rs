//! How a daemon shows another over HTTP that both are of one cloud: method, path and an end of validity, under a key
//! that is kept where only daemons can read it.
//!
//! `Authorization: Nova-HMAC-SHA256 <unix time>:<hexadecimal>`. What is signed can be read again until that time, by
//! whoever sees it; nothing can be changed with it, and no other path be read.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use time::{Duration, OffsetDateTime};

const SCHEME: &str = "Nova-HMAC-SHA256 ";
/// Keeps a signature of this from ever being one of something else.
const PURPOSE: &str = "nova request 1";
/// How long a signature is valid.
const VALIDITY: Duration = Duration::minutes(5);
/// How far the clocks of two hosts may be apart.
const SKEW: Duration = Duration::minutes(5);

/// The key of one cloud. It is not shown, also not when debugging.
#[derive(Clone, PartialEq, Eq)]
pub struct CloudKey([u8; 32]);

/// Why a request is not taken for one of this cloud's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// There is no signature, or none of this kind.
    #[error("the request is not signed")]
    Unsigned,
    /// The signature was made too long ago, or too far in the future.
    #[error("the signature has expired, or the clocks are more than five minutes apart")]
    Expired,
}

/// A signature that is valid now, if it is one. Nothing is believed until [`is_by`](Self::is_by).
#[derive(Clone, Debug)]
pub struct Signed {
    expires: i64,
    code: Vec<u8>,
}

impl CloudKey {
    /// Reads a key as the database keeps it: 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key).ok()?;
        Some(Self(key))
    }

    /// Signs a request; returns the value of its header `Authorization`.
    #[must_use]
    pub fn sign(&self, method: &str, path: &str, now: OffsetDateTime) -> String {
        let expires = (now + VALIDITY).unix_timestamp();
        let code = self.code(method, path, expires).map(|code| hex::encode(code.finalize().into_bytes()));
        format!("{SCHEME}{expires}:{}", code.unwrap_or_default())
    }

    fn code(&self, method: &str, path: &str, expires: i64) -> Option<Hmac<Sha256>> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        code.update(format!("{PURPOSE}\n{method}\n{path}\n{expires}").as_bytes());
        Some(code)
    }
}

impl fmt::Debug for CloudKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CloudKey(…)")
    }
}

impl Signed {
    /// Reads the header `Authorization` and checks all that needs no key.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn read(authorization: &str, now: OffsetDateTime) -> Result<Self, AccessError> {
        let (expires, code) =
            authorization.strip_prefix(SCHEME).and_then(|rest| rest.split_once(':')).ok_or(AccessError::Unsigned)?;
        let expires = expires.parse().map_err(|_| AccessError::Unsigned)?;
        let code = hex::decode(code).map_err(|_| AccessError::Unsigned)?;
        let end = OffsetDateTime::from_unix_timestamp(expires).map_err(|_| AccessError::Expired)?;
        // One that says to be valid for a year was not made by `sign`.
        if end < now - SKEW || end > now + VALIDITY + SKEW {
            return Err(AccessError::Expired);
        }
        Ok(Self { expires, code })
    }

    /// Whether the holder of `key` signed exactly this request. Takes the same time whatever the answer.
    #[must_use]
    pub fn is_by(&self, key: &CloudKey, method: &str, path: &str) -> bool {
        key.code(method, path, self.expires).is_some_and(|code| code.verify_slice(&self.code).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-26 12:00 UTC);
    const PATH: &str = "/_images/ami-0000000a/image";

    fn key(byte: u8) -> CloudKey {
        CloudKey::from_hex(&hex::encode([byte; 32])).unwrap()
    }

    #[test]
    fn a_signature_on_the_wire() {
        // HMAC-SHA256 of "nova request 1\nGET\n/_images/ami-0000000a/image\n1795694700".
        expect!["Nova-HMAC-SHA256 1795694700:03262dcd39af50b71ac2efbc75029b21153b0b299b8a3785c38417664f1266a9"]
            .assert_eq(&key(7).sign("GET", PATH, NOW));
    }

    #[test]
    fn only_the_very_request_and_key_that_were_signed_are_accepted() {
        let signed = Signed::read(&key(7).sign("GET", PATH, NOW), NOW).unwrap();
        assert!(signed.is_by(&key(7), "GET", PATH));
        for (byte, method, path) in
            [(8, "GET", PATH), (7, "HEAD", PATH), (7, "GET", "/_images/ami-0000000b/image"), (7, "GET", "/")]
        {
            assert!(!signed.is_by(&key(byte), method, path), "{byte} {method} {path}");
        }
        let later = key(7).sign("GET", PATH, NOW).replace(':', "0:");
        assert_eq!(Signed::read(&later, NOW).unwrap_err(), AccessError::Expired, "and another end is no end");
        let cut = Signed::read(&key(7).sign("GET", PATH, NOW)[..40], NOW).unwrap();
        assert!(!cut.is_by(&key(7), "GET", PATH), "the beginning of a signature is none");
    }

    #[test]
    fn a_signature_ends_and_clocks_may_differ_by_five_minutes() {
        let header = key(7).sign("GET", PATH, NOW);
        for (minutes, valid) in [(0, true), (-5, true), (10, true), (-6, false), (11, false)] {
            let read = Signed::read(&header, NOW + Duration::minutes(minutes));
            assert_eq!(read.is_ok(), valid, "{minutes}: {read:?}");
        }
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for header in ["", "AWS key:abc", "Nova-HMAC-SHA256 ", "Nova-HMAC-SHA256 x:00", "Nova-HMAC-SHA256 1:zz"] {
            assert_eq!(Signed::read(header, NOW).unwrap_err(), AccessError::Unsigned, "{header}");
        }
        for header in ["Nova-HMAC-SHA256 0:00", "Nova-HMAC-SHA256 9223372036854775807:00"] {
            assert_eq!(Signed::read(header, NOW).unwrap_err(), AccessError::Expired, "{header}");
        }
        assert!(CloudKey::from_hex("00").is_none() && CloudKey::from_hex(&"g".repeat(64)).is_none());
        assert_eq!(format!("{:?}", key(7)), "CloudKey(…)");
    }
}
