//! The metadata service: what a guest learns about itself at `169.254.169.254`.
//!
//! A guest is known by the address it asks from, which the firewall binds to its interface; no header can say otherwise.

mod token;
mod tree;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use axum::{Router, body::Body};
use nova_db::{DbError, fixed_ips, images, instances};
use nova_service::chain;
use nova_types::instance::InstanceView;
use tracing::{error, info};

use self::tree::Surroundings;
use crate::dispatch::{Api, Peer};

/// The versions a guest may ask for, oldest first.
pub(crate) const VERSIONS: &[&str] = &[
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "latest",
];

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";

/// The paths below each version. The guest is found by the address in [`Peer`].
pub(crate) fn routes() -> Router<Arc<Api>> {
    let versions = VERSIONS.iter().fold(Router::new(), |router, version| {
        router
            .route(&format!("/{version}"), get(top))
            .route(&format!("/{version}/"), get(top))
            .route(&format!("/{version}/{{*path}}"), get(below))
    });
    versions.route("/latest/api/token", put(new_token))
}

async fn top(api: State<Arc<Api>>, peer: Extension<Peer>, headers: HeaderMap) -> Response {
    answer(&api.0, peer.0, &headers, "").await
}

async fn below(api: State<Arc<Api>>, peer: Extension<Peer>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    answer(&api.0, peer.0, &headers, &path).await
}

/// `PUT /latest/api/token` (IMDSv2): a token for as many seconds as the header asks, six hours at most.
async fn new_token(State(api): State<Arc<Api>>, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Response {
    // A request that came through a proxy is not the guest's own; AWS refuses these, too.
    if headers.contains_key("x-forwarded-for") {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Some(address) = guest_address(peer) else { return StatusCode::NOT_FOUND.into_response() };
    let asked = headers.get(TTL_HEADER).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<i64>().ok());
    let Some(seconds) = asked.filter(|seconds| (1..=token::MAX_SECONDS).contains(seconds)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let until = api.cloud.clock.now() + time::Duration::seconds(seconds);
    match token::issue(&api.secrets, address, until) {
        Some(token) => ([(TTL_HEADER, seconds.to_string())], token).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn answer(api: &Api, peer: Peer, headers: &HeaderMap, path: &str) -> Response {
    let (status, body) = match look_up(api, peer, headers, path).await {
        Ok(found) => found,
        Err(failure) => {
            error!(address = %peer.0.ip(), path, error = %chain(&failure), "Reading metadata failed.");
            // The guest asks again; 404 would tell it that there is nothing.
            (StatusCode::SERVICE_UNAVAILABLE, Vec::new())
        }
    };
    info!(address = %peer.0.ip(), path, status = status.as_u16(), "Answered metadata.");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}

async fn look_up(api: &Api, peer: Peer, headers: &HeaderMap, path: &str) -> Result<(StatusCode, Vec<u8>), DbError> {
    let absent = (StatusCode::NOT_FOUND, Vec::new());
    let Some(address) = guest_address(peer) else { return Ok(absent) };
    if let Some(sent) = headers.get(TOKEN_HEADER) {
        let token = sent.to_str().unwrap_or_default();
        if !token::is_valid(&api.secrets, address, token, api.cloud.clock.now()) {
            return Ok((StatusCode::UNAUTHORIZED, Vec::new()));
        }
    }
    let mut conn = api.cloud.db.read().await?;
    let Some((id, _)) = fixed_ips::by_address(&mut conn, address).await? else { return Ok(absent) };
    let Some(mut view) = instances::describe(&mut conn, None, &[id]).await?.pop() else { return Ok(absent) };
    view.address6 = view.address6.filter(|_| api.cloud.config.common.use_ipv6);
    let around = Surroundings {
        image: images::get_any(&mut conn, view.instance.image).await?,
        project: neighbours(&mut conn, &view, path).await?,
    };
    drop(conn);
    let found = tree::of_instance(&view, &around).walk(path).map(tree::Node::render);
    Ok(found.map_or(absent, |body| (StatusCode::OK, body)))
}

/// The project's instances, read only for the one path that shows them.
async fn neighbours(conn: &mut nova_db::Conn, view: &InstanceView, path: &str) -> Result<Vec<InstanceView>, DbError> {
    let asked = path.split('/').filter(|name| !name.is_empty()).take(2).eq(["meta-data", "mpi"]);
    if asked { instances::describe(conn, Some(&view.instance.project), &[]).await } else { Ok(Vec::new()) }
}

fn guest_address(Peer(peer): Peer) -> Option<Ipv4Addr> {
    match peer.ip().to_canonical() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
