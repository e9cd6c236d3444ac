//! IMDSv2 session tokens: sealed with the cloud's key, bound to the guest's address, kept nowhere.
//!
//! Any `nova-api` that has the key file accepts what another one gave out.

use std::net::Ipv4Addr;

use nova_identity::{Secret, SecretBox};
use time::OffsetDateTime;

/// The longest life that may be asked for: six hours, as AWS has it.
pub(super) const MAX_SECONDS: i64 = 21_600;

/// Makes a token for the guest at `address` that ends at `until`. `None` if the system gives no random numbers.
pub(super) fn issue(key: &SecretBox, address: Ipv4Addr, until: OffsetDateTime) -> Option<String> {
    let sealed = key.seal(&owner(address), &Secret::new(until.unix_timestamp().to_string())).ok()?;
    // A header value must not be mistaken for a list.
    sealed.strip_prefix(PREFIX).map(str::to_owned)
}

/// Tells whether `token` was made for the guest at `address` and has not ended by `now`.
pub(super) fn is_valid(key: &SecretBox, address: Ipv4Addr, token: &str, now: OffsetDateTime) -> bool {
    let until = key.open(&owner(address), &format!("{PREFIX}{token}")).ok();
    until.and_then(|until| until.expose().parse::<i64>().ok()).is_some_and(|until| now.unix_timestamp() < until)
}

/// What [`SecretBox`] begins every sealed text with; a token without it would be read as an unsealed secret.
const PREFIX: &str = "v1:";

fn owner(address: Ipv4Addr) -> String {
    format!("imds:{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[test]
    fn a_token_serves_one_guest_until_its_time_is_over() {
        let key = SecretBox::in_memory().unwrap();
        let now = OffsetDateTime::UNIX_EPOCH;
        let token = issue(&key, GUEST, now + time::Duration::seconds(60)).unwrap();
        assert!(is_valid(&key, GUEST, &token, now + time::Duration::seconds(59)));
        assert!(!is_valid(&key, GUEST, &token, now + time::Duration::seconds(60)));
        assert!(!is_valid(&key, Ipv4Addr::new(10, 0, 0, 6), &token, now));
    }

    #[test]
    fn what_was_not_issued_is_no_token() {
        let key = SecretBox::in_memory().unwrap();
        for forged in ["", "9999999999", "v1:", "AAAA", "v1:9999999999"] {
            assert!(!is_valid(&key, GUEST, forged, OffsetDateTime::UNIX_EPOCH), "{forged}");
        }
    }
}
