//! Names that people choose. None of them may ever be a path, a shell word or a piece of XML by accident.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("a {0} may not be empty")]
    Empty(&'static str),
    /// The name has more characters than the limit given.
    #[error("a {what} may have at most {limit} characters")]
    TooLong {
        /// What is named.
        what: &'static str,
        /// The greatest allowed number of characters.
        limit: usize,
    },
    /// The name has a character that is not allowed in it.
    #[error("a {what} may not contain {character:?}")]
    Character {
        /// What is named.
        what: &'static str,
        /// The first character that is not allowed.
        character: char,
    },
    /// The name begins with a character that is only allowed further on.
    #[error("a {0} must begin with a letter or a digit")]
    Start(&'static str),
}

fn check(text: &str, what: &'static str, limit: usize, allowed: fn(char) -> bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    if text.chars().count() > limit {
        return Err(NameError::TooLong { what, limit });
    }
    match text.chars().find(|c| !allowed(*c)) {
        Some(character) => Err(NameError::Character { what, character }),
        None => Ok(()),
    }
}

/// What EC2 allows in the names of key pairs and security groups.
fn ec2_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c)
}

/// What accounts and hosts are named with: they appear in file names, certificates and queue names.
fn plain_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-".contains(c)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:literal, $allowed:ident, plain_start: $plain:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text, $what, $limit, $allowed)?;
                if $plain && !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                    return Err(NameError::Start($what));
                }
                Ok(Self(text.to_owned()))
            }
        }
    };
}

name!(
    /// The name of a key pair, unique for its user.
    KeyName, "key pair name", 255, ec2_character, plain_start: false
);
name!(
    /// The name of a security group, unique in its project.
    GroupName, "security group name", 255, ec2_character, plain_start: false
);
name!(
    /// A project, which is what EC2 calls an account.
    ProjectId, "project name", 64, plain_character, plain_start: true
);
name!(
    /// A user.
    UserId, "user name", 64, plain_character, plain_start: true
);
name!(
    /// A machine that runs Nova's daemons, by its flag `--host`.
    HostName, "host name", 64, plain_character, plain_start: true
);

impl GroupName {
    /// Returns `default`, the group that every project has.
    #[must_use]
    pub fn default_group() -> Self {
        Self("default".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_what_ec2_allows() {
        for text in ["default", "my key", "a/b:(c)#,@[]+=&;{}!$*", &"x".repeat(255)] {
            assert_eq!(text.parse::<GroupName>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn odd_names_are_refused_with_the_reason() {
        assert_eq!("".parse::<KeyName>(), Err(NameError::Empty("key pair name")));
        assert_eq!("a\nb".parse::<KeyName>().unwrap_err().to_string(), "a key pair name may not contain '\\n'");
        assert_eq!("café".parse::<GroupName>().unwrap_err().to_string(), "a security group name may not contain 'é'");
        assert!("x".repeat(256).parse::<GroupName>().is_err());
        for text in ["../etc", ".hidden", "-rf", "a b", "a/b", "a'b", ""] {
            assert!(text.parse::<ProjectId>().is_err(), "{text}");
        }
    }
}
