//! Keys, secrets at rest, certificates, and the credentials a user is handed.
//!
//! Knows nothing of the database: callers bring names and keep what comes out.
//! The private parts travel as [`Secret`], whose `Debug` shows nothing.

mod access;
mod ca;
mod credentials;
mod der;
mod files;
mod key_pair;
mod pem;
mod secret_box;

pub use access::{AccessKey, BadKeyText, RandomError, Secret, generate_secret_key, parse_secret_key};
pub use ca::{Authority, CaError, CaFiles, Revoked, UserCertificate, fill_subject};
pub use credentials::{
    Credentials, Endpoint, VpnClient, ZipError, ZipNames, credentials_zip, novarc, vpn_user_data, write_private,
    write_private_below,
};
pub use files::FileError;
pub use key_pair::{ImportedKey, KeyKind, KeyPairError, NewKeyPair, create_key_pair, import_public_key};
pub use secret_box::{SecretBox, SecretBoxError};
