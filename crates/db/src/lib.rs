//! Nova's rows and the queries over them, on SQLite, MySQL/MariaDB and PostgreSQL.
//!
//! One module per group of tables, free functions that take a [`Conn`]; what differs between the engines is in
//! `dialect`. Everything that writes more than one row does so inside [`transaction!`].

pub mod accounts;
pub mod certificates;
pub mod check;
pub mod client_tokens;
pub mod compute_nodes;
mod conn;
mod dialect;
mod error;
pub mod evacuations;
pub mod export;
pub mod fixed_ips;
pub mod floating_ips;
mod held;
pub mod images;
pub mod instances;
pub mod key_pairs;
mod migrate;
pub mod networks;
mod open;
mod pools;
pub mod quotas;
mod replicas;
pub mod routers;
mod row;
pub mod security_groups;
mod server;
pub mod service_keys;
pub mod services;
mod target;
mod transaction;
mod value;

#[cfg(any(test, feature = "dev"))]
pub mod dev;

pub use conn::{Conn, Tx};
pub use dialect::Engine;
pub use error::{DbError, OverQuota, Unique};
pub use migrate::LATEST as SCHEMA_VERSION;
pub use open::{Db, Options};
pub use row::{FromColumn, Get, Row};
pub use target::Target;
pub use transaction::Attempts;
pub use value::Value;
