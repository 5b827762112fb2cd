//! The processes that a launcher, such as `mpirun` or `srun`, has started for one run.

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "mpi")]
mod watchdog;

use std::rc::Rc;
use std::time::Duration;

use andiron_training::{Collective, Single};

use crate::lines;

/// How launchers tell a process how many of it they have started, and which launchers those are. Slurm tells a batch script of its
/// tasks too, in a variable of another name, but only `srun` starts them.
const SIZES: [(&str, &str); 4] = [
    ("OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun"),
    ("PMI_SIZE", "mpiexec"),
    ("MV2_COMM_WORLD_SIZE", "MVAPICH's mpirun"),
    ("SLURM_STEP_NUM_TASKS", "srun"),
];

/// Processes that were started together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Launch {
    launcher: &'static str,
    size: usize,
}

impl Launch {
    /// What the environment says, if there are several processes.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let size = |name: &str| variable(name)?.trim().parse().ok().filter(|&size: &usize| size > 1);
        SIZES.iter().find_map(|&(name, launcher)| Some(Self { launcher, size: size(name)? }))
    }
}

/// The processes of the run, if a launcher has started several; else this one. Processes but the first print nothing from now on but
/// their own errors. One that the others wait for longer than `step_timeout` ends all of them.
///
/// # Errors
/// If they cannot be connected.
pub fn ranks(step_timeout: Option<Duration>) -> anyhow::Result<Rc<dyn Collective>> {
    let Some(launch) = Launch::of(|name| std::env::var(name).ok()) else { return Ok(Rc::new(Single)) };
    let ranks = connect(launch, step_timeout)?;
    lines::silence_all_but_first(ranks.rank());
    Ok(ranks)
}

#[cfg(feature = "mpi")]
fn connect(launch: Launch, step_timeout: Option<Duration>) -> anyhow::Result<Rc<dyn Collective>> {
    let Launch { launcher, size } = launch;
    let mpi = mpi::Mpi::start(step_timeout)?;
    let found = mpi.size();
    anyhow::ensure!(
        found == size,
        "{launcher} has started {size} processes, and MPI knows {found}: it is not the launcher of the MPI library that this program \
         was built with"
    );
    Ok(Rc::new(mpi))
}

#[cfg(not(feature = "mpi"))]
fn connect(launch: Launch, _: Option<Duration>) -> anyhow::Result<Rc<dyn Collective>> {
    let Launch { launcher, size } = launch;
    anyhow::bail!(
        "{launcher} has started {size} processes, which this program, built without MPI, cannot let share a run: build it with \
         `cargo build --release --package andiron-cli --features ndarray,mpi` (which needs an MPI library and libclang), or start one process"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(name: &str, value: &str) -> Option<Launch> {
        Launch::of(|asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        for (name, launcher) in SIZES {
            assert_eq!(launch(name, "4"), Some(Launch { launcher, size: 4 }));
            assert_eq!(launch(name, "1"), None);
            assert_eq!(launch(name, "four"), None);
        }
        // A batch script is one process.
        assert_eq!(launch("SLURM_NTASKS", "4"), None);
    }
}
