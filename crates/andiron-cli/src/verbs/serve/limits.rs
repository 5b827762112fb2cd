//! Every limit of the server as a flag.

use andiron_serving::http::{LimitSetting, Limits};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

/// The limits that flags set.
#[derive(Clone, Debug)]
pub struct LimitFlags(pub Limits);

impl Args for LimitFlags {
    fn augment_args(command: Command) -> Command {
        command.args(Limits::settings().into_iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LimitFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut limits = Self(Limits::default());
        limits.update_from_arg_matches(matches)?;
        Ok(limits)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in Limits::settings() {
            if let Some(text) = matches.get_one::<String>(setting.name) {
                let refused = |error| clap::Error::raw(clap::error::ErrorKind::ValueValidation, error);
                setting.set(&mut self.0, text).map_err(refused)?;
            }
        }
        Ok(())
    }
}

fn flag(setting: LimitSetting) -> Arg {
    let check = move |text: &str| setting.set(&mut Limits::default(), text).map(|()| text.to_owned());
    Arg::new(setting.name)
        .long(setting.name.replace('_', "-"))
        .value_name(if setting.is_time { "SECONDS" } else { "N" })
        .default_value(setting.value(&Limits::default()))
        .value_parser(check)
        .help(setting.help.trim_end_matches('.').to_owned())
        .help_heading("Limits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Limits, String> {
        let command = LimitFlags::augment_args(Command::new("serve").no_binary_name(true));
        let matches = command.try_get_matches_from(words).map_err(|error| error.to_string())?;
        Ok(LimitFlags::from_arg_matches(&matches).map_err(|error| error.to_string())?.0)
    }

    #[test]
    fn every_limit_has_a_flag_with_its_default() {
        assert_eq!(read(&[]).unwrap(), Limits::default());
        let limits = read(&["--max-n", "3", "--request-timeout", "1.5"]).unwrap();
        assert_eq!((limits.max_n, limits.request_timeout.as_millis()), (3, 1500));
        assert!(read(&["--max-n", "0"]).unwrap_err().contains("no whole number from 1"));
    }
}
