//! The program `nova-manage`.

use std::path::Path;
use std::process::ExitCode;

use nova_config::{Config, ConfigError, ManageConfig, Surroundings};
use nova_manage::Surface;
use nova_service::SystemClock;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stderr, clippy::print_stdout, reason = "a command line tool speaks to its terminal")]
async fn main() -> ExitCode {
    let mut here = Surroundings::here();
    // Old Nova's tool looked beside itself first; a checkout's own file goes before the system's.
    if Path::new("nova.conf").is_file() {
        here.default_flagfile = Some("nova.conf".into());
    }
    let loaded = match ManageConfig::load_in(std::env::args_os(), &here) {
        Ok(loaded) => loaded,
        Err(ConfigError::Answered(text)) => {
            print!("{text}");
            if text.contains("Usage:") {
                print!("{}", nova_manage::categories());
            }
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let usage = matches!(error, ConfigError::Usage(_));
            eprintln!("nova-manage: {}", line(&error.into()));
            return ExitCode::from(if usage { 2 } else { 1 });
        }
    };
    for warning in &loaded.warnings {
        eprintln!("nova-manage: {warning}");
    }
    let (mut out, mut note) = (std::io::stdout(), std::io::stderr());
    let mut surface = Surface { clock: &SystemClock, out: &mut out, note: &mut note };
    match nova_manage::run(&loaded.config, &loaded.rest, &mut surface).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("nova-manage: {}", line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The whole chain in one line. Some libraries repeat their cause; it is said once.
fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.replace('\n', " ")
}
