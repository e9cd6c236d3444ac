//! Signature version 4, in the header `Authorization` or in the query string.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

use super::{Claim, Kind, LONGEST_VALIDITY, Scheme, SignatureError, SignedRequest, WINDOW, check_window, hmac_sha256};
use crate::{query::encode, timestamp::parse_basic};

pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// How a request says it is signed.
#[derive(Clone)]
pub(super) struct Terms {
    scheme: Scheme,
    /// `20110203T040506Z`.
    date: String,
    scope: Scope,
    /// Lower-case, in the client's order, which must be the sorted one.
    signed_headers: Vec<String>,
}

/// What the signing key is bound to. Clients guess region and service from the address (boto 2.49 signs for region `0`
/// and service `127` on 127.0.0.1), so any will do; the secret belongs to this cloud alone.
#[derive(Clone)]
struct Scope {
    day: String,
    region: String,
    service: String,
}

pub(super) fn from_header(
    request: &SignedRequest<'_>,
    header: &str,
    now: OffsetDateTime,
) -> Result<Claim, SignatureError> {
    const MALFORMED: SignatureError = SignatureError::Malformed("Authorization");
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for field in header[ALGORITHM.len()..].split(',') {
        let (name, value) = field.trim().split_once('=').ok_or(MALFORMED)?;
        let slot = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => return Err(MALFORMED),
        };
        if slot.replace(value).is_some() {
            return Err(MALFORMED);
        }
    }
    let date = request.header("x-amz-date").ok_or(SignatureError::Missing("X-Amz-Date"))?;
    let signed_at = parse_basic(date).ok_or(SignatureError::Malformed("X-Amz-Date"))?;
    check_window(signed_at, now)?;
    claim(
        request,
        Scheme::V4Header,
        Parts { credential: credential.ok_or(MALFORMED)?, signed_headers: signed_headers.ok_or(MALFORMED)?, date },
        signature.ok_or(MALFORMED)?,
    )
}

pub(super) fn from_query(request: &SignedRequest<'_>, now: OffsetDateTime) -> Result<Claim, SignatureError> {
    let required = |name: &'static str| {
        let found = request.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).ok_or(SignatureError::Missing(name))
    };
    let algorithm = required("X-Amz-Algorithm")?;
    if algorithm != ALGORITHM {
        return Err(SignatureError::Unsupported(algorithm.chars().take(16).collect()));
    }
    let date = required("X-Amz-Date")?;
    let signed_at = parse_basic(date).ok_or(SignatureError::Malformed("X-Amz-Date"))?;
    let seconds: i64 = required("X-Amz-Expires")?.parse().map_err(|_| SignatureError::Malformed("X-Amz-Expires"))?;
    if !(1..=LONGEST_VALIDITY.whole_seconds()).contains(&seconds) {
        return Err(SignatureError::Malformed("X-Amz-Expires"));
    }
    if signed_at > now + WINDOW || now > signed_at + Duration::seconds(seconds) {
        return Err(SignatureError::Expired);
    }
    let parts =
        Parts { credential: required("X-Amz-Credential")?, signed_headers: required("X-Amz-SignedHeaders")?, date };
    claim(request, Scheme::V4Query, parts, required("X-Amz-Signature")?)
}

struct Parts<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    date: &'a str,
}

fn claim(
    request: &SignedRequest<'_>,
    scheme: Scheme,
    parts: Parts<'_>,
    signature: &str,
) -> Result<Claim, SignatureError> {
    const MALFORMED: SignatureError = SignatureError::Malformed("Credential");
    let mut credential = parts.credential.split('/');
    let mut next = || credential.next().filter(|part| !part.is_empty()).ok_or(MALFORMED);
    let (access_key, day, region, service, end) = (next()?, next()?, next()?, next()?, next()?);
    if end != "aws4_request" || credential.next().is_some() || !parts.date.starts_with(day) || day.len() != 8 {
        return Err(MALFORMED);
    }
    if signature.len() != 64 || !signature.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(SignatureError::Malformed("Signature"));
    }
    let signed_headers: Vec<String> = parts.signed_headers.split(';').map(str::to_lowercase).collect();
    check_signed(request, &signed_headers)?;
    if let Some(sent) = request.header("x-amz-content-sha256")
        && !sent.eq_ignore_ascii_case(&hex::encode(Sha256::digest(request.body)))
    {
        return Err(SignatureError::Payload); // unsigned and streamed bodies, too: here the body is the request
    }
    Ok(Claim {
        access_key: access_key.to_owned(),
        signature: signature.to_owned(),
        kind: Kind::V4(Terms {
            scheme,
            date: parts.date.to_owned(),
            scope: Scope { day: day.to_owned(), region: region.to_owned(), service: service.to_owned() },
            signed_headers,
        }),
    })
}

/// `host` and every `x-amz-*` must be signed: who could add one of them would change what the request means.
fn check_signed(request: &SignedRequest<'_>, signed: &[String]) -> Result<(), SignatureError> {
    let mut must = request.headers.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("x-amz-"));
    match must.by_ref().chain(["host"]).find(|name| !signed.iter().any(|header| header == name)) {
        Some(name) => Err(SignatureError::Unsigned(name.to_owned())),
        None => Ok(()),
    }
}

impl Terms {
    pub(super) const fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(super) fn signature(&self, request: &SignedRequest<'_>, secret: &str) -> String {
        let Scope { day, region, service } = &self.scope;
        let canonical = hex::encode(Sha256::digest(self.canonical_request(request)));
        let to_sign = format!("{ALGORITHM}\n{}\n{day}/{region}/{service}/aws4_request\n{canonical}", self.date);
        let key = hmac_sha256(format!("AWS4{secret}").as_bytes(), day.as_bytes());
        let key =
            [region.as_str(), service, "aws4_request"].iter().fold(key, |key, part| hmac_sha256(&key, part.as_bytes()));
        hex::encode(hmac_sha256(&key, to_sign.as_bytes()))
    }

    fn canonical_request(&self, request: &SignedRequest<'_>) -> String {
        let mut pairs: Vec<(String, String)> = request
            .query
            .iter()
            .filter(|(name, _)| self.scheme != Scheme::V4Query || name != "X-Amz-Signature")
            .map(|(name, value)| (encode(name), encode(value)))
            .collect();
        pairs.sort_unstable();
        let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut out = format!("{}\n{}\n{}\n", request.method, canonical_path(request.path), query.join("&"));
        for name in &self.signed_headers {
            let values = request.headers.iter().filter(|(header, _)| header == name);
            let values: Vec<String> =
                values.map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name}:{}", values.join(","));
        }
        let _ = write!(out, "\n{}\n{}", self.signed_headers.join(";"), hex::encode(Sha256::digest(request.body)));
        out
    }
}

/// Services other than S3 sign the path without `.` and `..`, each segment encoded once more.
fn canonical_path(path: &str) -> String {
    let mut segments: Vec<String> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(encode(segment)),
        }
    }
    let slash = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
}
