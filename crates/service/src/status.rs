//! `/healthz` and `/metrics` on a loopback port.

use std::convert::Infallible;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::{TcpListener, TcpStream};
use tracing::{info, warn};

use crate::{Ready, Stop};

/// How long whatever is asked may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often old samples are folded into histograms; otherwise that happens only when somebody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// Asks something outside whether it can be reached; the error says why not.
type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What the daemon cannot work without, asked when somebody asks for its health.
#[derive(Clone, Default)]
pub(crate) struct Health(Arc<Mutex<Vec<(&'static str, Probe)>>>);

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").finish_non_exhaustive()
    }
}

impl Health {
    pub(crate) fn add(&self, what: &'static str, probe: Probe) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((what, probe));
    }

    /// What cannot be reached, and why; one line each.
    async fn complaints(&self) -> String {
        let probes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asked = probes.iter().map(async |(what, probe)| {
            let answered = tokio::time::timeout(PATIENCE, probe()).await;
            let complaint = answered.unwrap_or_else(|_| Err("does not answer".to_owned())).err()?;
            Some(format!("{what}: {complaint}\n"))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// Begins to answer on `port`; 0 means not at all. That the port is taken is no reason not to start.
pub(crate) async fn serve(port: u16, ready: Ready, health: Health, stop: Stop) {
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
    tokio::spawn(accept(listener, metrics, (ready, health), stop));
}

async fn accept(listener: TcpListener, metrics: PrometheusHandle, state: (Ready, Health), stop: Stop) {
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = upkeep.tick() => metrics.run_upkeep(),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, metrics.clone(), state.clone()))),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

async fn answer(stream: TcpStream, metrics: PrometheusHandle, state: (Ready, Health)) {
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(respond(request.method(), request.uri().path(), &state, || metrics.render()).await)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(5))
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever asked has gone; that concerns nobody.
    let _ = serving.await;
}

async fn respond(
    method: &Method,
    path: &str,
    (ready, health): &(Ready, Health),
    metrics: impl Fn() -> String,
) -> Response<String> {
    let (status, body) = match (method, path) {
        (&Method::GET, "/healthz") if ready.is_set() => match health.complaints().await {
            complaints if complaints.is_empty() => (StatusCode::OK, "ok\n".to_owned()),
            complaints => (StatusCode::SERVICE_UNAVAILABLE, complaints),
        },
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
        let (ready, health, stop) = (Ready::default(), Health::default(), Stop::new());
        serve(port, ready.clone(), health.clone(), stop.clone()).await;
        assert_eq!(ask(port, "GET /healthz").await, "503 starting");
        ready.set();
        assert_eq!(ask(port, "GET /healthz").await, "200 ok");
        let away = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let asked = Arc::clone(&away);
        health.add("database", Arc::new(|| Box::pin(async { Ok(()) })));
        health.add(
            "broker",
            Arc::new(move || {
                let away = asked.load(std::sync::atomic::Ordering::SeqCst);
                Box::pin(async move { if away { Err("gone fishing".to_owned()) } else { Ok(()) } })
            }),
        );
        assert_eq!(ask(port, "GET /healthz").await, "503 broker: gone fishing");
        away.store(false, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(ask(port, "GET /healthz").await, "200 ok");
        metrics::counter!("nova_test_total").increment(2);
        assert!(ask(port, "GET /metrics").await.contains("nova_test_total 2"));
        assert_eq!(ask(port, "GET /x").await, "404 see /healthz and /metrics");
        assert_eq!(ask(port, "POST /metrics").await, "405 only GET");
        stop.cancel();
    }
}
