//! Commands as an administrator types them, against a real database and state folder.

mod accounts;
mod credentials;
mod doctor;
mod export;
mod floating;
mod hosts;
mod images;
mod multi_host;
mod networks;
mod vpn;

use std::ffi::OsString;
use std::path::Path;

use nova_config::{Config, ManageConfig, Surroundings};
use nova_types::clock::FixedClock;

use crate::Surface;

/// 2011-02-03 04:05:06.
const NOW: i64 = 1_296_705_906;

/// A cloud with nothing in it but what commands put there.
struct Lab {
    folder: tempfile::TempDir,
}

/// What a command did.
struct Done {
    code: Result<u8, String>,
    out: String,
    note: String,
}

impl Lab {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn config(&self, flags: &[&str]) -> ManageConfig {
        let own = [
            format!("--state_path={}", self.path().display()),
            "--host=node1".to_owned(),
            "--my_ip=10.0.0.1".to_owned(),
        ];
        let args = ["nova-manage"].into_iter().chain(own.iter().map(String::as_str)).chain(flags.iter().copied());
        ManageConfig::load_in(args.map(OsString::from), &Surroundings::bare()).unwrap().config
    }

    /// Runs a command; words are separated by blanks, `''` is an empty one.
    async fn run(&self, command: &str) -> Done {
        self.run_with(&["--network_manager=nova.network.manager.FlatDHCPManager"], command).await
    }

    async fn run_with(&self, flags: &[&str], command: &str) -> Done {
        let words: Vec<String> =
            command.split_whitespace().map(|w| if w == "''" { "" } else { w }.to_owned()).collect();
        let clock = FixedClock::at(NOW);
        let (mut out, mut note) = (Vec::new(), Vec::new());
        let mut surface = Surface { clock: &clock, out: &mut out, note: &mut note };
        let code = crate::run(&self.config(flags), &words, &mut surface).await.map_err(|e| format!("{e:#}"));
        let text = |bytes| String::from_utf8(bytes).unwrap().replace(&self.path().display().to_string(), "STATE");
        Done { code, out: text(out), note: text(note) }
    }

    /// Runs a command that must succeed, and returns what scripts would read.
    async fn ok(&self, command: &str) -> String {
        let done = self.run(command).await;
        assert_eq!(done.code, Ok(0), "{command}: {}{}", done.out, done.note);
        done.out
    }

    /// Runs a command that must fail, and returns its one line.
    async fn refused(&self, command: &str) -> String {
        let done = self.run(command).await;
        let line = done.code.expect_err(command).replace(&self.path().display().to_string(), "STATE");
        assert!(!line.contains('\n'), "{line}");
        line
    }
}
