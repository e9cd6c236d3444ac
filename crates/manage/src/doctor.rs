//! `nova-manage doctor …`: walks the way of a packet to a guest, and says for each step whether it holds, and which
//! command mends it.
//!
//! [`gather`] asks database and machine; [`guest`] and [`host`] judge what it found, and ask nobody.

mod facts;
mod finding;
mod gather;
mod guest;
mod host;
#[cfg(test)]
mod tests;

use clap::Subcommand;
use serde_json::Value;

use crate::context::{Context, parse};
use crate::output::{List, Output, shown, text};
use finding::{Finding, Verdict};
use gather::Eyes;

const WELL: u8 = 0;
const ILL: u8 = 1;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Say why an instance does not answer, step by step
    Instance {
        /// The instance, as i-0000000a
        id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Look at everything that guests need of this host
    Host {
        #[command(flatten)]
        output: Output,
    },
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<u8> {
        self.run_with(cx, &Eyes::here()).await
    }

    async fn run_with(self, cx: &mut Context<'_, '_>, eyes: &Eyes) -> anyhow::Result<u8> {
        let (findings, output) = match self {
            Self::Instance { id, output } => {
                let id = parse(&id)?;
                let machine = eyes.machine(cx).await?;
                let guest = eyes.guest(cx, &machine, id).await?;
                (guest::judge(&machine, &guest), output)
            }
            Self::Host { output } => (host::judge(&eyes.machine(cx).await?), output),
        };
        say(cx, findings, output)
    }
}

fn say(cx: &mut Context<'_, '_>, findings: Vec<Finding>, output: Output) -> anyhow::Result<u8> {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (broken, elsewhere) = (count(Verdict::Broken), count(Verdict::Elsewhere));
    let row = |f: Finding| -> [Value; 4] { [f.step.into(), f.verdict.as_str().into(), f.what.into(), shown(f.mend)] };
    let list = List { columns: ["step", "verdict", "what", "mend"], rows: findings.into_iter().map(row).collect() };
    output.write(cx, list, None, |[step, verdict, what, mend]| {
        let line = format!("{:<12} {:<16} {}", text(verdict), text(step), text(what));
        if mend.is_null() { line } else { format!("{line}\n{:<30}{}", "", text(mend)) }
    })?;
    match (broken, elsewhere) {
        (0, 0) => cx.note("Nothing found that stops a packet."),
        (0, _) => cx.note("Nothing found here that stops a packet; the other hosts are still to be asked."),
        (n, _) => cx.note(format_args!("Broken: {n}. Mend the first one first, then ask again.")),
    }
    Ok(if broken == 0 { WELL } else { ILL })
}
