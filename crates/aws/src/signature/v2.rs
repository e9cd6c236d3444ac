//! Signature version 2, and its elders 0 and 1: all in parameters.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Claim, Kind, LONGEST_VALIDITY, Policy, Scheme, SignatureError, SignedRequest, check_window, hmac_sha1, hmac_sha256,
};
use crate::{query::encode, timestamp::parse_timestamp};

/// How a request says it is signed.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) scheme: Scheme,
    pub(super) method: Method,
}

#[derive(Clone, Copy)]
pub(super) enum Method {
    Sha1,
    Sha256,
}

pub(super) fn from_parameters(request: &SignedRequest<'_>, policy: &Policy) -> Result<Claim, SignatureError> {
    let required =
        |name| request.parameter(name).filter(|value| !value.is_empty()).ok_or(SignatureError::Missing(name));
    let access_key = required("AWSAccessKeyId")?.to_owned();
    let signature = required("Signature")?.to_owned();
    let scheme = match required("SignatureVersion")? {
        "0" if policy.allow_v1 => Scheme::V0,
        "1" if policy.allow_v1 => Scheme::V1,
        "2" => Scheme::V2,
        other => return Err(SignatureError::Unsupported(other.chars().take(16).collect())),
    };
    // Versions 0 and 1 are HMAC-SHA1 whatever the client names.
    let method = match (scheme, request.parameter("SignatureMethod")) {
        (Scheme::V0 | Scheme::V1, _) | (_, Some("HmacSHA1")) => Method::Sha1,
        (_, Some("HmacSHA256")) => Method::Sha256,
        (_, Some(other)) => return Err(SignatureError::Unsupported(other.chars().take(16).collect())),
        (_, None) => return Err(SignatureError::Missing("SignatureMethod")),
    };
    match (request.parameter("Timestamp"), request.parameter("Expires")) {
        (Some(timestamp), None) => {
            check_window(parse_timestamp(timestamp).ok_or(SignatureError::Malformed("Timestamp"))?, policy.now)?;
        }
        (None, Some(expires)) => {
            let expires = parse_timestamp(expires).ok_or(SignatureError::Malformed("Expires"))?;
            if expires < policy.now || expires > policy.now + LONGEST_VALIDITY {
                return Err(SignatureError::Expired);
            }
        }
        (None, None) => return Err(SignatureError::Missing("Timestamp")),
        (Some(_), Some(_)) => return Err(SignatureError::Malformed("Timestamp beside Expires")),
    }
    Ok(Claim { access_key, signature, kind: Kind::V2(Terms { scheme, method }) })
}

impl Terms {
    pub(super) const fn scheme(self) -> Scheme {
        self.scheme
    }

    /// Every signature that an honest client may have computed.
    pub(super) fn signatures(self, request: &SignedRequest<'_>, secret: &str) -> Vec<String> {
        let sign = |text: &str| {
            STANDARD.encode(match self.method {
                Method::Sha1 => hmac_sha1(secret.as_bytes(), text.as_bytes()),
                Method::Sha256 => hmac_sha256(secret.as_bytes(), text.as_bytes()),
            })
        };
        match self.scheme {
            Scheme::V0 => vec![sign(&string_v0(request))],
            Scheme::V1 => vec![sign(&string_v1(request))],
            _ => strings_v2(request).iter().map(|text| sign(text)).collect(),
        }
    }
}

fn string_v0(request: &SignedRequest<'_>) -> String {
    let value = |name| request.parameter(name).unwrap_or_default();
    format!("{}{}", value("Action"), value("Timestamp"))
}

fn string_v1(request: &SignedRequest<'_>) -> String {
    let mut pairs = signed_pairs(request);
    pairs.sort_by_key(|(name, _)| name.to_lowercase());
    pairs.iter().flat_map(|(name, value)| [*name, *value]).collect()
}

/// Net::Amazon::EC2 signs the host without its port and the path `/`, whatever the address.
fn strings_v2(request: &SignedRequest<'_>) -> Vec<String> {
    let mut pairs = signed_pairs(request);
    pairs.sort_unstable();
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    let query = query.join("&");
    let host = request.header("host").unwrap_or_default();
    let without_port = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let path = if request.path.is_empty() { "/" } else { request.path };
    [(host, path), (without_port, path), (host, "/"), (without_port, "/")]
        .map(|(host, path)| format!("{}\n{host}\n{path}\n{query}", request.method))
        .into()
}

fn signed_pairs<'a>(request: &SignedRequest<'a>) -> Vec<(&'a str, &'a str)> {
    let all = request.query.iter().chain(request.form);
    all.filter(|(name, _)| name != "Signature").map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
