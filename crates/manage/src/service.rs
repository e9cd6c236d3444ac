//! `nova-manage service …`

use anyhow::bail;
use clap::Subcommand;
use nova_db::services;
use nova_types::service::Service;
use serde_json::Value;

use crate::context::{Context, given, parse};
use crate::output::{List, Output, moment, python, shown};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List daemons, and whether they reported lately
    List {
        /// Only this host
        host: Option<String>,
        /// Only this program, as nova-compute
        service: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Let new work go to a daemon
    Enable(Named),
    /// Keep new work away from a daemon
    Disable(Named),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The host
    host: String,
    /// The program, as nova-compute
    service: String,
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::List { host, service, output } => {
                list(cx, given(host.as_ref()), given(service.as_ref()), output).await
            }
            Self::Enable(named) => set(cx, &named, false).await,
            Self::Disable(named) => set(cx, &named, true).await,
        }
    }
}

async fn list(
    cx: &mut Context<'_, '_>,
    host: Option<&str>,
    binary: Option<&str>,
    output: Output,
) -> anyhow::Result<()> {
    let down_after = i64::try_from(cx.config.common.service_down_time.as_secs()).unwrap_or(i64::MAX);
    let mut all = services::list(&mut cx.db.read().await?).await?;
    all.retain(|s| host.is_none_or(|h| s.host.as_str() == h) && binary.is_none_or(|b| s.binary == b));
    let row = |s: Service| {
        let is_up = s.is_up(down_after);
        let state = if s.disabled { "disabled" } else { "enabled" };
        let (host, zone) = (shown(Some(s.host)), shown(Some(s.availability_zone)));
        [host, shown(Some(s.binary)), state.into(), is_up.into(), moment(s.updated_at), zone]
    };
    let columns = ["host", "binary", "state", "is_up", "updated_at", "zone"];
    let list = List { columns, rows: all.into_iter().map(row).collect() };
    Ok(output.write(cx, list, None, |[host, binary, state, is_up, updated, _]| {
        let face = if *is_up == Value::Bool(true) { ":-)" } else { "XXX" };
        format!("{:<10} {:<10} {:<8} {face} {}", python(host), python(binary), python(state), python(updated))
    })?)
}

async fn set(cx: &mut Context<'_, '_>, named: &Named, disabled: bool) -> anyhow::Result<()> {
    let host = parse(&named.host)?;
    let all = services::list(&mut cx.db.read().await?).await?;
    if !all.iter().any(|s| s.host == host && s.binary == named.service) {
        bail!("no {} on {host}; nova-manage service list shows all", named.service);
    }
    services::set_disabled(&mut cx.db.write().await?, &host, &named.service, disabled).await?;
    Ok(())
}
