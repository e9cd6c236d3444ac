//! Users, projects, roles, quotas; and what every command has in common.

use expect_test::expect;

use super::Lab;

#[tokio::test]
async fn the_guides_first_commands_work_on_an_empty_machine() {
    let lab = Lab::new();
    let done = lab.run("user admin dub").await;
    assert_eq!(done.code, Ok(0));
    assert_eq!(done.note, "Made the tables in sqlite:///STATE/nova.sqlite.\n");
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(
        lines[0].starts_with("export EC2_ACCESS_KEY=") && lines[1].starts_with("export EC2_SECRET_KEY="),
        "{lines:?}"
    );
    assert_eq!(lab.ok("user exports dub").await, done.out, "the same keys come back");
    assert_eq!(lab.ok("project create dubproject dub").await, "");
    assert_eq!(lab.ok("user list").await, "dub\n");
    assert_eq!(lab.ok("proj l").await, "dubproject\n");
}

#[tokio::test]
async fn a_secret_is_not_in_the_database_in_the_clear() {
    let lab = Lab::new();
    lab.ok("user create joe access hunter2hunter2").await;
    let bytes = std::fs::read(lab.path().join("nova.sqlite")).unwrap();
    assert!(!bytes.windows(14).any(|w| w == b"hunter2hunter2"));
    assert!(bytes.windows(9).any(|w| w == b"joeaccess"), "the row itself is there");
    assert_eq!(
        lab.ok("user exports joe").await,
        "export EC2_ACCESS_KEY=access\nexport EC2_SECRET_KEY=hunter2hunter2\n"
    );
}

#[tokio::test]
async fn a_user_is_modified_in_parts() {
    let lab = Lab::new();
    lab.ok("user create joe access secret").await;
    lab.ok("user modify joe '' other ''").await;
    assert_eq!(lab.ok("user exports joe").await, "export EC2_ACCESS_KEY=access\nexport EC2_SECRET_KEY=other\n");
    lab.ok("user modify joe changed '' True").await;
    assert_eq!(lab.ok("user exports joe").await, "export EC2_ACCESS_KEY=changed\nexport EC2_SECRET_KEY=other\n");
    expect![[r#"
        [
          {
            "access_key": "changed",
            "is_admin": true,
            "name": "joe"
          }
        ]
    "#]]
    .assert_eq(&lab.ok("user list --output json").await);
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_one_line() {
    let lab = Lab::new();
    lab.ok("user admin dub a s").await;
    lab.ok("project create p dub").await;
    for (command, line) in [
        ("user create dub", expect!["user dub exists already"]),
        ("user create joe a", expect!["that access key belongs to another user"]),
        ("user create ../joe", expect!["a user name may not contain '/'"]),
        ("user create joe b:c", expect!["the access key holds a character that is not allowed in it"]),
        ("user exports joe", expect!["no user joe; nova-manage user list shows all"]),
        ("user delete joe", expect!["there is no user joe"]),
        ("user delete dub", expect!["user dub manages p"]),
        ("project create q joe", expect!["there is no user joe"]),
        ("project create p dub", expect!["project p exists already"]),
        ("project add nowhere dub", expect!["there is no project nowhere"]),
        ("project remove p dub", expect!["user dub manages project p"]),
        ("project environment p joe", expect!["no user joe; nova-manage user list shows all"]),
        ("role add dub king", expect!["The king role can not be found"]),
        ("role add dub itsec p", expect!["The itsec role is global only"]),
        ("role has dub projectmanager", expect!["Must specify project"]),
        (
            "project quota p kittens 3",
            expect!["no quota kittens; there are instances, cores, volumes, gigabytes, floating_ips"],
        ),
        (
            "project quota p cores many",
            expect![[r#""many" is not a limit: expected a number from 0 to 2147483647, or default"#]],
        ),
        (
            "project quota p cores -1",
            expect![[r#""-1" is not a limit: expected a number from 0 to 2147483647, or default"#]],
        ),
        ("service disable node1 nova-compute", expect!["no nova-compute on node1; nova-manage service list shows all"]),
    ] {
        line.assert_eq(&lab.refused(command).await);
    }
}

#[tokio::test]
async fn words_that_are_no_command_end_with_status_2() {
    let lab = Lab::new();
    let done = lab.run("usr").await;
    assert_eq!(done.code, Ok(2));
    assert!(done.out.starts_with("usr does not match any options:\n\tcheck\n\tdb\n"), "{}", done.out);
    let done = lab.run("user").await;
    assert_eq!(done.code, Ok(2));
    expect![
        "Available actions for user category:\n\tadmin\n\tcreate\n\tdelete\n\texports\n\tlist\n\tmodify\n\trevoke\n"
    ]
    .assert_eq(&done.out);
    let done = lab.run("user delete").await;
    assert_eq!((done.code, done.out.as_str()), (Ok(2), ""));
    assert!(done.note.contains("<NAME>"), "{}", done.note);
    let done = lab.run("--nosuch user list").await;
    expect!["nova-manage: --nosuch is no flag of Nova; nova-manage --help lists them\n"].assert_eq(&done.note);
    assert_eq!(done.code, Ok(2));
    let done = lab.run("user delete --help").await;
    assert_eq!((done.code, done.note.as_str()), (Ok(0), ""));
    assert!(!lab.path().join("nova.sqlite").exists(), "nothing was touched");
}

#[tokio::test]
async fn a_role_in_a_project_counts_only_if_it_is_held_everywhere() {
    let lab = Lab::new();
    lab.ok("user create joe").await;
    lab.ok("project create p joe").await;
    lab.ok("role add joe sysadmin p").await;
    assert_eq!(lab.ok("role has joe sysadmin p").await, "False\n");
    lab.ok("role add joe sysadmin").await;
    assert_eq!(lab.ok("role has joe sysadmin p").await, "True\n");
    assert_eq!(lab.ok("role has joe sysadmin").await, "True\n");
    assert_eq!(lab.ok("role has joe projectmanager p").await, "True\n");
    lab.ok("role remove joe sysadmin p").await;
    lab.ok("role remove joe sysadmin p").await;
    assert_eq!(lab.ok("role has joe sysadmin p").await, "False\n");
}

#[tokio::test]
async fn quotas_are_set_shown_and_given_back() {
    let lab = Lab::new();
    lab.ok("user create joe").await;
    lab.ok("project create p joe").await;
    let usual = lab.ok("project quota p").await;
    expect!["instances: 10\ncores: 20\nvolumes: 10\ngigabytes: 1000\nfloating_ips: 10\n"].assert_eq(&usual);
    assert!(lab.ok("project quota p cores 7").await.contains("cores: 7\n"));
    assert_eq!(lab.ok("account quota p cores default").await, usual);
    assert_eq!(lab.ok("check --recount --rows").await, "");
}

#[tokio::test]
async fn a_project_goes_with_its_members_and_a_user_after_it() {
    let lab = Lab::new();
    lab.ok("user create joe").await;
    lab.ok("user create ann").await;
    lab.ok("project create p joe purpose").await;
    lab.ok("project add p ann").await;
    lab.ok("project modify p ann").await;
    lab.ok("project scrub p").await;
    lab.ok("user delete joe").await;
    lab.ok("project delete p").await;
    lab.ok("user delete ann").await;
    assert_eq!(lab.ok("user list").await + &lab.ok("project list").await, "");
}

#[tokio::test]
async fn the_version_of_the_tables_is_known_before_and_after_they_are_made() {
    let lab = Lab::new();
    assert_eq!(lab.ok("db version").await, "0\n");
    let done = lab.run("db sync").await;
    assert_eq!(done.note, format!("The tables went from version 0 to {}.\n", nova_db::SCHEMA_VERSION));
    assert_eq!(lab.ok("db version").await, format!("{}\n", nova_db::SCHEMA_VERSION));
    assert_eq!(lab.ok("db sync").await, "");
    assert!(lab.refused("db sync 14").await.ends_with(", not 14"));
}

#[tokio::test]
async fn a_state_folder_that_is_not_there_is_named() {
    let lab = Lab::new();
    let done = lab.run_with(&["--sql_connection=sqlite:////nowhere/nova.sqlite"], "user list").await;
    expect!["the folder /nowhere for the database is not there; make it, or give another --state_path"]
        .assert_eq(&done.code.unwrap_err());
}
