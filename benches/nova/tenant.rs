//! Somebody to call the API: user `joe` of project `acme`, with an image and a network.

use nova_db::images::{self, Stored};
use nova_db::{Db, DbError, accounts, dev::fixtures, fixed_ips, instances, security_groups, transaction};
use nova_identity::{Secret, SecretBox};
use nova_types::account::{Project, Role, User};
use nova_types::image::{DiskFormat, NewImage};
use nova_types::instance::InstanceView;
use nova_types::state::Event;
use nova_types::{HostName, ImageId, ImageKind, NetworkId, ProjectId, SecurityGroupId, UserId};

pub(crate) const ACCESS_KEY: &str = "joe-key:acme";
pub(crate) const SECRET: &str = "1d0ea1a5-0000-4000-8000-5ec2e7000000";

/// What there is to launch with.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) project: ProjectId,
    pub(crate) user: UserId,
    pub(crate) image: ImageId,
    pub(crate) network: NetworkId,
}

/// Creates all of it in a database that is migrated and empty; the network is `10.0.0.0/prefix`.
pub(crate) async fn create(db: &Db, secrets: &SecretBox, prefix: u8) -> anyhow::Result<Tenant> {
    let (user, project): (UserId, ProjectId) = ("joe".parse()?, "acme".parse()?);
    let sealed_secret = secrets.seal(user.as_str(), &Secret::new(SECRET))?;
    let joe = User { id: user.clone(), access_key: "joe-key".to_owned(), sealed_secret, is_admin: false };
    let acme = Project { id: project.clone(), description: String::new(), manager: user.clone() };
    transaction!(db, |tx| -> accounts::AccountError {
        accounts::create_user(tx, &joe).await?;
        accounts::create_project(tx, &acme, &[]).await?;
        accounts::add_role(tx, &joe.id, Role::SysAdmin, None).await?;
        accounts::add_role(tx, &joe.id, Role::SysAdmin, Some(&acme.id)).await
    })?;
    let image = NewImage {
        kind: ImageKind::Machine,
        name: "small".to_owned(),
        description: String::new(),
        location: "bench/small".to_owned(),
        owner: project.clone(),
        is_public: true,
        architecture: "x86_64".to_owned(),
        format: DiskFormat::Raw,
        kernel: None,
        ramdisk: None,
    };
    let mut conn = db.write().await?;
    let image = images::register(&mut conn, &image).await?;
    let stored = Stored { sha256: &"0".repeat(64), size_bytes: 1 << 20, virtual_size_bytes: 1 << 20 };
    images::available(&mut conn, image, stored).await?;
    drop(conn);
    let network = fixtures::flat_network(db, prefix).await;
    Ok(Tenant { project, user, image, network })
}

/// Instances launched by one call.
const OF_ONE_CALL: u32 = 10;

impl Tenant {
    /// Puts at least `count` instances into the database that run on a host elsewhere, and returns all that there are.
    pub(crate) async fn run(&self, db: &Db, count: usize) -> anyhow::Result<Vec<InstanceView>> {
        let host: HostName = "elsewhere".parse()?;
        fixtures::node(db, &host, 1_000_000).await;
        let group = security_groups::ensure_default(&mut db.write().await?, &self.project, &self.user).await?;
        let calls = count.div_ceil(OF_ONE_CALL as usize);
        transaction!(db, |tx| {
            for _ in 0..calls {
                self.launch(tx, group, &host).await?;
            }
            Ok(())
        })?;
        Ok(instances::describe(&mut db.read().await?, Some(&self.project), &[]).await?)
    }

    async fn launch(&self, tx: &mut nova_db::Conn, group: SecurityGroupId, host: &HostName) -> Result<(), DbError> {
        let mut new = fixtures::new_instances(&self.project, OF_ONE_CALL);
        new.groups = vec![group];
        new.key = Some((fixtures::name("bench"), "ssh-ed25519 AAAA bench".to_owned()));
        new.display_name = Some("web".to_owned());
        let ids = instances::insert_batch(tx, &new).await?;
        instances::place(tx, &ids, host).await?;
        fixed_ips::take(tx, self.network, &ids).await?;
        for id in ids {
            let guard = instances::Guard::of(&instances::get(tx, id).await?);
            instances::apply(tx, id, Event::Booted, &guard, None).await?;
        }
        Ok(())
    }
}
