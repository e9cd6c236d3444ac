//! On whose behalf a message was sent. For the log, never for rights.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::timestamp;

/// The seven `_context_*` keys of a message.
///
/// They say which request caused the work, so that a log can be followed from daemon to daemon. Whoever can publish
/// can write anything here: a receiver looks roles up in the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The user who asked; none when a daemon asks by itself.
    #[serde(rename = "_context_user", default)]
    pub user: Option<String>,
    /// The project asked for.
    #[serde(rename = "_context_project", default)]
    pub project: Option<String>,
    /// Kept for old readers; true when a daemon asks by itself.
    #[serde(rename = "_context_is_admin", default)]
    pub is_admin: bool,
    /// Kept for old readers.
    #[serde(rename = "_context_read_deleted", default)]
    pub read_deleted: bool,
    /// The address the user asked from.
    #[serde(rename = "_context_remote_address", default)]
    pub remote_address: Option<String>,
    /// When the user asked, to the second.
    #[serde(rename = "_context_timestamp", default, with = "timestamp::optional")]
    pub timestamp: Option<OffsetDateTime>,
    /// The request's id, as the user was told it.
    #[serde(rename = "_context_request_id", default)]
    pub request_id: Option<String>,
}

impl Context {
    /// A daemon asks by itself.
    pub const fn service() -> Self {
        Self {
            user: None,
            project: None,
            is_admin: true,
            read_deleted: false,
            remote_address: None,
            timestamp: None,
            request_id: None,
        }
    }
}
