//! PEM, as far as keys need it: one block in or out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Writes one block with lines of 64 characters.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    // Base64 is ASCII, so any split is between characters.
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// Reads the first block of `text`: its label and content.
pub(crate) fn decode(text: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    Some((label, STANDARD.decode(body).ok()?))
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn a_block_comes_back() {
        for len in [0, 1, 47, 48, 49, 300] {
            let der: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            let text = encode("PUBLIC KEY", &der);
            assert!(text.lines().all(|l| l.len() <= 64), "{text}");
            assert_eq!(decode(&text), Some(("PUBLIC KEY", der)));
        }
    }

    #[test]
    fn half_a_block_is_none() {
        for text in [
            "",
            "-----BEGIN X-----",
            "-----BEGIN X-----\nAA==\n-----END Y-----",
            "-----BEGIN X-----\n!\n-----END X-----",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
