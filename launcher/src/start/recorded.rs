//! What a run folder records of the environment: the variables of a list, and no password.
//!
//! A run folder is shown to others. Tokens stand in variables, and passwords in addresses.

use toml::Table;

/// Devices, arithmetic, this program's own variables, the number of ranks, and the job.
const NAMES: [&str; 23] = [
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "IAD_CACHE",
    "IAD_LIVENESS_SECONDS",
    "IAD_MPIRUN",
    "IAD_NCCL_TIMEOUT",
    "IAD_STARTED_AGAIN",
    "LSB_JOBID",
    "MALLOC_ARENA_MAX",
    "MV2_COMM_WORLD_SIZE",
    "NVIDIA_TF32_OVERRIDE",
    "OMPI_COMM_WORLD_SIZE",
    "PBS_JOBID",
    "PMI_SIZE",
    "PYTORCH_CUDA_ALLOC_CONF",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_ID",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES",
    "SLURM_NTASKS",
];

/// The families of OpenMP, of Intel's libraries and of NCCL.
const FAMILIES: [&str; 4] = ["KMP_", "MKL_", "NCCL_", "OMP_"];

/// A name with one of these is no name of these families.
const SECRETS: [&str; 7] = ["AUTH", "CREDENTIAL", "JWT", "KEY", "PASS", "SECRET", "TOKEN"];

/// Those of `variables` that a run folder records.
pub(crate) fn recorded(variables: impl IntoIterator<Item = (String, String)>) -> Table {
    let is_recorded = |name: &str| {
        let of_a_family = FAMILIES.iter().any(|family| name.starts_with(family));
        NAMES.contains(&name) || of_a_family && !SECRETS.iter().any(|secret| name.contains(secret))
    };
    let chosen = variables.into_iter().filter(|(name, _)| is_recorded(name));
    chosen.map(|(name, value)| (name, without_passwords(&value).into())).collect()
}

/// The text with `***` in place of `user:password` in each address `scheme://user:password@host`.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let end = part.find(|next: char| "/?#\"'`,;".contains(next) || next.is_whitespace()).unwrap_or(part.len());
        let host = part[..end].rfind('@');
        shown.push_str("://");
        shown.push_str(host.map_or("", |_| "***"));
        shown.push_str(&part[host.unwrap_or(0)..]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_variables_are_recorded() {
        let given = [
            ("AWS_SECRET_ACCESS_KEY", "a"),
            ("HOME", "b"),
            ("HTTPS_PROXY", "http://user:password@proxy"),
            ("IAD_LIVENESS_SECONDS", "30"),
            ("IAD_TOKEN", "c"),
            ("NCCL_AUTH_TOKEN", "d"),
            ("NCCL_SOCKET_IFNAME", "eth0"),
            ("OMP_NUM_THREADS", "4"),
            ("SLURM_JOB_ID", "77"),
            ("SLURM_JWT", "e"),
            ("XOMP_NUM_THREADS", "f"),
        ];
        let table = recorded(given.map(|(name, value)| (name.to_string(), value.to_string())));
        let names: Vec<&str> = table.keys().map(String::as_str).collect();
        assert_eq!(names, ["IAD_LIVENESS_SECONDS", "NCCL_SOCKET_IFNAME", "OMP_NUM_THREADS", "SLURM_JOB_ID"]);
        assert_eq!(table["NCCL_SOCKET_IFNAME"].as_str(), Some("eth0"));
    }

    #[test]
    fn addresses_lose_their_passwords() {
        for (text, shown) in [
            ("iad-launch run.toml", "iad-launch run.toml"),
            ("a --mirror https://me:p@ss@host/x@y b", "a --mirror https://***@host/x@y b"),
            ("http://host/@", "http://host/@"),
            ("'ftp://me@host','x://a:b@c'", "'ftp://***@host','x://***@c'"),
            ("user@host ://", "user@host ://"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
