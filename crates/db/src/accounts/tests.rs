//! Accounts on all engines.

use expect_test::{Expect, expect};
use nova_types::account::{Project, Role, User};
use nova_types::{ProjectId, UserId};

use super::{AccountError, ProjectChange, UserChange};
use crate::{Conn, Db, dev, transaction};

fn user(name: &str) -> User {
    User {
        id: name.parse().unwrap(),
        access_key: format!("{name}-key"),
        sealed_secret: format!("v1:{name}"),
        is_admin: false,
    }
}

fn id(name: &str) -> UserId {
    name.parse().unwrap()
}

fn at(name: &str) -> ProjectId {
    name.parse().unwrap()
}

/// ann, bob and cy; project p of ann with bob in it.
async fn peopled(db: &Db) -> Conn {
    let made: Result<(), AccountError> = transaction!(db, |tx| -> AccountError {
        for name in ["ann", "bob", "cy"] {
            super::create_user(tx, &user(name)).await?;
        }
        let project = Project { id: at("p"), description: "Ann's".into(), manager: id("ann") };
        super::create_project(tx, &project, &[id("bob"), id("ann")]).await
    });
    made.unwrap();
    db.write().await.unwrap()
}

#[track_caller]
fn refused(outcome: Result<(), AccountError>, why: Expect) {
    why.assert_eq(&outcome.unwrap_err().to_string());
}

#[tokio::test]
async fn users_are_made_changed_and_listed() {
    dev::each(async |db: &Db| {
        let mut conn = peopled(db).await;
        refused(super::create_user(&mut conn, &user("ann")).await, expect!["user ann exists already"]);
        let thief = User { access_key: "ann-key".into(), ..user("dan") };
        refused(super::create_user(&mut conn, &thief).await, expect!["that access key belongs to another user"]);

        let change = UserChange { access_key: Some("new".into()), ..UserChange::default() };
        super::modify_user(&mut conn, &id("bob"), change).await.unwrap();
        let change = UserChange { sealed_secret: Some("v1:new".into()), is_admin: Some(true), ..UserChange::default() };
        super::modify_user(&mut conn, &id("bob"), change).await.unwrap();
        let bob = User { access_key: "new".into(), sealed_secret: "v1:new".into(), is_admin: true, ..user("bob") };
        assert_eq!(super::user(&mut conn, &id("bob")).await.unwrap(), Some(bob.clone()));
        assert_eq!(super::user_by_access_key(&mut conn, "new").await.unwrap(), Some(bob.clone()));
        assert_eq!(super::user_by_access_key(&mut conn, "bob-key").await.unwrap(), None);
        assert_eq!(super::users(&mut conn).await.unwrap(), [user("ann"), bob, user("cy")]);

        let taken = UserChange { access_key: Some("ann-key".into()), ..UserChange::default() };
        refused(
            super::modify_user(&mut conn, &id("bob"), taken).await,
            expect!["that access key belongs to another user"],
        );
        let nothing = UserChange::default();
        refused(super::modify_user(&mut conn, &id("dan"), nothing).await, expect!["there is no user dan"]);
    })
    .await;
}

#[tokio::test]
async fn projects_have_a_manager_and_members() {
    dev::each(async |db: &Db| {
        let mut conn = peopled(db).await;
        let of = |projects: Vec<Project>| projects.into_iter().map(|p| p.id.to_string()).collect::<Vec<_>>();
        assert_eq!(super::members(&mut conn, &at("p")).await.unwrap(), [id("ann"), id("bob")]);
        assert_eq!(of(super::projects(&mut conn, Some(&id("bob"))).await.unwrap()), ["p"]);
        assert_eq!(of(super::projects(&mut conn, Some(&id("cy"))).await.unwrap()), Vec::<String>::new());
        drop(conn);

        let change = ProjectChange { manager: Some(id("cy")), description: Some("Cy's".into()) };
        transaction!(db, |tx| -> AccountError { super::modify_project(tx, &at("p"), change.clone()).await }).unwrap();
        let outcome = transaction!(db, |tx| -> AccountError { super::remove_member(tx, &id("cy"), &at("p")).await });
        refused(outcome, expect!["user cy manages project p"]);
        for outcome in [true, false] {
            let left = transaction!(db, |tx| -> AccountError { super::remove_member(tx, &id("ann"), &at("p")).await });
            assert_eq!(left.is_ok(), outcome, "{left:?}");
        }
        let absent = transaction!(db, |tx| -> AccountError { super::add_member(tx, &id("dan"), &at("p")).await });
        refused(absent, expect!["there is no user dan"]);
        let absent = transaction!(db, |tx| -> AccountError { super::add_member(tx, &id("ann"), &at("q")).await });
        refused(absent, expect!["there is no project q"]);
        let project = Project { id: at("p"), description: String::new(), manager: id("ann") };
        let twice = transaction!(db, |tx| -> AccountError { super::create_project(tx, &project, &[]).await });
        refused(twice, expect!["project p exists already"]);

        let mut conn = db.read().await.unwrap();
        assert_eq!(super::members(&mut conn, &at("p")).await.unwrap(), [id("bob"), id("cy")]);
        let project = super::project(&mut conn, &at("p")).await.unwrap().unwrap();
        assert_eq!((project.manager, project.description.as_str()), (id("cy"), "Cy's"));
        assert_eq!(of(super::projects(&mut conn, None).await.unwrap()), ["p"]);
    })
    .await;
}

#[tokio::test]
async fn roles_are_held_everywhere_or_in_a_project() {
    dev::each(async |db: &Db| {
        drop(peopled(db).await);
        let add = async |who: &str, role: Role, on: Option<&str>| {
            let on = on.map(at);
            transaction!(db, |tx| -> AccountError { super::add_role(tx, &id(who), role, on.as_ref()).await })
        };
        add("bob", Role::SysAdmin, None).await.unwrap();
        add("bob", Role::SysAdmin, None).await.unwrap();
        add("bob", Role::NetAdmin, Some("p")).await.unwrap();
        add("bob", Role::NetAdmin, Some("p")).await.unwrap();
        refused(add("bob", Role::CloudAdmin, Some("p")).await, expect!["the role cloudadmin is global only"]);
        refused(add("cy", Role::NetAdmin, Some("p")).await, expect!["user cy is not a member of project p"]);
        refused(add("cy", Role::NetAdmin, Some("q")).await, expect!["there is no project q"]);
        refused(add("dan", Role::NetAdmin, None).await, expect!["there is no user dan"]);

        let mut conn = db.write().await.unwrap();
        assert_eq!(super::roles(&mut conn, &id("bob"), None).await.unwrap(), [Role::SysAdmin]);
        assert_eq!(super::roles(&mut conn, &id("bob"), Some(&at("p"))).await.unwrap(), [Role::NetAdmin]);
        assert!(!super::has_role(&mut conn, &id("bob"), Role::SysAdmin, Some(&at("p"))).await.unwrap());
        super::remove_role(&mut conn, &id("bob"), Role::SysAdmin, None).await.unwrap();
        super::remove_role(&mut conn, &id("bob"), Role::SysAdmin, None).await.unwrap();
        assert!(!super::has_role(&mut conn, &id("bob"), Role::SysAdmin, None).await.unwrap());
        super::remove_member(&mut conn, &id("bob"), &at("p")).await.expect("the roles go with the membership");
        assert_eq!(super::roles(&mut conn, &id("bob"), Some(&at("p"))).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_request_is_identified_by_its_key_and_its_project() {
    dev::each(async |db: &Db| {
        let mut conn = peopled(db).await;
        for role in [Role::NetAdmin, Role::SysAdmin] {
            super::add_role(&mut conn, &id("bob"), role, None).await.unwrap();
            super::add_role(&mut conn, &id("bob"), role, Some(&at("p"))).await.unwrap();
        }
        super::add_role(&mut conn, &id("cy"), Role::ItSec, None).await.unwrap();
        let own = Project { id: at("cy"), description: String::new(), manager: id("cy") };
        super::create_project(&mut conn, &own, &[]).await.unwrap();

        let mut told = String::new();
        for (key, project) in [
            ("bob-key", Some("p")),
            ("bob-key", None),
            ("cy-key", None),
            ("cy-key", Some("")),
            ("cy-key", Some("p")),
            ("ann-key", Some("p")),
            ("ann-key", Some("x' or '1'='1")),
            ("ANN-KEY", Some("p")),
            ("no-key", Some("p")),
        ] {
            let line = match super::identify(&mut conn, key, project).await.unwrap() {
                None => "nobody".to_owned(),
                Some(i) => format!(
                    "{:?} at {:?} member {} manager {} roles {:?} {:?}",
                    i.user.id.as_str(),
                    i.project.as_ref().map(|p| p.id.as_str()),
                    i.is_member,
                    i.is_project_manager(),
                    i.global_roles,
                    i.project_roles
                ),
            };
            told.push_str(&format!("{key} {project:?}: {line}\n"));
        }
        expect![[r#"
            bob-key Some("p"): "bob" at Some("p") member true manager false roles [SysAdmin, NetAdmin] [SysAdmin, NetAdmin]
            bob-key None: "bob" at None member false manager false roles [SysAdmin, NetAdmin] []
            cy-key None: "cy" at Some("cy") member true manager true roles [ItSec] []
            cy-key Some(""): "cy" at Some("cy") member true manager true roles [ItSec] []
            cy-key Some("p"): "cy" at Some("p") member false manager false roles [ItSec] []
            ann-key Some("p"): "ann" at Some("p") member true manager true roles [] []
            ann-key Some("x' or '1'='1"): "ann" at None member false manager false roles [] []
            ANN-KEY Some("p"): nobody
            no-key Some("p"): nobody
        "#]]
        .assert_eq(&told);
    })
    .await;
}

const INSTANCE: &str = "
    insert into instances (user_id, project_id, image_id, memory_mb, vcpus, local_gb, instance_type, reservation_id,
                           mac_address, vm_state)
    values ('bob', 'p', 'ami-00000001', 1, 1, 1, 'm1.tiny', 'r-00000001', '02:00:00:00:00:01', 'running')";

#[tokio::test]
async fn who_still_has_something_is_not_deleted() {
    dev::each(async |db: &Db| {
        let mut conn = peopled(db).await;
        conn.execute(INSTANCE, &[]).await.unwrap();
        conn.execute("insert into floating_ips (address, project_id) values ('1.2.3.4', 'p')", &[]).await.unwrap();
        drop(conn);
        let delete_user =
            async |name: &str| transaction!(db, |tx| -> AccountError { super::delete_user(tx, &id(name)).await });
        let delete_project =
            async || transaction!(db, |tx| -> AccountError { super::delete_project(tx, &at("p")).await });
        refused(delete_user("ann").await, expect!["user ann manages p"]);
        refused(delete_user("bob").await, expect!["user bob still has 1 instances"]);
        refused(delete_user("dan").await, expect!["there is no user dan"]);
        refused(delete_project().await, expect!["project p still has 1 instances, 1 floating_ips"]);

        let mut conn = db.write().await.unwrap();
        conn.execute("update instances set vm_state = 'terminated'", &[]).await.unwrap();
        conn.execute("update floating_ips set project_id = null", &[]).await.unwrap();
        drop(conn);
        delete_project().await.unwrap();
        refused(delete_project().await, expect!["there is no project p"]);
        delete_user("ann").await.unwrap();
        delete_user("bob").await.unwrap();
        let mut conn = db.write().await.unwrap();
        assert_eq!(super::users(&mut conn).await.unwrap(), [user("cy")]);
        super::create_user(&mut conn, &user("ann")).await.expect("the name and the key are free again");
    })
    .await;
}

#[tokio::test]
async fn a_deleted_project_leaves_nothing_behind() {
    dev::each(async |db: &Db| {
        let mut conn = peopled(db).await;
        for statement in [
            "insert into security_groups (name, user_id, project_id) values ('mine', 'bob', 'p')",
            "insert into security_groups (name, user_id, project_id) values ('theirs', 'cy', 'q')",
            "insert into security_group_rules (parent_group_id, group_id, signature) values (1, 1, 'a')",
            "insert into security_group_rules (parent_group_id, group_id, signature) values (2, 1, 'b')",
            "insert into security_group_rules (parent_group_id, cidr, signature) values (2, '0.0.0.0/0', 'c')",
            "insert into networks (cidr, project_id) values ('10.0.0.0/24', 'p')",
            "insert into quotas (project_id, instances) values ('p', 1)",
            "insert into certificates (user_id, project_id, file_name) values ('bob', 'p', '1.pem')",
        ] {
            conn.execute(statement, &[]).await.unwrap();
        }
        super::add_role(&mut conn, &id("bob"), Role::SysAdmin, Some(&at("p"))).await.unwrap();
        drop(conn);
        transaction!(db, |tx| -> AccountError { super::delete_project(tx, &at("p")).await }).unwrap();

        let mut conn = db.read().await.unwrap();
        let left = conn
            .one(
                "select (select count(*) from security_groups where deleted = false) as groups_left,
                        (select count(*) from security_group_rules where deleted = false) as rules_left,
                        (select count(*) from networks where project_id is null) as free_networks,
                        (select count(*) from quotas) as quotas_left,
                        (select count(*) from quota_usages) as usages_left,
                        (select count(*) from user_project_role_association) as roles_left,
                        (select count(*) from certificates where deleted = false) as certificates_left",
                &[],
            )
            .await
            .unwrap();
        let mut told = String::new();
        for column in ["groups_left", "rules_left", "free_networks", "quotas_left", "usages_left", "roles_left"] {
            told.push_str(&format!("{column} {}\n", left.get::<i64>(column).unwrap()));
        }
        expect![[r#"
            groups_left 1
            rules_left 1
            free_networks 1
            quotas_left 0
            usages_left 0
            roles_left 0
        "#]]
        .assert_eq(&told);
        assert_eq!(left.get::<i64>("certificates_left").unwrap(), 0);
        let theirs = conn.one("select version from security_groups where name = 'theirs'", &[]).await.unwrap();
        assert_eq!(theirs.get::<i32>("version").unwrap(), 2, "the hosts must hear of the rule that went");
    })
    .await;
}
