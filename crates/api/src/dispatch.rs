//! From a request to its answer: signature, role, action, XML, and one line in the log.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{Extension, State},
    http::{Request, Response, StatusCode, header},
};
use nova_aws::{Claim, Policy, RequestId, SignatureError, error_document};
use nova_identity::SecretBox;
use nova_service::chain;
use tokio::{net::TcpListener, time::Instant};
use tracing::{error, info};

use crate::{
    Parts, actions::Entry, auth::Authenticator, caller::Caller, cloud::Cloud, error::Error, incoming::Incoming,
};

/// All that answering EC2 requests takes.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) cloud: Cloud,
    pub(crate) authenticator: Authenticator,
    pub(crate) secrets: SecretBox,
}

impl Api {
    /// Takes the parts over; the listener comes back, for it is not needed to answer.
    pub(crate) fn new(parts: Parts) -> (Self, TcpListener) {
        let Parts { db, bus, clock, secrets, config, listener, ready: _ } = parts;
        let authenticator = Authenticator::new(secrets.clone(), &config);
        (Self { cloud: Cloud { db, bus, clock, config }, authenticator, secrets }, listener)
    }
}

/// The other end of a connection. Headers that claim otherwise are not believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What the log says of a request; filled in as far as the request gets.
#[derive(Default)]
struct Trace {
    action: Option<&'static str>,
    caller: Option<Caller>,
}

/// Answers one EC2 request, whatever happens, in XML.
pub(crate) async fn ec2(
    State(api): State<Arc<Api>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request<Body>,
) -> Response<Body> {
    let (started, id) = (Instant::now(), RequestId::from_random(rand::random()));
    let (trace, result) = contain(async move {
        let mut trace = Trace::default();
        let result = answer(&api, peer, id, request, &mut trace).await;
        (trace, result)
    })
    .await;
    let (code, status) = result.as_ref().map_or_else(Error::ec2, |_| ("", 200));
    log(id, peer, &trace, status, code, started, result.as_ref().err());
    let document = result.unwrap_or_else(|error| error_document(code, &error.message(), id));
    respond(status, document)
}

/// Runs a request as a task of its own: it goes on when the client hangs up, so no transaction is left half way, and a
/// panic ends nothing else.
async fn contain(
    request: impl Future<Output = (Trace, Result<String, Error>)> + Send + 'static,
) -> (Trace, Result<String, Error>) {
    tokio::spawn(request).await.unwrap_or_else(|_| (Trace::default(), Err(Error::Panic)))
}

async fn answer(
    api: &Api,
    peer: SocketAddr,
    request_id: RequestId,
    request: Request<Body>,
    trace: &mut Trace,
) -> Result<String, Error> {
    let incoming = Incoming::read(request).await?;
    let cloud = &api.cloud;
    let policy = Policy { now: cloud.clock.now(), allow_v1: cloud.config.api.allow_signature_v1 };
    let claim = Claim::find(&incoming.signed(), &policy)?;
    let address = peer.ip().to_canonical();
    let identity = api.authenticator.authenticate(&cloud.db, &incoming.signed(), &claim, address).await?;

    let required =
        |name| incoming.envelope(name).filter(|value| !value.is_empty()).ok_or(SignatureError::Missing(name));
    let (action, version) = (required("Action")?, required("Version")?.parse()?);
    let entry = Entry::named(action).ok_or_else(|| Error::NoSuchAction(action.chars().take(64).collect()))?;
    trace.action = Some(entry.name);
    let project = identity.project.as_ref().ok_or(Error::AuthFailure)?.id.clone();
    let user = identity.user.id.clone();
    let caller = Caller { user, project, is_admin: identity.is_admin(), request_id, version };
    let caller = trace.caller.insert(caller);
    if !entry.needs.allow(&identity) {
        return Err(Error::Unauthorized);
    }
    let outcome = entry.perform(incoming.into_params(), caller, cloud).await;
    if !entry.only_reads() {
        // Whatever came of it: what a replica does not know yet must not look undone.
        cloud.db.wrote(&caller.names());
    }
    outcome
}

fn log(
    id: RequestId,
    peer: SocketAddr,
    trace: &Trace,
    status: u16,
    code: &str,
    started: Instant,
    failure: Option<&Error>,
) {
    let took_us = started.elapsed().as_micros();
    let action = trace.action.unwrap_or("-");
    let (user, project) = trace.caller.as_ref().map_or(("-", "-"), |who| (who.user.as_str(), who.project.as_str()));
    match failure.filter(|_| status >= 500) {
        Some(failure) => {
            error!(request.id = %id, action, user, project, address = %peer.ip(), status, code, took_us, error = %chain(failure), "{action} failed.");
        }
        None => {
            info!(request.id = %id, action, user, project, address = %peer.ip(), status, code, took_us, "Answered {action}.");
        }
    }
}

fn respond(status: u16, document: String) -> Response<Body> {
    let mut response = Response::new(Body::from(document));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/xml;charset=UTF-8"));
    response
}

#[cfg(test)]
mod tests {
    use nova_aws::{RequestId, error_document};

    use super::contain;
    use crate::testing::Answer;

    #[tokio::test]
    async fn a_panic_is_an_internal_error_in_xml() {
        let (_, result) = contain(async { panic!("a defect, with a secret in its text") }).await;
        let error = result.unwrap_err();
        let (code, status) = error.ec2();
        let body = error_document(code, &error.message(), RequestId::from_random([0; 20]));
        let answer = Answer { status, body };
        assert_eq!(answer.outcome(), "500 InternalError");
        assert_eq!(answer.text("Message"), Some("an internal error has occurred"));
    }
}
