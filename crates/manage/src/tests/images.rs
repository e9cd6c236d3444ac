//! Images, and what the check says of the host.

use expect_test::expect;

use super::Lab;

fn file(lab: &Lab, name: &str, content: &[u8]) -> String {
    let path = lab.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn an_image_with_its_kernel_is_registered_listed_and_deleted() {
    let lab = Lab::new();
    let (disk, kernel) = (file(&lab, "disk.img", &[7; 4096]), file(&lab, "vmlinuz", b"MZ kernel"));
    assert_eq!(lab.ok(&format!("image register {kernel} --kind kernel --public")).await, "aki-00000001\n");
    let command = format!("image register {disk} --name tiny --public --kernel aki-00000001");
    assert_eq!(lab.ok(&command).await, "ami-00000002\n");
    assert_eq!(std::fs::read(lab.path().join("images/ami-00000002/image")).unwrap(), [7; 4096]);
    let list = lab.ok("image list --output json").await;
    expect![[r#"
        [
          {
            "format": "raw",
            "id": "aki-00000001",
            "kernel": null,
            "kind": "kernel",
            "name": "vmlinuz",
            "owner": "system",
            "public": true,
            "ramdisk": null,
            "size": 9,
            "state": "available"
          },
          {
            "format": "raw",
            "id": "ami-00000002",
            "kernel": "aki-00000001",
            "kind": "machine",
            "name": "tiny",
            "owner": "system",
            "public": true,
            "ramdisk": null,
            "size": 4096,
            "state": "available"
          }
        ]
    "#]]
    .assert_eq(&list);
    assert!(lab.ok("image list").await.contains("ami-00000002"));
    lab.ok("image delete ami-00000002").await;
    assert!(!lab.path().join("images/ami-00000002").exists());
    assert!(!lab.ok("image list").await.contains("ami-00000002"));
}

#[tokio::test]
async fn the_commands_of_cactus_print_what_they_printed() {
    let lab = Lab::new();
    let [disk, kernel, ramdisk] = ["disk", "kernel", "ramdisk"].map(|n| file(&lab, n, n.as_bytes()));
    let out = lab.ok(&format!("image all_register {disk} {kernel} {ramdisk} acme tiny")).await;
    expect![[r#"
        Image registered to 1 (00000001).
        Image registered to 2 (00000002).
        Image registered to 3 (00000003).
    "#]]
    .assert_eq(&out);
    let other = file(&lab, "other", b"other");
    let command = format!("image image_register {other} acme other T x86_64 bare raw 1 2");
    assert_eq!(lab.ok(&command).await, "Image registered to 4 (00000004).\n");
    let list = lab.ok("image list --output json").await;
    assert!(list.contains(r#""kernel": "aki-00000001""#) && list.contains(r#""ramdisk": "ari-00000002""#), "{list}");
}

#[tokio::test]
async fn a_disk_that_is_refused_takes_its_kernel_and_ramdisk_with_it() {
    let lab = Lab::new();
    let [kernel, ramdisk, disk] = ["kernel", "ramdisk", "disk"].map(|n| file(&lab, n, n.as_bytes()));
    let command = |disk: &str| format!("image all_register {disk} {kernel} {ramdisk} acme tiny");
    assert_eq!(
        lab.run(&command("/nonexistent")).await.code.unwrap_err(),
        "opening /nonexistent: No such file or directory (os error 2)"
    );
    assert_eq!(lab.ok("image list --output json").await, "[]\n");
    assert_eq!(std::fs::read_dir(lab.path().join("images")).unwrap().count(), 0);
    lab.ok(&command(&disk)).await;
}

#[tokio::test]
async fn a_file_is_registered_once_and_the_next_is_told_where() {
    let lab = Lab::new();
    let disk = file(&lab, "disk.img", &[0; 512]);
    lab.ok(&format!("image register {disk} --public")).await;
    let again = lab.refused(&format!("image register {disk} --public")).await;
    expect!["STATE/disk.img is registered already, as ami-00000001; nova-manage image delete ami-00000001 makes room"]
        .assert_eq(&again);
    lab.ok("image delete ami-00000001").await;
    lab.ok(&format!("image register {disk} --public")).await;
}

#[tokio::test]
async fn what_is_no_image_leaves_nothing_behind() {
    let lab = Lab::new();
    let mut overlay = vec![0; 512];
    overlay[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    overlay[15] = 0x70;
    let (disk, fake) = (file(&lab, "disk.img", &[0; 512]), file(&lab, "fake.img", &overlay));
    for (command, line) in [
        ("image register STATE/none --public", expect!["opening STATE/none: No such file or directory (os error 2)"]),
        ("image register STATE --public", expect!["STATE is not a file"]),
        (
            "image register STATE/fake.img --public",
            expect!["registering STATE/fake.img: the image was declared raw but looks like qcow2"],
        ),
        (
            "image register STATE/fake.img --public --format qcow2",
            expect!["registering STATE/fake.img: the qcow2 image has a backing file; flatten it with qemu-img convert"],
        ),
        ("image register STATE/disk.img", expect!["nobody could launch it: give --public, or --owner with a project"]),
        ("image register STATE/disk.img --owner acme", expect!["no project acme; nova-manage project list shows all"]),
        (
            "image register STATE/disk.img --public --arch vax",
            expect!["no architecture vax: expected x86_64, i386 or arm64"],
        ),
        (
            "image register STATE/disk.img --public --kernel aki-00000009",
            expect!["no kernel aki-00000009; nova-manage image list shows all"],
        ),
        (
            &format!("image register STATE/disk.img --public --name {}", "x".repeat(256)),
            expect!["the name of an image has at most 255 characters, and no control characters"],
        ),
        ("image delete ami-00000009", expect!["there is no image ami-00000009"]),
        ("image delete web", expect![[r#""web" is not an image id (expected ami-0000000a)"#]]),
    ] {
        let command = command.replace("STATE", &lab.path().display().to_string());
        line.assert_eq(&lab.refused(&command).await);
    }
    assert_eq!(lab.ok("image list --output json").await, "[]\n", "{disk} {fake}");
    assert_eq!(std::fs::read_dir(lab.path().join("images")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_registration_that_was_killed_is_cleared_away_but_not_one_that_goes_on() {
    let lab = Lab::new();
    let disk = file(&lab, "disk.img", &[7; 512]);
    let command = format!("image register {disk} --public");
    assert_eq!(lab.ok(&command).await, "ami-00000001\n");
    assert!(lab.refused(&command).await.contains("is registered already"));
    let url = format!("sqlite:///{}", lab.path().join("nova.sqlite").display());
    let db = nova_db::Db::open(&url, &nova_db::Options::default()).await.unwrap();
    let pending = "update images set state = 'pending', checksum = null";
    db.write().await.unwrap().execute(pending, &[]).await.unwrap();
    db.close().await;
    let store = nova_images::ImageStore::new(lab.path().join("images"));
    let going_on = store.hold("ami-00000001".parse().unwrap()).unwrap().unwrap();
    assert!(lab.refused(&command).await.contains("another process registers"));
    drop(going_on);
    assert_eq!(lab.ok(&command).await, "ami-00000002\n");
    assert!(!store.path("ami-00000001".parse().unwrap()).exists());
}

#[tokio::test]
async fn the_check_names_leaks_on_the_host_with_what_mends_them() {
    let lab = Lab::new();
    let disk = file(&lab, "disk.img", b"disk");
    lab.ok(&format!("image register {disk} --public")).await;
    let about_us = |out: &str| -> Vec<String> {
        // The machine may have leaks of its own; they are no business of this test.
        out.lines().filter(|l| l.contains("STATE") || l.contains("ami-")).map(str::to_owned).collect()
    };
    assert_eq!(about_us(&lab.run("check --deep").await.out), [""; 0]);

    std::fs::create_dir_all(lab.path().join("instances/instance-0000000a")).unwrap();
    std::fs::create_dir_all(lab.path().join("images/ami-00000007")).unwrap();
    std::fs::write(lab.path().join("images/ami-00000001/image"), "dusk").unwrap();
    let done = lab.run("check --deep").await;
    assert_eq!(done.code, Ok(1));
    let ours = about_us(&done.out);
    expect![[r#"
        W2: STATE/instances/instance-0000000a is the folder of i-0000000a, which is not here
            to mend: rm -r STATE/instances/instance-0000000a
        W8: STATE/images/ami-00000007 is the folder of ami-00000007, which is not registered
            to mend: rm -r STATE/images/ami-00000007
        W8: the image ami-00000001 has a file with other bytes than were registered
            to mend: nova-manage image delete ami-00000001"#]]
    .assert_eq(&ours.join("\n"));
}

#[tokio::test]
async fn a_host_without_an_object_store_is_not_blamed_for_files_of_images() {
    let lab = Lab::new();
    let disk = file(&lab, "disk.img", b"disk");
    lab.ok(&format!("image register {disk} --public")).await;
    std::fs::remove_file(lab.path().join("images/ami-00000001/image")).unwrap();
    let blamed = async || lab.run("check").await.out.contains("ami-00000001 has lost its file");
    assert!(blamed().await, "there is no object store at all: the images are here");
    let url = format!("sqlite:///{}", lab.path().join("nova.sqlite").display());
    let db = nova_db::Db::open(&url, &nova_db::Options::default()).await.unwrap();
    let elsewhere = "elsewhere".parse().unwrap();
    let mut conn = db.write().await.unwrap();
    nova_db::services::heartbeat(&mut conn, &elsewhere, "nova-objectstore", "nova", true).await.unwrap();
    drop(conn);
    assert!(!blamed().await);
}
