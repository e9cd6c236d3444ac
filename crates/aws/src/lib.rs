//! The EC2 dialect, and nothing but the dialect: query parameters, signatures, filters, pages, XML.
//!
//! Pure: no I/O, no clock and no randomness; the caller hands in the time and the random bytes.

mod digest;
mod filter;
mod page;
mod params;
mod query;
mod request_id;
mod signature;
mod timestamp;
mod version;
mod xml;

pub use digest::sha256_hex;
pub use filter::{Filter, Filters, Pattern};
pub use page::Page;
pub use params::{Param, ParamError, Params, Subject};
pub use query::{Pairs, QueryError, decode, encode};
pub use request_id::RequestId;
#[cfg(feature = "sign")]
pub use signature::signed_query;
pub use signature::{Claim, Policy, Scheme, SignatureError, SignedRequest};
pub use timestamp::{Timestamp, parse_timestamp};
pub use version::{ApiVersion, NoSuchVersion};
pub use xml::{Return, Set, XmlError, error_document, response_document, s3_error_document};
