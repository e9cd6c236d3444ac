//! The files that users get.

use std::os::unix::fs::PermissionsExt;

use expect_test::expect;

use super::Lab;

#[tokio::test]
async fn the_zip_needs_no_daemon_and_makes_the_authority() {
    let lab = Lab::new();
    lab.ok("user admin dub access secret").await;
    lab.ok("project create dubproject dub").await;
    let zip = lab.path().join("creds/novacreds.zip");
    let command = format!("project zipfile dubproject dub {}", zip.display());
    expect!["the folder STATE/creds is not there; mkdir it first"].assert_eq(&lab.refused(&command).await);
    std::fs::create_dir(lab.path().join("creds")).unwrap();
    let done = lab.run(&command).await;
    assert_eq!((done.code, done.out.as_str()), (Ok(0), ""));
    expect!["Wrote STATE/creds/novacreds.zip; unzip it there and source novarc.\n"].assert_eq(&done.note);
    assert_eq!(zip.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    for file in ["CA/cacert.pem", "CA/private/cakey.pem", "CA/newcerts/10.pem"] {
        assert!(lab.path().join(file).is_file(), "{file}");
    }
    let bytes = std::fs::read(&zip).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let at = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("no {needle}"));
    let order = ["novarc", "pk.pem", "cert.pem", "cacert.pem"].map(at);
    assert!(order.is_sorted(), "{order:?}");
    at("export EC2_URL=\"http://10.0.0.1:8773/services/Cloud\"");
    at("export EC2_ACCESS_KEY=\"access:dubproject\"");
    at("CN=dubproject-dub-2011-02-03T04:05:06Z");

    lab.ok(&command).await;
    assert!(lab.path().join("CA/newcerts/11.pem").is_file(), "a second zip has a certificate of its own");
}

#[tokio::test]
async fn the_environment_names_the_hosts_that_guests_use() {
    let lab = Lab::new();
    lab.ok("user create joe access secret").await;
    lab.ok("user create ann").await;
    lab.ok("project create p joe").await;
    let file = lab.path().join("novarc");
    let command = format!("project environment p joe {}", file.display());
    let flags = ["--ec2_host=public.example", "--ec2_dmz_host=inside.example", "--s3_dmz=store.example"];
    assert_eq!(lab.run_with(&flags, &command).await.code, Ok(0));
    let text = std::fs::read_to_string(&file).unwrap();
    for line in
        ["export EC2_URL=\"http://inside.example:8773/services/Cloud\"", "export S3_URL=\"http://store.example:3333\""]
    {
        assert!(text.contains(line), "{text}");
    }
    expect!["ann is not a member of p; run nova-manage project add p ann"]
        .assert_eq(&lab.refused("project environment p ann").await);
}

#[tokio::test]
async fn each_region_gets_its_own_file() {
    let lab = Lab::new();
    lab.ok("user create joe").await;
    lab.ok("project create p joe").await;
    let file = lab.path().join("nova.zip");
    let command = format!("project zipfile p joe {}", file.display());
    let flags = ["--region_list=east=e.example,west=w.example"];
    assert_eq!(lab.run_with(&flags, &command).await.code, Ok(0));
    let bytes = std::fs::read(&file).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for needle in ["eastrc", "westrc", "http://e.example:8773", "http://w.example:3333"] {
        assert!(text.contains(needle), "{needle}");
    }
}

#[tokio::test]
async fn certificates_are_revoked_by_user_and_project() {
    let lab = Lab::new();
    lab.ok("user create joe").await;
    for project in ["p", "q"] {
        lab.ok(&format!("project create {project} joe")).await;
        lab.ok(&format!("project zipfile {project} joe {}", lab.path().join("nova.zip").display())).await;
    }
    let list = || std::fs::read_to_string(lab.path().join("CA/crl.pem")).unwrap();
    let empty = list();
    for (command, note) in [
        ("user revoke joe p", "Revoked 1 certificates of joe.\n"),
        ("user revoke joe p", "Revoked 0 certificates of joe.\n"),
        ("user revoke joe", "Revoked 1 certificates of joe.\n"),
    ] {
        let done = lab.run(command).await;
        assert_eq!((done.code, done.note.as_str()), (Ok(0), note), "{command}");
        assert!(list().len() > empty.len(), "{command}: the list has grown");
    }
    expect!["no user ann; nova-manage user list shows all"].assert_eq(&lab.refused("user revoke ann").await);
}
