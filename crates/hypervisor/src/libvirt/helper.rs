//! The conversation with `nova-libvirt`: questions go in, answers come back in any order, a dead helper is replaced.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nova_run::{Child, Command, Runner};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::protocol::{Ask, Domain, Outcome, Say, Verb};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A helper that lived this long was well; the pause before its successor is short again.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// A question that is still open so long after its deadline has cost the helper a thread for good.
const LOST_AFTER: Duration = Duration::from_secs(120);
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
const QUESTIONS_WAITING: usize = 1024;

type OnChange = Box<dyn Fn(Domain) + Send + Sync>;

struct Question {
    verb: Verb,
    lost_at: Instant,
    answer: oneshot::Sender<Outcome>,
}

/// A handle to the helper. Dropping it ends the helper.
#[derive(Debug)]
pub(crate) struct Helper {
    questions: mpsc::Sender<Question>,
}

impl Helper {
    pub(crate) fn start(
        runner: Arc<dyn Runner>,
        program: &Path,
        uri: &str,
        on_change: impl Fn(Domain) + Send + Sync + 'static,
    ) -> Self {
        let (questions, asked) = mpsc::channel(QUESTIONS_WAITING);
        let command = Command::new(program.display().to_string()).arg(format!("--uri={uri}"));
        tokio::spawn(Keeper { runner, command, asked, on_change: Box::new(on_change) }.keep());
        Self { questions }
    }

    /// Asks, and waits for the answer no longer than `deadline`.
    pub(crate) async fn ask(&self, verb: Verb, deadline: Duration) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let question = Question { verb, lost_at: Instant::now() + deadline + LOST_AFTER, answer };
        let conversation = async {
            self.questions.send(question).await.ok()?;
            answered.await.ok()
        };
        match timeout(deadline, conversation).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => could_not_ask("the helper nova-libvirt is ending"),
            Err(_) => could_not_ask(format!("no answer from libvirt within {} s", deadline.as_secs())),
        }
    }
}

fn could_not_ask(reason: impl Into<String>) -> Outcome {
    Outcome::CouldNotAsk { reason: reason.into() }
}

/// Keeps a helper running for as long as somebody may ask.
struct Keeper {
    runner: Arc<dyn Runner>,
    command: Command,
    asked: mpsc::Receiver<Question>,
    on_change: OnChange,
}

/// Why a conversation ended.
enum End {
    /// Nobody can ask any more.
    NoMoreQuestions,
    /// The helper is no good any more.
    Broken(String),
}

impl Keeper {
    async fn keep(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            let reason = match self.runner.spawn(self.command.clone()).await {
                Ok(child) => {
                    info!(pid = child.process.pid, "Started nova-libvirt.");
                    match self.converse(child).await {
                        End::NoMoreQuestions => return,
                        End::Broken(reason) => reason,
                    }
                }
                Err(error) => chain(&error),
            };
            if begun.elapsed() >= WELL_AFTER {
                pause = FIRST_PAUSE;
            }
            warn!(error = reason, pause_ms = pause.as_millis(), "nova-libvirt is not running; it is started again.");
            if self.refuse_for(pause, &reason).await.is_err() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Answers every question at once that it could not be asked, until the pause is over.
    async fn refuse_for(&mut self, pause: Duration, reason: &str) -> Result<(), ()> {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                question = self.asked.recv() => {
                    let _ = question.ok_or(())?.answer.send(could_not_ask(reason));
                }
            }
        }
    }

    async fn converse(&mut self, child: Child) -> End {
        let Child { mut stdin, stdout, mut leash, .. } = child;
        let mut lines = BufReader::new(stdout).lines();
        let mut open: HashMap<u64, Question> = HashMap::new();
        let mut last_id = 0;
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        let reason = loop {
            tokio::select! {
                question = self.asked.recv() => {
                    let Some(question) = question else { return End::NoMoreQuestions };
                    last_id += 1;
                    let line = serde_json::to_string(&Ask { id: last_id, verb: question.verb.clone() });
                    open.insert(last_id, question);
                    let written = timeout(WRITE_DEADLINE, async {
                        stdin.write_all(format!("{}\n", line.unwrap_or_default()).as_bytes()).await?;
                        stdin.flush().await
                    });
                    match written.await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => break chain(&error),
                        Err(_) => break "it does not read its questions".to_owned(),
                    }
                }
                heard = listen(&mut lines, &mut open, &self.on_change) => {
                    if let Err(reason) = heard {
                        break reason;
                    }
                }
                _ = sweep.tick() => {
                    let now = Instant::now();
                    if open.values().any(|question| question.lost_at <= now) {
                        break "it does not answer".to_owned();
                    }
                }
            }
        };
        let how = timeout(Duration::from_millis(100), leash.ended()).await.unwrap_or_else(|_| reason.clone());
        leash.kill().await;
        for (_, question) in open {
            let _ = question.answer.send(could_not_ask(format!("nova-libvirt ended: {how}")));
        }
        End::Broken(format!("nova-libvirt ended: {how}"))
    }
}

async fn listen<R: AsyncRead + Unpin>(
    lines: &mut Lines<BufReader<R>>,
    open: &mut HashMap<u64, Question>,
    on_change: &OnChange,
) -> Result<(), String> {
    let line = match lines.next_line().await {
        Ok(Some(line)) => line,
        Ok(None) => return Err("it closed its output".to_owned()),
        Err(error) => return Err(chain(&error)),
    };
    match serde_json::from_str(&line) {
        Ok(Say::Answer { id, outcome }) => {
            // One that came after its deadline has nobody waiting for it.
            if let Some(question) = open.remove(&id) {
                let _ = question.answer.send(outcome);
            }
        }
        Ok(Say::Changed { domain }) => on_change(domain),
        Err(error) => return Err(format!("it does not speak our language: {error}")),
    }
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
