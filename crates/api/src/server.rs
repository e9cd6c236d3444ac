//! The router on a listener.

use axum::{Extension, Router};
use hyper_util::service::TowerToHyperService;
use nova_service::http::{self, Limits};
use tokio::net::TcpListener;

use crate::dispatch::Peer;

/// Serves `router` on `listener` until `stop`, then finishes what is under way.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let service = |peer| TowerToHyperService::new(router.clone().layer(Extension(Peer(peer))));
    http::serve(listener, service, limits, stop).await;
}

#[cfg(test)]
mod tests;
