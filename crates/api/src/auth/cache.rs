//! Credentials of the last seconds, so that a burst of requests asks the database once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Credentials;

/// How long a change of users, projects or roles may go unnoticed, whatever the flag says.
const LONGEST: Duration = Duration::from_secs(5);
/// More than a cloud has users active within five seconds; a bound, not a target.
const MOST: usize = 10_000;

/// Credentials by `access:project` as sent. Only what exists is kept, so a stranger cannot fill it.
#[derive(Debug)]
pub(super) struct Cache {
    lifetime: Duration,
    entries: Mutex<HashMap<String, (Instant, Arc<Credentials>)>>,
}

impl Cache {
    /// Keeps credentials for `lifetime`, but for five seconds at most.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime: lifetime.min(LONGEST), entries: Mutex::default() }
    }

    pub(super) fn get(&self, sent: &str, now: Instant) -> Option<Arc<Credentials>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (read_at, known) = entries.get(sent)?;
        (now.duration_since(*read_at) < self.lifetime).then(|| Arc::clone(known))
    }

    pub(super) fn put(&self, sent: &str, known: Arc<Credentials>, now: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST {
            entries.retain(|_, (read_at, _)| now.duration_since(*read_at) < self.lifetime);
        }
        if entries.len() < MOST {
            entries.insert(sent.to_owned(), (now, known));
        }
    }
}

#[cfg(test)]
mod tests {
    use nova_identity::Secret;
    use nova_types::account::{Identity, User};

    use super::{Arc, Cache, Credentials, Duration, Instant, MOST};

    fn credentials() -> Arc<Credentials> {
        let user =
            User { id: "joe".parse().unwrap(), access_key: "k".into(), sealed_secret: "s".into(), is_admin: false };
        let identity =
            Identity { user, project: None, is_member: false, global_roles: Vec::new(), project_roles: Vec::new() };
        Arc::new(Credentials { identity: Arc::new(identity), secret: Secret::new("s") })
    }

    #[test]
    fn what_is_known_is_forgotten_after_five_seconds_or_sooner() {
        for (flag, lifetime) in [(0, 0), (2, 2), (5, 5), (3600, 5)] {
            let (cache, start) = (Cache::new(Duration::from_secs(flag)), Instant::now());
            cache.put("k", credentials(), start);
            let just_before = start + Duration::from_secs(lifetime).saturating_sub(Duration::from_millis(1));
            assert_eq!(cache.get("k", just_before).is_some(), lifetime > 0, "{flag}");
            assert!(cache.get("k", start + Duration::from_secs(lifetime)).is_none(), "{flag}");
        }
    }

    #[test]
    fn the_cache_has_an_end() {
        let (cache, start) = (Cache::new(Duration::from_secs(5)), Instant::now());
        for n in 0..MOST + 9 {
            cache.put(&n.to_string(), credentials(), start);
        }
        assert_eq!(cache.entries.lock().unwrap().len(), MOST);
        cache.put("later", credentials(), start + Duration::from_secs(6));
        assert_eq!(cache.entries.lock().unwrap().len(), 1, "what is stale makes room");
    }
}
