//! Errors that all ranks learn of together, so that none waits for one that has left.

use std::fmt;

use anyhow::{Error, Result};

use crate::communicator::Communicator;

/// An error that every rank knows: all may leave in good order, and the leader tells the user.
#[derive(Debug)]
pub struct Agreed {
    /// The message of the lowest rank that failed.
    pub message: String,
    /// Whether the user can correct it (exit code 2).
    pub user: bool,
}

impl fmt::Display for Agreed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Agreed {}

/// Returns this rank's value if every rank has one; otherwise every rank gets the error of the lowest rank that failed.
/// `is_user_error` tells which errors the user can correct.
///
/// # Errors
/// An [`Agreed`] error, or a failure of the transport.
pub fn agree<T>(ranks: &dyn Communicator, result: Result<T>, is_user_error: impl Fn(&Error) -> bool) -> Result<T> {
    let mine = match &result {
        Ok(_) => String::new(),
        Err(error) => format!("{}{error:#}", if is_user_error(error) { 'u' } else { 'e' }),
    };
    let answers = ranks.gather(&mine)?;
    match answers.iter().enumerate().find(|(_, answer)| !answer.is_empty()) {
        None => result,
        Some((rank, answer)) => {
            let user = answer.starts_with('u');
            let from = if rank == 0 { String::new() } else { format!("rank {rank}: ") };
            Err(Agreed { message: format!("{from}{}", &answer[1..]), user }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::single::Single;

    #[test]
    fn an_error_keeps_its_message_and_whose_it_is() {
        assert_eq!(agree(&Single, Ok(3), |_| false).unwrap(), 3);
        for user in [false, true] {
            let error = agree::<()>(&Single, Err(anyhow::anyhow!("no GPU")), |_| user).unwrap_err();
            let agreed = error.downcast::<Agreed>().unwrap();
            assert_eq!((agreed.message.as_str(), agreed.user), ("no GPU", user));
        }
    }
}
