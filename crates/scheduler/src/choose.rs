//! What is wished for, and what becomes of it.

use nova_types::service::Demand;
use nova_types::{HostName, InstanceId};

/// An instance that needs a host.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The instance.
    pub instance: InstanceId,
    /// What it takes.
    pub demand: Demand,
    /// Where it may go.
    pub place: Place,
}

/// Where an instance may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere.
    Any,
    /// To a host of this zone.
    Zone(String),
    /// To this host. Only administrators can ask for that; the API sees to it.
    Host(String),
}

impl Place {
    /// Reads what was asked for: `zone`, `zone:host` or nothing. As ever, the zone before a host does not count.
    #[must_use]
    pub fn read(asked: Option<&str>) -> Self {
        match asked.map(|asked| asked.split_once(':').ok_or(asked)) {
            None | Some(Err("")) => Self::Any,
            Some(Err(zone)) => Self::Zone(zone.to_owned()),
            Some(Ok((zone, ""))) => Self::read(Some(zone)),
            Some(Ok((_, host))) => Self::Host(host.to_owned()),
        }
    }
}

/// What becomes of some wishes.
#[derive(Debug, Default)]
pub struct Plan {
    /// For each host its new instances, in the order they were asked for.
    pub placed: Vec<(HostName, Vec<InstanceId>)>,
    /// Those that fit nowhere.
    pub unplaced: Vec<(InstanceId, Why)>,
}

/// Why an instance got no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no room.
    Full,
    /// The host asked for does not exist.
    NoSuchHost,
    /// The host asked for is kept from new work.
    Disabled,
    /// The host asked for does not report.
    Silent,
}
