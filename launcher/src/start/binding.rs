//! Which cores the ranks get that this program starts itself.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use super::environment::variable;

/// Variables by which users choose the cores of ranks themselves, and those that give mpirun its hosts.
struct Variables {
    choices: &'static [&'static str],
    hosts: &'static [&'static str],
}

/// Those of Open MPI 4 and 5.
const OPEN_MPI: Variables = Variables {
    choices: &[
        "OMPI_MCA_hwloc_base_binding_policy",
        "OMPI_MCA_rmaps_base_mapping_policy",
        "OMPI_MCA_rmaps_rank_file_path",
        "PRTE_MCA_hwloc_default_binding_policy",
        "PRTE_MCA_rmaps_default_mapping_policy",
    ],
    hosts: &["OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile"],
};

/// Those of Hydra (MPICH), Intel MPI and MVAPICH.
const MPICH: Variables = Variables {
    choices: &[
        "HYDRA_BINDING",
        "HYDRA_MAPPING",
        "I_MPI_PIN",
        "I_MPI_PIN_DOMAIN",
        "I_MPI_PIN_PROCESSOR_LIST",
        "MV2_ENABLE_AFFINITY",
        "MV2_CPU_BINDING_POLICY",
    ],
    hosts: &["HYDRA_HOST_FILE"],
};

/// Variables of schedulers: ranks may start on other hosts than this one, or with fewer slots than cores.
const SCHEDULERS: [&str; 4] = ["SLURM_JOB_ID", "PBS_NODEFILE", "LSB_DJOB_HOSTFILE", "PE_HOSTFILE"];

impl Variables {
    fn of(open_mpi: bool) -> Self {
        if open_mpi { OPEN_MPI } else { MPICH }
    }
}

/// Where the ranks may compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Binding {
    /// Each rank on so many cores of its own, side by side.
    Cores(usize),
    /// Anywhere, for this reason.
    Free(String),
    /// As the user says by this variable.
    Chosen(&'static str),
}

impl Binding {
    /// That of `ranks` ranks on this machine, by Open MPI's mpirun or another.
    pub(super) fn of(ranks: usize, open_mpi: bool) -> Self {
        Self::decide(ranks, &Variables::of(open_mpi), Processors::here(), variable)
    }

    fn decide(
        ranks: usize,
        Variables { choices, hosts }: &Variables,
        processors: Result<Processors, String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let set = |name: &&&'static str| variable(name).is_some();
        if let Some(name) = choices.iter().find(set) {
            return Self::Chosen(name);
        }
        if let Some(name) = hosts.iter().chain(&SCHEDULERS).find(set) {
            return Self::Free(format!("{name} says where ranks start"));
        }
        let Processors { threads, cores } = match processors {
            Ok(processors) => processors,
            Err(reason) => return Self::Free(reason),
        };
        let share = cores / ranks.max(1);
        let asked = variable("OMP_NUM_THREADS").and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or(0);
        match share {
            0 => Self::Free(format!("{ranks} ranks are more than the {cores} cores")),
            _ if threads % cores != 0 => {
                Self::Free(format!("{cores} cores have {threads} hardware threads: some are of another kind"))
            }
            _ if asked > share * (threads / cores) => {
                Self::Free(format!("OMP_NUM_THREADS is {asked}, and each rank's share {share} cores"))
            }
            _ => Self::Cores(share),
        }
    }

    /// What `iad-launch --ranks N` does with the cores of this machine, for people; this is the binding of one rank.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Cores(1) => {
                "`iad-launch --ranks N` binds one rank to the core of this machine, and more to none".into()
            }
            Self::Cores(cores) => {
                format!(
                    "`iad-launch --ranks N` binds each rank to {cores} / N cores of its own, unless OMP_NUM_THREADS asks for more \
                     than they have, and more than {cores} ranks to none"
                )
            }
            Self::Free(reason) => format!("`iad-launch --ranks N` binds no rank to cores: {reason}"),
            Self::Chosen(name) => format!("`iad-launch --ranks N` leaves the binding of ranks to {name}"),
        }
    }

    /// The arguments of mpirun.
    pub(super) fn arguments(&self, open_mpi: bool) -> Vec<String> {
        let words: &[&str] = match (self, open_mpi) {
            (Self::Cores(cores), true) => {
                return vec!["--map-by".into(), format!("slot:PE={cores}"), "--bind-to".into(), "core".into()];
            }
            (Self::Cores(cores), false) => return vec!["--bind-to".into(), format!("core:{cores}")],
            // More ranks than cores are slow, not wrong; a GPU run needs few cores.
            (Self::Free(_), true) => &["--bind-to", "none", "--oversubscribe"],
            (Self::Free(_), false) => &["--bind-to", "none"],
            (Self::Chosen(_), true) => &["--oversubscribe"],
            (Self::Chosen(_), false) => &[],
        };
        words.iter().map(|word| (*word).to_string()).collect()
    }
}

/// The processors of a machine, all of which this process may use.
#[derive(Debug, Clone, Copy)]
struct Processors {
    /// Hardware threads.
    threads: usize,
    /// Cores, which have one or more of them.
    cores: usize,
}

impl Processors {
    /// Those of this machine.
    ///
    /// # Errors
    /// Why this process may not count on all of them. mpirun counts all: two containers would bind their ranks to the same.
    fn here() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|_| format!("{path} cannot be read"));
        let online = numbers(&read("/sys/devices/system/cpu/online")?);
        let status = read("/proc/self/status")?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let usable = thread::available_parallelism().map_or(1, usize::from);
        if !online.is_subset(&numbers(allowed)) || usable < online.len() {
            return Err(format!("this process may use {usable} of {} processors", online.len()));
        }
        let siblings =
            |number: &usize| read(&format!("/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"));
        let cores = online.iter().map(siblings).collect::<Result<BTreeSet<_>, _>>()?;
        Ok(Self { threads: online.len(), cores: cores.len() })
    }
}

/// The numbers of a list such as `0-3,8`.
fn numbers(list: &str) -> BTreeSet<usize> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(part).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(ranks: usize, (threads, cores): (usize, usize), set: &[(&str, &str)]) -> Binding {
        let value = |name: &str| set.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_string());
        Binding::decide(ranks, &OPEN_MPI, Ok(Processors { threads, cores }), value)
    }

    #[test]
    fn each_rank_gets_its_share_of_the_cores_where_they_are_enough() {
        assert_eq!(decided(2, (2, 2), &[]), Binding::Cores(1));
        assert_eq!(decided(8, (128, 64), &[]), Binding::Cores(8));
        assert_eq!(decided(3, (8, 8), &[("OMP_NUM_THREADS", "1")]), Binding::Cores(2));
        // Two threads of a core are counted as threads.
        assert_eq!(decided(8, (128, 64), &[("OMP_NUM_THREADS", "16")]), Binding::Cores(8));
        assert!(matches!(decided(8, (64, 64), &[("OMP_NUM_THREADS", "16")]), Binding::Free(_)));
        // Eight cores with two threads, eight with one.
        assert!(matches!(decided(2, (24, 16), &[]), Binding::Free(_)));
        let Binding::Free(reason) = decided(3, (4, 2), &[]) else { panic!("3 ranks on 2 cores are bound") };
        assert_eq!(reason, "3 ranks are more than the 2 cores");
    }

    #[test]
    fn what_the_user_or_a_scheduler_says_wins() {
        let decided = |family: &Variables, set: &[&str]| {
            let value = |name: &str| set.contains(&name).then(|| "1".to_string());
            Binding::decide(2, family, Ok(Processors { threads: 8, cores: 8 }), value)
        };
        for (family, other) in [(&OPEN_MPI, &MPICH), (&MPICH, &OPEN_MPI)] {
            for name in family.choices {
                assert_eq!(decided(family, &[name, "SLURM_JOB_ID"]), Binding::Chosen(name));
            }
            for name in family.hosts.iter().chain(&SCHEDULERS) {
                let Binding::Free(reason) = decided(family, &[name]) else { panic!("{name}") };
                assert!(reason.contains(name), "{reason}");
            }
            // What another MPI is told says nothing to this one.
            for name in other.choices.iter().chain(other.hosts) {
                assert_eq!(decided(family, &[name]), Binding::Cores(4));
            }
        }
        let part = Err("this process may use 4 of 64 processors".into());
        let part = Binding::decide(2, &OPEN_MPI, part, |_| None);
        assert_eq!(part, Binding::Free("this process may use 4 of 64 processors".into()));
    }

    #[test]
    fn both_launchers_are_told_in_their_words() {
        let said = |binding: &Binding| [true, false].map(|open_mpi| binding.arguments(open_mpi).join(" "));
        assert_eq!(said(&Binding::Cores(4)), ["--map-by slot:PE=4 --bind-to core", "--bind-to core:4"]);
        assert_eq!(said(&Binding::Free(String::new())), ["--bind-to none --oversubscribe", "--bind-to none"]);
        assert_eq!(said(&Binding::Chosen("HYDRA_BINDING")), ["--oversubscribe", ""]);
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(numbers("0-2,8\n"), BTreeSet::from([0, 1, 2, 8]));
        assert_eq!(numbers("5"), BTreeSet::from([5]));
        assert_eq!(numbers(""), BTreeSet::new());
    }
}
