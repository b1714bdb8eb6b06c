//! What the ranks of a job find together: whether they are one job, agree on versions, and have clocks that agree.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use comm::Communicator;

use super::finding::{Finding, error, ok, warning};

/// Seconds that clocks may differ without a word.
const SKEW: f64 = 1.0;

/// The findings of all ranks, on the leader and on the others; `program` tells programs apart.
///
/// # Errors
/// A failure of the transport.
pub(super) fn findings(ranks: &dyn Communicator, program: &str) -> Result<Vec<Finding>> {
    if ranks.world_size() == 1 {
        return Ok(vec![ok("ranks", "one process; start the doctor under mpirun or srun to try a job")]);
    }
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let skew = ranks.align(&clock)?.offset;
    let hosts = ranks.gather(&comm::host_name())?;
    let skews = ranks.gather(&skew.to_string())?;
    let programs = ranks.gather(program)?;
    let skews = skews.iter().zip(&hosts).map(|(skew, host)| (host.as_str(), skew.parse().unwrap_or(0.0)));
    Ok(vec![layout(&hosts), clocks(&skews.collect::<Vec<_>>()), same(&programs, &hosts)])
}

fn layout(hosts: &[String]) -> Finding {
    let mut counts = BTreeMap::<&str, usize>::new();
    hosts.iter().for_each(|host| *counts.entry(host).or_default() += 1);
    let each: Vec<String> = counts.iter().map(|(host, count)| format!("{count} on {host}")).collect();
    let shown = if each.len() > 8 { format!("{}, ...", each[..8].join(", ")) } else { each.join(", ") };
    ok("ranks", format!("{} in one job: {shown}", hosts.len()))
}

fn clocks(skews: &[(&str, f64)]) -> Finding {
    let worst = skews.iter().copied().max_by(|one, other| one.1.abs().total_cmp(&other.1.abs()));
    let (host, skew) = worst.unwrap_or(("", 0.0));
    let text = format!("at most {:.3} s from rank 0's", skew.abs());
    if skew.abs() > SKEW {
        warning(
            "clocks",
            format!("{text}, on {host}"),
            "set the clocks by NTP: times in logs and of files do not agree",
        )
    } else {
        ok("clocks", text)
    }
}

fn same(programs: &[String], hosts: &[String]) -> Finding {
    match programs.iter().position(|program| *program != programs[0]) {
        None => ok("program", format!("{}, the same on every rank", programs[0])),
        Some(other) => error(
            "program",
            format!("{} on {}, {} on {}", programs[0], hosts[0], programs[other], hosts[other]),
            "install the same program and libraries on every node",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn clocks_and_programs_that_differ_are_named_with_their_host() {
        let found = clocks(&[("a", 0.0), ("b", -7.5)]);
        assert!(
            found.level == Level::Warning && found.text.contains("7.500 s") && found.text.contains("on b"),
            "{found:?}"
        );
        assert_eq!(clocks(&[("a", 0.0), ("b", 0.2)]).level, Level::Ok);
        let texts = |texts: [&str; 2]| texts.map(String::from).to_vec();
        assert_eq!(same(&texts(["1", "1"]), &texts(["a", "b"])).level, Level::Ok);
        assert!(same(&texts(["1", "2"]), &texts(["a", "b"])).text.contains("2 on b"));
    }
}
