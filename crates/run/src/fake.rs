//! A scripted machine for tests: answers by the start of the command line, remembers every command, starts nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{oneshot, watch};

use crate::error::first_line;
use crate::{Child, Command, Leash, Output, Process, RunError, Runner, Signal};

/// What a scripted command does.
#[derive(Clone, Debug)]
enum Reply {
    Prints(Vec<u8>),
    Fails { status: i32, stderr: String },
    Missing,
}

type Talk = Arc<dyn Fn(&str) -> Vec<String> + Send + Sync>;

#[derive(Default)]
struct State {
    replies: BTreeMap<String, VecDeque<Reply>>,
    helpers: BTreeMap<String, Talk>,
    calls: Vec<Command>,
    signals: Vec<(u32, Signal)>,
    living: BTreeMap<u32, Process>,
    last_pid: u32,
}

/// A machine that answers from a list.
///
/// A command is matched by the longest listed start of its command line. Several answers to the same start are
/// given in order, the last one for ever. What is not listed fails as a program that is not installed does.
#[derive(Clone, Default)]
pub struct Script {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("calls", &self.lines()).finish_non_exhaustive()
    }
}

impl Script {
    /// A machine on which nothing is installed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets commands that start so succeed and print `stdout`.
    #[must_use]
    pub fn prints(self, start: &str, stdout: impl Into<Vec<u8>>) -> Self {
        self.answer(start, Reply::Prints(stdout.into()))
    }

    /// Lets commands that start so fail.
    #[must_use]
    pub fn fails(self, start: &str, status: i32, stderr: &str) -> Self {
        self.answer(start, Reply::Fails { status, stderr: stderr.to_owned() })
    }

    /// Lets a program be absent, although a shorter start is listed.
    #[must_use]
    pub fn missing(self, start: &str) -> Self {
        self.answer(start, Reply::Missing)
    }

    /// Lets a helper started so answer each line that it reads with the lines that `talk` returns.
    #[must_use]
    pub fn talks(self, start: &str, talk: impl Fn(&str) -> Vec<String> + Send + Sync + 'static) -> Self {
        self.state().helpers.insert(start.to_owned(), Arc::new(talk));
        self
    }

    /// The command lines asked for so far, in order.
    pub fn lines(&self) -> Vec<String> {
        self.state().calls.iter().map(ToString::to_string).collect()
    }

    /// The commands asked for so far, with their input.
    pub fn calls(&self) -> Vec<Command> {
        self.state().calls.clone()
    }

    /// Forgets the commands asked for so far.
    pub fn forget(&self) {
        self.state().calls.clear();
    }

    /// The signals sent so far.
    pub fn signals(&self) -> Vec<(u32, Signal)> {
        self.state().signals.clone()
    }

    /// The detached processes that live.
    pub fn living(&self) -> Vec<Process> {
        self.state().living.values().cloned().collect()
    }

    /// Lets a detached process die by itself.
    pub fn dies(&self, pid: u32) {
        self.state().living.remove(&pid);
    }

    fn answer(self, start: &str, reply: Reply) -> Self {
        self.state().replies.entry(start.to_owned()).or_default().push_back(reply);
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reply(&mut self, command: &Command) -> Result<Output, RunError> {
        self.calls.push(command.clone());
        let line = command.to_string();
        let listed = self.replies.iter_mut().filter(|(start, _)| line.starts_with(start.as_str()));
        let reply = listed
            .max_by_key(|(start, _)| start.len())
            .and_then(|(_, queue)| if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() });
        match reply {
            Some(Reply::Prints(stdout)) => Ok(Output { stdout, stderr: Vec::new() }),
            Some(Reply::Fails { status, stderr }) => Err(RunError::Failed {
                command: line,
                status: Some(status),
                first_line: first_line(stderr.as_bytes(), b""),
                stderr,
            }),
            Some(Reply::Missing) | None => Err(RunError::NotInstalled { program: command.program.clone() }),
        }
    }

    fn start(&mut self, command: &Command) -> Process {
        self.last_pid += 1;
        // Far above any real pid, so that a mistake cannot reach a real process.
        let pid = 2_000_000_000 + self.last_pid;
        let argv = std::iter::once(command.program.clone()).chain(command.args.iter().cloned()).collect();
        let process = Process { pid, started_ticks: u64::from(self.last_pid), argv };
        self.living.insert(pid, process.clone());
        process
    }
}

#[async_trait]
impl Runner for Script {
    async fn run(&self, command: Command) -> Result<Output, RunError> {
        self.state().reply(&command)
    }

    async fn spawn(&self, command: Command) -> Result<Child, RunError> {
        let (process, talk) = {
            let mut state = self.state();
            state.calls.push(command.clone());
            let line = command.to_string();
            let listed = state.helpers.iter().filter(|(start, _)| line.starts_with(start.as_str()));
            let talk = listed.max_by_key(|(start, _)| start.len()).map(|(_, talk)| Arc::clone(talk));
            let talk = talk.ok_or(RunError::NotInstalled { program: command.program.clone() })?;
            (state.start(&command), talk)
        };
        let (stdin, heard) = tokio::io::duplex(64 << 10);
        let (mut said, stdout) = tokio::io::duplex(64 << 10);
        let (hold, held) = oneshot::channel::<()>();
        let (tell, end) = watch::channel(None);
        let (script, pid) = (self.clone(), process.pid);
        tokio::spawn(async move {
            let converse = async {
                let mut lines = BufReader::new(heard).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    for answer in talk(&line) {
                        if said.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            };
            tokio::select! { () = converse => {}, _ = held => {} }
            script.dies(pid);
            tell.send_replace(Some("exit status: 0".to_owned()));
        });
        Ok(Child { process, stdin: Box::new(stdin), stdout: Box::new(stdout), leash: Leash { hold: Some(hold), end } })
    }

    async fn detach(&self, command: Command) -> Result<Process, RunError> {
        let mut state = self.state();
        state.reply(&command)?;
        Ok(state.start(&command))
    }

    fn look(&self, pid: u32) -> Option<Process> {
        self.state().living.get(&pid).cloned()
    }

    fn signal(&self, process: &Process, signal: Signal) -> Result<bool, RunError> {
        let mut state = self.state();
        if state.living.get(&process.pid).is_none_or(|now| now.started_ticks != process.started_ticks) {
            return Ok(false);
        }
        state.signals.push((process.pid, signal));
        if signal != Signal::Hangup {
            state.living.remove(&process.pid);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alive;

    #[tokio::test]
    async fn the_longest_start_answers_and_the_last_answer_stays() {
        let script = Script::new()
            .prints("ip", "any")
            .prints("ip link", "first")
            .fails("ip link", 1, "second\nmore")
            .missing("ip tuntap");
        let mut told = Vec::new();
        for args in [&["addr"][..], &["link"], &["link", "show"], &["link"], &["tuntap"]] {
            let answer = script.run(Command::new("ip").args(args.iter().copied())).await;
            told.push(answer.map_or_else(|error| error.to_string(), |output| output.text()));
        }
        assert_eq!(
            told,
            [
                "any",
                "first",
                "ip link show ended with status 1: second",
                "ip link ended with status 1: second",
                "ip is not installed (looked in PATH)"
            ]
        );
        assert_eq!(script.lines().len(), 5);
    }

    #[tokio::test]
    async fn a_scripted_daemon_lives_until_it_is_told_to_end() {
        let script = Script::new().prints("dnsmasq", "");
        let process = script.detach(Command::new("dnsmasq").arg("-k")).await.unwrap();
        assert!(alive(&script, &process));
        assert!(script.signal(&process, Signal::Hangup).unwrap());
        assert!(script.signal(&process, Signal::Terminate).unwrap());
        assert!(!script.signal(&process, Signal::Terminate).unwrap());
        assert!(!alive(&script, &process));
    }

    #[tokio::test]
    async fn a_scripted_helper_answers_line_by_line() {
        let script = Script::new().talks("echo-helper", |line| vec![line.to_uppercase()]);
        let mut child = script.spawn(Command::new("echo-helper")).await.unwrap();
        child.stdin.write_all(b"abc\n").await.unwrap();
        let mut line = String::new();
        BufReader::new(&mut child.stdout).read_line(&mut line).await.unwrap();
        assert_eq!(line, "ABC\n");
        child.leash.kill().await;
        assert!(script.living().is_empty());
    }
}
