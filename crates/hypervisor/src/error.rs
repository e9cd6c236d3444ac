//! What can go wrong with a hypervisor.

use std::io;
use std::path::PathBuf;

use nova_types::InstanceId;

/// Why the hypervisor did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// It could not be asked, or gave no answer. Nothing is known, so nothing may be concluded; try again later.
    #[error("could not ask the hypervisor: {reason}")]
    Unreachable {
        /// What stood in the way.
        reason: String,
    },
    /// It was asked, and refused or failed.
    #[error("the hypervisor could not {verb} {id}: {reason}")]
    Refused {
        /// What it should have done.
        verb: &'static str,
        /// With which guest.
        id: InstanceId,
        /// In the hypervisor's own words.
        reason: String,
    },
    /// The description of a guest holds something that no domain may hold.
    #[error("{field} of {id} cannot be described to the hypervisor")]
    Spec {
        /// The guest.
        id: InstanceId,
        /// The part of its description.
        field: &'static str,
    },
    /// The console's log is there and cannot be read.
    #[error("reading {path}")]
    Console {
        /// The log.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl HypervisorError {
    /// Tells whether the call may succeed later although nothing is changed.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { .. } | Self::Spec { .. } | Self::Console { .. } => false,
        }
    }

    pub(crate) fn unreachable(reason: impl Into<String>) -> Self {
        Self::Unreachable { reason: reason.into() }
    }
}
