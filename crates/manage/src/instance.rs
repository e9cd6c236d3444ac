//! `nova-manage instance …`, which old scripts call `vm`.

use clap::Subcommand;
use nova_db::instances;
use nova_types::instance::InstanceView;
use serde_json::Value;

use crate::context::{Context, given};
use crate::output::{List, Output, moment, python, shown};

/// Old Nova's names of the columns that it printed, then ours.
const COLUMNS: [&str; 14] = [
    "instance", "node", "type", "state", "launched", "image", "kernel", "ramdisk", "project", "user", "zone", "index",
    "address", "reason",
];

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List the instances of all projects
    List {
        /// Only those on this host
        host: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        let Self::List { host, output } = self;
        let host = given(host.as_ref());
        let mut views = instances::describe(&mut cx.db.read().await?, None, &[]).await?;
        views.retain(|v| host.is_none_or(|h| v.instance.host.as_ref().is_some_and(|of| of.as_str() == h)));
        let list = List { columns: COLUMNS, rows: views.into_iter().map(row).collect() };
        let heading = line(COLUMNS.map(|c| c.to_owned()));
        Ok(output.write(cx, list, Some(heading), |row| line(row.each_ref().map(python)))?)
    }
}

fn row(view: InstanceView) -> [Value; 14] {
    let (i, address) = (view.instance, view.fixed_ip.map(|(address, _)| address));
    let reason = i.reason.map(|r| format!("{}: {}", r.code, r.message));
    [
        shown(Some(i.id)),
        shown(i.host),
        shown(Some(i.flavor)),
        i.state.vm.as_str().into(),
        moment(i.launched_at),
        shown(Some(i.image)),
        shown(i.kernel),
        shown(i.ramdisk),
        shown(Some(i.project)),
        shown(Some(i.user)),
        shown(i.availability_zone),
        i.launch_index.into(),
        shown(address),
        shown(reason),
    ]
}

/// Old Nova's line, which ends with the index.
fn line(c: [String; 14]) -> String {
    format!(
        "{:<10} {:<15} {:<10} {:<10} {:<19} {:<12} {:<12} {:<12}  {:<10} {:<10} {:<10} {:<5}",
        c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11]
    )
}
