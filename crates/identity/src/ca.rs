//! The cloud's certificate authority: made on demand, signs users' certificates.
//!
//! Files keep the names that Nova's scripts gave them. The key comes first and alone decides: a
//! certificate is only ever made for the key that is there, so a crash or a race between two
//! processes leaves one authority, never two halves.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RevokedCertParams,
    RsaKeySize, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::access::Secret;
use crate::files::{self, FileError};
use crate::{der, pem};

/// Nova's CA ended after a year and nothing renewed it.
const CA_LIFE: Duration = Duration::days(3650);
const USER_LIFE: Duration = Duration::days(365);
const CRL_LIFE: Duration = Duration::days(3650);
/// Clocks of a cloud differ a little; a certificate must not be from the future.
const CLOCK_SKEW: Duration = Duration::minutes(5);
/// Nova's first serial number.
const FIRST_SERIAL: u64 = 0x10;

/// Where the authority's files are.
#[derive(Clone, Debug)]
pub struct CaFiles {
    /// `--ca_path`.
    pub folder: PathBuf,
    /// `--ca_file`, in the folder unless absolute.
    pub certificate: PathBuf,
    /// `--key_file`, in the folder unless absolute.
    pub key: PathBuf,
    /// `--crl_file`, in the folder unless absolute.
    pub crl: PathBuf,
}

impl CaFiles {
    /// The names that Nova gave them: `cacert.pem`, `private/cakey.pem`, `crl.pem`.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            certificate: "cacert.pem".into(),
            key: "private/cakey.pem".into(),
            crl: "crl.pem".into(),
        }
    }
}

/// A certificate authority that can sign.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    crl: PathBuf,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate that is good no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The kept copy, as [`UserCertificate::file`] said.
    pub file: PathBuf,
    /// Since when.
    pub at: OffsetDateTime,
}

/// A user's certificate and its key, both new.
#[derive(Debug)]
pub struct UserCertificate {
    /// PKCS#1 PEM, as the bundling tools want it.
    pub key_pem: Secret,
    /// A few lines to read, then the PEM.
    pub certificate_pem: String,
    /// The kept copy, `newcerts/<serial>.pem`; what `certificates.file_name` holds.
    pub file: PathBuf,
}

impl Authority {
    /// Reads the authority's key and certificate; makes what is missing (RSA 2048, SHA-256, ten years).
    ///
    /// # Errors
    /// When a file cannot be read or made, or there is a certificate whose key is gone.
    pub fn open_or_create(files: &CaFiles, now: OffsetDateTime) -> Result<Self, CaError> {
        let folder = &files.folder;
        let (certificate, key) = (folder.join(&files.certificate), folder.join(&files.key));
        files::ensure_folder(folder, 0o755)?;
        let key_pem = match read_if_there(&key)? {
            Some(text) => text,
            None if certificate.exists() => return Err(CaError::KeyGone { certificate, key }),
            None => {
                files::ensure_folder(key.parent().unwrap_or(folder), 0o700)?;
                let fresh = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
                files::create_once(&key, 0o600, &fresh.serialize_pem())?
            }
        };
        let key_pair = KeyPair::from_pem(&key_pem).map_err(|source| CaError::BadKey { path: key, source })?;
        let certificate_pem = match read_if_there(&certificate)? {
            Some(text) => text,
            None => {
                let made = root_params(now).self_signed(&key_pair)?;
                files::create_once(&certificate, 0o644, &made.pem())?
            }
        };
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key_pair)
            .map_err(|source| CaError::BadCertificate { path: certificate, source })?;
        let crl = folder.join(&files.crl);
        if !crl.exists() {
            let list = crl_params(Vec::new(), 1, now).signed_by(&issuer)?;
            files::create_once(&crl, 0o644, &list.pem()?)?;
        }
        Ok(Self { folder: folder.clone(), crl, certificate_pem, issuer })
    }

    /// The authority's own certificate, as users get it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Makes a key and a certificate of one year for `subject` (`/C=US/O=…/CN=…`).
    ///
    /// # Errors
    /// [`CaError::BadSubject`] when the subject has a part that is not known; else when a file
    /// cannot be written or a library fails.
    pub fn issue(&self, subject: &str, now: OffsetDateTime) -> Result<UserCertificate, CaError> {
        self.sign(subject, ExtendedKeyUsagePurpose::ClientAuth, now)
    }

    /// The same for a server that users of this authority believe: a project's VPN.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn issue_server(&self, subject: &str, now: OffsetDateTime) -> Result<UserCertificate, CaError> {
        self.sign(subject, ExtendedKeyUsagePurpose::ServerAuth, now)
    }

    /// The list of revoked certificates, as it is now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn revoked_pem(&self) -> Result<String, CaError> {
        Ok(files::read(&self.crl)?)
    }

    fn sign(
        &self,
        subject: &str,
        purpose: ExtendedKeyUsagePurpose,
        now: OffsetDateTime,
    ) -> Result<UserCertificate, CaError> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = parse_subject(subject)?;
        let (serial, file) = self.next_serial()?;
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + USER_LIFE;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let text = format!(
            "Certificate:\n    Serial Number: {serial} (0x{serial:x})\n    Subject: {subject}\n    Not After: {}\n{}",
            params.not_after.date(),
            certificate.pem()
        );
        files::replace(&file, 0o644, text.as_bytes())?;
        let pkcs1 = der::pkcs1_of_pkcs8(key.serialized_der()).ok_or(CaError::Pkcs1)?;
        let key_pem = Secret::new(pem::encode("RSA PRIVATE KEY", pkcs1));
        Ok(UserCertificate { key_pem, certificate_pem: text, file })
    }

    /// Writes the list of revoked certificates anew: exactly those, in place of what it said before.
    ///
    /// # Errors
    /// [`CaError::NoSerial`] for a file that is no certificate of ours; else when the list cannot be written.
    pub fn revoke(&self, revoked: &[Revoked], now: OffsetDateTime) -> Result<(), CaError> {
        let listed: Result<Vec<_>, CaError> = revoked
            .iter()
            .map(|one| {
                let serial = serial_of(&one.file).ok_or_else(|| CaError::NoSerial(one.file.clone()))?;
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: one.at,
                    reason_code: None,
                    invalidity_date: None,
                })
            })
            .collect();
        // Each list has a higher number than the one before.
        let number = u64::try_from(now.unix_timestamp()).unwrap_or(1);
        let list = crl_params(listed?, number, now).signed_by(&self.issuer)?;
        files::replace(&self.crl, 0o644, list.pem()?.as_bytes())?;
        Ok(())
    }

    /// Takes the next free serial number by making its file: exactly one process gets each.
    fn next_serial(&self) -> Result<(u64, PathBuf), CaError> {
        let kept = self.folder.join("newcerts");
        files::ensure_folder(&kept, 0o755)?;
        let counter = self.folder.join("serial");
        let read = read_if_there(&counter)?.and_then(|t| u64::from_str_radix(t.trim(), 16).ok());
        let mut serial = read.unwrap_or(FIRST_SERIAL).max(FIRST_SERIAL);
        loop {
            let file = kept.join(format!("{serial:02X}.pem"));
            if files::claim(&file, 0o644)? {
                // Only a hint where to look next: the claimed file is what counts.
                files::replace(&counter, 0o644, format!("{:02X}\n", serial + 1).as_bytes())?;
                return Ok((serial, file));
            }
            serial += 1;
        }
    }
}

/// Puts `words` in place of the `%s` of a subject template, in order.
///
/// # Errors
/// [`CaError::BadSubject`] when there are more `%s` than words.
pub fn fill_subject(template: &str, words: &[&str]) -> Result<String, CaError> {
    let mut parts = template.split("%s");
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut words = words.iter();
    for part in parts {
        out.push_str(words.next().ok_or_else(|| CaError::BadSubject(template.to_owned()))?);
        out.push_str(part);
    }
    Ok(out)
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or made.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate is there and its key is not, so nothing can be signed.
    #[error("{} is there but its key {} is gone; restore the key, or move the certificate away to get a new authority", certificate.display(), key.display())]
    KeyGone {
        /// The certificate.
        certificate: PathBuf,
        /// Where its key should be.
        key: PathBuf,
    },
    /// The key file holds no key that can sign.
    #[error("{} holds no RSA key that can sign", path.display())]
    BadKey {
        /// The key file.
        path: PathBuf,
        /// What the library says.
        #[source]
        source: rcgen::Error,
    },
    /// The certificate file holds no CA certificate.
    #[error("{} holds no CA certificate", path.display())]
    BadCertificate {
        /// The certificate file.
        path: PathBuf,
        /// What the library says.
        #[source]
        source: rcgen::Error,
    },
    /// A subject that cannot be used.
    #[error("the certificate subject {0:?} is not of the form /C=…/O=…/CN=…")]
    BadSubject(String),
    /// The name of a kept certificate is not its serial number.
    #[error("{} is not named after a serial number", .0.display())]
    NoSerial(PathBuf),
    /// The key does not go into PKCS#1.
    #[error("writing a key in PKCS#1")]
    Pkcs1,
    /// The library failed.
    #[error("making a certificate")]
    Library(#[from] rcgen::Error),
}

fn read_if_there(path: &Path) -> Result<Option<String>, FileError> {
    match files::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.is_absent() => Ok(None),
        Err(e) => Err(e),
    }
}

fn root_params(now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for (part, value) in [
        (DnType::OrganizationName, "NOVA ROOT"),
        (DnType::LocalityName, "Mountain View"),
        (DnType::StateOrProvinceName, "California"),
        (DnType::CountryName, "US"),
    ] {
        name.push(part, value);
    }
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::KeyEncipherment];
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + CA_LIFE;
    params
}

/// Reads the serial number out of `newcerts/1F.pem`.
fn serial_of(file: &Path) -> Option<u64> {
    u64::from_str_radix(file.file_stem()?.to_str()?, 16).ok()
}

fn crl_params(revoked: Vec<RevokedCertParams>, number: u64, now: OffsetDateTime) -> CertificateRevocationListParams {
    CertificateRevocationListParams {
        this_update: now,
        next_update: now + CRL_LIFE,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked,
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn parse_subject(subject: &str) -> Result<DistinguishedName, CaError> {
    let bad = || CaError::BadSubject(subject.to_owned());
    let mut name = DistinguishedName::new();
    for part in subject.strip_prefix('/').ok_or_else(bad)?.split('/') {
        let (kind, value) = part.split_once('=').ok_or_else(bad)?;
        let kind = match kind {
            "C" => DnType::CountryName,
            "ST" => DnType::StateOrProvinceName,
            "L" => DnType::LocalityName,
            "O" => DnType::OrganizationName,
            "OU" => DnType::OrganizationalUnitName,
            "CN" => DnType::CommonName,
            _ => return Err(bad()),
        };
        name.push(kind, value);
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
