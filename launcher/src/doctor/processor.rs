//! The processor's instructions, and the cores that this process may use.

use std::fs;
use std::thread::available_parallelism;

use super::finding::{Finding, ok, warning};
use crate::start;

/// The findings of this process, one of so many ranks on this host.
pub(super) fn findings(ranks_here: usize) -> Vec<Finding> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, value)| value.trim().to_string())
    };
    let flags = field("flags");
    let flags: Vec<&str> = flags.split(' ').collect();
    let mut found = vec![instructions(&field("model name"), &flags), cores(ranks_here)];
    // Other launchers bind ranks themselves; `cores` shows what they did.
    if !comm::started_by_mpi() {
        found.push(ok("binding", start::binding_in_words()));
    }
    found
}

/// What the instructions mean for `precision`.
fn instructions(model: &str, flags: &[&str]) -> Finding {
    let known = [("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx512_bf16", "AVX-512 BF16"), ("amx_bf16", "AMX")];
    let has = |flag: &str| flags.contains(&flag);
    let names: Vec<&str> = known.iter().filter(|(flag, _)| has(flag)).map(|(_, name)| *name).collect();
    let names = if names.is_empty() { "none of AVX2, AVX-512, AMX".to_string() } else { names.join(", ") };
    let bfloat16 = if has("avx512_bf16") || has("amx_bf16") {
        "precision.dtype = \"bfloat16\" has instructions of its own here"
    } else {
        "precision.dtype = \"bfloat16\" is slower than \"float32\" here"
    };
    let text = format!("{model}: {names}; {bfloat16}");
    if has("avx2") {
        ok("processor", text)
    } else {
        warning("processor", text, "libtorch computes slowly without AVX2: use other nodes, or a GPU")
    }
}

fn cores(ranks_here: usize) -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("?").trim();
    let count = available_parallelism().map_or(1, usize::from);
    let threads = start::variable("OMP_NUM_THREADS");
    let online = fs::read_to_string("/proc/cpuinfo").unwrap_or_default().matches("processor\t:").count().max(count);
    binding(allowed, count, online, ranks_here, threads.as_deref())
}

fn binding(allowed: &str, count: usize, online: usize, ranks_here: usize, threads: Option<&str>) -> Finding {
    let set = threads.map_or("OMP_NUM_THREADS is not set".into(), |threads| format!("OMP_NUM_THREADS is {threads}"));
    let text = format!("{count} of {online} ({allowed}) for this process; {set}");
    let asked = threads.and_then(|threads| threads.trim().parse::<usize>().ok()).unwrap_or(0);
    if count < (online / ranks_here.max(1)).max(1) {
        warning(
            "cores",
            text,
            "mpirun has bound each rank to fewer cores than its share: add --bind-to none, or --cpus-per-task to srun",
        )
    } else if asked > count {
        warning("cores", text, format!("threads wait for each other: set OMP_NUM_THREADS to {count} at most"))
    } else {
        ok("cores", text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn instructions_decide_about_bfloat16() {
        let old = instructions("Old", &["sse2", "avx2"]);
        assert!(old.level == Level::Ok && old.text.contains("slower"), "{old:?}");
        assert!(instructions("New", &["avx2", "avx512f", "avx512_bf16"]).text.contains("of its own"));
        assert_eq!(instructions("Ancient", &["sse2"]).level, Level::Warning);
    }

    #[test]
    fn a_rank_bound_to_a_part_of_its_share_is_warned_of() {
        assert_eq!(binding("0", 1, 8, 2, None).level, Level::Warning);
        assert_eq!(binding("0-7", 8, 8, 2, None).level, Level::Ok);
        assert_eq!(binding("0-1", 2, 2, 2, Some("1")).level, Level::Ok);
        assert_eq!(binding("0-1", 2, 2, 1, Some("8")).level, Level::Warning);
    }
}
