//! The variables of the environment that reach the ranks on all nodes.

use std::collections::BTreeSet;

use super::environment::PARENT;

/// NCCL's network, this program's limits, the number of threads, and what CUDA shows.
const FAMILIES: [&str; 4] = ["NCCL_", "IAD_", "OMP_", "CUDA_"];

/// What `mpirun` of Open MPI gets for the variables `names` of this process: `-x NAME` for each of those families. Without it
/// Open MPI passes on its own variables alone to ranks that ssh starts on other nodes.
pub(super) fn exports(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let names: Vec<String> = names.into_iter().collect();
    // Open MPI refuses `-x` beside its own list of variables, which the user then has made.
    if names.iter().any(|name| name == "OMPI_MCA_mca_base_env_list") {
        return vec![];
    }
    let of_a_family = |name: &String| FAMILIES.iter().any(|family| name.starts_with(family));
    let mut chosen: BTreeSet<String> = names.into_iter().filter(of_a_family).collect();
    // `on_ranks` sets these two itself.
    chosen.extend([PARENT, "OMP_NUM_THREADS"].map(String::from));
    chosen.into_iter().flat_map(|name| ["-x".to_string(), name]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(names: &[&str]) -> String {
        exports(names.iter().map(|name| name.to_string())).join(" ")
    }

    #[test]
    fn the_variables_of_nccl_cuda_and_this_program_reach_all_nodes() {
        let names = ["PATH", "NCCL_SOCKET_IFNAME", "CUDA_VISIBLE_DEVICES", "IAD_NCCL_TIMEOUT", "HOME", "XNCCL_DEBUG"];
        let expected =
            "-x CUDA_VISIBLE_DEVICES -x IAD_NCCL_TIMEOUT -x IAD_PARENT -x NCCL_SOCKET_IFNAME -x OMP_NUM_THREADS";
        assert_eq!(exported(&names), expected);
        assert_eq!(exported(&["OMP_NUM_THREADS", "IAD_PARENT"]), "-x IAD_PARENT -x OMP_NUM_THREADS");
    }

    #[test]
    fn a_list_of_the_user_stays_alone() {
        assert_eq!(exported(&["OMPI_MCA_mca_base_env_list", "NCCL_DEBUG"]), "");
    }
}
