//! The firewall of a compute host in the kernel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_run::Runner;
use nova_types::security_group::HostFirewall;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::judge::Judge;
use super::rules::Rules;
use super::tables::{BRIDGE, INET, bridge, inet, narrowed};
use super::{Changed, FirewallChange, FirewallError, GuestFirewall, Policy};
use crate::conntrack::{self, Flow, Swept};
use crate::nft::{Nft, Table, diff};
use crate::sysctl;

/// How long a connection that is no longer allowed stays cut before the kernel forgets it.
const CUT_FOR: Duration = Duration::from_secs(5);

/// Enforces rules with nftables. One of these per host: it remembers what it applied.
#[derive(Debug)]
pub struct KernelGuestFirewall {
    nft: Nft,
    runner: Arc<dyn Runner>,
    policy: Policy,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the kernel holds, as far as we know; none after a start or a failure.
    applied: Option<Rules>,
    /// By whom connections are still to be judged.
    narrowed: BTreeSet<Flow>,
    cut: Cut,
}

/// Whether there are connections that were cut and have not ended yet.
#[derive(Clone, Copy, Debug, Default)]
enum Cut {
    /// Who was here before us may have left some.
    #[default]
    Unknown,
    /// The last of them was cut then.
    Since(Instant),
    None,
}

impl Cut {
    /// What is known after another look at all connections.
    fn after(self, swept: Swept, now: Instant) -> Self {
        match self {
            _ if swept.cut == 0 => Self::None,
            Self::Since(then) if swept.ended == 0 => Self::Since(then),
            _ => Self::Since(now),
        }
    }
}

impl KernelGuestFirewall {
    /// One that knows nothing of the kernel's rules yet.
    pub fn new(runner: Arc<dyn Runner>, policy: Policy) -> Self {
        Self { nft: Nft::new(Arc::clone(&runner)), runner, policy, state: Mutex::default() }
    }

    /// Reads both tables and makes them those of `wanted`.
    async fn converge(&self, state: &mut State, wanted: Rules) -> Result<usize, FirewallError> {
        state.applied = None;
        let found = self.nft.list(BRIDGE).await?;
        let mut commands = diff(BRIDGE, found.as_ref(), &bridge(&wanted, self.policy.ipv6));
        let found = self.nft.list(INET).await?;
        let table = inet(&wanted, self.policy);
        commands.extend(diff(INET, found.as_ref(), &table));
        self.nft.apply(&commands).await?;
        state.narrowed.extend(narrowed(&found.unwrap_or_default(), &table, &wanted));
        state.applied = Some(wanted);
        Ok(commands.len())
    }

    async fn step(&self, state: &mut State, wanted: Rules) -> Result<usize, FirewallError> {
        let Some(applied) = &state.applied else { return self.converge(state, wanted).await };
        let (old, new) = applied.differing(&wanted);
        let found: Table = inet(&old, self.policy);
        let table = inet(&new, self.policy);
        let mut commands = diff(BRIDGE, Some(&bridge(&old, self.policy.ipv6)), &bridge(&new, self.policy.ipv6));
        commands.extend(diff(INET, Some(&found), &table));
        if let Err(error) = self.nft.apply(&commands).await {
            // Somebody changed our tables: look at what is there and mend it.
            warn!(error = %error, "A firewall change did not fit what is in the kernel; comparing everything.");
            return self.converge(state, wanted).await;
        }
        // Guests that did not change themselves may be in a group that did.
        state.narrowed.extend(narrowed(&found, &table, &wanted));
        state.applied = Some(wanted);
        Ok(commands.len())
    }

    /// Ends connections that the rules in force no longer let in; those that cannot be now are tried again with the next
    /// call. Returns how many there were.
    async fn end(&self, state: &mut State) -> usize {
        let over = match state.cut {
            Cut::Unknown => true,
            Cut::Since(then) => then.elapsed() >= CUT_FOR,
            Cut::None => false,
        };
        let idle = state.narrowed.is_empty() && matches!(state.cut, Cut::None);
        let Some(applied) = state.applied.as_ref().filter(|_| !idle) else { return 0 };
        let judge = Judge::new(applied.clone(), self.policy.project_traffic, state.narrowed.clone(), over);
        let judgement = Box::new(move |seen: &_| judge.fate(seen));
        match conntrack::sweep(state.narrowed.clone(), judgement).await {
            Ok(swept) => {
                state.narrowed.clear();
                state.cut = state.cut.after(swept, Instant::now());
                swept.ended
            }
            Err(error) => {
                warn!(error = %error, flows = state.narrowed.len(),
                    "Connections that are no longer allowed could not be cut and go on until they end; will try again.");
                0
            }
        }
    }
}

#[async_trait]
impl GuestFirewall for KernelGuestFirewall {
    async fn ensure(&self, wanted: &HostFirewall) -> Result<Changed, FirewallError> {
        sysctl::bridged_packets_are_filtered(self.runner.as_ref(), self.policy.ipv6).await?;
        let mut state = self.state.lock().await;
        let commands = self.converge(&mut state, Rules::of(wanted)).await?;
        Ok(Changed { commands, forgotten: self.end(&mut state).await })
    }

    async fn advance(&self, wanted: &HostFirewall) -> Result<Changed, FirewallError> {
        let mut state = self.state.lock().await;
        if state.applied.is_none() {
            drop(state);
            return self.ensure(wanted).await;
        }
        let commands = self.step(&mut state, Rules::of(wanted)).await?;
        Ok(Changed { commands, forgotten: self.end(&mut state).await })
    }

    async fn change(&self, change: &FirewallChange) -> Result<Changed, FirewallError> {
        let mut state = self.state.lock().await;
        let wanted = state.applied.as_ref().ok_or(FirewallError::NotEnsured)?.after(change);
        let commands = self.step(&mut state, wanted).await?;
        Ok(Changed { commands, forgotten: self.end(&mut state).await })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn changes_that_cut_nothing_do_not_put_off_the_end_of_what_was_cut() {
        let (then, now) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let after = |cut: Cut, ended, still| match cut.after(Swept { ended, cut: still }, now) {
            Cut::Since(at) => Some(at),
            Cut::Unknown | Cut::None => None,
        };
        assert_eq!(after(Cut::Since(then), 0, 1), Some(then));
        assert_eq!(after(Cut::Since(then), 1, 2), Some(now), "another was cut just now");
        assert_eq!(after(Cut::Unknown, 0, 1), Some(now));
        assert_eq!(after(Cut::None, 1, 1), Some(now));
        assert_eq!(after(Cut::Since(then), 1, 0), None);
    }
}
