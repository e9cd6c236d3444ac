//! Reads a public key in any form that AWS's clients send.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Mpint, PublicKey};

use super::{ImportedKey, KeyPairError, clean_comment, describe, rsa_key_data};
use crate::{der, pem};

/// An OpenSSH line of RSA 16384 is under 3 KiB; base64 adds a third.
const MAX_CHARS: usize = 16 * 1024;
const RSA_BITS: std::ops::RangeInclusive<usize> = 1024..=16384;

/// Reads `PublicKeyMaterial` as it was sent: an OpenSSH line, RFC 4716, PEM or DER, in base64 or bare.
///
/// # Errors
/// [`KeyPairError::BadMaterial`] when it is none of these, is a private key, or is of a kind or
/// length that we do not take (DSA, certificates, RSA under 1024 bits).
pub fn import_public_key(material: &str) -> Result<ImportedKey, KeyPairError> {
    if material.len() > MAX_CHARS {
        return Err(KeyPairError::BadMaterial("the key material is longer than 16 KiB"));
    }
    let key = match text_of(material)? {
        Form::Text(text) => from_text(text.trim())?,
        Form::Der(bytes) => from_public_key_info(&bytes)?,
    };
    check(&key)?;
    describe(&PublicKey::new(key.key_data().clone(), clean_comment(key.comment())))
}

enum Form {
    Text(String),
    Der(Vec<u8>),
}

/// Takes off the base64 that clients put around the key, if it is there.
fn text_of(material: &str) -> Result<Form, KeyPairError> {
    let bare: String = material.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    match STANDARD.decode(&bare) {
        Ok(bytes) if bytes.first() == Some(&der::SEQUENCE) => Ok(Form::Der(bytes)),
        Ok(bytes) => String::from_utf8(bytes).map(Form::Text).map_err(|_| BAD),
        Err(_) => Ok(Form::Text(material.to_owned())),
    }
}

const BAD: KeyPairError =
    KeyPairError::BadMaterial("the key material is not a public key in OpenSSH, RFC 4716, PEM or DER form");

fn from_text(text: &str) -> Result<PublicKey, KeyPairError> {
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyPairError::BadMaterial("the key material is a private key; send the public one"));
    }
    if let Some(body) = text.strip_prefix("---- BEGIN SSH2 PUBLIC KEY ----") {
        return from_rfc4716(body);
    }
    if text.starts_with("-----BEGIN ") {
        return match pem::decode(text) {
            Some(("PUBLIC KEY", der)) => from_public_key_info(&der),
            Some(("RSA PUBLIC KEY", der)) => from_pkcs1(&der),
            _ => Err(BAD),
        };
    }
    // A file of DER in base64, which the client wrapped in base64 once more.
    if let Ok(Form::Der(bytes)) = text_of(text) {
        return from_public_key_info(&bytes);
    }
    if text.lines().count() != 1 {
        return Err(KeyPairError::BadMaterial("the key material holds more than one line"));
    }
    PublicKey::from_openssh(text).map_err(|_| BAD)
}

/// Header lines (`Comment: …`, a backslash goes on), then the blob in base64.
fn from_rfc4716(body: &str) -> Result<PublicKey, KeyPairError> {
    let (body, _) = body.split_once("---- END SSH2 PUBLIC KEY ----").ok_or(BAD)?;
    let mut blob = String::new();
    let mut in_header = false;
    for line in body.lines().map(str::trim) {
        if in_header || line.contains(':') {
            in_header = line.ends_with('\\');
        } else {
            blob.push_str(line);
        }
    }
    let blob = STANDARD.decode(blob).map_err(|_| BAD)?;
    PublicKey::from_bytes(&blob).map_err(|_| BAD)
}

fn from_public_key_info(bytes: &[u8]) -> Result<PublicKey, KeyPairError> {
    match der::public_key_info(bytes) {
        Some((der::RSA, key)) => from_pkcs1(key),
        Some((der::ED25519, key)) => {
            let key: [u8; 32] = key.try_into().map_err(|_| BAD)?;
            Ok(PublicKey::from(KeyData::Ed25519(Ed25519PublicKey(key))))
        }
        Some(_) => Err(KeyPairError::BadMaterial("only RSA and Ed25519 keys are taken in PEM or DER form")),
        None => from_pkcs1(bytes),
    }
}

fn from_pkcs1(bytes: &[u8]) -> Result<PublicKey, KeyPairError> {
    let (n, e) = der::rsa_public(bytes).ok_or(BAD)?;
    Ok(PublicKey::from(rsa_key_data(n, e).map_err(|_| BAD)?))
}

fn check(key: &PublicKey) -> Result<(), KeyPairError> {
    match key.key_data() {
        KeyData::Rsa(rsa) => {
            let odd = |n: &Mpint| n.as_bytes().last().is_some_and(|b| b & 1 == 1);
            let n = rsa.n.as_positive_bytes().ok_or(BAD)?;
            let bits = n.len() * 8 - n.first().map_or(0, |b| b.leading_zeros() as usize);
            if !RSA_BITS.contains(&bits) {
                return Err(KeyPairError::BadMaterial("an RSA key must have 1024 to 16384 bits"));
            }
            let exponent_is_one = rsa.e.as_positive_bytes() == Some(&[1]);
            if odd(&rsa.n) && odd(&rsa.e) && !exponent_is_one { Ok(()) } else { Err(BAD) }
        }
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) => Ok(()),
        _ => Err(KeyPairError::BadMaterial("only RSA, Ed25519 and ECDSA keys are taken")),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use expect_test::{Expect, expect};

    use super::import_public_key;
    use crate::{KeyKind, create_key_pair};

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";

    fn refused(material: &str, because: Expect) {
        because.assert_eq(&import_public_key(material).unwrap_err().to_string());
        let wrapped = STANDARD.encode(material);
        because.assert_eq(&import_public_key(&wrapped).unwrap_err().to_string());
    }

    #[test]
    fn a_line_is_read_bare_and_in_base64() {
        let bare = import_public_key(ED25519).unwrap();
        assert_eq!(bare.public_line, ED25519);
        assert_eq!(import_public_key(&STANDARD.encode(ED25519)).unwrap(), bare);
        assert_eq!(import_public_key(&STANDARD.encode(format!("{ED25519}\r\n"))).unwrap(), bare);
    }

    #[test]
    fn every_form_of_one_key_has_one_fingerprint() {
        use aws_lc_rs::encoding::AsDer;
        use aws_lc_rs::signature::KeyPair;
        let made = create_key_pair(KeyKind::Rsa, "k").unwrap();
        let (_, pkcs1) = crate::pem::decode(made.private_pem.expose()).unwrap();
        let key = aws_lc_rs::rsa::KeyPair::from_der(&pkcs1).unwrap();
        let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap();
        let blob = made.public_line.split(' ').nth(1).unwrap();
        let forms = [
            made.public_line.clone(),
            crate::pem::encode("PUBLIC KEY", spki.as_ref()),
            crate::pem::encode("RSA PUBLIC KEY", key.public_key().as_ref()),
            STANDARD.encode(spki.as_ref()),
            format!(
                "---- BEGIN SSH2 PUBLIC KEY ----\nComment: \"a \\\nlong: one\"\n{}\n{}\n---- END SSH2 PUBLIC KEY ----\n",
                &blob[..70],
                &blob[70..]
            ),
        ];
        for form in forms {
            assert_eq!(import_public_key(&form).unwrap().fingerprint, made.fingerprint, "{form}");
            let wrapped = STANDARD.encode(&form);
            assert_eq!(import_public_key(&wrapped).unwrap().fingerprint, made.fingerprint, "{form}");
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let none = "the key material is not a public key in OpenSSH, RFC 4716, PEM or DER form";
        for bad in [
            "",
            "hello",
            "ssh-rsa",
            "ssh-rsa AAAA k",
            "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
            "---- BEGIN SSH2 PUBLIC KEY ----",
        ] {
            let error = import_public_key(&STANDARD.encode(bad)).unwrap_err().to_string();
            assert!(error == none || bad.is_empty(), "{bad:?}: {error}");
            assert!(import_public_key(bad).is_err(), "{bad:?}");
        }
        refused(
            "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
            expect!["the key material is a private key; send the public one"],
        );
        refused(&format!("{ED25519}\n{ED25519}"), expect!["the key material holds more than one line"]);
        assert!(import_public_key(&"A".repeat(20_000)).is_err());
    }

    #[test]
    fn short_rsa_keys_are_refused() {
        // 512 bits, exponent 65537.
        let mut modulus = vec![0x00, 0xc1];
        modulus.extend([0x5a; 62]);
        modulus.push(0x01);
        let number = |n: &[u8]| [&[0x02, u8::try_from(n.len()).unwrap()], n].concat();
        let body = [number(&modulus), number(&[1, 0, 1])].concat();
        let der = [&[0x30, u8::try_from(body.len()).unwrap()], &body[..]].concat();
        refused(&crate::pem::encode("RSA PUBLIC KEY", &der), expect!["an RSA key must have 1024 to 16384 bits"]);
    }
}
