//! Why all of Nova together cannot start.

use nova_config::DatabaseUrl;

/// Why all of Nova together cannot start, or ended other than asked. Each is one line with its causes.
#[derive(Debug, thiserror::Error)]
pub enum CombinedError {
    /// The state folder, the log, the lock; the database; or a daemon that failed.
    #[error(transparent)]
    Service(#[from] nova_service::ServiceError),
    /// The database's schema cannot be brought up to date.
    #[error("cannot use the database {url} (--sql_connection)")]
    Schema {
        /// The database, without its password.
        url: DatabaseUrl,
        /// Why not.
        #[source]
        source: nova_db::DbError,
    },
    /// The API cannot begin: its port, or the key that opens users' secrets.
    #[error(transparent)]
    Api(#[from] nova_api::ApiError),
    /// The object store cannot begin: its port.
    #[error(transparent)]
    Objectstore(#[from] nova_objectstore::ObjectstoreError),
    /// Real guests were asked for, and cannot be connected here.
    #[error(transparent)]
    Machine(#[from] nova_link::MachineError),
}
