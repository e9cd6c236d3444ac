//! `--failpoint` and `--list-failpoints`, which only builds for tests have: see `crates/failpoint`.

use clap::{Arg, ArgAction, ArgMatches, Command};
use nova_failpoint::Point;

use crate::ConfigError;

const FAILPOINT: &str = "failpoint";
pub(crate) const LIST: &str = "list-failpoints";

/// Adds both to a program's command line.
pub(crate) fn add_to(command: Command) -> Command {
    let point = Arg::new(FAILPOINT).long(FAILPOINT).value_name("NAME[:N]");
    let list = Arg::new(LIST).long(LIST).action(ArgAction::SetTrue);
    command
        .arg(point.help("For tests: end the process the N-th time it comes there").help_heading("Tests"))
        .arg(list.help("For tests: list these places").help_heading("Tests"))
}

/// Answers with the list, or lets this process end where it is asked to.
pub(crate) fn heed(matches: &ArgMatches) -> Result<(), ConfigError> {
    if matches.get_flag(LIST) {
        let names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        return Err(ConfigError::Answered(names.join("\n") + "\n"));
    }
    match matches.get_one::<String>(FAILPOINT) {
        Some(text) => nova_failpoint::arm(text).map_err(|error| ConfigError::Usage(error.to_string())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, SchedulerConfig, Surroundings};

    fn refusal(flag: &str) -> ConfigError {
        let args = ["nova-scheduler", flag].map(Into::into);
        SchedulerConfig::load_in(args, &Surroundings::bare()).unwrap_err()
    }

    #[test]
    fn the_places_are_listed_and_no_other_is_taken() {
        let ConfigError::Answered(list) = refusal("--list-failpoints") else { panic!("a list is an answer") };
        assert_eq!(list.lines().count(), Point::ALL.len());
        let wrong = refusal("--failpoint=launch.nowhere").to_string();
        assert!(wrong.contains("there is no failpoint launch.nowhere"), "{wrong}");
    }
}
