//! `/healthz` and `/metrics` on a loopback port.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::{TcpListener, TcpStream};
use tracing::{info, warn};

use crate::{Ready, Stop};

/// How often old samples are folded into histograms; otherwise that happens only when somebody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// Begins to answer on `port`; 0 means not at all. That the port is taken is no reason not to start.
pub(crate) async fn serve(port: u16, ready: Ready, stop: Stop) {
    if port == 0 {
        return;
    }
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => listener,
        Err(error) => return warn!(port, error = %error, "No metrics: cannot listen on 127.0.0.1:{port}."),
    };
    let Ok(metrics) = PrometheusBuilder::new().install_recorder() else {
        return warn!("No metrics: another recorder is installed.");
    };
    info!(port, "Metrics are on http://127.0.0.1:{port}/metrics.");
    tokio::spawn(accept(listener, metrics, ready, stop));
}

async fn accept(listener: TcpListener, metrics: PrometheusHandle, ready: Ready, stop: Stop) {
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = upkeep.tick() => metrics.run_upkeep(),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, metrics.clone(), ready.clone()))),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

async fn answer(stream: TcpStream, metrics: PrometheusHandle, ready: Ready) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &ready, || metrics.render());
        async { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(5))
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever asked has gone; that concerns nobody.
    let _ = serving.await;
}

fn respond(method: &Method, path: &str, ready: &Ready, metrics: impl Fn() -> String) -> Response<String> {
    let (status, body) = match (method, path) {
        (&Method::GET, "/healthz") if ready.is_set() => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/healthz") => (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
        (&Method::GET, "/metrics") => (StatusCode::OK, metrics()),
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "see /healthz and /metrics\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        format!("{} {}", &head[9..12], body.trim())
    }

    #[tokio::test]
    async fn health_follows_readiness_and_metrics_are_counted() {
        // A port that is free now; the test would fail, not hang, if another took it.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
        let (ready, stop) = (Ready::default(), Stop::new());
        serve(port, ready.clone(), stop.clone()).await;
        assert_eq!(ask(port, "GET /healthz").await, "503 starting");
        ready.set();
        assert_eq!(ask(port, "GET /healthz").await, "200 ok");
        metrics::counter!("nova_test_total").increment(2);
        assert!(ask(port, "GET /metrics").await.contains("nova_test_total 2"));
        assert_eq!(ask(port, "GET /x").await, "404 see /healthz and /metrics");
        assert_eq!(ask(port, "POST /metrics").await, "405 only GET");
        stop.cancel();
    }
}
