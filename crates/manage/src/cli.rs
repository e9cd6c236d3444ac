//! The list of commands, and the way from words to one of them.

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use nova_config::ManageConfig;

use crate::context::{Context, Surface};
use crate::words::{Unresolved, resolve};
use crate::{check, db, doctor, fixed, floating, host, image, instance, network, project, role, service, user, vpn};

const SUCCESS: u8 = 0;
const USAGE: u8 = 2;

/// Administers users, projects, networks, images and services
#[derive(Debug, Parser)]
#[command(name = "nova-manage", disable_help_subcommand = true)]
struct Command {
    #[command(subcommand)]
    category: Category,
}

#[derive(Debug, Subcommand)]
enum Category {
    /// People and programs, and their keys
    #[command(subcommand, disable_help_subcommand = true)]
    User(user::Action),
    /// Tenants: members, credentials, quotas
    #[command(subcommand, alias = "account", disable_help_subcommand = true)]
    Project(project::Action),
    /// What users may do
    #[command(subcommand, disable_help_subcommand = true)]
    Role(role::Action),
    /// Networks of fixed addresses
    #[command(subcommand, disable_help_subcommand = true)]
    Network(network::Action),
    /// Addresses of networks: who has them, and which are kept back
    #[command(subcommand, disable_help_subcommand = true)]
    Fixed(fixed::Action),
    /// VPNs of projects
    #[command(subcommand, disable_help_subcommand = true)]
    Vpn(vpn::Action),
    /// Public addresses that projects take and bind to instances
    #[command(subcommand, disable_help_subcommand = true)]
    Floating(floating::Action),
    /// Daemons and whether they get work
    #[command(subcommand, disable_help_subcommand = true)]
    Service(service::Action),
    /// Compute hosts: what they have, and what to do when one is lost
    #[command(subcommand, disable_help_subcommand = true)]
    Host(host::Action),
    /// Disks, kernels and ramdisks to launch from
    #[command(subcommand, disable_help_subcommand = true)]
    Image(image::Action),
    /// Instances of all projects
    #[command(subcommand, alias = "vm", disable_help_subcommand = true)]
    Instance(instance::Action),
    /// The database's tables
    #[command(subcommand, disable_help_subcommand = true)]
    Db(db::Action),
    /// Looks for leaks in the database and on this host
    Check(check::Arguments),
    /// Says what stops packets to an instance, and which command mends it
    #[command(subcommand, disable_help_subcommand = true)]
    Doctor(doctor::Action),
    /// Prints the version of this program and of its tables
    Version,
}

/// Lists the categories with a line on each, to follow the help of the flags.
#[must_use]
pub fn categories() -> String {
    let program = Command::command();
    let line = |c: &clap::Command| format!("  {:<10} {}\n", c.get_name(), c.get_about().cloned().unwrap_or_default());
    let lines: String = program.get_subcommands().map(line).collect();
    format!("\nCategories (nova-manage CATEGORY lists its actions; the first letters are enough):\n{lines}")
}

/// Runs the command that `words` name, and returns the exit status.
///
/// # Errors
/// What the command could not do; nothing is then half done.
pub async fn run(config: &ManageConfig, words: &[String], surface: &mut Surface<'_>) -> anyhow::Result<u8> {
    if let Some(flag) = words.first().filter(|w| w.starts_with('-')) {
        writeln!(surface.note, "nova-manage: {flag} is no flag of Nova; nova-manage --help lists them")?;
        return Ok(USAGE);
    }
    let full = match resolve(words, &Command::command()) {
        Ok(full) => full,
        Err(Unresolved(text)) => {
            writeln!(surface.out, "{text}")?;
            return Ok(USAGE);
        }
    };
    let command = match Command::try_parse_from(std::iter::once("nova-manage".to_owned()).chain(full)) {
        Ok(command) => command,
        Err(refused) => {
            let to = if refused.use_stderr() { &mut *surface.note } else { &mut *surface.out };
            write!(to, "{refused}")?;
            return Ok(if refused.use_stderr() { USAGE } else { SUCCESS });
        }
    };
    let code = command.category.run(config, surface).await?;
    surface.out.flush().context("writing the answer")?;
    Ok(code)
}

impl Category {
    async fn run(self, config: &ManageConfig, surface: &mut Surface<'_>) -> anyhow::Result<u8> {
        let mut cx = match self {
            Self::Version => {
                writeln!(surface.out, "{} (schema {})", env!("CARGO_PKG_VERSION"), nova_db::SCHEMA_VERSION)?;
                return Ok(SUCCESS);
            }
            Self::Db(_) => Context::open_any_version(config, surface).await?,
            _ => Context::open(config, surface).await?,
        };
        let done = self.run_in(&mut cx).await;
        // SQLite tidies up its files when the last one closes them.
        cx.db.close().await;
        done
    }

    async fn run_in(self, cx: &mut Context<'_, '_>) -> anyhow::Result<u8> {
        match self {
            Self::User(action) => action.run(cx).await?,
            Self::Project(action) => action.run(cx).await?,
            Self::Role(action) => action.run(cx).await?,
            Self::Network(action) => action.run(cx).await?,
            Self::Fixed(action) => action.run(cx).await?,
            Self::Vpn(action) => action.run(cx).await?,
            Self::Floating(action) => action.run(cx).await?,
            Self::Service(action) => action.run(cx).await?,
            Self::Host(action) => action.run(cx).await?,
            Self::Image(action) => action.run(cx).await?,
            Self::Instance(action) => action.run(cx).await?,
            Self::Db(action) => action.run(cx).await?,
            Self::Check(arguments) => return arguments.run(cx).await,
            Self::Doctor(action) => return action.run(cx).await,
            Self::Version => {}
        }
        Ok(SUCCESS)
    }
}
