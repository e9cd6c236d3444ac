//! What a user is given: the `novarc` to source, and the zip with keys and certificates.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::access::{AccessKey, Secret};
use crate::ca::UserCertificate;
use crate::files::{self, FileError};

/// Where a service is reached from outside.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `http` or `https`.
    pub scheme: String,
    /// Name or address; an IPv6 address in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path, with its leading slash; may be empty.
    pub path: String,
}

impl Endpoint {
    fn url(&self) -> String {
        format!("{}://{}:{}{}", self.scheme, self.host, self.port, self.path)
    }
}

/// Everything that `novarc` says.
#[derive(Debug)]
pub struct Credentials<'a> {
    /// The user's access key, without the project.
    pub access: &'a AccessKey,
    /// The user's secret key.
    pub secret: &'a Secret,
    /// The user's id.
    pub user: &'a str,
    /// The project's id.
    pub project: &'a str,
    /// EC2 API.
    pub ec2: Endpoint,
    /// Object store.
    pub s3: Endpoint,
    /// OpenStack API of the era.
    pub openstack: Endpoint,
    /// The region's name, for today's clients.
    pub region: &'a str,
    /// Names of the files beside `novarc`.
    pub names: &'a ZipNames,
    /// Where the key files will most likely be: used when `novarc` was pasted into another file.
    pub key_folder: &'a Path,
}

/// Names of the zip's entries, by the flags of Nova.
#[derive(Clone, Debug)]
pub struct ZipNames {
    /// `--credential_rc_file`, with `%s` for the region (`nova` where there is only one).
    pub rc: String,
    /// `--credential_key_file`.
    pub key: String,
    /// `--credential_cert_file`.
    pub certificate: String,
    /// `--credential_vpn_file`.
    pub vpn: String,
    /// `--ca_file`.
    pub ca: String,
}

impl Default for ZipNames {
    fn default() -> Self {
        Self {
            rc: "%src".into(),
            key: "pk.pem".into(),
            certificate: "cert.pem".into(),
            vpn: "nova-vpn.conf".into(),
            ca: "cacert.pem".into(),
        }
    }
}

/// Where the project's VPN listens.
#[derive(Clone, Debug)]
pub struct VpnClient {
    /// Public address.
    pub address: String,
    /// UDP port.
    pub port: u16,
}

/// Writes the file that a user sources: Nova's lines in Nova's order, then what today's clients read.
///
/// `access:project` is the access key for all of them. The key folder is that of the sourced file
/// where the keys are there; a `novarc` appended to `~/.bashrc`, as the guide does, falls back on
/// [`Credentials::key_folder`].
#[must_use]
pub fn novarc(c: &Credentials<'_>) -> String {
    let access = quote(&format!("{}:{}", c.access, c.project));
    let secret = quote(c.secret.expose());
    let (ec2, s3, openstack) = (quote(&c.ec2.url()), quote(&c.s3.url()), quote(&c.openstack.url()));
    let (key, certificate, ca) = (&c.names.key, &c.names.certificate, &c.names.ca);
    let folder = quote(&c.key_folder.display().to_string());
    let (alone, user, region) = (quote(c.access.as_str()), quote(c.user), quote(c.region));
    format!(
        r#"NOVA_KEY_DIR=$(cd "$(dirname "${{BASH_SOURCE:-$0}}")" 2>/dev/null && pwd)
[ -r "${{NOVA_KEY_DIR}}/{key}" ] || NOVA_KEY_DIR={folder}
export EC2_ACCESS_KEY={access}
export EC2_SECRET_KEY={secret}
export EC2_URL={ec2}
export S3_URL={s3}
export EC2_USER_ID=42 # nova does not use user id, but bundling requires it
export EC2_PRIVATE_KEY=${{NOVA_KEY_DIR}}/{key}
export EC2_CERT=${{NOVA_KEY_DIR}}/{certificate}
export NOVA_CERT=${{NOVA_KEY_DIR}}/{ca}
export EUCALYPTUS_CERT=${{NOVA_CERT}} # euca-bundle-image seems to require this set
alias ec2-bundle-image="ec2-bundle-image --cert ${{EC2_CERT}} --privatekey ${{EC2_PRIVATE_KEY}} --user 42 --ec2cert ${{NOVA_CERT}}"
alias ec2-upload-bundle="ec2-upload-bundle -a ${{EC2_ACCESS_KEY}} -s ${{EC2_SECRET_KEY}} --url ${{S3_URL}} --ec2cert ${{NOVA_CERT}}"
export CLOUD_SERVERS_API_KEY={alone}
export CLOUD_SERVERS_USERNAME={user}
export CLOUD_SERVERS_URL={openstack}
export NOVA_API_KEY={alone}
export NOVA_USERNAME={user}
export NOVA_URL={openstack}
export AWS_ACCESS_KEY_ID={access}
export AWS_SECRET_ACCESS_KEY={secret}
export AWS_DEFAULT_REGION={region}
export AWS_ENDPOINT_URL_EC2={ec2}
export AWS_ENDPOINT_URL_S3={s3}
"#
    )
}

/// Packs the credentials: a novarc for each region, key, certificate, VPN file (if there is a VPN), CA certificate.
///
/// # Errors
/// [`ZipError`] when the entries do not fit a zip, which takes gigabytes.
pub fn credentials_zip(
    regions: &[Credentials<'_>],
    names: &ZipNames,
    certificate: &UserCertificate,
    ca_pem: &str,
    vpn: Option<&VpnClient>,
) -> Result<Vec<u8>, ZipError> {
    let vpn = vpn.map(|v| vpn_file(v, names));
    let rcs: Vec<_> = regions.iter().map(|c| (names.rc.replace("%s", c.region), novarc(c))).collect();
    let mut entries: Vec<_> = rcs.iter().map(|(name, rc)| (name.clone(), rc.as_str(), 0o600)).collect();
    entries.extend([
        (names.key.clone(), certificate.key_pem.expose(), 0o600),
        (names.certificate.clone(), certificate.certificate_pem.as_str(), 0o644),
    ]);
    if let Some(text) = &vpn {
        entries.push((names.vpn.clone(), text, 0o644));
    }
    entries.push((names.ca.clone(), ca_pem, 0o644));
    pack(entries, CompressionMethod::Stored)
}

/// What an instance that is a project's VPN is given as user data: a zip of its script, keys and certificates, in base64,
/// which the guest decodes. Clients of the API would see base64 of that.
///
/// # Errors
/// [`ZipError`] when the entries do not fit a zip, which takes gigabytes.
pub fn vpn_user_data(
    script: &str,
    server: &UserCertificate,
    ca_pem: &str,
    revoked_pem: &str,
) -> Result<Vec<u8>, ZipError> {
    let entries = [
        ("autorun.sh", script, 0o755),
        ("crl.pem", revoked_pem, 0o644),
        ("server.key", server.key_pem.expose(), 0o600),
        ("ca.crt", ca_pem, 0o644),
        ("server.crt", &server.certificate_pem, 0o644),
    ];
    let entries = entries.map(|(name, content, mode)| (name.to_owned(), content, mode));
    let zip = pack(entries, CompressionMethod::Deflated)?;
    Ok(STANDARD.encode(zip).into_bytes())
}

/// Makes a zip of names, contents and modes.
fn pack<'a>(
    entries: impl IntoIterator<Item = (String, &'a str, u32)>,
    method: CompressionMethod,
) -> Result<Vec<u8>, ZipError> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, mode) in entries {
        let options = SimpleFileOptions::default().compression_method(method).unix_permissions(mode);
        zip.start_file(name, options)?;
        zip.write_all(content.as_bytes()).map_err(zip::result::ZipError::Io)?;
    }
    Ok(zip.finish()?.into_inner())
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// [`FileError`] when the folder is missing or may not be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    files::replace(path, 0o600, content)
}

/// The same in a folder of which it and the one above it are made where they are missing, for the owner alone.
///
/// # Errors
/// [`FileError`] when a folder cannot be made or may not be written.
pub fn write_private_below(root: &Path, folder: &str, name: &str, content: &[u8]) -> Result<PathBuf, FileError> {
    let folder = root.join(folder);
    files::ensure_folder(root, 0o700)?;
    files::ensure_folder(&folder, 0o700)?;
    let path = folder.join(name);
    files::replace(&path, 0o600, content)?;
    Ok(path)
}

/// The zip could not be packed.
#[derive(Debug, thiserror::Error)]
#[error("packing the credentials")]
pub struct ZipError(#[from] zip::result::ZipError);

fn vpn_file(vpn: &VpnClient, names: &ZipNames) -> String {
    format!(
        "cert {}\nkey {}\nca {}\n\nclient\ndev tap\nproto udp\nremote {} {}\nresolv-retry infinite\nnobind\n\
         user nobody\ngroup nogroup\ncomp-lzo\nverb 2\nkeepalive 10 120\nping-timer-rem\npersist-tun\npersist-key\n",
        names.certificate, names.key, names.ca, vpn.address, vpn.port
    )
}

/// In double quotes, with what a shell reads inside them escaped.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
