//! Which path is what.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, Method, Request, Response, header},
    middleware::{self, Next},
    response::IntoResponse as _,
    routing::any,
};

use crate::{
    dispatch::{Api, Peer, ec2},
    metadata,
};

/// The whole surface of `nova-api`.
pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/", any(root))
        .route("/services/Cloud", any(ec2))
        .route("/services/Cloud/", any(ec2))
        .route("/services/Cloud/{*below}", any(ec2))
        .merge(metadata::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(&api), believe_proxy))
        .with_state(api)
}

/// Replaces the peer by the client that a proxy speaks for, where `--use_forwarded_for` names that proxy.
async fn believe_proxy(State(api): State<Arc<Api>>, mut request: Request<Body>, next: Next) -> Response<Body> {
    let flags = &api.cloud.config.api;
    if flags.use_forwarded_for
        && let Some(Peer(peer)) = request.extensions().get().copied()
        && let Some(client) = forwarded_for(peer.ip(), request.headers(), &flags.trusted_proxies)
    {
        request.extensions_mut().insert(Peer((client, peer.port()).into()));
    }
    next.run(request).await
}

/// Who the proxies say it is: the last address in `X-Forwarded-For` that is not a proxy's own. What stands before it the
/// client may have written.
fn forwarded_for(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> Option<IpAddr> {
    let trusted = |address: IpAddr| proxies.contains(&address.to_canonical());
    if !trusted(peer) {
        return None;
    }
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let hops = hops.iter().rev().map(|hop| hop.parse::<IpAddr>().ok());
    // An entry that is no address ends the trust: what is left of it cannot be told.
    hops.take_while(Option::is_some).flatten().find(|hop| !trusted(*hop))
}

/// The list of metadata versions for a guest that looks around; the EC2 API for clients that know no path (Net::Amazon::EC2).
async fn root(api: State<Arc<Api>>, peer: Extension<Peer>, request: Request<Body>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    if request.method() == Method::POST || query.split('&').any(|pair| pair.starts_with("Action=")) {
        return ec2(api, peer, request).await;
    }
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], metadata::VERSIONS.join("\n") + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{HeaderMap, Method, Request},
    };

    use super::forwarded_for;
    use crate::testing::{Answer, TestCloud};

    const CALL: &str = "DescribeRegions";

    #[test]
    fn only_a_listed_proxy_says_who_the_client_is() {
        let proxies = ["10.0.0.1", "10.0.0.2"].map(|proxy| proxy.parse().unwrap());
        for (peer, sent, wanted) in [
            ("10.0.0.1", "8.8.4.4", Some("8.8.4.4")),
            ("10.0.0.1", "1.1.1.1, 8.8.4.4", Some("8.8.4.4")), // the first is the client's own invention
            ("10.0.0.1", "8.8.4.4, 10.0.0.2", Some("8.8.4.4")),
            ("10.0.0.1", "8.8.4.4, unknown", None),
            ("10.0.0.1", "", None),
            ("10.0.0.9", "8.8.4.4", None),
        ] {
            let headers = HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), sent.parse().unwrap())]);
            let got = forwarded_for(peer.parse().unwrap(), &headers, &proxies);
            assert_eq!(got, wanted.map(|address| address.parse().unwrap()), "{sent} by {peer}");
        }
    }

    #[tokio::test]
    async fn the_lock_out_counts_by_the_clients_address_behind_a_proxy() {
        let cloud =
            TestCloud::start_with(&["--use_forwarded_for", "--trusted_proxies=10.0.0.1", "--lockout_attempts=1"]).await;
        let call = async |secret: &str, client: &str| {
            let query = cloud.client("joe-key:acme").secret(secret).sign(&Method::GET, "/", CALL);
            let request =
                Request::get(format!("/?{query}")).header("host", "cloud.test:8773").header("x-forwarded-for", client);
            cloud.send(([10, 0, 0, 1], 1).into(), request.body(Body::empty()).unwrap()).await.outcome()
        };
        assert_eq!(call("wrong", "8.8.4.4").await, "403 AuthFailure");
        assert_eq!(call("secret", "8.8.4.4").await, "403 AuthFailure");
        assert_eq!(call("secret", "8.8.8.8").await, "200");
    }

    async fn send(cloud: &TestCloud, request: Request<Body>) -> Answer {
        cloud.send(([10, 0, 0, 9], 1).into(), request).await
    }

    #[tokio::test]
    async fn the_api_answers_wherever_a_client_looks_for_it() {
        let cloud = TestCloud::start().await;
        for path in ["/services/Cloud", "/services/Cloud/", "/services/Cloud/anything/below", "/"] {
            for method in [Method::GET, Method::POST] {
                let answer = cloud.joe().call_at(method.clone(), path, CALL).await;
                assert_eq!(answer.outcome(), "200", "{method} {path}: {}", answer.body);
            }
        }
    }

    #[tokio::test]
    async fn the_root_lists_metadata_versions_and_other_paths_are_absent() {
        let cloud = TestCloud::start().await;
        let root = send(&cloud, Request::get("/").body(Body::empty()).unwrap()).await;
        assert!(root.body.starts_with("1.0\n2007-01-19\n") && root.body.ends_with("\nlatest\n"), "{}", root.body);
        for path in ["/services", "/services/Nope", "/foo", "/services/CloudX"] {
            let answer = send(&cloud, Request::get(path).body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, 404, "{path}");
        }
    }

    #[tokio::test]
    async fn a_body_must_be_a_form_of_a_mebibyte_at_most() {
        let cloud = TestCloud::start().await;
        let post =
            |kind: &str, body: Body| Request::post("/services/Cloud/").header("content-type", kind).body(body).unwrap();
        let form = "application/x-www-form-urlencoded";
        for (request, wanted) in [
            (post("application/json", "{}".into()), "400 MalformedQueryString"),
            (post(form, vec![b'a'; 1024 * 1024 + 1].into()), "413 RequestEntityTooLarge"),
            (post(form, vec![b'a'; 1024 * 1024].into()), "400 InvalidQueryParameter"), // read, and then the name is too long
            (
                post(
                    form,
                    Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'a'; 65_536]))),
                ),
                "413 RequestEntityTooLarge",
            ),
            (
                post(
                    form,
                    Body::from_stream(futures::stream::iter([Err::<Vec<u8>, _>(std::io::Error::other("gone"))])),
                ),
                "408 RequestTimeout",
            ),
        ] {
            assert_eq!(send(&cloud, request).await.outcome(), wanted);
        }
    }

    #[tokio::test]
    async fn user_data_of_16_kib_fits_into_a_post() {
        let cloud = TestCloud::start().await;
        let long = format!("{CALL} RegionName.1={}", "A".repeat(21_848));
        let answer = cloud.joe().call_at(Method::POST, "/services/Cloud/", &long).await;
        assert_eq!(answer.outcome(), "400 InvalidParameterValue", "it was read and there is no such region");
    }
}
