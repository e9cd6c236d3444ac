//! Signatures of requests: versions 2 and 4, and 0 and 1 where an operator still allows them.
//!
//! Two steps, because the secret must be looked up between them: [`Claim::find`] reads who claims to have signed and
//! checks the time, [`Claim::is_signed_with`] computes. Whoever finds no secret computes with a made-up one, so that an
//! unknown key costs what a wrong signature costs.

#[cfg(feature = "sign")]
mod sign;
mod v2;
mod v4;

#[cfg(feature = "sign")]
pub use sign::signed_query;

#[cfg(test)]
mod tests;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use time::{Duration, OffsetDateTime};

use crate::query::Pairs;

/// How far a signature's time may be from ours, either way.
const WINDOW: Duration = Duration::seconds(300);
/// How long a signature may be valid that carries its own end.
const LONGEST_VALIDITY: Duration = Duration::days(7);

/// Everything of a request that a signature covers, as it came over the wire.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The path before `?`, still encoded.
    pub path: &'a str,
    /// The decoded query string.
    pub query: &'a Pairs,
    /// The decoded form body; empty if the body is something else.
    pub form: &'a Pairs,
    /// Lower-case names and values, in the order sent.
    pub headers: &'a [(String, String)],
    /// The body's bytes.
    pub body: &'a [u8],
}

/// What the server accepts.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The present moment.
    pub now: OffsetDateTime,
    /// Whether versions 0 and 1, which leave most of a request unprotected, are accepted.
    pub allow_v1: bool,
}

/// A way to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Action and Timestamp only.
    V0,
    /// Names and values run together.
    V1,
    /// The scheme of 2008.
    V2,
    /// Today's, in the header `Authorization`.
    V4Header,
    /// Today's, in the query string.
    V4Query,
}

/// Somebody's claim to have signed a request. Nothing is believed of it until [`is_signed_with`](Self::is_signed_with).
#[derive(Clone)]
pub struct Claim {
    access_key: String,
    signature: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    V2(v2::Terms),
    V4(v4::Terms),
}

/// Why a request's signature is not even looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No signature at all, or a part of one is missing.
    #[error("the request must contain the parameter {0}")]
    Missing(&'static str),
    /// Two signatures of different schemes.
    #[error("the request is signed in more than one way")]
    Ambiguous,
    /// A part that cannot be read; the field says which.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A scheme we do not accept; the field names it.
    #[error("signature version or method {0} is not supported")]
    Unsupported(String),
    /// Signed too long ago, or in the future.
    #[error("the request has expired, or its time is more than five minutes away from the server's")]
    Expired,
    /// A header that must be signed and is not.
    #[error("the header {0} must be signed")]
    Unsigned(String),
    /// The body is not the one that was signed.
    #[error("the content does not match x-amz-content-sha256")]
    Payload,
}

impl Claim {
    /// Finds the signature in `request` and checks all that needs no secret.
    ///
    /// A header `Authorization` of another scheme than v4 is passed over: boto 1.x sends `AWS key:signature` beside
    /// its version 2 parameters.
    ///
    /// # Errors
    /// Any [`SignatureError`]; the caller answers [`Missing`](SignatureError::Missing) with 400 and the rest with 400 or 403.
    pub fn find(request: &SignedRequest<'_>, policy: &Policy) -> Result<Self, SignatureError> {
        let in_header = request.header("authorization").filter(|value| value.starts_with(v4::ALGORITHM));
        let in_query = request.query.iter().any(|(name, _)| name == "X-Amz-Algorithm");
        let in_parameters = request.parameter("SignatureVersion").is_some() || request.parameter("Signature").is_some();
        match (in_header, in_query, in_parameters) {
            (Some(header), false, false) => v4::from_header(request, header, policy.now),
            (None, true, false) => v4::from_query(request, policy.now),
            (None, false, _) => v2::from_parameters(request, policy),
            _ => Err(SignatureError::Ambiguous),
        }
    }

    /// Who claims to have signed: `access` or `access:project`.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// How the request is signed.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match &self.kind {
            Kind::V2(terms) => terms.scheme(),
            Kind::V4(terms) => terms.scheme(),
        }
    }

    /// Whether the holder of `secret` signed exactly this `request`. Takes the same time whatever the answer.
    #[must_use]
    pub fn is_signed_with(&self, request: &SignedRequest<'_>, secret: &str) -> bool {
        let candidates = match &self.kind {
            Kind::V2(terms) => terms.signatures(request, secret),
            Kind::V4(terms) => vec![terms.signature(request, secret)],
        };
        // Every candidate is compared, so that time does not tell which one it was.
        candidates.iter().fold(false, |found, candidate| found | same(candidate, &self.signature))
    }
}

/// Never shows the signature: within its window it is as good as a password.
impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("access_key", &self.access_key)
            .field("scheme", &self.scheme())
            .finish_non_exhaustive()
    }
}

impl<'a> SignedRequest<'a> {
    /// The first header of that lower-case name.
    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// A parameter from the query string or the form.
    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.query.iter().chain(self.form).find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn check_window(signed_at: OffsetDateTime, now: OffsetDateTime) -> Result<(), SignatureError> {
    if (now - signed_at).abs() <= WINDOW { Ok(()) } else { Err(SignatureError::Expired) }
}

/// Compares digests instead of texts, so that not even the length tells.
fn same(ours: &str, theirs: &str) -> bool {
    let (ours, theirs) = (Sha256::digest(ours), Sha256::digest(theirs));
    ours.as_slice().ct_eq(theirs.as_slice()).into()
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length; the type only has no way to say so.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

fn hmac_sha1(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mac = Hmac::<sha1::Sha1>::new_from_slice(key);
    mac.map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()).unwrap_or_default()
}
