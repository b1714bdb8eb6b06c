//! Checks that the ranks found each other: the launcher's variables announce the number of ranks that MPI must have made.

use comm::{RANK_VARIABLES, SIZE_VARIABLES};
use datasets::UserError;

use super::environment::mpirun;

/// The launch as the environment announces it.
#[derive(Debug, PartialEq, Eq)]
struct Announced {
    ranks: usize,
    /// By SLURM's srun, without the help of an MPI's own launcher.
    by_srun: bool,
    variable: &'static str,
}

/// Refuses `ranks` ranks where `variable` (those of the environment) announces another number.
///
/// Each process of a launcher that speaks another protocol than this program's MPI believes that it is alone; N runs in one
/// folder, or N whole trainings, would follow.
///
/// # Errors
/// A [`UserError`] with the line to start instead.
pub(crate) fn check(ranks: usize, variable: impl Fn(&str) -> Option<String>) -> Result<(), UserError> {
    let Some(announced) = announced(ranks, variable) else { return Ok(()) };
    let copies = |by: &str| format!("{} copies of this program, started by {by}", announced.ranks);
    let expected = UserError::expected(format!("one MPI job of {} ranks", announced.ranks));
    Err(if announced.by_srun {
        expected
            .value(copies("srun without MPI, or with another than this program's"))
            .hint("start with `srun --mpi=pmix ...` (`srun --mpi=list` shows what this cluster has), or with mpirun")
    } else {
        expected.value(copies(&format!("another MPI's mpirun (as {} says)", announced.variable))).hint(format!(
            "start with the mpirun of the MPI this program was built with: {}; under srun, try \
             `srun --mpi=pmix ...` (`srun --mpi=list` shows what this cluster has)",
            mpirun()
        ))
    })
}

/// Whether this process prints the error that all copies of it find.
pub(crate) fn speaks(variable: impl Fn(&str) -> Option<String>) -> bool {
    let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
    // A batch shell, where people type, has SLURM_PROCID=0 and no step.
    let rank = RANK_VARIABLES.iter().find_map(|name| number(name));
    let rank = rank.or_else(|| variable("SLURM_STEP_ID").and_then(|_| number("SLURM_PROCID"))).unwrap_or(0);
    // If no variable announces a size, rank 0 believes that it is alone and finds no error.
    let told = SIZE_VARIABLES.iter().chain(&["SLURM_STEP_ID"]).any(|name| variable(name).is_some());
    rank == 0 || rank == 1 && !told
}

/// Another number of ranks than `ranks` that the environment announces.
fn announced(ranks: usize, variable: impl Fn(&str) -> Option<String>) -> Option<Announced> {
    let number = |name: &str| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
    let sizes: Vec<(&'static str, usize)> =
        SIZE_VARIABLES.iter().filter_map(|name| Some((*name, number(name)?))).collect();
    let in_step = ["SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"].iter().any(|name| variable(name).is_some());
    // A launcher inside another's job inherits the variables of the outer one: one that fits is the inner one's.
    if sizes.iter().any(|(_, size)| *size == ranks) {
        return None;
    }
    if let Some(&(variable, announced)) = sizes.first() {
        return Some(Announced { ranks: announced, by_srun: in_step && variable == "PMI_SIZE", variable });
    }
    if ranks > 1 {
        return None;
    }
    // A rank above 0 knows that it is not alone, even if its launcher announces no size.
    let known = |rank: Option<usize>| rank.filter(|rank| *rank > 0).map(|rank| rank + 1);
    let tasks = number("SLURM_STEP_NUM_TASKS").or_else(|| number("SLURM_NTASKS")).filter(|_| in_step);
    let srun = tasks.or_else(|| known(number("SLURM_PROCID"))).filter(|tasks| *tasks > 1);
    if let Some(ranks) = srun {
        return Some(Announced { ranks, by_srun: true, variable: "SLURM_STEP_NUM_TASKS" });
    }
    let ranks = known(number("PMIX_RANK").or_else(|| number("PMI_RANK")))?;
    Some(Announced { ranks, by_srun: in_step, variable: "PMIX_RANK" })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables = &'static [(&'static str, &'static str)];

    fn of(variables: Variables) -> impl Fn(&str) -> Option<String> {
        move |name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_string())
    }

    #[test]
    fn a_launch_that_fits_is_left_alone() {
        let right: [(&str, usize, Variables); 13] = [
            ("a shell", 1, &[]),
            ("mpirun", 4, &[("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "3"), ("PMIX_RANK", "3")]),
            ("mpirun of one", 1, &[("OMPI_COMM_WORLD_SIZE", "1"), ("OMPI_COMM_WORLD_RANK", "0")]),
            ("Hydra", 3, &[("PMI_SIZE", "3"), ("PMI_RANK", "1")]),
            ("srun with PMIx", 8, &[("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "8"), ("PMIX_RANK", "7")]),
            ("srun with PMI-2", 8, &[("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "8"), ("PMI_SIZE", "8")]),
            ("srun of one", 1, &[("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_PROCID", "0")]),
            ("salloc, on the login node", 1, &[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "8")]),
            ("sbatch, in the script", 1, &[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0")]),
            (
                "salloc, in an interactive step",
                1,
                &[("SLURM_STEP_ID", "4294967290"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_NTASKS", "8")],
            ),
            // Its daemons are tasks of a step: one for each node.
            (
                "mpirun under SLURM",
                8,
                &[("OMPI_COMM_WORLD_SIZE", "8"), ("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "2")],
            ),
            (
                "mpirun -n 1 under SLURM",
                1,
                &[("OMPI_COMM_WORLD_SIZE", "1"), ("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "2")],
            ),
            ("mpirun within a step of PMI-2", 2, &[("PMI_SIZE", "4"), ("OMPI_COMM_WORLD_SIZE", "2")]),
        ];
        for (what, ranks, variables) in right {
            assert_eq!(announced(ranks, of(variables)), None, "{what}");
        }
    }

    #[test]
    fn copies_that_did_not_find_each_other_are_refused() {
        let wrong: [(&str, usize, bool, Variables); 9] = [
            ("srun", 4, true, &[("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_PROCID", "0")]),
            ("srun without the step's size", 4, true, &[("SLURM_STEP_ID", "0"), ("SLURM_NTASKS", "4")]),
            ("srun, known by a rank alone", 3, true, &[("SLURM_PROCID", "2")]),
            ("srun --mpi=pmi2", 4, true, &[("SLURM_STEP_ID", "0"), ("PMI_SIZE", "4"), ("PMI_RANK", "1")]),
            (
                "srun --mpi=pmix of another version",
                4,
                true,
                &[("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "4"), ("PMIX_RANK", "0")],
            ),
            ("another mpirun: Open MPI", 4, false, &[("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "0")]),
            ("another mpirun: MPICH or Intel", 2, false, &[("PMI_SIZE", "2"), ("PMI_RANK", "0")]),
            ("another mpirun: MVAPICH", 2, false, &[("MV2_COMM_WORLD_SIZE", "2"), ("MV2_COMM_WORLD_RANK", "1")]),
            ("another mpirun: PMIx", 3, false, &[("PMIX_RANK", "2")]),
        ];
        for (what, ranks, by_srun, variables) in wrong {
            let found = announced(1, of(variables)).map(|found| (found.ranks, found.by_srun));
            assert_eq!(found, Some((ranks, by_srun)), "{what}");
            let error = format!("{:#}", anyhow::Error::from(check(1, of(variables)).unwrap_err()));
            assert!(error.contains("srun --mpi=list") && error.contains(&format!("{ranks} ranks")), "{what}: {error}");
        }
    }

    #[test]
    fn one_of_many_copies_speaks() {
        let speakers: [(bool, Variables); 7] = [
            (true, &[]),
            (true, &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]),
            (false, &[("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "5")]),
            (false, &[("PMI_SIZE", "3"), ("PMI_RANK", "1"), ("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "0")]),
            (true, &[("OMPI_COMM_WORLD_SIZE", "3"), ("OMPI_COMM_WORLD_RANK", "0")]),
            (true, &[("PMIX_RANK", "1")]),
            (false, &[("PMIX_RANK", "2")]),
        ];
        for (wanted, variables) in speakers {
            assert_eq!(speaks(of(variables)), wanted, "{variables:?}");
        }
    }
}
