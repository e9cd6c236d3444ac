//! One attempt to connect to one broker, which ends in bounded time and leaves nothing behind.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_compat::Compat;
use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::options::RabbitOptions;

/// How long a broker may take from the first packet to "come in".
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest piece that a message is sent in; most messages are one. The library keeps room for 32 of them in each
/// direction of each connection: with RabbitMQ's own size that is 16 MiB for a daemon.
const FRAME_BYTES: u32 = 16 * 1024;

/// Why a broker could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("reading the certificates of {}", path.display())]
    Certificates {
        path: PathBuf,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("preparing TLS")]
    Tls(#[source] std::io::Error),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// Its own text repeats its cause.
    #[error("{0}")]
    Amqp(lapin::Error),
}

/// A connection, and the socket below it.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) connection: Connection,
    pub(crate) socket: Socket,
}

/// Ends the connection over a socket when it is dropped, and with it lapin's thread, which would otherwise wait for a
/// broker that never says a word.
#[derive(Debug, Default)]
pub(crate) struct Socket(Arc<Mutex<Slot>>);

#[derive(Debug, Default)]
struct Slot {
    stream: Option<TcpStream>,
    cut: bool,
}

impl Socket {
    fn slot(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
        slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(slot: &Mutex<Slot>, stream: TcpStream) -> std::io::Result<()> {
        let mut slot = Self::slot(slot);
        if slot.cut {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        slot.stream = Some(stream);
        Ok(())
    }

    /// Ends whatever is spoken over the socket, now or later.
    pub(crate) fn cut(&self) {
        let mut slot = Self::slot(&self.0);
        slot.cut = true;
        if let Some(stream) = slot.stream.take() {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Connects; `purpose` is what the broker's operator sees the connection named.
pub(crate) async fn dial(options: &RabbitOptions, to: &(String, u16), purpose: &str) -> Result<Dialled, DialError> {
    let tls = options.tls.as_deref().map(trusting).transpose()?.map(Arc::new);
    let runtime = lapin::runtime::default_runtime().map_err(DialError::Amqp)?;
    let socket = Socket::default();
    let (kept, place) = (Arc::clone(&socket.0), to.clone());
    let connect = async move |_: AMQPUri, _| {
        let stream = tokio::net::TcpStream::connect((place.0.as_str(), place.1)).await?;
        stream.set_nodelay(true)?;
        Socket::keep(&kept, stream.as_fd().try_clone_to_owned()?.into())?;
        let stream = AsyncTcpStream::Plain(Compat::new(stream));
        match &tls {
            Some(tls) => Ok(stream.into_rustls(tls, &place.0).await?),
            None => Ok(stream),
        }
    };
    let name = format!("nova {purpose} {}", std::process::id());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connecting = Connection::connector(uri(options, to), runtime, connect, properties);
    match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(Ok(connection)) => Ok(Dialled { connection, socket }),
        Ok(Err(error)) => Err(DialError::Amqp(error)),
        Err(_) => Err(DialError::TimedOut),
    }
}

/// Whom to trust: only those in the file.
fn trusting(path: &Path) -> Result<RustlsConnector, DialError> {
    let refused = |source| DialError::Certificates { path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(refused)?.collect::<Result<Vec<_>, _>>();
    RustlsConnectorConfig::default()
        .with_parsable_certificates(certificates.map_err(refused)?)
        .connector_with_no_client_auth()
        .map_err(DialError::Tls)
}

fn uri(options: &RabbitOptions, (host, port): &(String, u16)) -> AMQPUri {
    let heartbeat = u16::try_from(options.keepalive.as_secs().max(1)).unwrap_or(u16::MAX);
    AMQPUri {
        // TLS is laid by `dial`.
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: options.user.clone(), password: options.password.expose().to_owned() },
            host: host.clone(),
            port: *port,
        },
        vhost: options.virtual_host.clone(),
        query: AMQPQueryString {
            heartbeat: Some(heartbeat),
            frame_max: Some(FRAME_BYTES),
            ..AMQPQueryString::default()
        },
    }
}
