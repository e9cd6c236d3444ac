//! Query strings and form bodies: decoding into pairs, and the encoding that signatures use.

use std::collections::HashSet;

/// Most parameters one request may carry.
const MAX_PAIRS: usize = 1024;
/// Longest name of a parameter, in bytes after decoding.
const MAX_NAME_BYTES: usize = 256;
/// Longest value of a parameter, in bytes after decoding.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Names and values in the order they were sent.
pub type Pairs = Vec<(String, String)>;

/// Why a query string or form body was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A `%` without two hex digits after it.
    #[error("the query string has a broken percent escape")]
    Escape,
    /// The decoded bytes are not text.
    #[error("the query string is not UTF-8")]
    NotUtf8,
    /// More than 1,024 parameters.
    #[error("a request may have at most {MAX_PAIRS} parameters")]
    TooMany,
    /// A name over 256 bytes; the field holds how it begins.
    #[error("the parameter name {0}... is longer than {MAX_NAME_BYTES} bytes")]
    LongName(String),
    /// A value over 64 KiB.
    #[error("the value of {0} is longer than {MAX_VALUE_BYTES} bytes")]
    LongValue(String),
    /// The same name twice, letter case aside: nobody can say which one was meant.
    #[error("the parameter {0} is given more than once")]
    Duplicate(String),
}

/// Decodes `application/x-www-form-urlencoded` texts that belong to one request: its query string and its form body.
///
/// # Errors
/// Fails on broken escapes, text that is not UTF-8, over-long or too many parameters, and duplicates within or between the texts.
pub fn decode<const N: usize>(texts: [&[u8]; N]) -> Result<[Pairs; N], QueryError> {
    let mut decoded = [const { Pairs::new() }; N];
    let mut seen = HashSet::new();
    for (pairs, text) in decoded.iter_mut().zip(texts) {
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            if seen.len() == MAX_PAIRS {
                return Err(QueryError::TooMany);
            }
            let (name, value) = decode_pair(pair)?;
            if !seen.insert(name.to_ascii_lowercase()) {
                return Err(QueryError::Duplicate(name));
            }
            pairs.push((name, value));
        }
    }
    Ok(decoded)
}

/// Percent-encodes all but the unreserved characters (`A-Z a-z 0-9 - _ . ~`), as both signature schemes ask.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(hex_digit(byte >> 4));
            out.push(hex_digit(byte & 15));
        }
    }
    out
}

const fn hex_digit(nibble: u8) -> char {
    b"0123456789ABCDEF"[nibble as usize] as char
}

fn decode_pair(pair: &[u8]) -> Result<(String, String), QueryError> {
    let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    let name = unescape(&pair[..equals])?;
    let value = unescape(pair.get(equals + 1..).unwrap_or_default())?;
    if name.len() > MAX_NAME_BYTES {
        return Err(QueryError::LongName(name.chars().take(32).collect()));
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(QueryError::LongValue(name));
    }
    Ok((name, value))
}

fn unescape(text: &[u8]) -> Result<String, QueryError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut nibble = || rest.next().and_then(|digit| char::from(*digit).to_digit(16));
                let (high, low) = (nibble().ok_or(QueryError::Escape)?, nibble().ok_or(QueryError::Escape)?);
                u8::try_from(high * 16 + low).map_err(|_| QueryError::Escape)?
            }
            byte => *byte,
        });
    }
    String::from_utf8(out).map_err(|_| QueryError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::{QueryError, decode, encode};

    #[test]
    fn names_and_values_are_decoded_in_order() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("&&", &[]),
            ("a=1&b=2", &[("a", "1"), ("b", "2")]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("a=b=c", &[("a", "b=c")]),
            ("k=a+b%20c%2Bd", &[("k", "a b c+d")]),
            ("k=caf%C3%A9", &[("k", "café")]),
            ("%41=%e2%82%ac", &[("A", "€")]),
        ];
        for (text, wanted) in cases {
            let [got] = decode([text.as_bytes()]).unwrap();
            let got: Vec<_> = got.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(got, *wanted, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let long_name = format!("{}=1", "n".repeat(257));
        let long_value = format!("k={}", "v".repeat(64 * 1024 + 1));
        let many: String = (0..=1024).map(|n| format!("k{n}=1&")).collect();
        let cases = [
            ("a=%", QueryError::Escape),
            ("a=%4", QueryError::Escape),
            ("a=%zz", QueryError::Escape),
            ("a=%+1", QueryError::Escape),
            ("a=%ff", QueryError::NotUtf8),
            ("a=1&a=1", QueryError::Duplicate("a".into())),
            ("Action=1&action=2", QueryError::Duplicate("action".into())),
            (long_name.as_str(), QueryError::LongName("n".repeat(32))),
            (long_value.as_str(), QueryError::LongValue("k".into())),
            (many.as_str(), QueryError::TooMany),
        ];
        for (text, wanted) in cases {
            assert_eq!(decode([text.as_bytes()]), Err(wanted), "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn a_name_in_both_query_and_form_is_a_duplicate() {
        assert_eq!(decode([b"Action=a", b"Action=b"]), Err(QueryError::Duplicate("Action".into())));
        let [query, form] = decode([b"a=1", b"b=2"]).unwrap();
        assert_eq!((query, form), (vec![("a".into(), "1".into())], vec![("b".into(), "2".into())]));
    }

    #[test]
    fn only_the_unreserved_characters_stay() {
        assert_eq!(encode("aZ09-_.~"), "aZ09-_.~");
        assert_eq!(encode("a b+c/é*"), "a%20b%2Bc%2F%C3%A9%2A");
    }
}
