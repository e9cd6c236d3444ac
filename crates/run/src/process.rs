//! Processes seen from outside: who has this pid, and a signal that reaches only that one.

use std::fs;
use std::io;

use crate::RunError;

/// A running process, told apart from a later one with the same pid by its start time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// When it started, in the kernel's clock ticks since boot.
    pub started_ticks: u64,
    /// Its command line as it was started.
    pub argv: Vec<String>,
}

/// The signals that Nova sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: read your files again.
    Hangup,
    /// SIGTERM: end in order.
    Terminate,
    /// SIGKILL: end at once.
    Kill,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Self::Hangup => libc::SIGHUP,
            Self::Terminate => libc::SIGTERM,
            Self::Kill => libc::SIGKILL,
        }
    }
}

/// Reads `/proc/<pid>`; a zombie counts as gone.
pub(crate) fn look(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, and may itself hold blanks and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    if matches!(*fields.first()?, "Z" | "X" | "x") {
        return None;
    }
    let started_ticks = fields.get(19)?.parse().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let argv = line.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned());
    let mut argv: Vec<String> = argv.collect();
    if argv.last().is_some_and(String::is_empty) {
        argv.pop();
    }
    Some(Process { pid, started_ticks, argv })
}

/// Holds the process by a pidfd while its start time is checked, so that the signal cannot reach a successor.
pub(crate) fn signal(process: &Process, signal: Signal) -> Result<bool, RunError> {
    let refused = |source| RunError::Signal { pid: process.pid, source };
    let Some(fd) = pidfd(process.pid).map_err(refused)? else { return Ok(false) };
    if look(process.pid).is_none_or(|now| now.started_ticks != process.started_ticks) {
        return Ok(false);
    }
    match send(&fd, signal) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

#[expect(unsafe_code, reason = "neither std nor tokio opens a pidfd")]
fn pidfd(pid: u32) -> io::Result<Option<std::os::fd::OwnedFd>> {
    use std::os::fd::FromRawFd;
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(Some(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })),
        _ => {
            let error = io::Error::last_os_error();
            // EINVAL: the pid names a thread, so it is surely not the process that we saw.
            if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) { Ok(None) } else { Err(error) }
        }
    }
}

#[expect(unsafe_code, reason = "neither std nor tokio signals through a pidfd")]
fn send(fd: &std::os::fd::OwnedFd, signal: Signal) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for the length of the call; a null siginfo asks the kernel to fill its own.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            signal.number(),
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Kills every process of the group that `leader` leads. Only for a leader that we started and have not reaped:
/// until then its group cannot belong to anyone else.
#[expect(unsafe_code, reason = "neither std nor tokio kills a process group")]
pub(crate) fn kill_group(leader: u32) {
    let Ok(group) = libc::pid_t::try_from(leader) else { return };
    if group > 1 {
        // SAFETY: kill takes two integers; errors (the group is gone) are of no interest.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}
