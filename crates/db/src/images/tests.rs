//! Images of two projects, on all engines.

use expect_test::expect;
use nova_types::image::{DiskFormat, NewImage};
use nova_types::{ImageId, ImageKind, ProjectId};

use super::{ImageError, Stored};
use crate::{Conn, Db, dev};

const STORED: Stored<'_> = Stored { sha256: "e3b0c442", size_bytes: 10 << 30, virtual_size_bytes: 20 << 30 };

fn project(name: &str) -> ProjectId {
    name.parse().unwrap()
}

fn image(kind: ImageKind, owner: &str, location: &str) -> NewImage {
    NewImage {
        kind,
        owner: project(owner),
        name: "Squeeze".into(),
        description: "é".into(),
        location: location.into(),
        is_public: false,
        architecture: "x86_64".into(),
        format: DiskFormat::Raw,
        kernel: None,
        ramdisk: None,
    }
}

async fn shown(conn: &mut Conn, to: Option<&str>) -> String {
    let images = super::list(conn, to.map(project).as_ref()).await.unwrap();
    images.iter().map(|i| format!("{} {} {}\n", i.id, i.owner, i.state.as_str())).collect()
}

#[tokio::test]
async fn a_project_sees_its_own_images_and_public_ones() {
    dev::each(async |db: &Db| {
        let mut conn = db.write().await.unwrap();
        let kernel = super::register(&mut conn, &image(ImageKind::Kernel, "a", "k")).await.unwrap();
        let mut machine = image(ImageKind::Machine, "a", "bucket/image.manifest.xml");
        machine.kernel = Some(kernel);
        let machine = super::register(&mut conn, &machine).await.unwrap();
        super::register(&mut conn, &image(ImageKind::Machine, "b", "bucket/image.manifest.xml")).await.unwrap();
        super::set_public(&mut conn, Some(&project("a")), machine, true).await.unwrap();

        expect!["aki-00000001 a pending\nami-00000002 a pending\n"].assert_eq(&shown(&mut conn, Some("a")).await);
        expect!["ami-00000002 a pending\nami-00000003 b pending\n"].assert_eq(&shown(&mut conn, Some("b")).await);
        assert_eq!(shown(&mut conn, None).await.lines().count(), 3);
        let seen = super::get(&mut conn, &project("b"), machine).await.unwrap().unwrap();
        assert_eq!((seen.kernel, seen.description.as_str()), (Some(kernel), "é"));
        assert_eq!(super::get(&mut conn, &project("b"), kernel).await.unwrap(), None);
        let misspelt = ImageId::new(ImageKind::Ramdisk, machine.number());
        assert_eq!(super::get(&mut conn, &project("a"), misspelt).await.unwrap(), None);

        let foreign = super::set_public(&mut conn, Some(&project("b")), machine, false).await.unwrap_err();
        assert!(matches!(foreign, ImageError::NotFound(id) if id == machine));
        let foreign = super::deregister(&mut conn, Some(&project("b")), machine).await.unwrap_err();
        assert!(matches!(foreign, ImageError::NotFound(id) if id == machine));
        super::set_public(&mut conn, None, machine, false).await.expect("an administrator may");
        assert_eq!(super::get(&mut conn, &project("b"), machine).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn an_image_leaves_pending_once() {
    dev::each(async |db: &Db| {
        let mut conn = db.write().await.unwrap();
        let good = super::register(&mut conn, &image(ImageKind::Machine, "a", "1")).await.unwrap();
        let bad = super::register(&mut conn, &image(ImageKind::Machine, "a", "2")).await.unwrap();
        assert_eq!(super::pending(&mut conn).await.unwrap().len(), 2);
        super::available(&mut conn, good, STORED).await.unwrap();
        super::failed(&mut conn, bad, "The manifest names no parts.").await.unwrap();
        assert_eq!(super::pending(&mut conn).await.unwrap(), []);

        let image = super::get(&mut conn, &project("a"), good).await.unwrap().unwrap();
        let sizes = (image.size_bytes, image.virtual_size_bytes);
        assert_eq!((image.sha256.as_deref(), sizes), (Some("e3b0c442"), (Some(10 << 30), Some(20 << 30))));
        let image = super::get(&mut conn, &project("a"), bad).await.unwrap().unwrap();
        assert_eq!(image.state_reason.as_deref(), Some("The manifest names no parts."));

        let refused = super::failed(&mut conn, good, "x").await.unwrap_err();
        expect!["image ami-00000001 is available"].assert_eq(&refused.to_string());
        let refused = super::available(&mut conn, bad, STORED).await.unwrap_err();
        expect!["image ami-00000002 is failed"].assert_eq(&refused.to_string());
        let absent = ImageId::new(ImageKind::Machine, 99);
        let refused = super::available(&mut conn, absent, STORED).await.unwrap_err();
        expect!["there is no image ami-00000063"].assert_eq(&refused.to_string());
    })
    .await;
}

#[tokio::test]
async fn a_deregistered_image_is_gone_for_users_and_its_place_is_free() {
    dev::each(async |db: &Db| {
        let mut conn = db.write().await.unwrap();
        let new = image(ImageKind::Machine, "a", "bucket/m");
        let first = super::register(&mut conn, &new).await.unwrap();
        let taken = super::register(&mut conn, &new).await.unwrap_err();
        expect!["bucket/m is registered already"].assert_eq(&taken.to_string());
        super::deregister(&mut conn, Some(&project("a")), first).await.unwrap();

        assert_eq!(super::get(&mut conn, &project("a"), first).await.unwrap(), None);
        assert_eq!(shown(&mut conn, None).await, "");
        assert!(super::get_any(&mut conn, first).await.unwrap().is_some());
        let late = super::available(&mut conn, first, STORED).await.unwrap_err();
        expect!["image ami-00000001 is deregistered"].assert_eq(&late.to_string());
        let again = super::deregister(&mut conn, Some(&project("a")), first).await.unwrap_err();
        assert!(matches!(again, ImageError::NotFound(_)));
        assert_ne!(super::register(&mut conn, &new).await.unwrap(), first);
    })
    .await;
}

#[tokio::test]
async fn only_an_old_registration_that_is_pending_still_is_taken_back() {
    dev::each(async |db: &Db| {
        let mut conn = db.write().await.unwrap();
        let dead = super::register(&mut conn, &image(ImageKind::Machine, "a", "dead")).await.unwrap();
        let done = super::register(&mut conn, &image(ImageKind::Machine, "a", "done")).await.unwrap();
        super::available(&mut conn, done, STORED).await.unwrap();
        assert!(super::pending_since(&mut conn, 60).await.unwrap().is_empty(), "they are young");
        let old = super::pending_since(&mut conn, 0).await.unwrap();
        assert_eq!(old.iter().map(|image| image.id).collect::<Vec<_>>(), [dead]);
        for (id, taken) in [(done, false), (dead, true), (dead, false)] {
            assert_eq!(super::abandon(&mut conn, id).await.unwrap(), taken, "{id}");
        }
        assert_eq!(shown(&mut conn, None).await, format!("{done} a available\n"));
        super::register(&mut conn, &image(ImageKind::Machine, "a", "dead")).await.expect("its place is free");
    })
    .await;
}
