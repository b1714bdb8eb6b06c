//! Several ranks on one GPU, for tests of the program.

/// What several ranks on one GPU need of NCCL, which refuses them otherwise: each poses as a host of its own, and they talk
/// through sockets. `one_host`: all ranks are on it.
pub(crate) fn sharing_variables(rank: usize, one_host: bool) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("NCCL_HOSTID", format!("iad-rank-{rank}")),
        ("NCCL_IB_DISABLE", "1".to_string()),
        ("NCCL_MNNVL_ENABLE", "0".to_string()),
        ("NCCL_ALGO", "Ring".to_string()),
        ("NCCL_PROTO", "Simple".to_string()),
    ];
    if one_host && std::env::var_os("NCCL_SOCKET_IFNAME").is_none() {
        variables.push(("NCCL_SOCKET_IFNAME", "lo".to_string()));
    }
    variables
}
