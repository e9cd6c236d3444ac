//! Why a request is not answered with what it asked for, and how S3 says so.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use nova_aws::RequestId;
use nova_db::DbError;
use nova_images::FileError;
use nova_wire::AccessError;

/// Everything that can go wrong between a request and its answer. The text is what the caller reads, except for what is
/// wrong with us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("the signature is not that of this request by a host of this cloud")]
    WrongSignature,
    /// A bad id, an unknown one, one whose bytes are elsewhere: one answer, so that nothing can be found out by asking.
    #[error("there is no such image")]
    NoSuchImage,
    #[error("an image can only be read")]
    Method,
    #[error("the image has no such bytes")]
    Range { size_bytes: u64 },
    #[error("this object store has no buckets yet; it only gives images to compute hosts")]
    NotBuilt,
    #[error("asking the database failed")]
    Db(#[from] DbError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the key of the cloud in the database makes no sense (table service_keys)")]
    Key,
}

impl Refusal {
    /// The S3 error code and the HTTP status. The only such table.
    #[rustfmt::skip]
    const fn s3(&self) -> (&'static str, StatusCode) {
        match self {
            Self::Access(AccessError::Unsigned) => ("AccessDenied",         StatusCode::FORBIDDEN),
            Self::Access(AccessError::Expired)  => ("RequestTimeTooSkewed", StatusCode::FORBIDDEN),
            Self::WrongSignature                => ("SignatureDoesNotMatch", StatusCode::FORBIDDEN),
            Self::NoSuchImage                   => ("NoSuchKey",            StatusCode::NOT_FOUND),
            Self::Method                        => ("MethodNotAllowed",     StatusCode::METHOD_NOT_ALLOWED),
            Self::Range { .. }                  => ("InvalidRange",         StatusCode::RANGE_NOT_SATISFIABLE),
            Self::NotBuilt                      => ("NotImplemented",       StatusCode::NOT_IMPLEMENTED),
            Self::Db(DbError::Unavailable(_))   => ("ServiceUnavailable",   StatusCode::SERVICE_UNAVAILABLE),
            Self::Db(_) | Self::File(_) | Self::Key => ("InternalError",    StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// The error document, with what else the status asks for.
    pub(crate) fn response(&self, path: &str, id: RequestId) -> Response<Body> {
        let (code, status) = self.s3();
        let message = if status.is_server_error() && !matches!(self, Self::NotBuilt) {
            // What is wrong with us is in the log, under the same id.
            "the request could not be answered now; try again".to_owned()
        } else {
            self.to_string()
        };
        let mut response = Response::new(Body::from(nova_aws::s3_error_document(code, &message, path, id)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        match self {
            Self::Method => drop(headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"))),
            Self::Range { size_bytes } => {
                let all = HeaderValue::try_from(format!("bytes */{size_bytes}"));
                headers.extend(all.map(|all| (header::CONTENT_RANGE, all)));
            }
            Self::Db(DbError::Unavailable(_)) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
