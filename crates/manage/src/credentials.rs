//! Credentials of a user in a project: `project environment` and `project zipfile`.

use std::path::Path;

use anyhow::{Context as _, bail};
use nova_config::EndpointFlags;
use nova_db::{accounts, certificates};
use nova_identity::{
    AccessKey, Authority, Credentials, Endpoint, Revoked, Secret, ZipNames, credentials_zip, fill_subject, novarc,
    write_private,
};
use nova_types::account::{Project, User};
use nova_types::{ProjectId, UserId};
use time::macros::format_description;

use crate::context::{Context, absolute, parse};
use crate::project::{self, Member};
use crate::user;

/// The one region where `--region_list` names none; also its name for today's clients.
const REGION: &str = "nova";
/// The OpenStack API of the era, which old clients read from the file. There are no flags for it.
const OPENSTACK_PORT: u16 = 8774;

/// Writes `novarc` alone, with the addresses that guests and other hosts use.
pub(crate) async fn environment(cx: &mut Context<'_, '_>, member: &Member, file: &Path) -> anyhow::Result<()> {
    let owner = Owner::find(cx, member).await?;
    let flags = &cx.config.endpoint;
    let file = absolute(file)?;
    let names = names(cx);
    let text = novarc(&owner.credentials(flags, (&flags.ec2_dmz_host, &flags.s3_dmz), REGION, &names, &file));
    write_private(&file, text.as_bytes())?;
    cx.note(format_args!("Wrote {}; source it.", file.display()));
    Ok(())
}

/// Revokes the certificates of a user. The rows come first: the list is made from them, so doing it again mends what a crash
/// between the two left.
pub(crate) async fn revoke(cx: &mut Context<'_, '_>, user: &UserId, project: Option<&ProjectId>) -> anyhow::Result<()> {
    user::existing(cx, user).await?;
    let mut conn = cx.db.write().await?;
    let good = match project {
        Some(project) => certificates::of_user_and_project(&mut conn, user, project).await?,
        None => certificates::of_user(&mut conn, user).await?,
    };
    for certificate in &good {
        certificates::delete(&mut conn, certificate.id).await?;
    }
    let revoked = certificates::revoked(&mut conn).await?;
    drop(conn);
    let now = cx.surface.clock.now();
    let revoked: Vec<Revoked> = revoked.into_iter().map(|(file, at)| Revoked { file: file.into(), at }).collect();
    Authority::open_or_create(&cx.ca_files(), now)?.revoke(&revoked, now)?;
    cx.note(format_args!("Revoked {} certificates of {user}.", good.len()));
    Ok(())
}

/// Writes the zip: a new certificate each time, and the authority itself if this is the first.
pub(crate) async fn zipfile(cx: &mut Context<'_, '_>, member: &Member, file: &Path) -> anyhow::Result<()> {
    if cx.config.identity.use_project_ca {
        bail!("--use_project_ca is not supported; remove it, and users get certificates of the cloud's authority");
    }
    let owner = Owner::find(cx, member).await?;
    let file = absolute(file)?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        bail!("the folder {} is not there; mkdir it first", folder.display());
    }
    let now = cx.surface.clock.now();
    let authority = Authority::open_or_create(&cx.ca_files(), now)?;
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let words = [owner.project.id.as_str(), owner.user.id.as_str(), &now.format(&form)?];
    let certificate = authority.issue(&fill_subject(&cx.config.identity.user_cert_subject, &words)?, now)?;

    let (flags, names) = (&cx.config.endpoint, names(cx));
    let regions = regions(flags);
    let credentials: Vec<_> =
        regions.iter().map(|(name, ec2, s3)| owner.credentials(flags, (ec2, s3), name, &names, &file)).collect();
    let zip = credentials_zip(&credentials, &names, &certificate, authority.certificate_pem(), None)?;
    let kept = certificate.file.display().to_string();
    certificates::create(&mut cx.db.write().await?, &owner.user.id, &owner.project.id, &kept).await?;
    write_private(&file, &zip)?;
    cx.note(format_args!("Wrote {}; unzip it there and source novarc.", file.display()));
    Ok(())
}

/// Whose credentials.
struct Owner {
    user: User,
    project: Project,
    access: AccessKey,
    secret: Secret,
}

impl Owner {
    async fn find(cx: &Context<'_, '_>, member: &Member) -> anyhow::Result<Self> {
        let project = project::existing(cx, &parse(&member.project_id)?).await?;
        let user = user::existing(cx, &parse(&member.user_id)?).await?;
        let belongs = accounts::is_member(&mut cx.db.read().await?, &user.id, &project.id).await?;
        if !belongs && !user.is_admin {
            let (user, project) = (&user.id, &project.id);
            bail!("{user} is not a member of {project}; run nova-manage project add {project} {user}");
        }
        let access = user.access_key.parse().context("the user's stored keys cannot be used")?;
        let secret = cx.secrets()?.open(user.id.as_str(), &user.sealed_secret)?;
        Ok(Self { user, project, access, secret })
    }

    fn credentials<'a>(
        &'a self,
        flags: &EndpointFlags,
        (ec2, s3): (&str, &str),
        region: &'a str,
        names: &'a ZipNames,
        file: &'a Path,
    ) -> Credentials<'a> {
        let scheme = flags.ec2_scheme.clone();
        Credentials {
            access: &self.access,
            secret: &self.secret,
            user: self.user.id.as_str(),
            project: self.project.id.as_str(),
            ec2: endpoint(scheme, ec2, flags.ec2_port, &flags.ec2_path),
            s3: endpoint("http".into(), s3, flags.s3_port, ""),
            openstack: endpoint("http".into(), ec2, OPENSTACK_PORT, "/v1.0/"),
            region,
            names,
            key_folder: file.parent().unwrap_or(Path::new("/")),
        }
    }
}

fn names(cx: &Context<'_, '_>) -> ZipNames {
    let flags = &cx.config.identity;
    let ca =
        Path::new(&flags.ca_file).file_name().map_or_else(|| flags.ca_file.clone(), |n| n.to_string_lossy().into());
    ZipNames {
        rc: flags.credential_rc_file.clone(),
        key: flags.credential_key_file.clone(),
        certificate: flags.credential_cert_file.clone(),
        vpn: flags.credential_vpn_file.clone(),
        ca,
    }
}

/// Name, EC2 host and S3 host of each region.
fn regions(flags: &EndpointFlags) -> Vec<(String, String, String)> {
    if flags.region_list.is_empty() {
        // Old Nova put the EC2 host into S3_URL, too, which is wrong where the object store is elsewhere.
        return vec![(REGION.to_owned(), flags.ec2_host.clone(), flags.s3_host.clone())];
    }
    flags.region_list.iter().map(|region| (region.name.clone(), region.host.clone(), region.host.clone())).collect()
}

fn endpoint(scheme: String, host: &str, port: u16, path: &str) -> Endpoint {
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    Endpoint { scheme, host, port, path: path.to_owned() }
}
