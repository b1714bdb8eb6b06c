//! Errors that all ranks learn together, so that no rank waits for one that has given up.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
pub use comm::Agreed;
use comm::{Communicator, Refusal};
use datasets::UserError;

/// Whether `error` is a mistake of the user.
pub fn is_user_error(error: &anyhow::Error) -> bool {
    let agreed = error.downcast_ref::<Agreed>().is_some_and(|agreed| agreed.user);
    agreed || error.is::<UserError>() || error.is::<Refusal>()
}

/// Returns this rank's value if every rank has one. Otherwise every rank gets the error of the lowest rank that failed.
///
/// # Errors
/// An [`Agreed`] error, or a failure of the transport.
pub fn agree<T>(ranks: &dyn Communicator, result: Result<T>) -> Result<T> {
    comm::agree(ranks, result, is_user_error)
}

/// The number of one rank's differences that are listed.
const SHOWN: usize = 10;

/// Checks that every rank has the same value under every name. Ranks with different configurations, programs or data
/// would wait for each other forever or compute nonsense.
///
/// # Errors
/// An [`Agreed`] error with a line for each difference of a rank from rank 0; or a failure of the transport.
pub fn ensure_same(ranks: &dyn Communicator, host: &str, said: &BTreeMap<String, String>) -> Result<()> {
    let all = ranks.gather(&serde_json::to_string(&(host, said))?)?;
    let all: Vec<(String, BTreeMap<String, String>)> =
        all.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?;
    let (_, first) = &all[0];
    let value = |of: &BTreeMap<String, String>, name: &String| of.get(name).cloned().unwrap_or("nothing".into());
    let mut lines = vec![];
    for (rank, (host, other)) in all.iter().enumerate().skip(1) {
        // Each name once, whether one rank has it or both.
        let names: BTreeSet<&String> = first.keys().chain(other.keys()).collect();
        let mut different: Vec<String> = names
            .into_iter()
            .filter(|name| first.get(*name) != other.get(*name))
            .map(|name| {
                format!("rank {rank} ({host}): {name} is {}, on rank 0 {}", value(other, name), value(first, name))
            })
            .collect();
        let left_out = different.len().saturating_sub(SHOWN);
        different.truncate(SHOWN);
        if left_out > 0 {
            different.push(format!("rank {rank} ({host}): and {left_out} more"));
        }
        lines.extend(different);
    }
    if lines.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the ranks do not agree\n  {}\n  next: give every rank the same program, configuration and files",
        lines.join("\n  ")
    );
    Err(Agreed { message, user: true }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::on_ranks;

    #[test]
    fn each_difference_is_told_with_its_rank_and_host() {
        let of_ranks = on_ranks(3, false, |ranks| {
            let rank = ranks.rank();
            let mut said = BTreeMap::from([("the network".to_string(), "resnet8".to_string())]);
            said.insert("linear.weight".into(), format!("float32 {:?}", [if rank == 1 { 5 } else { 4 }, 64]));
            if rank == 1 {
                said.insert("linear.scale".into(), "float32 [1]".into());
            }
            if rank == 2 {
                said.extend((0..12).map(|number| (format!("layer{number:02}.bias"), "float32 [3]".into())));
            }
            ensure_same(ranks.as_ref(), &format!("node{rank}"), &said).unwrap_err()
        });
        for (error, _) in of_ranks {
            assert!(is_user_error(&error));
            let told: Vec<String> = error.to_string().lines().map(|line| line.trim().to_string()).collect();
            assert_eq!(told.len(), 15, "{told:?}");
            assert_eq!(told[1], "rank 1 (node1): linear.scale is float32 [1], on rank 0 nothing");
            assert_eq!(told[2], "rank 1 (node1): linear.weight is float32 [5, 64], on rank 0 float32 [4, 64]");
            assert_eq!(told[3], "rank 2 (node2): layer00.bias is float32 [3], on rank 0 nothing");
            assert_eq!(told[13], "rank 2 (node2): and 2 more");
        }
    }

    #[test]
    fn ranks_that_say_the_same_agree() {
        let said = BTreeMap::from([("the network".to_string(), "resnet8".to_string())]);
        for (agreed, _) in on_ranks(3, false, |ranks| ensure_same(ranks.as_ref(), "node", &said)) {
            agreed.unwrap();
        }
    }
}
