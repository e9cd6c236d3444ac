//! One command: program, arguments, environment, input, limits.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::RunError;

const DEADLINE: Duration = Duration::from_secs(30);
const OUTPUT_CAP_BYTES: usize = 4 << 20;

/// A command that can be run. Clone it to run it again.
///
/// ```
/// use nova_run::Command;
/// let show = Command::new("qemu-img").args(["info", "--output=json"]).operand("/tmp/disk")?;
/// assert_eq!(show.to_string(), "qemu-img info --output=json /tmp/disk");
/// # Ok::<(), nova_run::RunError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Command {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) deadline: Duration,
    pub(crate) output_cap_bytes: usize,
}

impl Command {
    /// Starts with a program, looked up in PATH unless it holds a slash. Deadline 30 s, output up to 4 MiB.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: Vec::new(),
            deadline: DEADLINE,
            output_cap_bytes: OUTPUT_CAP_BYTES,
        }
    }

    /// Adds an argument that we chose: an option, a verb, or `--name=` followed by data.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds several arguments that we chose.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an argument that comes from data (a name, a path, an address).
    ///
    /// # Errors
    /// [`RunError::Operand`] when it is empty, starts with `-`, or holds a NUL byte: the program would read it as
    /// something else than data.
    pub fn operand(mut self, data: impl Into<String>) -> Result<Self, RunError> {
        let data = data.into();
        if data.is_empty() || data.starts_with('-') || data.contains('\0') {
            return Err(RunError::Operand { program: self.program, operand: data });
        }
        self.args.push(data);
        Ok(self)
    }

    /// Adds a path that comes from data; like [`operand`](Self::operand).
    ///
    /// # Errors
    /// [`RunError::Operand`], also when the path is not UTF-8.
    pub fn path(self, path: &Path) -> Result<Self, RunError> {
        match path.to_str() {
            Some(text) => self.operand(text),
            None => Err(RunError::Operand { program: self.program, operand: path.display().to_string() }),
        }
    }

    /// Sets one environment variable. The rest is inherited, with `LC_ALL=C` so that messages can be read by us.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Bytes that the command reads from its stdin; none unless set.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// How long it may run.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How many bytes it may print on stdout.
    #[must_use]
    pub fn output_cap(mut self, bytes: usize) -> Self {
        self.output_cap_bytes = bytes;
        self
    }

    /// The program's name or path.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// The arguments, without the program.
    pub fn arguments(&self) -> &[String] {
        &self.args
    }

    /// What will be written to its stdin.
    pub fn input(&self) -> &[u8] {
        &self.stdin
    }
}

/// The command line as a shell would take it; neither environment nor input are shown.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", quoted(&self.program))?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let printable: String =
        word.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    format!("'{}'", printable.replace('\'', r"'\''"))
}

/// What a command that ended with status 0 printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// The first 64 KiB of stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Stdout as text; what is not UTF-8 becomes U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_would_take_it() {
        let command = Command::new("ip").args(["link", "set", "a b", "it's", "", "x\ny"]);
        assert_eq!(command.to_string(), r"ip link set 'a b' 'it'\''s' '' 'x\ny'");
    }

    #[test]
    fn data_that_looks_like_an_option_is_refused() {
        for data in ["-rf", "--help", "", "a\0b"] {
            let error = Command::new("rm").operand(data).unwrap_err();
            assert_eq!(error.to_string(), format!("{data:?} cannot be an argument of rm"));
        }
        assert_eq!(Command::new("rm").operand("a-b").unwrap().arguments(), ["a-b"]);
    }
}
