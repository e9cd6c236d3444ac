//! Wrong signatures are counted per key and address: five within a quarter of an hour close the door for as long.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nova_config::ApiFlags;
use tokio::time::Instant;

/// Most keys and addresses remembered: strangers choose them, so there must be an end.
const MOST: usize = 10_000;
/// Longer keys than ours are counted by their beginning.
const KEY_CHARS: usize = 128;

/// Counts failures. Per address, so that nobody can lock another's key; per key without its project, which can be varied.
#[derive(Debug)]
pub(super) struct Lockout {
    attempts: u32,
    window: Duration,
    locked_for: Duration,
    entries: Mutex<HashMap<(String, IpAddr), Failures>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// When they are forgotten: a window after the first, or the time of a lock after the one that locked.
    until: Instant,
}

impl Lockout {
    /// Counts as `flags` say: `lockout_attempts` within `lockout_window` minutes lock for `lockout_minutes`.
    pub(super) fn new(flags: &ApiFlags) -> Self {
        let minutes = |number: u32| Duration::from_secs(u64::from(number) * 60);
        Self {
            attempts: flags.lockout_attempts.max(1),
            window: minutes(flags.lockout_window),
            locked_for: minutes(flags.lockout_minutes),
            entries: Mutex::default(),
        }
    }

    /// Tells whether `access_key` is locked out at `address`.
    pub(super) fn is_locked(&self, access_key: &str, address: IpAddr, now: Instant) -> bool {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .get(&key(access_key, address))
            .is_some_and(|failures| failures.count >= self.attempts && now < failures.until)
    }

    /// Counts a failure; tells whether it was the one that locked.
    pub(super) fn failed(&self, access_key: &str, address: IpAddr, now: Instant) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST {
            entries.retain(|_, failures| now < failures.until);
        }
        let key = key(access_key, address);
        if entries.len() >= MOST && !entries.contains_key(&key) {
            let oldest = entries.iter().min_by_key(|(_, failures)| failures.until).map(|(key, _)| key.clone());
            oldest.map(|oldest| entries.remove(&oldest));
        }
        let failures = entries.entry(key).or_insert(Failures { count: 0, until: now + self.window });
        if now >= failures.until {
            *failures = Failures { count: 0, until: now + self.window };
        }
        failures.count = failures.count.saturating_add(1);
        let locks = failures.count == self.attempts;
        if locks {
            failures.until = now + self.locked_for;
        }
        locks
    }
}

fn key(access_key: &str, address: IpAddr) -> (String, IpAddr) {
    (access_key.chars().take(KEY_CHARS).collect(), address)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::Mutex,
    };

    use tokio::time::{Duration, Instant};

    use super::{Lockout, MOST};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    const ATTEMPTS: u32 = 5;
    const QUARTER: Duration = Duration::from_secs(900);

    fn lockout() -> Lockout {
        Lockout { attempts: ATTEMPTS, window: QUARTER, locked_for: QUARTER, entries: Mutex::default() }
    }

    #[test]
    fn the_fifth_failure_locks_that_key_at_that_address_for_fifteen_minutes() {
        let (lockout, start) = (lockout(), Instant::now());
        for n in 1..=ATTEMPTS {
            assert!(!lockout.is_locked("a", HERE, start), "before failure {n}");
            assert_eq!(lockout.failed("a", HERE, start), n == ATTEMPTS);
        }
        assert!(lockout.is_locked("a", HERE, start + Duration::from_secs(899)));
        assert!(!lockout.is_locked("a", THERE, start), "another address");
        assert!(!lockout.is_locked("b", HERE, start), "another key");
        assert!(!lockout.is_locked("a", HERE, start + Duration::from_secs(900)));
    }

    #[test]
    fn failures_far_apart_do_not_add_up() {
        let (lockout, mut now) = (lockout(), Instant::now());
        for _ in 0..4 * ATTEMPTS {
            lockout.failed("a", HERE, now);
            now += Duration::from_secs(300);
            assert!(!lockout.is_locked("a", HERE, now));
        }
    }

    #[test]
    fn guesses_at_many_keys_do_not_fill_the_memory() {
        let (lockout, now) = (lockout(), Instant::now());
        for n in 0..MOST + 50 {
            lockout.failed(&n.to_string(), HERE, now);
        }
        assert_eq!(lockout.entries.lock().unwrap().len(), MOST);
    }
}
