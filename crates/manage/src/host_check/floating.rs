//! W7: the floating addresses on this host are those of the networks that it serves.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use nova_db::{floating_ips, networks, routers};
use nova_link::links::{KernelLinks, Link, Links as _};

use crate::check::Leak;
use crate::context::Context;

const MEND: &str = "systemctl restart nova-network";

pub(super) async fn look(cx: &mut Context<'_, '_>) -> anyhow::Result<Vec<Leak>> {
    let links = match KernelLinks.list().await {
        Ok(links) => links,
        Err(error) => {
            cx.note(format_args!("Could not look at floating addresses: {error}"));
            return Ok(Vec::new());
        }
    };
    let host = &cx.config.common.host;
    let conn = &mut cx.db.read().await?;
    let alone: Vec<Ipv4Addr> = alone(&links).map(|(_, address)| address).collect();
    let pooled = floating_ips::among(conn, &alone).await?.into_iter().collect();
    // Where the bridges are not there, guests only seem to run, and nothing is bound.
    let mut served = networks::list(conn).await?;
    routers::seen_from(conn, host, &mut served).await?;
    served.retain(|network| network.host.as_ref() == Some(host));
    let real = served.iter().any(|network| links.iter().any(|link| link.name == network.bridge));
    let wanted = floating_ips::on_host(conn, host).await?;
    let wanted = wanted.into_iter().filter(|_| real).map(|forward| forward.public).collect();
    Ok(compare(&links, &pooled, &wanted))
}

/// All addresses that have an interface but no range.
fn alone(links: &[Link]) -> impl Iterator<Item = (&str, Ipv4Addr)> {
    links.iter().filter(|link| link.name != "lo").flat_map(|link| {
        let alone = link.addresses.iter().filter(|net| net.prefix_len() == 32);
        alone.map(|net| (link.name.as_str(), net.addr()))
    })
}

fn compare(links: &[Link], pooled: &BTreeSet<Ipv4Addr>, wanted: &BTreeSet<Ipv4Addr>) -> Vec<Leak> {
    let leak = |what| Leak { invariant: "W7".to_owned(), what, mend: MEND.to_owned() };
    let strays = alone(links).filter(|(_, address)| pooled.contains(address) && !wanted.contains(address));
    let strays = strays.map(|(interface, address)| {
        leak(format!("{interface} has the floating address {address}, which no guest of this host's networks has"))
    });
    let here: BTreeSet<Ipv4Addr> = alone(links).map(|(_, address)| address).collect();
    let missing = wanted.difference(&here);
    let missing = missing.map(|address| leak(format!("the floating address {address} is not on any interface here")));
    strays.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use nova_link::links::LinkKind;

    use super::*;

    #[test]
    fn what_is_from_a_pool_and_associated_here_is_here_and_nothing_else() {
        let link = |name: &str, addresses: &[&str]| Link {
            name: name.to_owned(),
            kind: LinkKind::Other,
            bridge: None,
            ours: false,
            up: true,
            addresses6: Vec::new(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let set = |all: &[&str]| all.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<Ipv4Addr>>();
        let links = [
            link("lo", &["192.0.2.9/32"]),
            link("eth0", &["192.0.2.1/32", "192.0.2.2/32", "192.0.2.5/24", "203.0.113.7/32"]),
        ];
        let pooled = set(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.5", "192.0.2.9"]);
        assert_eq!(compare(&links, &pooled, &set(&["192.0.2.1", "192.0.2.2"])), []);
        let leaks = compare(&links, &pooled, &set(&["192.0.2.1", "192.0.2.3"]));
        let shown: Vec<String> = leaks.iter().map(|l| format!("{} {}", l.invariant, l.what)).collect();
        expect![[r"
            W7 eth0 has the floating address 192.0.2.2, which no guest of this host's networks has
            W7 the floating address 192.0.2.3 is not on any interface here"]]
        .assert_eq(&shown.join("\n"));
    }
}
