//! Why an operation did not come to its end, sorted by what is to be done about it.

use std::error::Error;

use nova_db::DbError;
use nova_hypervisor::HypervisorError;
use nova_link::guests::FirewallError;
use nova_link::links::LinkError;
use nova_types::instance::StateReason;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// Something could not be asked. Nothing is concluded; the same is done again later.
    #[error("it could not be done now")]
    Later(#[source] BoxError),
    /// It will not work, however often it is tried.
    #[error("it cannot be done ({})", reason.message)]
    Never {
        /// What the user reads.
        reason: StateReason,
        /// What the administrator reads.
        #[source]
        cause: BoxError,
    },
    /// The row is no longer what it was when the operation began.
    #[error("the instance has moved on")]
    MovedOn,
}

impl Problem {
    pub(crate) fn later(cause: impl Into<BoxError>) -> Self {
        Self::Later(cause.into())
    }

    /// A failure of this host, not of the user.
    pub(crate) fn never(message: impl Into<String>, cause: impl Into<BoxError>) -> Self {
        Self::Never { reason: StateReason::new("Server.InternalError", message), cause: cause.into() }
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Stale(_) | DbError::NotFound(_) => Self::MovedOn,
            other => Self::later(other),
        }
    }
}

impl From<HypervisorError> for Problem {
    fn from(error: HypervisorError) -> Self {
        if error.is_transient() {
            Self::later(error)
        } else {
            Self::never("The host could not run the instance.", error)
        }
    }
}

impl From<FirewallError> for Problem {
    /// Without rules no guest starts; but neither is one given up because of them.
    fn from(error: FirewallError) -> Self {
        Self::later(error)
    }
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        Self::later(error)
    }
}
