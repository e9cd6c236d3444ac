//! The few DER shapes that keys come in, read and written by hand.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// `1.2.840.113549.1.1.1`, rsaEncryption.
pub(crate) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// `1.3.101.112`, Ed25519.
pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// What is left to read of one level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Takes the next element if it has this tag; returns its content.
    pub(crate) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        if found != tag {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            // Keys never need more than three length bytes (16 MiB).
            let count = usize::from(first & 0x7f);
            if !(1..=3).contains(&count) {
                return None;
            }
            let (digits, rest) = rest.split_at_checked(count)?;
            (digits.iter().fold(0, |n, &b| n << 8 | usize::from(b)), rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// Takes the next element and reads on inside it.
    pub(crate) fn enter(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.take(tag).map(Reader)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The modulus and exponent of a PKCS#1 `RSAPublicKey`, big-endian, perhaps with a leading zero.
pub(crate) fn rsa_public(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut outer = Reader::new(der);
    let mut inner = outer.enter(SEQUENCE)?;
    let (modulus, exponent) = (inner.take(INTEGER)?, inner.take(INTEGER)?);
    (inner.is_empty() && outer.is_empty()).then_some((modulus, exponent))
}

/// The algorithm and key bits of an X.509 `SubjectPublicKeyInfo`.
pub(crate) fn public_key_info(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut outer = Reader::new(der);
    let mut inner = outer.enter(SEQUENCE)?;
    let algorithm = inner.enter(SEQUENCE)?.take(OBJECT_ID)?;
    let bits = inner.take(BIT_STRING)?;
    // The first byte counts the unused bits of the last; in a key there are none.
    let (&0, bits) = bits.split_first()? else { return None };
    (inner.is_empty() && outer.is_empty()).then_some((algorithm, bits))
}

/// The PKCS#1 key inside a PKCS#8 `PrivateKeyInfo`.
pub(crate) fn pkcs1_of_pkcs8(der: &[u8]) -> Option<&[u8]> {
    let mut inner = Reader::new(der).enter(SEQUENCE)?;
    inner.take(INTEGER)?;
    inner.take(SEQUENCE)?;
    inner.take(OCTET_STRING)
}

#[cfg(test)]
mod tests {
    use super::{Reader, SEQUENCE, public_key_info, rsa_public};

    #[test]
    fn lengths_that_run_past_the_end_are_refused() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x05, 0],
            &[0x30, 0x80],
            &[0x30, 0x84, 0, 0, 0, 1, 0],
            &[0x30, 0x82, 0xff, 0xff, 0],
            &[0x30, 0x82, 0x01],
            &[0x31, 0],
        ] {
            assert!(Reader::new(bytes).take(SEQUENCE).is_none(), "{bytes:x?}");
            assert!(rsa_public(bytes).is_none() && public_key_info(bytes).is_none());
        }
    }

    #[test]
    fn what_follows_the_key_is_refused() {
        let key = [0x30, 0x06, 0x02, 0x01, 0x05, 0x02, 0x01, 0x03];
        assert_eq!(rsa_public(&key), Some((&[5][..], &[3][..])));
        assert_eq!(rsa_public(&[&key[..], &[0]].concat()), None);
    }
}
