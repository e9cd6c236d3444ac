//! What must change for a table to become another: pure, and the commands come in an order that the kernel accepts.

use std::borrow::Cow;

use nftables::expr::{Expression, NamedExpression};
use nftables::schema::{Chain as NfChain, Element, FlushObject, NfCmd, NfListObject, Rule as NfRule, Set as NfSet};
use nftables::schema::{SetTypeValue, Table as NfTable};
use nftables::types::{NfChainPolicy, NfFamily};
use serde::Serialize;

use super::{Chain, Rule, Set, SetKind, Table, TableName, expr};

/// One command of a transaction.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Command {
    Known(NfCmd<'static>),
    /// A map: the `nftables` crate has no word for verdicts as its type of value.
    AddMap {
        add: Map,
    },
    DeleteMap {
        delete: Map,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Map {
    map: MapBody,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct MapBody {
    family: NfFamily,
    table: &'static str,
    name: String,
    #[serde(rename = "type")]
    key: SetTypeValue<'static>,
    map: &'static str,
}

/// Lists the commands that make `wanted` of `found` (`None`: there is no such table). None when they are alike.
pub(crate) fn diff(at: TableName, found: Option<&Table>, wanted: &Table) -> Vec<Command> {
    let empty = Table::default();
    let old = found.unwrap_or(&empty);
    let mut commands = Vec::new();
    // A set whose key changed is made anew; its users are rewritten first because their text names it anew anyway.
    let same_kind =
        |name: &String, set: &Set| old.sets.get(name).is_some_and(|was| was.key == set.key && was.kind == set.kind);
    for (name, set) in wanted.sets.iter().filter(|(name, set)| !same_kind(name, set)) {
        if old.sets.contains_key(name) {
            commands.push(delete_set(at, name, &old.sets[name]));
        }
        commands.push(add_set(at, name, set));
    }
    for (name, chain) in &wanted.chains {
        match old.chains.get(name) {
            Some(was) if was.hook == chain.hook => {}
            Some(_) => commands.extend([flush_chain(at, name), delete_chain(at, name), add_chain(at, name, chain)]),
            None => commands.push(add_chain(at, name, chain)),
        }
    }
    for (name, chain) in &wanted.chains {
        let kept = old.chains.get(name).filter(|was| was.hook == chain.hook);
        let was = kept.map_or(&[][..], |was| &was.rules);
        if was == chain.rules {
            continue;
        }
        if !was.is_empty() {
            commands.push(flush_chain(at, name));
        }
        commands.extend(chain.rules.iter().map(|rule| add_rule(at, name, rule)));
    }
    for (name, set) in &wanted.sets {
        let was = old.sets.get(name).filter(|_| same_kind(name, set));
        elements(at, name, was, set, &mut commands);
    }
    let gone: Vec<&String> = old.chains.keys().filter(|name| !wanted.chains.contains_key(*name)).collect();
    let gone_sets = || old.sets.iter().filter(|(name, _)| !wanted.sets.contains_key(*name));
    commands.extend(gone.iter().map(|name| flush_chain(at, name)));
    commands.extend(
        gone_sets().filter(|(_, set)| set.kind == SetKind::Verdicts).map(|(name, set)| delete_set(at, name, set)),
    );
    commands.extend(gone.iter().map(|name| delete_chain(at, name)));
    commands.extend(
        gone_sets().filter(|(_, set)| set.kind != SetKind::Verdicts).map(|(name, set)| delete_set(at, name, set)),
    );
    if found.is_none() {
        commands.insert(0, Command::Known(NfCmd::Add(table(at))));
    }
    commands
}

/// The command that removes a table, which must be there.
pub(crate) fn delete_table(at: TableName) -> Command {
    Command::Known(NfCmd::Delete(table(at)))
}

fn table(at: TableName) -> NfListObject<'static> {
    NfListObject::Table(NfTable { family: at.family, name: at.name.into(), handle: None })
}

fn elements(at: TableName, name: &str, was: Option<&Set>, set: &Set, commands: &mut Vec<Command>) {
    let same =
        |key: &Vec<String>, target: &Option<String>| was.is_some_and(|was| was.elements.get(key) == Some(target));
    let stays = |key: &Vec<String>, target: &Option<String>| set.elements.get(key) == Some(target);
    let gone = was.iter().flat_map(|was| &was.elements).filter(|(key, target)| !stays(key, target));
    let new = set.elements.iter().filter(|(key, target)| !same(key, target));
    let gone: Vec<Expression<'static>> = gone.map(|(key, target)| element(set.kind, key, target.as_deref())).collect();
    let new: Vec<Expression<'static>> = new.map(|(key, target)| element(set.kind, key, target.as_deref())).collect();
    let change = |elem: Vec<Expression<'static>>| {
        NfListObject::Element(Element {
            family: at.family,
            table: at.name.into(),
            name: name.to_owned().into(),
            elem: Cow::Owned(elem),
        })
    };
    if !gone.is_empty() {
        commands.push(Command::Known(NfCmd::Delete(change(gone))));
    }
    if !new.is_empty() {
        commands.push(Command::Known(NfCmd::Add(change(new))));
    }
}

fn element(kind: SetKind, key: &[String], target: Option<&str>) -> Expression<'static> {
    let key = match key {
        [one] => expr::text(one.clone()),
        parts => {
            Expression::Named(NamedExpression::Concat(parts.iter().map(|part| expr::text(part.clone())).collect()))
        }
    };
    match target {
        None => key,
        Some(address) if kind == SetKind::Addresses => Expression::List(vec![key, expr::text(address)]),
        Some(chain) => {
            let target = nftables::stmt::JumpTarget { target: chain.to_owned().into() };
            Expression::List(vec![key, Expression::Verdict(nftables::expr::Verdict::Goto(target))])
        }
    }
}

fn add_set(at: TableName, name: &str, set: &Set) -> Command {
    match set.kind {
        SetKind::Plain => Command::Known(NfCmd::Add(plain_set(at, name, set))),
        SetKind::Verdicts => Command::AddMap { add: map(at, name, set, "verdict") },
        SetKind::Addresses => Command::AddMap { add: map(at, name, set, "ipv4_addr") },
    }
}

fn delete_set(at: TableName, name: &str, set: &Set) -> Command {
    match set.kind {
        SetKind::Plain => Command::Known(NfCmd::Delete(plain_set(at, name, set))),
        SetKind::Verdicts => Command::DeleteMap { delete: map(at, name, set, "verdict") },
        SetKind::Addresses => Command::DeleteMap { delete: map(at, name, set, "ipv4_addr") },
    }
}

fn plain_set(at: TableName, name: &str, set: &Set) -> NfListObject<'static> {
    let set_type = key_type(set);
    let (table, name) = (at.name.into(), name.to_owned().into());
    NfListObject::Set(Box::new(NfSet { family: at.family, table, name, set_type, ..NfSet::default() }))
}

/// A concatenation of one is another type to nft than that one.
fn key_type(set: &Set) -> SetTypeValue<'static> {
    match set.key.as_slice() {
        [one] => SetTypeValue::Single(*one),
        parts => SetTypeValue::Concatenated(Cow::Owned(parts.to_vec())),
    }
}

fn map(at: TableName, name: &str, set: &Set, values: &'static str) -> Map {
    let (family, table, key) = (at.family, at.name, key_type(set));
    Map { map: MapBody { family, table, name: name.to_owned(), key, map: values } }
}

fn bare_chain(at: TableName, name: &str) -> NfChain<'static> {
    NfChain { family: at.family, table: at.name.into(), name: name.to_owned().into(), ..NfChain::default() }
}

fn add_chain(at: TableName, name: &str, chain: &Chain) -> Command {
    let mut wanted = bare_chain(at, name);
    if let Some(hook) = chain.hook {
        wanted._type = Some(hook.kind);
        wanted.hook = Some(hook.hook);
        wanted.prio = Some(hook.priority);
        wanted.policy = Some(NfChainPolicy::Accept);
    }
    Command::Known(NfCmd::Add(NfListObject::Chain(wanted)))
}

fn flush_chain(at: TableName, name: &str) -> Command {
    Command::Known(NfCmd::Flush(FlushObject::Chain(bare_chain(at, name))))
}

fn delete_chain(at: TableName, name: &str) -> Command {
    Command::Known(NfCmd::Delete(NfListObject::Chain(bare_chain(at, name))))
}

fn add_rule(at: TableName, chain: &str, rule: &Rule) -> Command {
    Command::Known(NfCmd::Add(NfListObject::Rule(NfRule {
        family: at.family,
        table: at.name.into(),
        chain: chain.to_owned().into(),
        expr: Cow::Owned(rule.body.clone()),
        comment: Some(rule.mark.clone().into()),
        ..NfRule::default()
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    use nftables::schema::SetType;

    const AT: TableName = TableName { family: NfFamily::INet, name: "t" };

    fn table(text: &str) -> Table {
        let mut table = Table::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[0] {
                "chain" => {
                    let rules = words[2..].iter().map(|to| Rule::new(vec![expr::jump(*to)])).collect();
                    table.chains.insert(words[1].to_owned(), Chain { hook: None, rules });
                }
                _ => {
                    let mut set = Set::of(&[SetType::Ipv4Addr]);
                    set.elements.extend(words[2..].iter().map(|key| (vec![(*key).to_owned()], None)));
                    table.sets.insert(words[1].to_owned(), set);
                }
            }
        }
        table
    }

    fn check(found: &str, wanted: &str, commands: Expect) {
        let lines: Vec<String> = diff(AT, Some(&table(found)), &table(wanted)).iter().map(shown).collect();
        commands.assert_eq(&lines.join("\n"));
    }

    fn shown(command: &Command) -> String {
        let json = serde_json::to_value(command).unwrap();
        let (verb, object) = json.as_object().unwrap().iter().next().unwrap();
        let (kind, body) = object.as_object().unwrap().iter().next().unwrap();
        let name = body.get("name").or(body.get("chain")).unwrap().as_str().unwrap();
        let detail = body.get("elem").or(body.get("expr")).map(ToString::to_string).unwrap_or_default();
        format!("{verb} {kind} {name} {detail}").trim().to_owned()
    }

    #[test]
    fn alike_tables_need_no_command() {
        check("chain a b\nchain b\nset s 10.0.0.1", "chain a b\nchain b\nset s 10.0.0.1", expect![""]);
    }

    #[test]
    fn only_what_differs_is_touched() {
        check(
            "chain a b\nchain b\nset s 10.0.0.1 10.0.0.2",
            "chain a b\nchain b\nset s 10.0.0.2 10.0.0.3",
            expect![[r#"
                delete element s ["10.0.0.1"]
                add element s ["10.0.0.3"]"#]],
        );
    }

    #[test]
    fn a_chain_is_left_before_it_is_deleted_and_made_before_it_is_entered() {
        check(
            "chain a old\nchain old\nset gone",
            "chain a new\nchain new",
            expect![[r#"
                add chain new
                flush chain a
                add rule a [{"jump":{"target":"new"}}]
                flush chain old
                delete chain old
                delete set gone"#]],
        );
    }

    #[test]
    fn a_missing_table_is_made_first() {
        let commands = diff(AT, None, &table("chain a"));
        assert_eq!(commands.iter().map(shown).collect::<Vec<_>>(), ["add table t", "add chain a"]);
    }
}
