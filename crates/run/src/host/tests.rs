//! Real processes: sh, sleep, cat and friends.

use super::*;
use crate::alive;
use expect_test::{Expect, expect};
use tokio::io::AsyncBufReadExt;

fn sh(script: &str) -> Command {
    Command::new("sh").args(["-c", script]).deadline(Duration::from_secs(10))
}

async fn check(command: Command, expected: Expect) {
    let told = match Host.run(command).await {
        Ok(output) => format!("stdout {:?}, stderr {:?}", output.text(), String::from_utf8_lossy(&output.stderr)),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&told);
}

#[tokio::test]
async fn a_command_gives_back_what_it_printed() {
    check(sh("echo out; echo err >&2"), expect![[r#"stdout "out\n", stderr "err\n""#]]).await;
    check(sh("cat").stdin("fed"), expect![[r#"stdout "fed", stderr """#]]).await;
    check(sh("echo $COLOUR $LC_ALL").env("COLOUR", "blue"), expect![[r#"stdout "blue C\n", stderr """#]]).await;
    check(sh("true").stdin(vec![b'x'; 1 << 20]), expect![[r#"stdout "", stderr """#]]).await;
}

#[tokio::test]
async fn an_error_names_the_command_its_end_and_its_first_words() {
    check(
        sh("echo; echo one >&2; echo two >&2; exit 3"),
        expect!["sh -c 'echo; echo one >&2; echo two >&2; exit 3' ended with status 3: one"],
    )
    .await;
    check(
        sh("echo told on stdout; exit 1"),
        expect!["sh -c 'echo told on stdout; exit 1' ended with status 1: told on stdout"],
    )
    .await;
    check(sh("exit 2"), expect!["sh -c 'exit 2' ended with status 2: it said nothing"]).await;
    check(sh("kill -9 $$"), expect!["sh -c 'kill -9 $$' ended with a signal: it said nothing"]).await;
    check(
        sh(r"printf 'a\033[2Jb' >&2; exit 1"),
        expect![[r"sh -c 'printf '\''a\033[2Jb'\'' >&2; exit 1' ended with status 1: a\u{1b}[2Jb"]],
    )
    .await;
    check(Command::new("no-such-program"), expect!["no-such-program is not installed (looked in PATH)"]).await;
    check(Command::new("/etc/passwd"), expect!["starting /etc/passwd"]).await;
}

#[tokio::test]
async fn a_command_that_prints_without_end_is_killed() {
    check(Command::new("yes").output_cap(1000), expect!["yes printed more than 1000 bytes and was killed"]).await;
}

/// Runs a script whose child writes its pid to a file, and returns that child as it is now.
async fn grandchild_after(script: &str, deadline: Duration) -> (Result<Output, RunError>, Option<Process>) {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pid");
    let result = Host.run(sh(&script.replace("NOTE", note.to_str().unwrap())).deadline(deadline)).await;
    let pid = std::fs::read_to_string(&note).unwrap().trim().parse().unwrap();
    // A kill takes effect a moment later.
    for _ in 0..100 {
        if Host.look(pid).is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (result, Host.look(pid))
}

#[tokio::test]
async fn the_deadline_ends_a_command_and_all_it_started() {
    let (result, child) = grandchild_after("sleep 60 & echo $! >NOTE; wait", Duration::from_millis(300)).await;
    assert!(matches!(result, Err(RunError::Deadline { .. })), "{result:?}");
    assert_eq!(child, None);
}

#[tokio::test]
async fn a_daemon_left_behind_neither_delays_the_answer_nor_dies() {
    let begun = Instant::now();
    let (result, child) = grandchild_after("sleep 60 & echo $! >NOTE; echo done", Duration::from_secs(20)).await;
    assert_eq!(result.unwrap().text(), "done\n");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let child = child.expect("the daemon lives on");
    assert_eq!(child.argv, ["sleep", "60"]);
    assert!(Host.signal(&child, Signal::Kill).unwrap());
}

#[tokio::test]
async fn a_helper_is_spoken_to_line_by_line_and_dies_with_its_leash() {
    let mut child = Host.spawn(Command::new("cat")).await.unwrap();
    child.stdin.write_all(b"hello\n").await.unwrap();
    let mut line = String::new();
    BufReader::new(&mut child.stdout).read_line(&mut line).await.unwrap();
    assert_eq!(line, "hello\n");
    assert!(alive(&Host, &child.process));
    let process = child.process.clone();
    child.leash.kill().await;
    assert!(!alive(&Host, &process));
}

#[tokio::test]
async fn the_end_of_a_helper_is_told() {
    let mut child = Host.spawn(sh("exit 4")).await.unwrap();
    assert_eq!(child.leash.ended().await, "exit status: 4");
}

#[tokio::test]
async fn a_signal_reaches_only_the_process_that_was_seen() {
    let process = Host.detach(Command::new("sleep").arg("60")).await.unwrap();
    assert_eq!(process.argv, ["sleep", "60"]);
    let successor = Process { started_ticks: process.started_ticks + 1, ..process.clone() };
    assert!(!Host.signal(&successor, Signal::Kill).unwrap());
    assert!(alive(&Host, &process));
    assert!(Host.signal(&process, Signal::Terminate).unwrap());
    for _ in 0..100 {
        if !alive(&Host, &process) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!alive(&Host, &process));
    assert!(!Host.signal(&process, Signal::Terminate).unwrap());
}
