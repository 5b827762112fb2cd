//! `--task auto`: the number of a task from the scheduler that started the process.
//!
//! Source: Slurm, "sbatch", <https://slurm.schedmd.com/sbatch.html>; Kubernetes, "Jobs", Indexed completion mode; Open MPI,
//! "Environment variables"; MPICH's Hydra sets PMI's.

use std::str::FromStr;

use andiron_corpus::prepare::Task;

use crate::exit::Usage;

/// The value of `--task`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskChoice {
    /// A number, from 1.
    Number(u64),
    /// What the scheduler says.
    Auto,
}

impl FromStr for TaskChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Number).map_err(|_| "neither a number nor `auto`".to_owned()),
        }
    }
}

impl TaskChoice {
    /// The task, with the number of tasks of `--of`, and what `variable` says of the environment.
    ///
    /// # Errors
    /// If the number of tasks is missing, or if the environment names no task, or two, or one that is not in 1 to `of`.
    pub fn task(self, of: Option<u64>, variable: impl Fn(&str) -> Option<String>) -> Result<Task, Usage> {
        match (self, of) {
            (Self::Number(number), Some(of)) => Ok(Task { number, of }),
            (Self::Number(number), None) => {
                Err(Usage(format!("--task {number} needs --of, the number of tasks")))
            }
            (Self::Auto, of) => from_scheduler(of, &Environment(&variable)),
        }
    }
}

/// Variables of the environment.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    fn has(&self, name: &str) -> bool {
        (self.0)(name).is_some()
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Usage> {
        let Some(text) = (self.0)(name) else { return Ok(None) };
        let number = text.trim().parse();
        number.map(Some).map_err(|_| Usage(format!("--task auto: {name} is {text:?}, which is no number")))
    }

    fn required(&self, name: &str) -> Result<u64, Usage> {
        self.number(name)?
            .ok_or_else(|| Usage(format!("--task auto: {name} is not set; give --task and --of")))
    }
}

/// A scheduler: the variable that shows it, and how it numbers tasks.
struct Scheduler {
    name: &'static str,
    index: &'static str,
    task: fn(Option<u64>, &Environment<'_>) -> Result<Task, Usage>,
}

const SCHEDULERS: [Scheduler; 4] = [
    Scheduler { name: "a Slurm array", index: SLURM_ID, task: slurm },
    Scheduler { name: "an Indexed Job of Kubernetes", index: KUBERNETES_INDEX, task: kubernetes },
    Scheduler {
        name: "Open MPI",
        index: "OMPI_COMM_WORLD_RANK",
        task: |of, environment| ranks(of, environment, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    },
    Scheduler {
        name: "MPICH",
        index: "PMI_RANK",
        task: |of, environment| ranks(of, environment, "PMI_RANK", "PMI_SIZE"),
    },
];

const SLURM_ID: &str = "SLURM_ARRAY_TASK_ID";
const KUBERNETES_INDEX: &str = "JOB_COMPLETION_INDEX";

fn from_scheduler(of: Option<u64>, environment: &Environment<'_>) -> Result<Task, Usage> {
    let found: Vec<&Scheduler> =
        SCHEDULERS.iter().filter(|scheduler| environment.has(scheduler.index)).collect();
    let task = match found[..] {
        [scheduler] => (scheduler.task)(of, environment)?,
        [] => {
            let names: Vec<&str> = SCHEDULERS.iter().map(|scheduler| scheduler.index).collect();
            let names = names.join(", ");
            return Err(Usage(format!(
                "--task auto: no scheduler has numbered this process (none of {names} is set); give --task and --of"
            )));
        }
        [first, second, ..] => {
            let (first, second) = (first.name, second.name);
            return Err(Usage(format!(
                "--task auto: both {first} and {second} have numbered this process; give --task and --of"
            )));
        }
    };
    if !(1..=task.of).contains(&task.number) {
        let Task { number, of } = task;
        return Err(Usage(format!("--task auto: this is task {number} of {of}, which is none of them")));
    }
    Ok(task)
}

/// The ids of an array are the numbers of tasks. Without `--of`, the array must be 1 to N: a part of it, such as one that is run
/// again, does not tell N.
fn slurm(of: Option<u64>, environment: &Environment<'_>) -> Result<Task, Usage> {
    let number = environment.required(SLURM_ID)?;
    if number == 0 {
        return Err(Usage(
            "--task auto: tasks count from 1, and this one has the id 0 of its Slurm array; use --array=1-N"
                .to_owned(),
        ));
    }
    if let Some(of) = of {
        return Ok(Task { number, of });
    }
    let count = environment.required("SLURM_ARRAY_TASK_COUNT")?;
    let first = environment.number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(1);
    let last = environment.number("SLURM_ARRAY_TASK_MAX")?.unwrap_or(count);
    if (first, last) != (1, count) {
        return Err(Usage(format!(
            "--task auto: the {count} ids of this Slurm array, {first} to {last}, are not 1 to {count}; for a part of the tasks, give \
             --of, the number of all"
        )));
    }
    Ok(Task { number, of: count })
}

/// Indices count from 0, and nothing in a pod tells their number.
fn kubernetes(of: Option<u64>, environment: &Environment<'_>) -> Result<Task, Usage> {
    let index = environment.required(KUBERNETES_INDEX)?;
    let of = of.ok_or_else(|| {
        Usage("--task auto: Kubernetes does not tell the number of tasks; give --of, the `completions` of the Job".to_owned())
    })?;
    Ok(Task { number: index.saturating_add(1), of })
}

/// Ranks count from 0.
fn ranks(of: Option<u64>, environment: &Environment<'_>, rank: &str, size: &str) -> Result<Task, Usage> {
    let (number, count) = (environment.required(rank)?.saturating_add(1), environment.required(size)?);
    match of {
        Some(of) if of != count => Err(Usage(format!(
            "--task auto: --of {of} does not fit the {count} ranks of {size}; leave --of out"
        ))),
        _ => Ok(Task { number, of: count }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(of: Option<u64>, variables: &[(&str, &str)]) -> Result<(u64, u64), String> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let task = TaskChoice::Auto.task(of, variable);
        task.map(|task| (task.number, task.of)).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_refused(of: Option<u64>, variables: &[(&str, &str)], expected: &str) {
        let error = auto(of, variables).expect_err("it is refused");
        assert!(error.contains(expected), "{error}");
    }

    fn array<'a>(id: &'a str, count: &'a str, first: &'a str, last: &'a str) -> [(&'static str, &'a str); 4] {
        [
            (SLURM_ID, id),
            ("SLURM_ARRAY_TASK_COUNT", count),
            ("SLURM_ARRAY_TASK_MIN", first),
            ("SLURM_ARRAY_TASK_MAX", last),
        ]
    }

    #[test]
    fn schedulers_number_tasks_in_their_ways() {
        assert_eq!(auto(None, &array("3", "8", "1", "8")), Ok((3, 8)));
        assert_eq!(auto(Some(6), &[(KUBERNETES_INDEX, "0")]), Ok((1, 6)));
        assert_eq!(auto(Some(6), &[(KUBERNETES_INDEX, "5")]), Ok((6, 6)));
        let ranks = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        assert_eq!(auto(None, &ranks), Ok((2, 2)));
        assert_eq!(auto(Some(2), &ranks), Ok((2, 2)));
        assert_eq!(auto(None, &[("PMI_RANK", "0"), ("PMI_SIZE", "4")]), Ok((1, 4)));
    }

    #[test]
    fn a_part_of_an_array_is_run_again_as_the_same_tasks() {
        // `sbatch --array=3,7` has 2 ids.
        check_refused(None, &array("7", "2", "3", "7"), "--of");
        assert_eq!(auto(Some(8), &array("7", "2", "3", "7")), Ok((7, 8)));
        check_refused(Some(6), &array("7", "2", "3", "7"), "task 7 of 6");
    }

    #[test]
    fn what_is_not_certain_is_refused() {
        check_refused(None, &[], "no scheduler");
        check_refused(None, &array("0", "8", "0", "7"), "--array=1-N");
        check_refused(Some(8), &array("0", "8", "0", "7"), "--array=1-N");
        check_refused(None, &[(SLURM_ID, "1")], "SLURM_ARRAY_TASK_COUNT");
        check_refused(None, &[(KUBERNETES_INDEX, "0")], "completions");
        check_refused(Some(6), &[(KUBERNETES_INDEX, "6")], "task 7 of 6");
        check_refused(Some(6), &[(KUBERNETES_INDEX, "one")], "\"one\"");
        check_refused(Some(3), &[("PMI_RANK", "0"), ("PMI_SIZE", "4")], "4 ranks");
        let both = [(SLURM_ID, "1"), ("PMI_RANK", "0"), ("PMI_SIZE", "4")];
        check_refused(None, &both, "both a Slurm array and MPICH");
    }

    #[test]
    fn a_number_needs_the_number_of_all() {
        assert_eq!("auto".parse(), Ok(TaskChoice::Auto));
        assert_eq!("3".parse(), Ok(TaskChoice::Number(3)));
        assert!("-1".parse::<TaskChoice>().is_err() && "automatic".parse::<TaskChoice>().is_err());
        let error = TaskChoice::Number(3).task(None, |_| None).expect_err("it needs --of");
        assert!(error.to_string().contains("--of"), "{error}");
    }
}
