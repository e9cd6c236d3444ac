//! What is asked for, and whether the answer is a file or a refusal.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Request, Response, header};
use nova_aws::RequestId;
use nova_db::{Db, DbError};
use nova_images::ImageStore;
use nova_service::chain;
use nova_types::Clock;
use nova_wire::Signed;
use tracing::{debug, error, warn};

use crate::image;
use crate::keys::Keys;
use crate::refusal::Refusal;

/// Below this are images; the rest of the world is S3's.
const IMAGES: &str = "/_images";

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) images: ImageStore,
    pub(crate) keys: Keys,
}

/// Answers a request, whatever it is.
pub(crate) async fn answer(State(store): State<Arc<Store>>, request: Request<Body>) -> Response<Body> {
    let id = RequestId::from_random(rand::random());
    // Nothing that is asked here has a body.
    let (head, _) = request.into_parts();
    let (method, path) = (&head.method, head.uri.path());
    let refusal = match respond(&store, &head).await {
        Ok(response) => return response,
        Err(refusal) => refusal,
    };
    match &refusal {
        Refusal::Db(cause @ DbError::Unavailable(_)) => {
            warn!(%id, error = %chain(cause), "Asking the database failed.");
        }
        Refusal::Db(_) | Refusal::File(_) | Refusal::Key => {
            error!(%id, %method, path, error = %chain(&refusal), "A request failed.")
        }
        _ => debug!(%id, %method, path, error = %refusal, "Refused a request."),
    }
    refusal.response(path, id)
}

async fn respond(store: &Store, head: &Parts) -> Result<Response<Body>, Refusal> {
    let rest = head.uri.path().strip_prefix(IMAGES).ok_or(Refusal::NotBuilt)?;
    let rest = match rest.strip_prefix('/') {
        Some(rest) => rest,
        // The lists and registrations of 2010, which the API does now; or a bucket whose name begins so.
        None => return Err(Refusal::NotBuilt),
    };
    // Who asks is settled before anything is said about what there is.
    check(store, head).await?;
    let id = rest.strip_suffix("/image").and_then(|id| id.parse().ok()).ok_or(Refusal::NoSuchImage)?;
    image::serve(store, id, head).await
}

/// Whether one of this cloud's hosts signed exactly this.
async fn check(store: &Store, head: &Parts) -> Result<(), Refusal> {
    let header = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let signed = Signed::read(header.unwrap_or_default(), store.clock.now())?;
    let key = store.keys.get().await?;
    if signed.is_by(&key, head.method.as_str(), head.uri.path()) { Ok(()) } else { Err(Refusal::WrongSignature) }
}
