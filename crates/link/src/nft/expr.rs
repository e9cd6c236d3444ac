//! The few nftables expressions that our rules are made of, short enough to read a rule as a line.

use nftables::expr::{
    BinaryOperation, CT, CTDir, Expression, Map, Meta, MetaKey, NamedExpression, Payload, PayloadBase, PayloadField,
    PayloadRaw, Prefix, Range, SetItem,
};
use nftables::stmt::{JumpTarget, Match, NAT, Operator, Statement, VerdictMap};

use ipnet::IpNet;

type Expr = Expression<'static>;
type Stmt = Statement<'static>;

pub(crate) fn meta(key: MetaKey) -> Expr {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

pub(crate) fn field(protocol: &'static str, field: &'static str) -> Expr {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

/// Of whom a neighbour is asked or told: the target of the two messages of ICMPv6 that have one. `nft` of our time has no
/// word for it, and takes it for a number.
pub(crate) fn neighbour_target() -> Expr {
    let raw = PayloadRaw { base: PayloadBase::TH, offset: 64, len: 128 };
    Expression::Named(NamedExpression::Payload(Payload::PayloadRaw(raw)))
}

/// A property of the packet's connection as its first packet had it.
pub(crate) fn ct_original(key: &'static str) -> Expr {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: Some(CTDir::Original) }))
}

pub(crate) fn concat(parts: Vec<Expr>) -> Expr {
    Expression::Named(NamedExpression::Concat(parts))
}

pub(crate) fn text(value: impl Into<String>) -> Expr {
    Expression::String(value.into().into())
}

/// The named set `name`, for the right side of a match.
pub(crate) fn set(name: &str) -> Expr {
    text(format!("@{name}"))
}

/// A range of addresses; a single address is written bare, as nft does.
pub(crate) fn prefix(net: impl Into<IpNet>) -> Expr {
    let net = net.into();
    if net.prefix_len() == net.max_prefix_len() {
        return text(net.addr().to_string());
    }
    let prefix = Prefix { addr: Box::new(text(net.network().to_string())), len: net.prefix_len().into() };
    Expression::Named(NamedExpression::Prefix(prefix))
}

/// One of several values; a single one needs no set.
pub(crate) fn one_of(mut values: Vec<Expr>) -> Expr {
    if values.len() == 1 {
        return values.remove(0);
    }
    Expression::Named(NamedExpression::Set(values.into_iter().map(SetItem::Element).collect()))
}

pub(crate) fn ports(from: u16, to: u16) -> Expr {
    let number = |port: u16| Expression::Number(port.into());
    if from == to {
        return number(from);
    }
    Expression::Range(Box::new(Range { range: [number(from), number(to)] }))
}

pub(crate) fn is(left: Expr, right: Expr) -> Stmt {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

pub(crate) fn is_not(left: Expr, right: Expr) -> Stmt {
    Statement::Match(Match { left, right, op: Operator::NEQ })
}

/// Whether the connection is in one of the given states.
pub(crate) fn ct_state(states: &[&'static str]) -> Stmt {
    let left = Expression::Named(NamedExpression::CT(CT { key: "state".into(), family: None, dir: None }));
    let right = Expression::List(states.iter().map(|state| text(*state)).collect());
    Statement::Match(Match { left, right, op: Operator::IN })
}

/// Whether something happened to the connection, such as `dnat`.
pub(crate) fn ct_status(status: &'static str) -> Stmt {
    let left = Expression::Named(NamedExpression::CT(CT { key: "status".into(), family: None, dir: None }));
    Statement::Match(Match { left, right: text(status), op: Operator::IN })
}

/// Whether the mark of the connection has a bit set.
pub(crate) fn ct_mark(bit: u32) -> Stmt {
    let mark = Expression::Named(NamedExpression::CT(CT { key: "mark".into(), family: None, dir: None }));
    let left = Expression::BinaryOperation(Box::new(BinaryOperation::AND(mark, Expression::Number(bit))));
    Statement::Match(Match { left, right: Expression::Number(bit), op: Operator::EQ })
}

/// Whether a packet of TCP has a flag set.
pub(crate) fn has_flag(flag: &'static str) -> Stmt {
    Statement::Match(Match { left: field("tcp", "flags"), right: text(flag), op: Operator::IN })
}

pub(crate) const fn accept() -> Stmt {
    Statement::Accept(None)
}

pub(crate) const fn drop() -> Stmt {
    Statement::Drop(None)
}

pub(crate) fn jump(chain: impl Into<String>) -> Stmt {
    Statement::Jump(JumpTarget { target: chain.into().into() })
}

pub(crate) fn goto(chain: impl Into<String>) -> Stmt {
    Statement::Goto(JumpTarget { target: chain.into().into() })
}

/// Goes where the verdict map `map` says for `key`; on to the next rule when it says nothing.
pub(crate) fn vmap(key: Expr, map: &str) -> Stmt {
    Statement::VerdictMap(VerdictMap { key, data: set(map) })
}

/// To the address that the map `map` has for `key`; on to the next rule when it has none.
fn mapped(key: Expr, map: &str) -> Option<NAT<'static>> {
    let addr = Expression::Named(NamedExpression::Map(Box::new(Map { key, data: set(map) })));
    Some(NAT { addr: Some(addr), family: None, port: None, flags: None })
}

pub(crate) fn snat_by(key: Expr, map: &str) -> Stmt {
    Statement::SNAT(mapped(key, map))
}

pub(crate) fn dnat_by(key: Expr, map: &str) -> Stmt {
    Statement::DNAT(mapped(key, map))
}

pub(crate) fn snat(to: impl ToString) -> Stmt {
    Statement::SNAT(Some(NAT { addr: Some(text(to.to_string())), family: None, port: None, flags: None }))
}

pub(crate) fn dnat(to: impl ToString, port: u16) -> Stmt {
    let port = Some(Expression::Number(port.into()));
    Statement::DNAT(Some(NAT { addr: Some(text(to.to_string())), family: None, port, flags: None }))
}

/// To this machine, at the address of the interface that the packet came in by.
pub(crate) fn redirect(port: u16) -> Stmt {
    let port = Some(Expression::Number(port.into()));
    Statement::Redirect(Some(NAT { addr: None, family: None, port, flags: None }))
}
