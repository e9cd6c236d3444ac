//! Who is calling: the signature, the project, and what wrong guesses cost.

mod cache;
mod lockout;

use std::{net::IpAddr, sync::Arc};

use nova_aws::{Claim, SignedRequest};
use nova_config::ApiConfig;
use nova_db::{Db, accounts};
use nova_identity::{Secret, SecretBox};
use nova_types::account::Identity;
use tokio::time::Instant;
use tracing::warn;

use self::{cache::Cache, lockout::Lockout};
use crate::error::Error;

/// Computed with when there is no secret, so that an unknown key takes as long as a wrong signature.
const NOBODYS_SECRET: &str = "00000000-0000-0000-0000-000000000000";

/// Proves who sent a request.
#[derive(Debug)]
pub(crate) struct Authenticator {
    secrets: SecretBox,
    cache: Cache,
    lockout: Lockout,
}

/// Whom an access key and project stand for, with the secret that proves it.
#[derive(Debug)]
struct Credentials {
    identity: Arc<Identity>,
    secret: Secret,
}

impl Authenticator {
    /// Opens secrets with `secrets`; nobody is known or locked out yet.
    pub(crate) fn new(secrets: SecretBox, config: &ApiConfig) -> Self {
        Self { secrets, cache: Cache::new(config.endpoint.credential_cache), lockout: Lockout::new(&config.api) }
    }

    /// Returns who sent `request`, if the signature is theirs and the project, too.
    ///
    /// # Errors
    /// [`Error::AuthFailure`] without any hint why; [`Error::Db`] when nobody can be asked.
    pub(crate) async fn authenticate(
        &self,
        db: &Db,
        request: &SignedRequest<'_>,
        claim: &Claim,
        address: IpAddr,
    ) -> Result<Arc<Identity>, Error> {
        let (access_key, project) = split(claim.access_key());
        let known = self.credentials(db, claim.access_key(), access_key, project).await?;
        // The order matters for time, not for sense: every refusal has asked and computed as much as every success.
        let secret = known.as_ref().map_or(NOBODYS_SECRET, |known| known.secret.expose());
        let signed = claim.is_signed_with(request, secret);
        let locked = self.lockout.is_locked(access_key, address, Instant::now());
        match known {
            Some(known) if signed && !locked && may_use_project(&known.identity) => Ok(Arc::clone(&known.identity)),
            known => {
                // A right signature for a wrong project is a mistake, not a guess at a secret.
                if !(signed && known.is_some()) && self.lockout.failed(access_key, address, Instant::now()) {
                    warn!(access_key = ?shortened(access_key), address = %address, "Locked out a key after too many wrong signatures.");
                }
                Err(Error::AuthFailure)
            }
        }
    }

    async fn credentials(
        &self,
        db: &Db,
        sent: &str,
        access_key: &str,
        project: Option<&str>,
    ) -> Result<Option<Arc<Credentials>>, Error> {
        if let Some(known) = self.cache.get(sent, Instant::now()) {
            return Ok(Some(known));
        }
        // No key or project of ours looks otherwise, and not every database can compare every text.
        if !sent.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(None);
        }
        let Some(identity) = accounts::identify(&mut db.read().await?, access_key, project).await? else {
            return Ok(None);
        };
        let secret = self.secrets.open(identity.user.id.as_str(), &identity.user.sealed_secret)?;
        let known = Arc::new(Credentials { identity: Arc::new(identity), secret });
        self.cache.put(sent, Arc::clone(&known), Instant::now());
        Ok(Some(known))
    }
}

/// Splits `access:project` at the first colon. Without a project, or with an empty one, it is the one named like the user.
fn split(sent: &str) -> (&str, Option<&str>) {
    match sent.split_once(':') {
        Some((access_key, project)) => (access_key, Some(project).filter(|project| !project.is_empty())),
        None => (sent, None),
    }
}

/// The project must exist; administrators may use any, others those they are members of.
fn may_use_project(identity: &Identity) -> bool {
    identity.project.is_some() && (identity.is_member || identity.is_admin())
}

/// What the caller chose may be long; a log line may not.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
