//! Errors that all ranks learn of together, so that none waits for one that has given up.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use comm::Communicator;
use datasets::UserError;

/// An error that every rank has heard of: all may leave in good order, and the leader tells the user.
#[derive(Debug)]
pub struct Agreed {
    /// The message of the lowest rank that failed.
    pub message: String,
    /// Whether it is the user's to mend (exit code 2).
    pub user: bool,
}

impl fmt::Display for Agreed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Agreed {}

/// Whether `error` is a mistake of the user.
pub fn is_user_error(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Agreed>().is_some_and(|agreed| agreed.user) || error.downcast_ref::<UserError>().is_some()
}

/// Returns this rank's value if every rank has one; otherwise every rank gets the error of the lowest that has none.
///
/// # Errors
/// An [`Agreed`] error, or a failure of the transport.
pub fn agree<T>(ranks: &dyn Communicator, result: Result<T>) -> Result<T> {
    let mine = match &result {
        Ok(_) => String::new(),
        Err(error) => format!("{}{error:#}", if is_user_error(error) { 'u' } else { 'e' }),
    };
    let answers = ranks.gather(&mine)?;
    match (answers.iter().enumerate().find(|(_, answer)| !answer.is_empty()), result) {
        (None, result) => result,
        (Some((rank, answer)), _) => {
            let user = answer.starts_with('u');
            let from = if rank == 0 { String::new() } else { format!("rank {rank}: ") };
            Err(Agreed { message: format!("{from}{}", &answer[1..]), user }.into())
        }
    }
}

/// Makes sure that every rank says the same of everything it was asked, by name and value. Ranks that set out with another
/// configuration, program or data would wait for each other for ever, or compute nonsense together.
///
/// # Errors
/// An [`Agreed`] error with the first difference of each rank that differs from rank 0; or a failure of the transport.
pub fn ensure_same(ranks: &dyn Communicator, host: &str, said: &BTreeMap<String, String>) -> Result<()> {
    let all = ranks.gather(&serde_json::to_string(&(host, said))?)?;
    let all: Vec<(String, BTreeMap<String, String>)> =
        all.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?;
    let (_, first) = &all[0];
    let value = |of: &BTreeMap<String, String>, name: &String| of.get(name).cloned().unwrap_or("nothing".into());
    let difference = |other: &BTreeMap<String, String>| {
        let name = first.keys().chain(other.keys()).find(|name| first.get(*name) != other.get(*name))?;
        Some(format!("{name} is {}, on rank 0 {}", value(other, name), value(first, name)))
    };
    let different = all.iter().enumerate().filter_map(|(rank, (host, other))| {
        difference(other).map(|difference| format!("rank {rank} ({host}): {difference}"))
    });
    let different: Vec<String> = different.collect();
    if different.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the ranks do not agree. {}\n  next: give every rank the same program, configuration and files",
        different.join("; ")
    );
    Err(Agreed { message, user: true }.into())
}
