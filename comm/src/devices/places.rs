//! Where the ranks compute, in words.

use super::assign::Plan;
use super::found::Found;
use super::plural::plural;

/// One line for each rank: where it computes, and with what.
pub(crate) fn places(found: &[Found], plan: &Plan) -> Vec<String> {
    let place = |(one, gpu): (&Found, &Option<usize>)| {
        let threads = one.threads_among(found);
        format!("{}, cores {}, {threads} thread{}", one.at(*gpu), one.cores.0, plural(threads))
    };
    found.iter().zip(&plan.gpus).map(place).collect()
}

/// What is shown of the places: all of them up to 16, a line for each host above.
pub(crate) fn map(found: &[Found], plan: &Plan) -> Vec<String> {
    if found.len() <= 16 {
        let places = places(found, plan);
        return places.iter().enumerate().map(|(rank, place)| format!("rank {rank} on {place}")).collect();
    }
    let mut hosts: Vec<(&Found, Vec<usize>)> = vec![];
    for (rank, one) in found.iter().enumerate() {
        match hosts.iter_mut().find(|(first, _)| first.is_beside(one)) {
            Some((_, ranks)) => ranks.push(rank),
            None => hosts.push((one, vec![rank])),
        }
    }
    let host = |(first, ranks): (&Found, Vec<usize>)| {
        let mut devices: Vec<String> = vec![];
        for &rank in &ranks {
            let name = plan.gpus[rank].map_or("CPU", |number| found[rank].gpus[number].name.as_str()).to_string();
            if !devices.contains(&name) {
                devices.push(name);
            }
        }
        let threads: usize = ranks.iter().map(|&rank| found[rank].threads_among(found)).sum();
        let word = if ranks.len() == 1 { "rank" } else { "ranks" };
        format!("{word} {} on {}: {}, {threads} threads in all", spans(&ranks), first.host, devices.join(" and "))
    };
    hosts.into_iter().map(host).collect()
}

/// `0-3,8` of 0, 1, 2, 3, 8.
pub(super) fn spans(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|left, right| left + 1 == *right);
    let text = runs.map(|run| match run {
        [one] => one.to_string(),
        run => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    text.collect::<Vec<_>>().join(",")
}
