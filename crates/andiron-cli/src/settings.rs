//! Settings of `andiron serve` from four places: flags, environment variables, a TOML file, defaults; an earlier place comes first.
//!
//! All are made from the flags, so none can be forgotten: the flag `--max-queued` is the variable `ANDIRON_SERVE_MAX_QUEUED` and the key
//! `max_queued`. A value of the file becomes the default of its flag, and the flag's parser checks it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Spanned, Value};

use crate::exit::Usage;

/// The verb that has settings.
const VERB: &str = "serve";

/// Before the name of each variable.
const PREFIX: &str = "ANDIRON_SERVE_";

/// The flag that names the file.
const FILE: &str = "config";

/// The flag that prints the settings. Like [`FILE`], it is no setting.
pub const PRINT: &str = "print_config";

/// Flags whose values are never shown.
const SECRET: &[&str] = &["api_key"];

/// What a command line, the environment and a file say.
pub struct Read {
    pub matches: ArgMatches,
    /// The settings of `serve` as a TOML file, if they are to be printed.
    pub printed: Option<String>,
}

/// Reads a command line of `command`.
///
/// # Errors
/// [`Usage`] for a file, a key, a variable or a value that cannot be used; clap's for the command line.
pub fn read(
    command: Command,
    args: &[OsString],
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> anyhow::Result<Read> {
    // The file may have what the flags lack.
    let relaxed = command.clone().mut_subcommand(VERB, |verb| verb.mut_args(|arg| arg.required(false)));
    let serves = match relaxed.try_get_matches_from(args) {
        Ok(matches) => matches.subcommand_matches(VERB).cloned(),
        Err(_) => None,
    };
    let Some(flags) = serves else {
        return Ok(Read { matches: command.try_get_matches_from(args)?, printed: None });
    };
    let mut command = command;
    let variables = variables(&command, environment)?;
    let file = match flags.get_raw(FILE).and_then(Iterator::last) {
        Some(path) => Some(path.to_owned()),
        None => variables.get(FILE).cloned(),
    };
    let mut from_file = BTreeMap::new();
    if let Some(path) = file {
        from_file = keys(&command, Path::new(&path))?;
    }
    for (id, values) in &from_file {
        command = with_default(command, id, values.clone());
    }
    for (id, value) in &variables {
        command = with_default(command, id, vec![value.clone()]);
    }
    let matches = command.clone().try_get_matches_from(args)?;
    let serve = matches.subcommand_matches(VERB).filter(|serve| serve.get_flag(PRINT));
    let printed = serve.map(|serve| {
        let source = |id: &str| match serve.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            _ if variables.contains_key(id) => "environment",
            _ if from_file.contains_key(id) => "file",
            _ => "default",
        };
        printed(&command, serve, source)
    });
    Ok(Read { matches, printed })
}

/// The flags that are settings: those of the verb, and those of every verb.
fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    let verb = command.find_subcommand(VERB).expect("the program has this verb");
    let own = verb.get_arguments().filter(|arg| arg.get_id() != PRINT);
    let common = command.get_arguments().filter(|arg| arg.is_global_set() && arg.get_id() != "json");
    let is_flag = |arg: &&Arg| arg.get_long().is_some_and(|long| long != "help" && long != "version");
    own.chain(common).filter(is_flag)
}

/// The setting that a flag is: `--max-queued` is `max_queued`.
fn key(arg: &Arg) -> String {
    arg.get_long().unwrap_or_default().replace('-', "_")
}

/// The setting `key`.
fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    settings(command).find(|arg| key(arg) == name)
}

/// The values of environment variables, by the ids of their flags.
fn variables(
    command: &Command,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> anyhow::Result<BTreeMap<String, OsString>> {
    let mut found = BTreeMap::new();
    for (variable, value) in environment {
        let Some(name) = variable.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let variable = variable.to_string_lossy();
        let arg = find(command, &name.to_ascii_lowercase()).ok_or_else(|| {
            Usage(format!("{variable} is no setting of `andiron serve`{}", nearest(command, name)))
        })?;
        check(arg, &value).map_err(|error| Usage(format!("{variable}: {error}")))?;
        found.insert(arg.get_id().to_string(), value);
    }
    Ok(found)
}

/// The values of a file's keys, by the ids of their flags.
fn keys(command: &Command, path: &Path) -> anyhow::Result<BTreeMap<String, Vec<OsString>>> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| Usage(format!("cannot read {shown}: {error}")))?;
    let table: BTreeMap<Spanned<String>, Value> = toml::from_str(&text)
        .map_err(|error| Usage(format!("{shown} is no TOML: {}", error.to_string().trim_end())))?;
    let mut found = BTreeMap::new();
    for (name, value) in table {
        let line = 1 + text[..name.span().start].matches('\n').count();
        let at = format!("{shown}:{line}");
        let name = name.into_inner();
        if name == FILE {
            return Err(Usage(format!("{at}: {FILE}: a file cannot name another one")).into());
        }
        let arg = find(command, &name).ok_or_else(|| {
            Usage(format!("{at}: {name} is no setting of `andiron serve`{}", nearest(command, &name)))
        })?;
        let values = match value {
            Value::Array(values) if matches!(arg.get_action(), ArgAction::Append) => values,
            value => vec![value],
        };
        let mut texts = Vec::with_capacity(values.len());
        for value in values {
            let text = match value {
                Value::String(text) => text,
                Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
                _ => return Err(Usage(format!("{at}: {name}: expected a single value")).into()),
            };
            check(arg, OsStr::new(&text)).map_err(|error| Usage(format!("{at}: {name}: {error}")))?;
            texts.push(text.into());
        }
        found.insert(arg.get_id().to_string(), texts);
    }
    Ok(found)
}

/// Whether a flag takes `value`; else what is wrong with it.
fn check(arg: &Arg, value: &OsStr) -> Result<(), String> {
    if matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse) {
        return match value.to_str() {
            Some("true" | "false") => Ok(()),
            _ => Err(format!("expected true or false, got {:?}", value.to_string_lossy())),
        };
    }
    let mut word = OsString::from(format!("--{}=", arg.get_long().unwrap_or_default()));
    word.push(value);
    let alone = Command::new(VERB).no_binary_name(true).disable_help_flag(true).arg(bare(arg));
    match alone.try_get_matches_from([word]) {
        Ok(_) => Ok(()),
        Err(error) => {
            use std::error::Error as _;
            let cause = error.source().map(ToString::to_string);
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            Err(cause.unwrap_or_else(|| first.trim_start_matches("error: ").to_owned()))
        }
    }
}

/// A flag without its ties to others.
fn bare(arg: &Arg) -> Arg {
    let long = arg.get_long().unwrap_or_default().to_owned();
    Arg::new(long.clone())
        .long(long)
        .action(arg.get_action().clone())
        .value_parser(arg.get_value_parser().clone())
}

/// `command` with other default values of a setting.
fn with_default(command: Command, id: &str, values: Vec<OsString>) -> Command {
    let set = |arg: Arg| arg.required(false).default_values(values);
    let is_common = command.get_arguments().any(|arg| arg.get_id() == id);
    match is_common {
        true => command.mut_arg(id, set),
        false => command.mut_subcommand(VERB, |verb| verb.mut_arg(id, set)),
    }
}

/// A hint at the setting whose name is most like `name`.
fn nearest(command: &Command, name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let likely = settings(command).map(key).map(|known| (distance(&known, &name), known)).min();
    match likely {
        Some((distance, known)) if distance <= 1 + known.len() / 4 => format!("; did you mean {known}?"),
        _ => "; `andiron serve --print-config` lists them".to_owned(),
    }
}

/// Edits between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let edit = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = edit.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// All settings as a file that can be read again, with the place that each comes from.
fn printed(command: &Command, matches: &ArgMatches, source: impl Fn(&str) -> &'static str) -> String {
    let mut page = String::from(
        "# Settings of `andiron serve`. Flags come before the environment, the environment before the file.\n",
    );
    for arg in settings(command).filter(|arg| arg.get_id() != FILE) {
        let (name, id) = (key(arg), arg.get_id().as_str());
        let values: Vec<String> =
            matches.get_raw(id).into_iter().flatten().map(|value| literal(arg, value)).collect();
        let line = match values.as_slice() {
            [] => format!("# {name} ="),
            _ if SECRET.contains(&name.as_str()) => format!("# {name} = (not shown)"),
            values if matches!(arg.get_action(), ArgAction::Append) => {
                format!("{name} = [{}]", values.join(", "))
            }
            [value, ..] => format!("{name} = {value}"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(page, "{line:<40} # {}", source(id));
    }
    page
}

/// A value in TOML: a number or truth value where it reads as one.
fn literal(arg: &Arg, value: &OsStr) -> String {
    let text = value.to_string_lossy();
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    let is_number =
        text.parse::<i64>().is_ok() || (text.contains('.') && text.parse::<f64>().is_ok_and(f64::is_finite));
    match is_switch
        || (is_number && !text.starts_with(['+', '.']) && !text.ends_with('.') && !text.starts_with("00"))
    {
        true => text.into_owned(),
        false => Value::String(text.into_owned()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let arg = |name: &'static str| Arg::new(name).long(name);
        let serve = Command::new("serve")
            .arg(arg("model").required(true).action(ArgAction::Append))
            .arg(
                Arg::new("max_queued")
                    .long("max-queued")
                    .value_parser(clap::value_parser!(u32))
                    .default_value("256"),
            )
            .arg(arg("open").action(ArgAction::SetTrue))
            .arg(Arg::new("api_key").long("api-key"))
            .arg(arg("config"))
            .arg(Arg::new(PRINT).long("print-config").action(ArgAction::SetTrue));
        let log = arg("log").global(true).default_value("info");
        Command::new("andiron").arg(log).subcommand(serve).subcommand(Command::new("other"))
    }

    fn run(line: &str, environment: &[(&str, &str)]) -> Result<Read, String> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        read(command(), &args, environment).map_err(|error| error.to_string())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn flags_come_before_the_environment_before_the_file_before_defaults() {
        let file = file("model = [\"a\", \"b\"]\nmax_queued = 1\nopen = true\nlog = \"warn\"\n");
        let line = format!("andiron serve --config {}", file.path().display());
        let queued = |read: &Read| {
            *read.matches.subcommand_matches("serve").unwrap().get_one::<u32>("max_queued").unwrap()
        };
        let from_file = run(&line, &[]).unwrap();
        let serve = from_file.matches.subcommand_matches("serve").unwrap();
        assert_eq!(serve.get_many::<String>("model").unwrap().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((queued(&from_file), serve.get_flag("open")), (1, true));
        assert_eq!(serve.get_one::<String>("log").unwrap(), "warn");
        let variable = ("ANDIRON_SERVE_MAX_QUEUED", "2");
        assert_eq!(queued(&run(&line, &[variable]).unwrap()), 2);
        assert_eq!(queued(&run(&format!("{line} --max-queued 3"), &[variable]).unwrap()), 3);
        assert_eq!(queued(&run("andiron serve --model a", &[]).unwrap()), 256);
        let path = file.path().to_str().unwrap();
        assert_eq!(queued(&run("andiron serve", &[("ANDIRON_SERVE_CONFIG", path)]).unwrap()), 1);
        // Another verb has no settings.
        assert!(run("andiron other", &[("ANDIRON_SERVE_NOTHING", "1")]).is_ok());
    }

    #[test]
    fn what_is_no_setting_is_refused_by_its_name() {
        let check = |text: &str, expected: &str| {
            let file = file(text);
            let error = run(&format!("andiron serve --config {}", file.path().display()), &[]).err().unwrap();
            let place = file.path().display().to_string();
            assert_eq!(error.replace(&place, "FILE"), expected);
        };
        check(
            "model = \"a\"\nmax_qeued = 1",
            "FILE:2: max_qeued is no setting of `andiron serve`; did you mean max_queued?",
        );
        check(
            "colour = 1",
            "FILE:1: colour is no setting of `andiron serve`; `andiron serve --print-config` lists them",
        );
        check("config = \"x\"", "FILE:1: config: a file cannot name another one");
        check("\nmax_queued = \"many\"", "FILE:2: max_queued: invalid digit found in string");
        check("max_queued = [1, 2]", "FILE:1: max_queued: expected a single value");
        check("open = 1", "FILE:1: open: expected true or false, got \"1\"");
        let error = run("andiron serve --model a", &[("ANDIRON_SERVE_MAX_QEUED", "1")]).err().unwrap();
        assert_eq!(
            error,
            "ANDIRON_SERVE_MAX_QEUED is no setting of `andiron serve`; did you mean max_queued?"
        );
        let error = run("andiron serve --model a", &[("ANDIRON_SERVE_MAX_QUEUED", "few")]).err().unwrap();
        assert_eq!(error, "ANDIRON_SERVE_MAX_QUEUED: invalid digit found in string");
        assert!(run("andiron serve", &[]).err().unwrap().contains("--model"));
    }

    #[test]
    fn printed_settings_can_be_read_again_and_hold_no_key() {
        let environment = [("ANDIRON_SERVE_OPEN", "true"), ("ANDIRON_SERVE_API_KEY", "sesame")];
        let first = run("andiron serve --model a --model c --print-config", &environment);
        let printed = first.unwrap().printed.unwrap();
        for line in [
            r#"model = ["a", "c"]                       # flag"#,
            "max_queued = 256                         # default",
            "open = true                              # environment",
            r#"log = "info"                             # default"#,
        ] {
            assert!(printed.lines().any(|found| found == line), "{line}\n{printed}");
        }
        assert!(!printed.contains("sesame"), "{printed}");
        let file = file(&printed);
        let again =
            run(&format!("andiron serve --print-config --config {}", file.path().display()), &[]).unwrap();
        let values = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let mut values: Vec<_> =
                lines.map(|line| line.split('#').next().unwrap_or_default().trim().to_owned()).collect();
            // Their order is not meant.
            values.sort();
            values
        };
        assert_eq!(values(&again.printed.unwrap()), values(&printed));
    }
}
