//! Removes mpirun's own notices from the output of the ranks, since this program's messages explain the same events.

/// Open MPI's notices on endings that this program reports itself: exit code 85, an error of a rank.
const KNOWN: [&str; 3] =
    ["Primary job  terminated normally", "mpirun detected that one or more", "MPI_ABORT was invoked"];

/// The beginning of the notice of a rank that was killed.
const KILLED: &str = "mpirun noticed that process rank ";

/// The notice on a forwarded request to stop.
const FORWARDED: &str = "mpirun: Forwarding signal ";

/// A longer block is no notice and is passed on.
const LONGEST: usize = 60;

/// Passes lines on, except Open MPI's known notices, which stand between two rules.
#[derive(Default)]
pub(crate) struct Notices {
    notice: Vec<String>,
    killed: Option<String>,
}

impl Notices {
    /// Takes a line and returns those that may be shown now.
    pub(crate) fn line(&mut self, line: String) -> Vec<String> {
        let rule = line.len() >= 70 && line.bytes().all(|byte| byte == b'-');
        if self.notice.is_empty() && !rule {
            return if line.starts_with(FORWARDED) { vec![] } else { vec![line] };
        }
        self.notice.push(line);
        let ends = rule && self.notice.len() > 1;
        if !ends {
            return if self.notice.len() > LONGEST { self.rest() } else { vec![] };
        }
        let first = self.notice[1].clone();
        if let Some(text) = first.strip_prefix(KILLED) {
            self.killed.get_or_insert(killed(text));
        } else if !KNOWN.iter().any(|known| first.starts_with(known)) {
            return self.rest();
        }
        self.notice.clear();
        vec![]
    }

    /// What was held back when the last line has come.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notice)
    }

    /// The rank that was killed, where one was.
    pub(crate) fn killed(&self) -> Option<&str> {
        self.killed.as_deref()
    }
}

/// `1 with PID 7 on node n exited on signal 9 (Killed).` in our words.
fn killed(text: &str) -> String {
    let rank = text.split(' ').next().unwrap_or_default();
    let between = |from: &str, to: &str| Some(text.split_once(from)?.1.split_once(to)?.0);
    match (between(" on node ", " exited"), text.split_once("exited on ")) {
        (Some(host), Some((_, signal))) => {
            format!("rank {rank} on {host} was ended by {}", signal.trim_end_matches('.'))
        }
        _ => format!("rank {}", text.trim_end_matches('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(text: &str) -> (String, Option<String>) {
        let mut notices = Notices::default();
        let mut lines: Vec<String> = text.lines().flat_map(|line| notices.line(line.to_string())).collect();
        lines.extend(notices.rest());
        (lines.join("\n"), notices.killed().map(str::to_string))
    }

    #[test]
    fn a_killed_rank_is_told_and_what_we_say_ourselves_is_not() {
        let rule = "-".repeat(74);
        let text = format!(
            "epoch 1\nmpirun: Forwarding signal 10 to job\n{rule}\nPrimary job  terminated normally, but 1 process returned\na code.\n{rule}\n{rule}\n\
             mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).\n{rule}\nlast"
        );
        let killed = "rank 1 on vm was ended by signal 9 (Killed)".to_string();
        assert_eq!(pass(&text), ("epoch 1\nlast".to_string(), Some(killed)));
    }

    #[test]
    fn everything_else_is_passed_on_in_order() {
        let rule = "-".repeat(74);
        for text in [
            format!("one\n--\ntwo\n{rule}\nThere are not enough slots\n{rule}\nthree"),
            format!("one\n{rule}\nan end that never comes"),
            format!("{rule}\n{}", "line\n".repeat(200).trim_end()),
        ] {
            assert_eq!(pass(&text), (text.clone(), None));
        }
    }
}
