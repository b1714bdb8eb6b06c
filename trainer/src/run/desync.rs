//! Ranks that drift apart: whether all of them hold the same state, and which tensor of which rank differs.

use anyhow::Result;
use comm::Communicator;
use tch::Tensor;

use crate::model::{Model, Named, cut};
use crate::run::averages::Averages;
use crate::run::fingerprint::fingerprints;
use crate::step::Step;
use crate::system::agreement::Agreed;

/// Makes sure that all ranks hold the same parameters, running statistics, optimizer state, averages and memory of the method, to
/// the bit, after `after` steps.
///
/// # Errors
/// The first tensor that differs and its rank, or a failure of the transport.
pub fn ensure_equal_on_all_ranks(step: &Step, averages: &Averages, ranks: &dyn Communicator, after: u64) -> Result<()> {
    if ranks.world_size() == 1 {
        return Ok(());
    }
    let state = named_state(step, averages);
    let numbers = fingerprints(state.iter().map(|(_, tensor)| tensor))?;
    let whole =
        numbers.iter().fold(0u64, |whole, number| (whole ^ number).wrapping_mul(0x100_0000_01b3).rotate_left(7));
    let all = ranks.gather(&format!("{whole:x}"))?;
    if all.iter().all(|other| *other == all[0]) {
        return Ok(());
    }
    let numbers: Vec<String> = numbers.iter().map(|number| format!("{number:x}")).collect();
    let each = ranks.gather(&numbers.join(" "))?;
    let each: Vec<Vec<&str>> = each.iter().map(|numbers| numbers.split(' ').collect()).collect();
    let names: Vec<&str> = state.iter().map(|(name, _)| name.as_str()).collect();
    let found = difference(&names, &each).unwrap_or("the states of the ranks differ".into());
    let message = format!(
        "{found} after step {after}. The last checkpoint is as it was, and the same command resumes from it. The memory, the \
         devices or the libraries of a rank are at fault: `iad-launch doctor` on the ranks of the job compares them"
    );
    // Every rank has compared the same list.
    Err(Agreed { message, user: false }.into())
}

/// The tensors of a run's state, in words.
fn named_state(step: &Step, averages: &Averages) -> Vec<(String, Tensor)> {
    let student = &step.work.networks.student;
    let mut state = vec![];
    let mut add = |what: &str, name: &str, tensor: &Tensor| {
        state.push((format!("the {what}{name}"), tensor.shallow_clone()));
    };
    for one in step.work.trained() {
        let whose = one.learner.map_or(String::new(), |learner| format!("{learner}'s "));
        let Model { parameters, statistics, .. } = one.model;
        let what = |what: &str| format!("{whose}{what}");
        parameters.iter().for_each(|Named { name, tensor }| add(&what("parameter "), name, tensor));
        statistics.iter().for_each(|Named { name, tensor }| add(&what("running statistic "), name, tensor));
        for (buffer, values) in one.optimizer.buffers() {
            let what = what(&format!("{buffer} of "));
            cut(values, parameters).iter().for_each(|Named { name, tensor }| add(&what, name, tensor));
        }
    }
    let memory = step.work.networks.memory.tensors();
    memory.iter().for_each(|Named { name, tensor }| add("memory of the method, ", name, tensor));
    averages.tensors(student).iter().for_each(|(name, tensor)| add("average ", name, tensor));
    state
}

/// Which rank differs from the majority, and in what first; of two ranks without one, that they differ. `each` are the ranks'
/// numbers of the tensors `names`.
fn difference(names: &[&str], each: &[Vec<&str>]) -> Option<String> {
    let votes = |rank: usize| each.iter().filter(|other| **other == each[rank]).count();
    let most = (0..each.len()).map(votes).max()?;
    let trusted = (0..each.len()).find(|rank| votes(*rank) == most)?;
    // As many may hold another state.
    let majority = most > 1 && (0..each.len()).all(|rank| votes(rank) < most || each[rank] == each[trusted]);
    let differs = |rank: usize, place: usize| each[rank].get(place) != each[trusted].get(place);
    let (place, rank) =
        (0..names.len()).find_map(|place| Some((place, (0..each.len()).find(|rank| differs(*rank, place))?)))?;
    let name = names[place];
    let more = match (place + 1..names.len()).filter(|place| differs(rank, *place)).count() {
        0 => String::new(),
        more => format!(" (and {more} more of the {} tensors)", names.len()),
    };
    Some(if majority {
        format!("{name} of rank {rank} differs from rank {trusted}'s{more}")
    } else {
        format!("{name} differs between ranks {trusted} and {rank}{more}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["the parameter a", "the running statistic b", "the momentum of a"];

    fn found(ranks: &[&str]) -> String {
        let each: Vec<Vec<&str>> = ranks.iter().map(|numbers| numbers.split(' ').collect()).collect();
        difference(&NAMES, &each).unwrap_or_default()
    }

    #[test]
    fn the_majority_decides_who_differs_and_the_first_tensor_is_named() {
        assert_eq!(found(&["1 2 3", "1 2 3"]), "");
        assert_eq!(found(&["1 2 3", "1 2 4", "1 2 3"]), "the momentum of a of rank 1 differs from rank 0's");
        assert_eq!(found(&["7 2 3", "1 2 3", "1 2 3"]), "the parameter a of rank 0 differs from rank 1's");
        assert_eq!(
            found(&["1 2 3", "1 9 9", "1 2 3", "1 2 5"]),
            "the running statistic b of rank 1 differs from rank 0's (and 1 more of the 3 tensors)"
        );
    }

    #[test]
    fn without_a_majority_nobody_is_blamed() {
        assert_eq!(found(&["1 2 3", "1 5 3"]), "the running statistic b differs between ranks 0 and 1");
        assert_eq!(found(&["1 2 3", "1 2 3", "1 2 4", "1 2 4"]), "the momentum of a differs between ranks 0 and 2");
        assert_eq!(found(&["1 2 3", "1 2 4", "1 2 5"]), "the momentum of a differs between ranks 0 and 1");
    }
}
