//! Access keys and secret keys: made here, or checked when an operator brings them.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

/// Longest key text that is taken; AWS's own are 20 and 40 characters.
const MAX_CHARS: usize = 128;

/// The public half of a user's credentials.
///
/// Clients send it alone or as `access:project`, so it holds no colon; it is
/// written into shell files, so it holds nothing a shell would read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccessKey(String);

impl AccessKey {
    /// Makes a random one, in the form of a version 4 UUID.
    ///
    /// # Errors
    /// [`RandomError`] when the system gives no random bytes.
    pub fn generate() -> Result<Self, RandomError> {
        random_uuid().map(Self)
    }

    /// Returns the key as clients send it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AccessKey {
    type Err = BadKeyText;

    fn from_str(text: &str) -> Result<Self, BadKeyText> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '+' | '=');
        check(text, plain).map_err(|why| BadKeyText { part: "access key", why })?;
        Ok(Self(text.to_owned()))
    }
}

/// Text that must not be logged: a secret key, a private key.
#[derive(Clone, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes `text` as a secret without looking at it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself; the caller answers for where it goes.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

/// Makes a random secret key, in the form of a version 4 UUID as Nova did.
///
/// # Errors
/// [`RandomError`] when the system gives no random bytes.
pub fn generate_secret_key() -> Result<Secret, RandomError> {
    random_uuid().map(Secret)
}

/// Takes a secret key that an operator chose.
///
/// # Errors
/// [`BadKeyText`] when it is empty, too long, or holds what a shell or a flag
/// file would read as something else (blanks, quotes, `$`, backslash).
pub fn parse_secret_key(text: &str) -> Result<Secret, BadKeyText> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '`' | '$' | '\\');
    check(text, plain).map_err(|why| BadKeyText { part: "secret key", why })?;
    Ok(Secret::new(text))
}

/// A key text that cannot be used. Its message never repeats the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {part} {why}")]
pub struct BadKeyText {
    part: &'static str,
    why: &'static str,
}

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct RandomError;

fn check(text: &str, allowed: impl Fn(char) -> bool) -> Result<(), &'static str> {
    match text.len() {
        0 => Err("is empty"),
        n if n > MAX_CHARS => Err("is longer than 128 characters"),
        _ if !text.chars().all(allowed) => Err("holds a character that is not allowed in it"),
        _ => Ok(()),
    }
}

/// Fills `N` bytes from the system's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0_u8; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

fn random_uuid() -> Result<String, RandomError> {
    let mut bytes = random::<16>()?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits = hex::encode(bytes);
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Ok(parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::{AccessKey, Secret, generate_secret_key, parse_secret_key};

    #[test]
    fn a_made_key_has_the_form_of_a_random_uuid() {
        let key = AccessKey::generate().unwrap();
        let text = key.as_str();
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{text}");
        assert_eq!(&text[14..15], "4", "{text}");
        assert!("89ab".contains(&text[19..20]), "{text}");
        assert_eq!(text.parse::<AccessKey>(), Ok(key.clone()));
        assert_ne!(AccessKey::generate().unwrap(), key);
        assert_ne!(generate_secret_key().unwrap(), generate_secret_key().unwrap());
    }

    #[test]
    fn keys_from_an_operator_are_checked() {
        let long = "a".repeat(129);
        for bad in ["", "a:b", "a b", "a\nb", "$HOME", "a/b", "é", &long] {
            assert!(bad.parse::<AccessKey>().is_err(), "access {bad:?}");
        }
        for bad in ["", "a b", "a\tb", "pa\"ss", "a'b", "a`id`", "$HOME", "a\\b", "é", &long] {
            assert!(parse_secret_key(bad).is_err(), "secret {bad:?}");
        }
        for good in ["admin", "AKIAIOSFODNN7EXAMPLE"] {
            assert!(good.parse::<AccessKey>().is_ok(), "{good}");
        }
        assert!(parse_secret_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY=").is_ok());
    }

    #[test]
    fn a_refusal_does_not_repeat_the_secret() {
        let error = parse_secret_key("hunter2 ").unwrap_err();
        assert_eq!(error.to_string(), "the secret key holds a character that is not allowed in it");
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
    }
}
