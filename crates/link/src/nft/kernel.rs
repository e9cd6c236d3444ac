//! Lists and changes tables through `nft`, JSON both ways, one transaction per change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nftables::schema::SetType;
use nftables::types::{NfChainType, NfHook};
use nova_run::{RunError, Runner};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Command, FirewallError, Hook, Rule, Set, SetKind, Table, TableName};

/// Ten thousand guests list as some 20 MB.
const LISTING_CAP_BYTES: usize = 256 << 20;
const DEADLINE: Duration = Duration::from_secs(30);

/// The kernel's nftables, met through the program `nft`.
#[derive(Clone, Debug)]
pub(crate) struct Nft {
    runner: Arc<dyn Runner>,
}

#[derive(Serialize)]
struct Document<'a> {
    nftables: &'a [Command],
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Value>,
}

#[derive(Deserialize)]
struct FoundChain {
    name: String,
    #[serde(rename = "type")]
    kind: Option<NfChainType>,
    hook: Option<NfHook>,
    prio: Option<i32>,
}

#[derive(Deserialize)]
struct FoundRule {
    chain: String,
    #[serde(default)]
    comment: String,
}

#[derive(Deserialize)]
struct FoundSet {
    name: String,
    #[serde(rename = "type")]
    key: Value,
    /// What a map's targets are.
    map: Option<String>,
    #[serde(default)]
    elem: Vec<Value>,
}

impl Nft {
    pub(crate) fn new(runner: Arc<dyn Runner>) -> Self {
        Self { runner }
    }

    /// Runs all commands as one transaction: all of them or none.
    pub(crate) async fn apply(&self, commands: &[Command]) -> Result<(), FirewallError> {
        if commands.is_empty() {
            return Ok(());
        }
        let document = serde_json::to_vec(&Document { nftables: commands })?;
        let nft = nova_run::Command::new("nft").args(["-j", "-f", "-"]).stdin(document).deadline(DEADLINE);
        let applied = self.runner.run(nft).await;
        applied.map(|_| ()).map_err(|source| FirewallError::Apply { commands: commands.len(), source })
    }

    /// Reads a table; `None` when there is none.
    pub(crate) async fn list(&self, at: TableName) -> Result<Option<Table>, FirewallError> {
        let nft = nova_run::Command::new("nft").args(["-j", "list", "table", at.family(), at.name]);
        match self.runner.run(nft.deadline(DEADLINE).output_cap(LISTING_CAP_BYTES)).await {
            Ok(output) => read(&output.stdout).map(Some),
            Err(RunError::Failed { stderr, .. }) if stderr.contains("No such file or directory") => Ok(None),
            Err(source) => Err(FirewallError::List { table: format!("{} {}", at.family(), at.name), source }),
        }
    }
}

fn read(json: &[u8]) -> Result<Table, FirewallError> {
    let listing: Listing = serde_json::from_slice(json)?;
    let mut table = Table::default();
    for object in listing.nftables {
        let Value::Object(object) = object else { continue };
        for (kind, body) in object {
            match kind.as_str() {
                "chain" => {
                    let found: FoundChain = serde_json::from_value(body)?;
                    table.chains.entry(found.name).or_default().hook = hook(found.kind, found.hook, found.prio);
                }
                "rule" => {
                    let found: FoundRule = serde_json::from_value(body)?;
                    let rule = Rule { mark: found.comment, body: Vec::new() };
                    table.chains.entry(found.chain).or_default().rules.push(rule);
                }
                "set" | "map" => {
                    let found: FoundSet = serde_json::from_value(body)?;
                    let key = found_key(&found.key);
                    let elements: BTreeMap<_, _> = found.elem.iter().map(found_element).collect();
                    table.sets.insert(found.name, Set { key, kind: found_kind(found.map.as_deref()), elements });
                }
                _ => {}
            }
        }
    }
    Ok(table)
}

fn hook(kind: Option<NfChainType>, hook: Option<NfHook>, priority: Option<i32>) -> Option<Hook> {
    Some(Hook { kind: kind?, hook: hook?, priority: priority? })
}

fn found_kind(map: Option<&str>) -> SetKind {
    match map {
        None => SetKind::Plain,
        Some("ipv4_addr") => SetKind::Addresses,
        Some(_) => SetKind::Verdicts,
    }
}

/// Types that we do not use read as none, so that such a set differs from ours and is made anew.
fn found_key(key: &Value) -> Vec<SetType> {
    let one = |value: &Value| serde_json::from_value::<SetType>(value.clone()).ok();
    match key {
        Value::Array(parts) => parts.iter().filter_map(one).collect(),
        single => one(single).into_iter().collect(),
    }
}

fn found_element(element: &Value) -> (Vec<String>, Option<String>) {
    if let Value::Array(pair) = element {
        let key = pair.first().map(found_parts).unwrap_or_default();
        let chain = |verdict: &Value| verdict.pointer("/goto/target").and_then(Value::as_str).map(str::to_owned);
        let target = pair.get(1).and_then(|value| value.as_str().map(str::to_owned).or_else(|| chain(value)));
        return (key, Some(target.unwrap_or_default()));
    }
    (found_parts(element), None)
}

fn found_parts(key: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match key.get("concat") {
        Some(Value::Array(parts)) => parts.iter().map(word).collect(),
        _ => vec![word(key)],
    }
}
