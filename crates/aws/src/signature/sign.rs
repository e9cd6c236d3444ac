//! The client's side of signature version 2.

use time::OffsetDateTime;

use super::{Scheme, SignedRequest, v2};
use crate::{
    query::{Pairs, encode},
    timestamp::Timestamp,
};

/// Signs `pairs` as the holder of `access_key` and `secret` and returns the query string, or form, to send.
///
/// `headers` must hold `host` as it will be sent.
#[must_use]
pub fn signed_query(
    (method, path, headers): (&str, &str, &[(String, String)]),
    mut pairs: Pairs,
    (access_key, secret): (&str, &str),
    at: OffsetDateTime,
) -> String {
    let own = [
        ("AWSAccessKeyId", access_key.to_owned()),
        ("SignatureMethod", "HmacSHA256".to_owned()),
        ("SignatureVersion", "2".to_owned()),
        ("Timestamp", Timestamp(at).to_string()),
    ];
    pairs.extend(own.map(|(name, value)| (name.to_owned(), value)));
    let request = SignedRequest { method, path, query: &pairs, form: &Pairs::new(), headers, body: b"" };
    let terms = v2::Terms { scheme: Scheme::V2, method: v2::Method::Sha256 };
    let signature = terms.signatures(&request, secret).swap_remove(0);
    pairs.push(("Signature".to_owned(), signature));
    let encoded: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    encoded.join("&")
}
