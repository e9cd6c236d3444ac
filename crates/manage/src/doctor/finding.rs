//! What the doctor says.

use nova_types::HostName;

use super::facts::Asked;

/// Whether a packet passes a step of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does.
    Ok,
    /// It does not, or passes where it should not.
    Broken,
    /// Nobody could be asked; that is no fault.
    Unknown,
    /// Another host knows.
    Elsewhere,
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Broken => "broken",
            Self::Unknown => "not checked",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// One step, and which command mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) step: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) what: String,
    pub(crate) mend: Option<String>,
}

/// The steps so far.
#[derive(Debug, Default)]
pub(crate) struct Walk(pub(crate) Vec<Finding>);

impl Walk {
    pub(crate) fn ok(&mut self, step: &'static str, what: impl Into<String>) {
        self.0.push(Finding { step, verdict: Verdict::Ok, what: what.into(), mend: None });
    }

    pub(crate) fn broken(&mut self, step: &'static str, what: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Finding { step, verdict: Verdict::Broken, what: what.into(), mend: Some(mend.into()) });
    }

    pub(crate) fn unknown(&mut self, step: &'static str, what: impl Into<String>, mend: Option<String>) {
        self.0.push(Finding { step, verdict: Verdict::Unknown, what: what.into(), mend });
    }

    pub(crate) fn elsewhere(&mut self, step: &'static str, what: &str, host: &HostName, command: &str) {
        let mend = Some(format!("run this on {host}: nova-manage {command}"));
        self.0.push(Finding { step, verdict: Verdict::Elsewhere, what: what.to_owned(), mend });
    }

    /// A question whose answer is yes or no: what is said for each.
    pub(crate) fn judge(&mut self, step: &'static str, asked: &Asked<bool>, yes: &str, no: &str, mend: &str) {
        match asked {
            Ok(true) => self.ok(step, yes),
            Ok(false) => self.broken(step, no, mend),
            Err(why) => self.unknown(step, why, None),
        }
    }
}
