//! `nova-manage vpn …`: the VPNs of projects, run from an image of the administrator's, and where they are reached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use nova_db::networks::{self, Vpn};
use nova_db::{DbError, accounts, fixed_ips};
use nova_types::ProjectId;
use serde_json::Value;
use tokio::net::UdpSocket;

use crate::context::{Context, given, parse};
use crate::output::{List, Output, python, shown};
use crate::project;

mod run;
mod script;

const COLUMNS: [&str; 5] = ["project", "ip:port", "private_ip", "state", "instance"];
/// How long a VPN has to answer; old Nova gave it 50 ms.
const ANSWER: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List projects with the address and port of their VPN, and whether it answers
    List {
        /// Only this project
        project: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Run the VPN of a project, from the image of --vpn_image_id
    Run {
        /// The project
        project_id: String,
    },
    /// Set the public address and port of a project's VPN
    Change {
        /// The project
        project_id: String,
        /// The address
        ip: String,
        /// The port
        port: String,
    },
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::List { project, output } => list(cx, given(project.as_ref()), output).await,
            Self::Run { project_id } => {
                let project = project::existing(cx, &parse(&project_id)?).await?;
                run::run(cx, &project).await
            }
            Self::Change { project_id, ip, port } => change(cx, &project_id, &ip, &port).await,
        }
    }
}

async fn list(cx: &mut Context<'_, '_>, only: Option<&str>, output: Output) -> anyhow::Result<()> {
    let projects = match only {
        Some(name) => vec![project::existing(cx, &parse(name)?).await?],
        None => accounts::projects(&mut cx.db.read().await?, None).await?,
    };
    let vpns = networks::vpns(&mut cx.db.read().await?).await?;
    let mut rows = Vec::with_capacity(projects.len());
    for project in projects {
        let vpn = vpns.iter().find(|vpn| vpn.project == project.id);
        rows.push(row(cx, &project.id, vpn).await?);
    }
    let list = List { columns: COLUMNS, rows };
    let heading = format!("{:<12}\t{:<20}\t{:<20}\t{}\t{}", COLUMNS[0], COLUMNS[1], COLUMNS[2], COLUMNS[3], COLUMNS[4]);
    Ok(output.write(cx, list, Some(heading), |[project, place, private, state, instance]| {
        // Old Nova ended the line early where a project runs no VPN.
        let rest = if private.is_null() {
            "None".to_owned()
        } else {
            format!("{:<20}\t{}\t{}", python(private), python(state), python(instance))
        };
        format!("{:<12}\t{:<20}\t{rest}", python(project), python(place))
    })?)
}

async fn row(cx: &Context<'_, '_>, project: &ProjectId, vpn: Option<&Vpn>) -> anyhow::Result<[Value; 5]> {
    let (address, port) = (vpn.and_then(|v| v.address), vpn.and_then(|v| v.port));
    let place = format!("{}:{}", python(&shown(address)), python(&shown(port)));
    let private = vpn.and_then(|v| v.private_address);
    let instance = match private {
        Some(private) => fixed_ips::by_address(&mut cx.db.read().await?, private).await?.map(|(instance, _)| instance),
        None => None,
    };
    // One that an administrator set up has an address, and no instance.
    let state = match (address, port) {
        (Some(address), Some(port)) => Some(if answers((address, port).into()).await { "up" } else { "down" }),
        _ => instance.is_some().then_some("down"),
    };
    let private = shown(private.filter(|_| state.is_some()));
    Ok([shown(Some(project)), place.into(), private, shown(state), shown(instance)])
}

/// Says hello as an OpenVPN client does, and whether a server said hello to that very client.
async fn answers(to: SocketAddr) -> bool {
    // A VPN is no secret's keeper here: any number that others do not use will do.
    let session = u64::from(std::process::id()) << 32 | u64::from(to.port());
    let mut hello = vec![0x38];
    hello.extend(session.to_be_bytes());
    hello.extend([0; 6]);
    let asked = async {
        let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)).await.ok()?;
        socket.connect(to).await.ok()?;
        socket.send(&hello).await.ok()?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).await.ok()?;
        Some(is_answer(&answer[..length], session))
    };
    tokio::time::timeout(ANSWER, asked).await.ok().flatten().unwrap_or(false)
}

/// A server's first packet: its session, then ours at offset 14.
fn is_answer(packet: &[u8], session: u64) -> bool {
    packet.len() == 26 && packet.first() == Some(&0x40) && packet.get(14..22) == Some(session.to_be_bytes().as_slice())
}

async fn change(cx: &mut Context<'_, '_>, project: &str, ip: &str, port: &str) -> anyhow::Result<()> {
    let project = project::existing(cx, &parse(project)?).await?.id;
    let address: Ipv4Addr = ip.parse().with_context(|| format!("{ip:?} is not an address like 192.168.0.9"))?;
    let port = match port.parse::<u16>() {
        Ok(port) if port != 0 => port,
        _ => bail!("the port must be a number from 1 to 65535, not {port:?}"),
    };
    match networks::set_vpn(&mut cx.db.write().await?, &project, address, port).await {
        Err(DbError::NotFound(_)) => {
            bail!(
                "{project} has no network of its own; nova-manage network modify RANGE --project {project} gives it one"
            )
        }
        other => other.with_context(|| format!("giving the VPN of {project} the place {address}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{answers, is_answer};

    fn answer(session: u64) -> Vec<u8> {
        let mut packet = vec![0x40];
        packet.extend([7; 13]);
        packet.extend(session.to_be_bytes());
        packet.extend([0; 4]);
        packet
    }

    #[test]
    fn only_an_answer_to_our_own_hello_counts() {
        assert!(is_answer(&answer(9), 9));
        assert!(!is_answer(&answer(8), 9) && !is_answer(&answer(9)[..25], 9) && !is_answer(&[], 9));
    }

    #[tokio::test]
    async fn a_vpn_that_answers_is_up_and_silence_is_not() {
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let place = server.local_addr().unwrap();
        assert!(!answers(place).await);
        let serve = async {
            loop {
                let mut hello = [0; 64];
                let (length, from) = server.recv_from(&mut hello).await.unwrap();
                assert_eq!((length, hello[0]), (15, 0x38));
                let session = u64::from_be_bytes(hello[1..9].try_into().unwrap());
                server.send_to(&answer(session), from).await.unwrap();
            }
        };
        tokio::select! {
            up = answers(place) => assert!(up),
            () = serve => {}
        }
    }
}
