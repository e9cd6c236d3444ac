//! Security groups on all engines.

mod hosts;

use expect_test::{Expect, expect};
use nova_types::rule::{Rule, Source, Traffic};
use nova_types::{GroupName, HostName, ProjectId, SecurityGroupId, UserId};

use super::{GroupError, GroupRef, NewGroup};
use crate::{Conn, Db, dev, transaction};

fn project(name: &str) -> ProjectId {
    name.parse().unwrap()
}

fn ann() -> UserId {
    "ann".parse().unwrap()
}

fn by_name(name: &str) -> GroupRef {
    GroupRef::Name(name.parse().unwrap())
}

fn tcp(port: u16, source: &str) -> Rule {
    let traffic = Traffic::parse("tcp", Some(port.into()), Some(port.into())).unwrap();
    Rule { traffic, source: Source::range(source).unwrap() }
}

fn from_group(traffic: Traffic, group: SecurityGroupId) -> Rule {
    Rule { traffic, source: Source::Group(group) }
}

async fn create(db: &Db, of: &str, name: &str) -> Result<SecurityGroupId, GroupError> {
    let (project, name): (ProjectId, GroupName) = (project(of), name.parse().unwrap());
    let new = NewGroup { project: &project, user: &ann(), name: &name, description: "for tests" };
    transaction!(db, |tx| -> GroupError { super::create(tx, &new, 4).await })
}

async fn add(db: &Db, of: &str, group: SecurityGroupId, rules: &[Rule]) -> Result<Vec<HostName>, GroupError> {
    let project = project(of);
    transaction!(db, |tx| -> GroupError { super::add_rules(tx, &project, group, rules, 5).await })
}

async fn remove(db: &Db, of: &str, group: SecurityGroupId, rules: &[Rule]) -> Result<Vec<HostName>, GroupError> {
    let project = project(of);
    transaction!(db, |tx| -> GroupError { super::remove_rules(tx, &project, group, rules).await })
}

async fn delete(db: &Db, of: &str, group: SecurityGroupId) -> Result<(), GroupError> {
    let project = project(of);
    transaction!(db, |tx| -> GroupError { super::delete(tx, &project, group).await })
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, GroupError>, why: Expect) {
    why.assert_eq(&outcome.unwrap_err().to_string());
}

async fn shown(conn: &mut Conn, of: Option<&str>) -> String {
    let mut text = String::new();
    for group in super::list(conn, of.map(project).as_ref()).await.unwrap() {
        text.push_str(&format!("{} {}/{} {:?}\n", group.id, group.project, group.name, group.description));
        for granted in &group.rules {
            let source = match (&granted.source_group, granted.rule.source) {
                (Some((project, name)), Source::Group(id)) => format!("{id} {project}/{name}"),
                (_, Source::Range(range)) => range.to_string(),
                (None, Source::Group(id)) => format!("{id} unknown"),
            };
            text.push_str(&format!("  {} from {source}\n", granted.rule.traffic));
        }
    }
    text
}

#[tokio::test]
async fn every_project_gets_its_default_group_once() {
    dev::each(async |db: &Db| {
        let mut conn = db.write().await.unwrap();
        let first = super::ensure_default(&mut conn, &project("p"), &ann()).await.unwrap();
        assert_eq!(super::ensure_default(&mut conn, &project("p"), &ann()).await.unwrap(), first);
        assert_ne!(super::ensure_default(&mut conn, &project("q"), &ann()).await.unwrap(), first);
        drop(conn);
        let both = tokio::join!(ensure(db), ensure(db));
        assert_eq!(both.0, both.1);
        refused(delete(db, "p", first).await, expect!["the security group default cannot be deleted"]);
    })
    .await;
}

async fn ensure(db: &Db) -> SecurityGroupId {
    transaction!(db, |tx| -> GroupError { super::ensure_default(tx, &project("new"), &ann()).await }).unwrap()
}

#[tokio::test]
async fn groups_are_named_within_their_project_and_limited() {
    dev::each(async |db: &Db| {
        let web = create(db, "p", "web").await.unwrap();
        create(db, "q", "web").await.expect("another project's name");
        refused(create(db, "p", "web").await, expect!["security group web exists already"]);
        for name in ["b", "c", "d"] {
            create(db, "p", name).await.unwrap();
        }
        refused(create(db, "p", "e").await, expect!["a project may have 4 security groups"]);

        let mut conn = db.read().await.unwrap();
        let wanted = [by_name("c"), GroupRef::Id(web), by_name("web")];
        let found = super::resolve(&mut conn, &project("p"), &wanted).await.unwrap();
        assert_eq!((found.len(), found[1].0, found[2].0), (3, web, web));
        assert_eq!(found[1].1.as_str(), "web");
        let absent = super::resolve(&mut conn, &project("p"), &[by_name("c"), by_name("x")]).await;
        refused(absent, expect!["there is no security group x"]);
        let foreign = super::resolve(&mut conn, &project("q"), &[GroupRef::Id(web)]).await;
        refused(foreign, expect!["there is no security group sg-00000001"]);
        assert_eq!(super::get(&mut conn, &project("q"), &GroupRef::Id(web)).await.unwrap(), None);
        assert_eq!(super::resolve(&mut conn, &project("p"), &[]).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn rules_are_listed_with_the_names_of_source_groups() {
    dev::each(async |db: &Db| {
        let web = create(db, "p", "web").await.unwrap();
        let db_group = create(db, "q", "db").await.unwrap();
        let icmp = |kind, code| Traffic::parse("icmp", Some(kind), Some(code)).unwrap();
        let everyone = Source::EVERYONE;
        let rules = [tcp(80, "0.0.0.0/0"), tcp(22, "10.0.0.0/8"), Rule { traffic: Traffic::All, source: everyone }];
        add(db, "p", web, &rules).await.unwrap();
        add(db, "p", web, &[from_group(Traffic::All, db_group), from_group(icmp(8, -1), web)]).await.unwrap();
        add(db, "q", db_group, &[Rule { traffic: icmp(0, 0), source: everyone }, tcp(80, "2001:db8::/32")])
            .await
            .unwrap();
        remove(db, "p", web, &[tcp(22, "10.0.0.0/8")]).await.unwrap();

        let mut conn = db.read().await.unwrap();
        expect![[r#"
            sg-00000001 p/web "for tests"
              tcp 80 from 0.0.0.0/0
              all from 0.0.0.0/0
              all from sg-00000002 q/db
              icmp 8--1 from sg-00000001 p/web
            sg-00000002 q/db "for tests"
              icmp 0 from 0.0.0.0/0
              tcp 80 from 2001:db8::/32
        "#]]
        .assert_eq(&shown(&mut conn, None).await);
        let one = super::get(&mut conn, &project("p"), &by_name("web")).await.unwrap().unwrap();
        let listed = super::list(&mut conn, Some(&project("p"))).await.unwrap();
        assert_eq!(listed, [one]);
    })
    .await;
}

#[tokio::test]
async fn rules_come_and_go_all_or_none() {
    dev::each(async |db: &Db| {
        let web = create(db, "p", "web").await.unwrap();
        let (a, b, c) = (tcp(1, "0.0.0.0/0"), tcp(2, "0.0.0.0/0"), tcp(3, "0.0.0.0/0"));
        let (all_of_web, some_of_web) = (from_group(Traffic::All, web), from_group(a.traffic, web));
        add(db, "p", web, &[a, all_of_web]).await.unwrap();
        add(db, "p", web, &[some_of_web]).await.expect("another protocol from the same group is another rule");
        for double in [&[b, a][..], &[b, all_of_web], &[b, some_of_web]] {
            refused(add(db, "p", web, double).await, expect!["1 of the rules exist already"]);
        }
        refused(add(db, "p", web, &[b, b]).await, expect!["1 of the rules exist already"]);
        refused(add(db, "p", web, &[b, c, tcp(4, "0.0.0.0/0")]).await, expect!["a security group may have 5 rules"]);
        let absent = from_group(Traffic::All, SecurityGroupId::new(77));
        refused(add(db, "p", web, &[b, absent]).await, expect!["there is no security group sg-0000004d"]);
        refused(add(db, "q", web, &[b]).await, expect!["there is no security group sg-00000001"]);
        refused(remove(db, "q", web, &[a]).await, expect!["there is no security group sg-00000001"]);
        refused(remove(db, "p", web, &[a, b]).await, expect!["1 of the rules do not exist"]);
        refused(remove(db, "p", web, &[a, a]).await, expect!["1 of the rules do not exist"]);

        let mut conn = db.read().await.unwrap();
        expect![[r#"
            sg-00000001 p/web "for tests"
              tcp 1 from 0.0.0.0/0
              all from sg-00000001 p/web
              tcp 1 from sg-00000001 p/web
        "#]]
        .assert_eq(&shown(&mut conn, Some("p")).await);
        drop(conn);
        remove(db, "p", web, &[a, all_of_web]).await.unwrap();
        add(db, "p", web, &[a, all_of_web]).await.expect("what was removed can be added again");
    })
    .await;
}

#[tokio::test]
async fn the_same_rule_added_by_two_at_once_is_there_once() {
    dev::each(async |db: &Db| {
        let web = create(db, "p", "web").await.unwrap();
        let rule = [tcp(22, "0.0.0.0/0")];
        let (one, two, three) =
            tokio::join!(add(db, "p", web, &rule), add(db, "p", web, &rule), add(db, "p", web, &rule));
        let added = [one, two, three].iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(added, 1);
    })
    .await;
}

#[tokio::test]
async fn a_group_in_use_is_not_deleted() {
    dev::each(async |db: &Db| {
        let web = create(db, "p", "web").await.unwrap();
        let other = create(db, "q", "other").await.unwrap();
        add(db, "p", web, &[from_group(Traffic::All, web)]).await.unwrap();
        add(db, "q", other, &[from_group(Traffic::All, web)]).await.unwrap();
        let mut conn = db.write().await.unwrap();
        hosts::guest(&mut conn, 1, "p", None, "running", &[web]).await;
        drop(conn);
        match delete(db, "p", web).await.unwrap_err() {
            GroupError::InUse { instances: 1, referenced_by, .. } => {
                assert_eq!(referenced_by, [(project("q"), "other".parse().unwrap())]);
            }
            refusal => panic!("{refusal:?}"),
        }
        remove(db, "q", other, &[from_group(Traffic::All, web)]).await.unwrap();
        refused(
            delete(db, "p", web).await,
            expect!["security group sg-00000001 is in use by 1 instances and 0 groups"],
        );
        let mut conn = db.write().await.unwrap();
        conn.execute("update instances set vm_state = 'terminated'", &[]).await.unwrap();
        drop(conn);
        refused(delete(db, "q", web).await, expect!["there is no security group sg-00000001"]);
        delete(db, "p", web).await.expect("a rule of its own does not hold a group");
        refused(delete(db, "p", web).await, expect!["there is no security group sg-00000001"]);
        create(db, "p", "web").await.expect("the name is free again");

        let mut conn = db.read().await.unwrap();
        let left = conn.one("select count(*) as n from security_group_rules where deleted = false", &[]).await.unwrap();
        assert_eq!(left.get::<i64>("n").unwrap(), 0);
    })
    .await;
}
