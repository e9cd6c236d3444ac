//! Who calls, once that is proven.

use nova_aws::{ApiVersion, RequestId};
use nova_types::{ProjectId, UserId};

/// The sender of a request whose signature was right and whose role allows the action.
///
/// There is no way to make a caller with more power out of one: what an action may do is decided by its line in the list.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The user.
    pub(crate) user: UserId,
    /// The project that the user acts in.
    pub(crate) project: ProjectId,
    /// Whether the user sees every project: superusers, and holders of `itsec`.
    pub(crate) is_admin: bool,
    /// The request's id.
    pub(crate) request_id: RequestId,
    /// The API that the client speaks.
    pub(crate) version: ApiVersion,
}

impl Caller {
    /// Who wrote and who reads, as far as replicas are concerned: what one member of a project does, all others see.
    pub(crate) fn names(&self) -> [&str; 2] {
        [self.user.as_str(), self.project.as_str()]
    }

    /// The project whose rows the caller sees; `None` is every project.
    pub(crate) fn scope(&self) -> Option<&ProjectId> {
        if self.is_admin { None } else { Some(&self.project) }
    }
}
