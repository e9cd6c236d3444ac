//! An EC2 request as it came over the wire: read whole, within limits, before anything else is done with it.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, Request, header},
};
use futures::StreamExt as _;
use nova_aws::{Pairs, Params, SignedRequest, decode};

use crate::error::Error;

const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body that is too large is taken before it is refused, and for how long.
const MOST_DISCARDED_BYTES: usize = 16 * MAX_BODY_BYTES;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
const FORM: &str = "application/x-www-form-urlencoded";
/// Parameters of the protocol itself; whatever else is sent belongs to the action.
const ENVELOPE: &[&str] = &[
    "Action",
    "Version",
    "AWSAccessKeyId",
    "Signature",
    "SignatureMethod",
    "SignatureVersion",
    "Timestamp",
    "Expires",
    "X-Amz-Algorithm",
    "X-Amz-Content-Sha256",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

/// A request, with all that its signature covers.
pub(crate) struct Incoming {
    method: String,
    path: String,
    query: Pairs,
    form: Pairs,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Incoming {
    /// Reads the body and decodes the parameters.
    pub(crate) async fn read(request: Request<Body>) -> Result<Self, Error> {
        let (head, body) = request.into_parts();
        let body = read_body(&head.headers, body).await?;
        let form: &[u8] = if body.is_empty() {
            b""
        } else if is_form(&head.headers) {
            &body
        } else {
            return Err(Error::BodyNotForm);
        };
        let [query, form] = decode([head.uri.query().unwrap_or_default().as_bytes(), form])?;
        let mut headers: Vec<(String, String)> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        // A request in absolute form may come without the header, but the host is what was signed.
        if let Some(authority) = head.uri.authority().filter(|_| !head.headers.contains_key(header::HOST)) {
            headers.push((header::HOST.as_str().to_owned(), authority.to_string()));
        }
        let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
        Ok(Self { method, path, query, form, headers, body })
    }

    /// What the signature is checked against.
    pub(crate) fn signed(&self) -> SignedRequest<'_> {
        let Self { method, path, query, form, headers, body } = self;
        SignedRequest { method, path, query, form, headers, body }
    }

    /// A parameter of the protocol, such as `Action`.
    pub(crate) fn envelope(&self, name: &str) -> Option<&str> {
        self.query.iter().chain(&self.form).find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The parameters that are the action's own.
    pub(crate) fn into_params(self) -> Params {
        let own = |(name, _): &(String, String)| !ENVELOPE.contains(&name.as_str());
        Params::new(self.query.into_iter().chain(self.form).filter(own).collect())
    }
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Error> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut chunks = body.into_data_stream();
    if announced.is_some_and(|length: usize| length > MAX_BODY_BYTES) {
        // Who asks first has sent nothing yet, and need not.
        if !headers.contains_key(header::EXPECT) {
            discard(&mut chunks).await;
        }
        return Err(Error::BodyTooLarge);
    }
    let read = async {
        let mut read = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Error::BodyIncomplete)?;
            if read.len() + chunk.len() > MAX_BODY_BYTES {
                discard(&mut chunks).await;
                return Err(Error::BodyTooLarge);
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read)
    };
    tokio::time::timeout(BODY_TIMEOUT, read).await.unwrap_or(Err(Error::BodyIncomplete))
}

/// Takes what is still coming, within bounds. A connection that is closed while its client sends is reset, and the answer
/// lost with it.
async fn discard(chunks: &mut BodyDataStream) {
    let mut left = MOST_DISCARDED_BYTES;
    let all = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // That the client takes longer is its own loss.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, all).await;
}

/// Without a type it is taken for a form: hand-written clients of 2010 name none.
fn is_form(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        value.to_str().is_ok_and(|text| text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM))
    })
}
