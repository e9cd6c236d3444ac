//! The id every answer carries, so that a user and a log can speak of the same request.

use std::fmt;

use serde::{Serialize, Serializer};

const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Names one request: 20 characters of `A`-`Z` and `0`-`9`, as old Nova's.
///
/// `I`, `O`, `0` and `1` are left out: people read these ids to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 20]);

impl RequestId {
    /// Makes an id of random bytes; each contributes five bits.
    #[must_use]
    pub fn from_random(bytes: [u8; 20]) -> Self {
        Self(bytes.map(|byte| ALPHABET[usize::from(byte & 31)]))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| fmt::Write::write_char(f, char::from(*byte)))
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::RequestId;

    #[test]
    fn an_id_has_twenty_characters_of_the_old_alphabet() {
        let id = RequestId::from_random(std::array::from_fn(|n| u8::try_from(n * 13).unwrap())).to_string();
        assert_eq!(id, "AP4HWBQ5JXCR6KYDS7LZ");
        assert_eq!(id.len(), 20);
    }
}
