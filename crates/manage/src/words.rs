//! Finds category and action by their first letters, as old Nova did; a full name always wins.

use clap::Command;

/// What is said when the words name no command. Goes to stdout, with status 2, as it always did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unresolved(pub(crate) String);

/// Puts full names in place of the shortened category and action at the start of `words`.
pub(crate) fn resolve(words: &[String], program: &Command) -> Result<Vec<String>, Unresolved> {
    let Some((first, rest)) = words.split_first() else {
        let usage = format!("{} category action [<args>]", program.get_name());
        return Err(Unresolved(listing(&format!("{usage}\nAvailable categories:"), &names(program))));
    };
    let category = find(first, program)?;
    let mut full = vec![category.get_name().to_owned()];
    if !category.has_subcommands() {
        full.extend_from_slice(rest);
        return Ok(full);
    }
    let Some((second, rest)) = rest.split_first() else {
        let title = format!("Available actions for {} category:", category.get_name());
        return Err(Unresolved(listing(&title, &names(category))));
    };
    // Help of a category, and nothing that an action could be called.
    let action = if second.starts_with('-') { second.as_str() } else { find(second, category)?.get_name() };
    full.push(action.to_owned());
    full.extend_from_slice(rest);
    Ok(full)
}

fn find<'a>(word: &str, among: &'a Command) -> Result<&'a Command, Unresolved> {
    let word_lower = word.to_lowercase();
    let all = || among.get_subcommands();
    let spelled = |c: &Command, fits: &dyn Fn(&str) -> bool| fits(c.get_name()) || c.get_all_aliases().any(fits);
    if let Some(exact) = all().find(|c| spelled(c, &|name| name == word_lower)) {
        return Ok(exact);
    }
    let begun: Vec<&Command> = all().filter(|c| spelled(c, &|name| name.starts_with(&word_lower))).collect();
    match *begun.as_slice() {
        [one] => Ok(one),
        [] => Err(Unresolved(listing(&format!("{word} does not match any options:"), &names(among)))),
        _ => {
            let matched: Vec<&str> = begun.iter().map(|c| c.get_name()).collect();
            Err(Unresolved(listing(&format!("{word} matched multiple options:"), &matched)))
        }
    }
}

fn names(of: &Command) -> Vec<&str> {
    let mut names: Vec<&str> = of.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).collect();
    names.sort_unstable();
    names
}

fn listing(title: &str, names: &[&str]) -> String {
    let mut text = title.to_owned();
    for name in names {
        text.push_str("\n\t");
        text.push_str(name);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Command;
    use expect_test::expect;

    use super::{Unresolved, resolve};

    fn check(words: &str) -> String {
        let program = Command::new("nova-manage")
            .subcommand(
                Command::new("project").alias("account").subcommands(["add", "create", "list"].map(Command::new)),
            )
            .subcommand(Command::new("network").subcommands(["create", "list"].map(Command::new)))
            .subcommand(Command::new("net").subcommand(Command::new("list")))
            .subcommand(Command::new("version"));
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        match resolve(&words, &program) {
            Ok(full) => full.join(" "),
            Err(Unresolved(text)) => text,
        }
    }

    #[test]
    fn the_first_letters_are_enough_and_a_full_name_wins() {
        for (words, full) in [
            ("project create a b", "project create a b"),
            ("PRO Cr Create", "project create Create"),
            ("acc l", "project list"),
            ("net list", "net list"),
            ("netw l", "network list"),
            ("ver", "version"),
            ("project --help", "project --help"),
        ] {
            assert_eq!(check(words), full);
        }
    }

    #[test]
    fn what_names_no_command_is_answered_with_what_there_is() {
        expect!["nova-manage category action [<args>]\nAvailable categories:\n\tnet\n\tnetwork\n\tproject\n\tversion"]
            .assert_eq(&check(""));
        expect!["Available actions for project category:\n\tadd\n\tcreate\n\tlist"].assert_eq(&check("proj"));
        expect!["ne matched multiple options:\n\tnetwork\n\tnet"].assert_eq(&check("ne list"));
        expect!["x does not match any options:\n\tadd\n\tcreate\n\tlist"].assert_eq(&check("project x"));
    }
}
