//! Decides at start what guests run on: KVM if it works, else emulation, else nothing but a simulation.

mod kvm;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nova_run::Runner;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::{Accel, CloudId, Hypervisor, Libvirt, LibvirtOptions, Simulated, simulated};

const HELPER: &str = "nova-libvirt";
/// The file in the folder of instances that says what they were made on.
const MARK: &str = ".hypervisor";
const LIBVIRT: &str = "libvirt";
const SIMULATED: &str = "simulated";
/// How the folder of a guest of libvirt begins.
const GUEST_FOLDER: &str = "instance-";
const HELPER_FOLDER: &str = "/usr/lib/nova";
/// How long libvirt may take to answer before it counts as absent.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the administrator asked for: flag `--connection_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// libvirt where it answers, else a simulation.
    Auto,
    /// libvirt, even if it does not answer now.
    Libvirt,
    /// A simulation.
    Simulated,
}

/// How libvirt's guests are to be executed: flag `--libvirt_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestKind {
    /// Through KVM if that works, else emulated.
    Kvm,
    /// Emulated.
    Qemu,
}

/// All that the decision needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// What was asked for.
    pub want: Want,
    /// How guests are to be executed.
    pub guests: GuestKind,
    /// libvirt's address; `qemu:///system` unless the flag `--libvirt_uri` says otherwise.
    pub uri: String,
    /// The helper `nova-libvirt`; looked for beside our own program and in `/usr/lib/nova` unless set.
    pub helper: Option<PathBuf>,
    /// Flag `--instances_path`; must exist.
    pub instances_path: PathBuf,
    /// Whose guests are ours.
    pub cloud: CloudId,
    /// How guests are simulated, if they are.
    pub simulated: simulated::Options,
}

/// What guests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// libvirt, with guests executed so.
    Libvirt(Accel),
    /// Nothing.
    Simulated,
}

/// As kept in `compute_nodes.hypervisor_type`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Libvirt(Accel::Kvm) => "libvirt (kvm)",
            Self::Libvirt(Accel::Emulation) => "libvirt (qemu)",
            Self::Simulated => "simulated",
        })
    }
}

/// The decision.
#[derive(Debug)]
pub struct Choice {
    /// What to ask.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// What it is.
    pub kind: Kind,
    /// Why it is that, in words for the log.
    pub reason: String,
}

/// Why there is nothing to run guests on.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// The file of simulated guests cannot be read or made.
    #[error("opening the file of simulated guests")]
    Simulated(#[from] io::Error),
    /// libvirt was asked for, and what speaks to it is not here.
    #[error("libvirt was asked for, and {0}")]
    Helper(String),
}

/// Chooses, and says so in one line of the log.
///
/// # Errors
/// [`ChooseError`]: a program or a file. That libvirtd is absent is no error, it may come.
pub async fn choose(options: Options, runner: Arc<dyn Runner>) -> Result<Choice, ChooseError> {
    let asked_for = options.want;
    let mark = options.instances_path.join(MARK);
    if asked_for == Want::Libvirt {
        find_helper(options.helper.as_deref()).map_err(ChooseError::Helper)?;
    }
    let choice = decide(stick(options, &mark)?, runner).await?;
    // The mark only spares trouble later; without it the next start asks again.
    let _ = std::fs::write(&mark, if choice.kind == Kind::Simulated { SIMULATED } else { LIBVIRT });
    let Choice { kind, reason, .. } = &choice;
    if *kind == Kind::Simulated && asked_for == Want::Auto {
        warn!(hypervisor = %kind, reason, "Guests only seem to run, for {reason}.");
    } else {
        info!(hypervisor = %kind, reason, "Guests run on {kind}: {reason}.");
    }
    Ok(choice)
}

/// What was chosen once is kept to while it matters: a libvirt that is merely down at the start must not have its
/// guests replaced by simulated ones, nor the other way round.
fn stick(mut options: Options, mark: &Path) -> io::Result<Options> {
    if options.want == Want::Auto {
        match std::fs::read_to_string(mark).unwrap_or_default().as_str() {
            LIBVIRT if may_have_guests(&options.instances_path) => options.want = Want::Libvirt,
            SIMULATED if Simulated::open(options.simulated.clone())?.has_guests() => options.want = Want::Simulated,
            _ => {}
        }
    }
    Ok(options)
}

/// Whether there is a guest's folder, which is there before its domain and until after it; or nobody can say.
fn may_have_guests(instances_path: &Path) -> bool {
    let of_guest = |entry: io::Result<std::fs::DirEntry>| {
        entry.map_or(true, |entry| entry.file_name().to_string_lossy().starts_with(GUEST_FOLDER))
    };
    std::fs::read_dir(instances_path).map_or(true, |mut entries| entries.any(of_guest))
}

async fn decide(options: Options, runner: Arc<dyn Runner>) -> io::Result<Choice> {
    if options.want == Want::Simulated {
        return simulate(options, "it was asked for, or there are such guests".to_owned());
    }
    let helper = match find_helper(options.helper.as_deref()) {
        Ok(helper) => helper,
        Err(missing) if options.want == Want::Auto => return simulate(options, missing),
        Err(_) => Path::new(HELPER_FOLDER).join(HELPER),
    };
    let (accel, reason) = match options.guests {
        GuestKind::Qemu => (Accel::Emulation, "emulation was asked for".to_owned()),
        GuestKind::Kvm => match kvm::try_it(runner.as_ref(), &options.instances_path).await {
            Ok(()) => (Accel::Kvm, "KVM runs code".to_owned()),
            Err(why) => (Accel::Emulation, why),
        },
    };
    let libvirt = Libvirt::new(
        runner,
        LibvirtOptions {
            helper,
            uri: options.uri.clone(),
            accel,
            cloud: options.cloud,
            instances_path: options.instances_path.clone(),
        },
    );
    if options.want == Want::Auto
        && let Err(why) = answers(&libvirt).await
    {
        return simulate(options, why);
    }
    Ok(Choice { hypervisor: Arc::new(libvirt), kind: Kind::Libvirt(accel), reason })
}

fn simulate(options: Options, reason: String) -> io::Result<Choice> {
    let simulated = Simulated::open(options.simulated)?;
    Ok(Choice { hypervisor: Arc::new(simulated), kind: Kind::Simulated, reason })
}

/// Asks until there is an answer; a moment after its start, the helper may not be ready.
async fn answers(libvirt: &Libvirt) -> Result<(), String> {
    let begun = Instant::now();
    let mut failures = 0;
    loop {
        match tokio::time::timeout(ANSWER_WITHIN, libvirt.list()).await {
            Ok(Ok(_)) => return Ok(()),
            // Refused twice: nobody is there. libvirtd that is only slow does not refuse.
            Ok(Err(error)) if failures > 0 || begun.elapsed() > ANSWER_WITHIN => return Err(error.to_string()),
            Ok(Err(_)) => failures += 1,
            Err(_) => return Err(format!("libvirt did not answer within {} s", ANSWER_WITHIN.as_secs())),
        }
        sleep(Duration::from_millis(300)).await;
    }
}

fn find_helper(configured: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = configured {
        return if path.is_file() { Ok(path.to_owned()) } else { Err(format!("{} does not exist", path.display())) };
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|folder| folder.join(HELPER)));
    beside
        .into_iter()
        .chain([Path::new(HELPER_FOLDER).join(HELPER)])
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{HELPER}, which speaks to libvirt, is not installed"))
}

#[cfg(test)]
mod tests;
