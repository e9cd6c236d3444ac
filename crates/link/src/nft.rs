//! nftables tables as values: what a table should hold, what one was found to hold, and the one transaction between.
//!
//! A rule carries a mark, the hash of its text, as its comment. Tables are compared by marks and elements, so that a
//! change costs what changed, and a table that is as it should be is not touched.

mod diff;
pub(crate) mod expr;
mod kernel;

use std::collections::BTreeMap;

use nftables::schema::SetType;
use nftables::stmt::Statement;
use nftables::types::{NfChainType, NfFamily, NfHook};

pub(crate) use diff::{Command, delete_table, diff};
pub(crate) use kernel::Nft;

/// What stops the firewall from being as it should.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// `nft` did not do as asked.
    #[error("applying {commands} nftables commands")]
    Apply {
        /// How many commands the transaction had.
        commands: usize,
        /// What `nft` said.
        #[source]
        source: nova_run::RunError,
    },
    /// The tables could not be read.
    #[error("listing the nftables table {table}")]
    List {
        /// The table.
        table: String,
        /// What `nft` said.
        #[source]
        source: nova_run::RunError,
    },
    /// What `nft` printed, or what it was to be told, is not the JSON that we know.
    #[error("reading or writing the JSON of nft")]
    Json(#[from] serde_json::Error),
    /// A change came before the first full set of rules.
    #[error("the firewall was not yet told all rules of this host")]
    NotEnsured,
    /// Connections that a rule no longer allows could not be forgotten.
    #[error("forgetting connections")]
    Conntrack(#[source] std::io::Error),
    /// A kernel setting without which groups do not hold could not be made.
    #[error(transparent)]
    Setting(#[from] crate::SettingError),
}

/// Which table: nobody else writes to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) family: NfFamily,
    pub(crate) name: &'static str,
}

impl TableName {
    /// The family as `nft` spells it on its command line.
    pub(crate) const fn family(self) -> &'static str {
        match self.family {
            NfFamily::IP => "ip",
            NfFamily::IP6 => "ip6",
            NfFamily::INet => "inet",
            NfFamily::ARP => "arp",
            NfFamily::Bridge => "bridge",
            NfFamily::NetDev => "netdev",
        }
    }
}

/// A table as it should be or as it was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) chains: BTreeMap<String, Chain>,
    pub(crate) sets: BTreeMap<String, Set>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chain {
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

/// Where a base chain meets packets. Its policy is always to accept: we drop only what is ours to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) kind: NfChainType,
    pub(crate) hook: NfHook,
    pub(crate) priority: i32,
}

/// One rule. Two rules are the same when their marks are; a found rule has no body.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) mark: String,
    pub(crate) body: Vec<Statement<'static>>,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.mark == other.mark
    }
}

impl Rule {
    /// Marks a rule with the hash of what it says.
    pub(crate) fn new(body: Vec<Statement<'static>>) -> Self {
        let text = serde_json::to_vec(&body).unwrap_or_default();
        // FNV-1a: it must stay the same between builds, and nobody but us chooses the text.
        let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self { mark: format!("nova {hash:016x}"), body }
    }
}

/// A named set, or a map when elements have targets. Keys and targets are compared as text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Set {
    pub(crate) key: Vec<SetType>,
    pub(crate) kind: SetKind,
    pub(crate) elements: BTreeMap<Vec<String>, Option<String>>,
}

/// What the targets of a set's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetKind {
    /// There are none.
    Plain,
    /// Chains to go to.
    Verdicts,
    /// IPv4 addresses.
    Addresses,
}

impl Set {
    pub(crate) fn of(key: &[SetType]) -> Self {
        Self { key: key.to_vec(), kind: SetKind::Plain, elements: BTreeMap::new() }
    }

    pub(crate) fn verdicts(key: &[SetType]) -> Self {
        Self { kind: SetKind::Verdicts, ..Self::of(key) }
    }

    /// A map from addresses to addresses.
    pub(crate) fn addresses() -> Self {
        Self { kind: SetKind::Addresses, ..Self::of(&[SetType::Ipv4Addr]) }
    }
}
