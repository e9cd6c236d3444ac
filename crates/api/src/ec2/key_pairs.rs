//! `CreateKeyPair`, `ImportKeyPair`, `DescribeKeyPairs`, `DeleteKeyPair`.
//!
//! Key pairs belong to a user, not to a project (nova-api §4.4).

use nova_aws::{Filter, Filters, Param, Params, Return, Set, Timestamp};
use nova_db::{DbError, Unique, describe, key_pairs};
use nova_identity::{KeyKind, KeyPairError, create_key_pair, import_public_key};
use nova_types::{KeyName, KeyPairId, key_pair::KeyPair};
use serde::Serialize;

use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// Makes a key pair and hands out its private half, which is kept nowhere.
pub(crate) struct CreateKeyPair {
    name: KeyName,
    kind: KeyKind,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateKeyPairResponse {
    key_name: String,
    key_fingerprint: String,
    key_material: String,
    key_pair_id: String,
}

impl Action for CreateKeyPair {
    type Response = CreateKeyPairResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        params.take::<Pem>("KeyFormat")?; // the only one there is
        let kind = params.take::<Kind>("KeyType")?.map_or(KeyKind::Rsa, |kind| kind.0);
        Ok(Self { name: params.required("KeyName")?, kind })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<CreateKeyPairResponse, Error> {
        let Self { name, kind } = self;
        refuse_reserved(caller, cloud, &name)?;
        // Making one takes a processor a while, so a taken name is refused first; the row still decides.
        if key_pairs::get(&mut cloud.db.read().await?, &caller.user, &name).await?.is_some() {
            return Err(Error::KeyPairExists(name));
        }
        let comment = name.to_string();
        let made = tokio::task::spawn_blocking(move || create_key_pair(kind, &comment)).await;
        let made = made.map_err(|_| Error::Panic)?.map_err(Error::KeyPair)?;
        let id = keep(caller, cloud, &name, &made.fingerprint, &made.public_line).await?;
        Ok(CreateKeyPairResponse {
            key_name: name.to_string(),
            key_fingerprint: made.fingerprint,
            key_material: made.private_pem.expose().to_owned(),
            key_pair_id: id.to_string(),
        })
    }
}

/// Keeps the public half of a key pair that the user made.
pub(crate) struct ImportKeyPair {
    name: KeyName,
    material: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImportKeyPairResponse {
    key_name: String,
    key_fingerprint: String,
    key_pair_id: String,
}

impl Action for ImportKeyPair {
    type Response = ImportKeyPairResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Ok(Self { name: params.required("KeyName")?, material: params.required("PublicKeyMaterial")? })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<ImportKeyPairResponse, Error> {
        refuse_reserved(caller, cloud, &self.name)?;
        let key = import_public_key(&self.material).map_err(|error| match error {
            KeyPairError::BadMaterial(why) => Error::BadKeyMaterial(why),
            error => Error::KeyPair(error),
        })?;
        let id = keep(caller, cloud, &self.name, &key.fingerprint, &key.public_line).await?;
        Ok(ImportKeyPairResponse {
            key_name: self.name.to_string(),
            key_fingerprint: key.fingerprint,
            key_pair_id: id.to_string(),
        })
    }
}

/// Lists the caller's key pairs, or only those named.
pub(crate) struct DescribeKeyPairs {
    names: Vec<KeyName>,
    ids: Vec<KeyPairId>,
    with_public_key: bool,
    filters: Filters<KeyPair>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeKeyPairsResponse {
    key_set: Set<KeyPairItem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyPairItem {
    key_pair_id: String,
    key_name: String,
    key_fingerprint: String,
    key_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    create_time: Timestamp,
}

const FILTERS: &[Filter<KeyPair>] = &[
    ("key-pair-id", |pair| vec![pair.id.to_string()]),
    ("key-name", |pair| vec![pair.name.to_string()]),
    ("fingerprint", |pair| vec![pair.fingerprint.clone()]),
];

impl Action for DescribeKeyPairs {
    type Response = DescribeKeyPairsResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Ok(Self {
            names: params.list("KeyName")?,
            ids: params.list("KeyPairId")?,
            with_public_key: params.flag("IncludePublicKey")?,
            filters: Filters::parse(params, FILTERS)?,
        })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<DescribeKeyPairsResponse, Error> {
        let mut pairs =
            describe!(cloud.db, &caller.names(), |conn| -> Error { Ok(key_pairs::list(conn, &caller.user).await?) })?;
        pairs.retain(|pair| caller.is_admin || !is_reserved(cloud, &pair.name));
        if let Some(unknown) = self.names.iter().find(|name| !pairs.iter().any(|pair| pair.name == **name)) {
            return Err(Error::NoSuchKeyPair(unknown.to_string()));
        }
        if let Some(unknown) = self.ids.iter().find(|id| !pairs.iter().any(|pair| pair.id == **id)) {
            return Err(Error::NoSuchKeyPair(unknown.to_string()));
        }
        let everything = self.names.is_empty() && self.ids.is_empty();
        pairs.retain(|pair| everything || self.names.contains(&pair.name) || self.ids.contains(&pair.id));
        pairs.retain(|pair| self.filters.admit(pair));
        Ok(DescribeKeyPairsResponse {
            key_set: pairs.into_iter().map(|pair| item(pair, self.with_public_key)).collect(),
        })
    }
}

/// Forgets a key pair of the caller's; one that is not there is forgotten already.
pub(crate) enum DeleteKeyPair {
    Named(KeyName),
    WithId(KeyPairId),
}

impl Action for DeleteKeyPair {
    type Response = Return;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        match params.take("KeyPairId")? {
            Some(id) => Ok(Self::WithId(id)),
            None => Ok(Self::Named(params.required("KeyName")?)),
        }
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Return, Error> {
        let name = match self {
            Self::Named(name) => Some(name),
            Self::WithId(id) => {
                let pairs = key_pairs::list(&mut cloud.db.read().await?, &caller.user).await?;
                pairs.into_iter().find(|pair| pair.id == id).map(|pair| pair.name)
            }
        };
        if let Some(name) = name {
            key_pairs::delete(&mut cloud.db.write().await?, &caller.user, &name).await?;
        }
        Ok(Return)
    }
}

fn item(pair: KeyPair, with_public_key: bool) -> KeyPairItem {
    KeyPairItem {
        key_pair_id: pair.id.to_string(),
        key_name: pair.name.to_string(),
        key_fingerprint: pair.fingerprint,
        key_type: if pair.public_key.starts_with("ssh-ed25519 ") { "ed25519" } else { "rsa" },
        public_key: with_public_key.then_some(pair.public_key),
        create_time: pair.created_at.into(),
    }
}

/// Key pairs of projects' VPNs, which only administrators make and see.
fn is_reserved(cloud: &Cloud, name: &KeyName) -> bool {
    let suffix = &cloud.config.api.vpn_key_suffix;
    !suffix.is_empty() && name.as_str().ends_with(suffix)
}

/// Who could not see a key pair afterwards may not make it.
fn refuse_reserved(caller: &Caller, cloud: &Cloud, name: &KeyName) -> Result<(), Error> {
    if is_reserved(cloud, name) && !caller.is_admin { Err(Error::ReservedKeyName(name.clone())) } else { Ok(()) }
}

/// Writes the row, whose unique name decides between two requests at once.
async fn keep(
    caller: &Caller,
    cloud: &Cloud,
    name: &KeyName,
    fingerprint: &str,
    public_key: &str,
) -> Result<KeyPairId, Error> {
    let row = key_pairs::NewKeyPair { user: &caller.user, name, fingerprint, public_key };
    key_pairs::create(&mut cloud.db.write().await?, &row).await.map_err(|error| match error {
        DbError::Duplicate(Unique::KeyPair) => Error::KeyPairExists(name.clone()),
        error => Error::Db(error),
    })
}

/// `KeyType` as clients send it.
struct Kind(KeyKind);

impl Param for Kind {
    const EXPECTED: &'static str = "rsa or ed25519";

    fn read(text: &str) -> Option<Self> {
        match text {
            "rsa" => Some(Self(KeyKind::Rsa)),
            "ed25519" => Some(Self(KeyKind::Ed25519)),
            _ => None,
        }
    }
}

/// `KeyFormat` as clients send it.
struct Pem;

impl Param for Pem {
    const EXPECTED: &'static str = "pem";

    fn read(text: &str) -> Option<Self> {
        (text == "pem").then_some(Self)
    }
}

#[cfg(test)]
mod tests;
