//! The firewall of a compute host in the kernel.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use nova_run::Runner;
use nova_types::security_group::HostFirewall;
use tokio::sync::Mutex;
use tracing::warn;

use super::judge::Judge;
use super::rules::Rules;
use super::tables::{BRIDGE, INET, bridge, inet, narrowed};
use super::{Changed, FirewallChange, FirewallError, GuestFirewall};
use crate::conntrack::{self, Flow};
use crate::nft::{Nft, Table, diff};
use crate::sysctl;

/// Enforces rules with nftables. One of these per host: it remembers what it applied.
#[derive(Debug)]
pub struct KernelGuestFirewall {
    nft: Nft,
    runner: Arc<dyn Runner>,
    project_traffic: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the kernel holds, as far as we know; none after a start or a failure.
    applied: Option<Rules>,
    /// Connections that are still to be forgotten.
    narrowed: BTreeSet<Flow>,
}

impl KernelGuestFirewall {
    /// `project_traffic` is the flag `allow_project_net_traffic`: guests of a project may always reach each other.
    pub fn new(runner: Arc<dyn Runner>, project_traffic: bool) -> Self {
        Self { nft: Nft::new(Arc::clone(&runner)), runner, project_traffic, state: Mutex::default() }
    }

    /// Reads both tables and makes them those of `wanted`.
    async fn converge(&self, state: &mut State, wanted: Rules) -> Result<usize, FirewallError> {
        state.applied = None;
        let found = self.nft.list(BRIDGE).await?;
        let mut commands = diff(BRIDGE, found.as_ref(), &bridge(&wanted));
        let found = self.nft.list(INET).await?;
        let table = inet(&wanted, self.project_traffic);
        commands.extend(diff(INET, found.as_ref(), &table));
        self.nft.apply(&commands).await?;
        state.narrowed.extend(narrowed(&found.unwrap_or_default(), &table, &wanted));
        state.applied = Some(wanted);
        Ok(commands.len())
    }

    async fn step(&self, state: &mut State, wanted: Rules) -> Result<usize, FirewallError> {
        let Some(applied) = &state.applied else { return self.converge(state, wanted).await };
        let (old, new) = applied.differing(&wanted);
        let found: Table = inet(&old, self.project_traffic);
        let table = inet(&new, self.project_traffic);
        let mut commands = diff(BRIDGE, Some(&bridge(&old)), &bridge(&new));
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

    /// Forgets connections that the rules in force no longer let in; those that cannot be now are tried again with the
    /// next call.
    async fn forget(&self, state: &mut State) -> usize {
        let Some(applied) = state.applied.as_ref().filter(|_| !state.narrowed.is_empty()) else { return 0 };
        let judge = Judge::new(applied.clone(), self.project_traffic, state.narrowed.clone());
        let allowed = Box::new(move |connection: &_| judge.allows(connection));
        match conntrack::forget(state.narrowed.clone(), allowed).await {
            Ok(forgotten) => {
                state.narrowed.clear();
                forgotten
            }
            Err(error) => {
                warn!(error = %error, flows = state.narrowed.len(),
                    "Connections that are no longer allowed could not be forgotten and go on until they end; will try again.");
                0
            }
        }
    }
}

#[async_trait]
impl GuestFirewall for KernelGuestFirewall {
    async fn ensure(&self, wanted: &HostFirewall) -> Result<Changed, FirewallError> {
        sysctl::bridged_packets_are_filtered(self.runner.as_ref()).await?;
        let mut state = self.state.lock().await;
        let commands = self.converge(&mut state, Rules::of(wanted)).await?;
        Ok(Changed { commands, forgotten: self.forget(&mut state).await })
    }

    async fn change(&self, change: &FirewallChange) -> Result<Changed, FirewallError> {
        let mut state = self.state.lock().await;
        let wanted = state.applied.as_ref().ok_or(FirewallError::NotEnsured)?.after(change);
        let commands = self.step(&mut state, wanted).await?;
        Ok(Changed { commands, forgotten: self.forget(&mut state).await })
    }
}
