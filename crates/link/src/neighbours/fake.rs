//! Neighbours in memory.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use nova_types::Mac;

use super::{NeighbourError, Neighbours};

/// A link with nobody on it, until some are added.
#[derive(Debug, Default)]
pub struct FakeNeighbours {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answering: BTreeMap<Ipv4Addr, Mac>,
    unplugged: bool,
    asked: Vec<(String, Ipv4Addr)>,
    announced: Vec<(String, Ipv4Addr)>,
    mute: bool,
}

impl FakeNeighbours {
    /// Lets somebody answer for an address, or with `None` nobody any more.
    pub fn answer(&self, address: Ipv4Addr, mac: Option<Mac>) {
        let mut state = self.state();
        match mac {
            Some(mac) => drop(state.answering.insert(address, mac)),
            None => drop(state.answering.remove(&address)),
        }
    }

    /// Unplugs what leads to the neighbours, or plugs it in again.
    pub fn unplug(&self, unplugged: bool) {
        self.state().unplugged = unplugged;
    }

    /// Returns what was asked for and where, since this was last called.
    pub fn asked(&self) -> Vec<(String, Ipv4Addr)> {
        std::mem::take(&mut self.state().asked)
    }

    /// Lets nothing be announced, or lets it again.
    pub fn mute(&self, mute: bool) {
        self.state().mute = mute;
    }

    /// Returns what was announced and where, since this was last called.
    pub fn announced(&self) -> Vec<(String, Ipv4Addr)> {
        std::mem::take(&mut self.state().announced)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Neighbours for FakeNeighbours {
    async fn who_has(
        &self,
        interface: &str,
        uplink: Option<&str>,
        address: Ipv4Addr,
    ) -> Result<Option<Mac>, NeighbourError> {
        let mut state = self.state();
        if state.unplugged {
            return Err(NeighbourError::Unplugged(uplink.unwrap_or(interface).to_owned()));
        }
        state.asked.push((interface.to_owned(), address));
        Ok(state.answering.get(&address).copied())
    }

    async fn announce(&self, interface: &str, address: Ipv4Addr) -> Result<(), NeighbourError> {
        if self.state().mute {
            return Err(NeighbourError::Unplugged(interface.to_owned()));
        }
        self.state().announced.push((interface.to_owned(), address));
        Ok(())
    }
}
