//! The command: every rank looks, the leader prints.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde_json::json;
use trainer::system::files::file_sha256;

use super::finding::{Finding, Level, error};
use super::{libraries, limits, network, processor, ranks, storage};
use crate::command::Doctor;
use crate::console::Out;
use crate::start;

/// Prints what this machine, or the machines of a job, are like. The code is 1 where a run would fail.
///
/// # Errors
/// MPI fails, or the terminal cannot be written to.
pub(crate) fn run(command: &Doctor) -> Result<u8> {
    let copies = if comm::started_by_mpi() { Ok(()) } else { start::check(1, start::variable) };
    if let Err(problem) = copies {
        // Each copy believes that it is alone: one speaks.
        let text = problem.value.clone().unwrap_or_default();
        let found = vec![error("ranks", text, problem.hint.clone().unwrap_or_default())];
        return if start::speaks(start::variable) { print(command, &found) } else { Ok(1) };
    }
    let world = comm::World::join()?;
    let (ranks, hosts) = (world.ranks.as_ref(), world.ranks.gather(&comm::host_name())?);
    let here = hosts.iter().filter(|host| **host == comm::host_name()).count();
    let program = format!("iad-launch {} {}", env!("IAD_COMMIT"), &file_sha256(&std::env::current_exe()?)?[..12]);
    let mut found = ranks::findings(ranks, &program)?;
    let own: Vec<Finding> = libraries::findings()
        .into_iter()
        .chain(processor::findings(here))
        .chain(limits::findings(here))
        .chain(storage::findings(&command.runs))
        .chain([network::finding()])
        .collect();
    let all = ranks.gather(&serde_json::to_string(&own)?)?;
    let all: Vec<Vec<Finding>> = all.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?;
    found.extend(merged(&all, &hosts));
    let code = if ranks.is_leader() { print(command, &found)? } else { u8::from(worst(&found) == Level::Error) };
    ranks.barrier()?;
    Ok(code)
}

/// Findings of several ranks as one list, by subject: the same finding once, with its hosts where others found otherwise.
fn merged(all: &[Vec<Finding>], hosts: &[String]) -> Vec<Finding> {
    let mut merged: Vec<Finding> = vec![];
    for (rank, found) in all.iter().enumerate() {
        for finding in found {
            let place = hosts[rank].clone();
            let same = |other: &&mut Finding| (&other.subject, &other.text) == (&finding.subject, &finding.text);
            match merged.iter_mut().find(same) {
                Some(other) if other.on.contains(&place) => {}
                Some(other) => other.on.push(place),
                None => {
                    let after = merged.iter().rposition(|other| other.subject == finding.subject);
                    let at = after.map_or(merged.len(), |index| index + 1);
                    merged.insert(at, Finding { on: vec![place], ..finding.clone() });
                }
            }
        }
    }
    let subjects: Vec<String> = merged.iter().map(|finding| finding.subject.clone()).collect();
    for finding in &mut merged {
        if subjects.iter().filter(|subject| **subject == finding.subject).count() == 1 {
            finding.on.clear();
        }
    }
    merged
}

fn worst(found: &[Finding]) -> Level {
    found.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

fn print(command: &Doctor, found: &[Finding]) -> Result<u8> {
    let text = if command.json {
        serde_json::to_string_pretty(&json!({ "worst": worst(found), "findings": found }))? + "\n"
    } else {
        found.iter().map(line).collect()
    };
    write!(Out, "{text}").context("writing to the terminal")?;
    Ok(u8::from(worst(found) == Level::Error))
}

fn line(found: &Finding) -> String {
    let on = if found.on.is_empty() { String::new() } else { format!(" [{}]", found.on.join(", ")) };
    let next = found.next.as_ref().map_or(String::new(), |next| format!("\n{:23}next: {next}", ""));
    format!("{:<8} {:<14}{}{on}{next}\n", found.level.word(), found.subject, found.text)
}

#[cfg(test)]
mod tests {
    use super::super::finding::{ok, warning};
    use super::*;

    #[test]
    fn what_all_ranks_find_is_told_once_and_what_differs_with_its_host() {
        let one = vec![ok("gpu", "8"), ok("disk", "1 TB")];
        let other = vec![warning("gpu", "7", "look"), ok("disk", "1 TB")];
        let hosts = ["a", "a", "b"].map(String::from);
        let found = merged(&[one.clone(), one, other], &hosts);
        let shown: Vec<(&str, &str, String)> =
            found.iter().map(|found| (found.subject.as_str(), found.text.as_str(), found.on.join(" "))).collect();
        assert_eq!(shown, [("gpu", "8", "a".into()), ("gpu", "7", "b".into()), ("disk", "1 TB", String::new())]);
        assert_eq!(worst(&found), Level::Warning);
    }
}
