//! Users, projects and what they may do.

use crate::{ProjectId, UserId};

/// A person or a program with a key of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its id, which is also its name.
    pub id: UserId,
    /// The public half of its key.
    pub access_key: String,
    /// The secret half, sealed: only the holder of the cloud's key file can read it.
    pub sealed_secret: String,
    /// Whether it may do everything.
    pub is_admin: bool,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("is_admin", &self.is_admin).finish_non_exhaustive()
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its id, which is also its name.
    pub id: ProjectId,
    /// What it is for.
    pub description: String,
    /// The user who manages it.
    pub manager: UserId,
}

/// What a user may be allowed (nova-api §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Everything, everywhere. Global only.
    CloudAdmin,
    /// Sees every project. Global only.
    ItSec,
    /// Runs instances.
    SysAdmin,
    /// Opens security groups and handles addresses.
    NetAdmin,
    /// Nothing by itself.
    Developer,
}

impl Role {
    /// Every role, in old Nova's order.
    pub const ALL: [Self; 5] = [Self::CloudAdmin, Self::ItSec, Self::SysAdmin, Self::NetAdmin, Self::Developer];

    /// Returns the role's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloudAdmin => "cloudadmin",
            Self::ItSec => "itsec",
            Self::SysAdmin => "sysadmin",
            Self::NetAdmin => "netadmin",
            Self::Developer => "developer",
        }
    }

    /// Reads the role's word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// Tells whether the role cannot be held in a single project.
    #[must_use]
    pub const fn is_global_only(self) -> bool {
        matches!(self, Self::CloudAdmin | Self::ItSec)
    }
}

/// Who a request comes from, as the database has it: read in one query, by access key and project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user with that access key.
    pub user: User,
    /// The project asked for, if there is one of that name.
    pub project: Option<Project>,
    /// Whether the user is a member of that project.
    pub is_member: bool,
    /// The roles held everywhere.
    pub global_roles: Vec<Role>,
    /// The roles held in that project. One counts only if it is also held everywhere (nova-api §3.1).
    pub project_roles: Vec<Role>,
}

impl Identity {
    /// Tells whether the user may do everything: the admin flag, or the role `cloudadmin`.
    #[must_use]
    pub fn is_superuser(&self) -> bool {
        self.user.is_admin || self.global_roles.contains(&Role::CloudAdmin)
    }

    /// Tells whether the user sees every project: superusers, and holders of `itsec`.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.is_superuser() || self.global_roles.contains(&Role::ItSec)
    }

    /// Tells whether the user holds `role` here: everywhere, and in the project too unless the role is global only.
    #[must_use]
    pub fn has_role(&self, role: Role) -> bool {
        self.global_roles.contains(&role) && (role.is_global_only() || self.project_roles.contains(&role))
    }

    /// Tells whether the user manages the project.
    #[must_use]
    pub fn is_project_manager(&self) -> bool {
        self.project.as_ref().is_some_and(|project| project.manager == self.user.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joe(global_roles: Vec<Role>, project_roles: Vec<Role>) -> Identity {
        let id: UserId = "joe".parse().unwrap();
        Identity {
            user: User { id: id.clone(), access_key: "a".into(), sealed_secret: "s3cret".into(), is_admin: false },
            project: Some(Project { id: "p".parse().unwrap(), description: String::new(), manager: id }),
            is_member: true,
            global_roles,
            project_roles,
        }
    }

    #[test]
    fn a_project_role_counts_only_if_it_is_also_held_everywhere() {
        for (global, project, wanted) in [
            (vec![], vec![Role::SysAdmin], false),
            (vec![Role::SysAdmin], vec![], false),
            (vec![Role::SysAdmin], vec![Role::SysAdmin], true),
        ] {
            assert_eq!(joe(global, project).has_role(Role::SysAdmin), wanted);
        }
        assert!(joe(vec![Role::ItSec], vec![]).is_admin());
        assert!(!joe(vec![Role::ItSec], vec![]).is_superuser());
    }

    #[test]
    fn a_user_is_never_printed_with_its_secret() {
        assert!(!format!("{:?}", joe(vec![], vec![])).contains("s3cret"));
    }
}
