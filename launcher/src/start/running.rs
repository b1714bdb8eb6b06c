//! An mpirun under way: its output, requests to stop, and its end, by force where it does not end by itself.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::control::{CONTROL, Control};
use super::deadline::Deadline;
use super::environment::{AGAIN, liveness};
use super::leftovers::{GRACE, end_leftovers, is_stopped, kill_ranks, stopped_rank};
use super::mpirun::{not_started, on_ranks};
use super::notices::Notices;
use super::signals::{Request, Requests, request_stop, stop_requested};
use crate::console::{error_text, say};
use crate::exit::STOPPED;

/// The time between two looks at mpirun.
const LOOK: Duration = Duration::from_millis(50);

/// mpirun ends so soon after its ranks were killed.
const AFTER_RANKS: Duration = Duration::from_secs(3);

/// mpirun ends so soon after the ranks have said that they end.
const AFTER_END: Duration = Duration::from_secs(30);

/// The time between two looks at the ranks of this node.
const LOOK_AT_RANKS: Duration = Duration::from_secs(1);

/// A stopped rank is ended so long after rank 0 should have reported it: before its first heartbeat and after its last, no
/// rank misses it.
const UNREPORTED: Duration = Duration::from_secs(5);

/// An mpirun under way.
pub(super) struct Running {
    mpirun: Child,
    control: Control,
    /// At the end of its stderr: the rank that mpirun says was killed.
    killed: Receiver<Option<String>>,
}

impl Running {
    /// Starts this same command on `ranks` ranks; `again`: after a failure.
    ///
    /// # Errors
    /// There is no mpirun.
    pub(super) fn start(ranks: usize, again: bool, deadline: Option<Deadline>) -> Result<Self> {
        let control = Control::open()?;
        let mut command = on_ranks(ranks, std::env::args_os().skip(1))?;
        command.env(CONTROL, control.address()?).envs(again.then_some((AGAIN, "1")));
        command.envs(deadline.map(Deadline::variable));
        command.stderr(Stdio::piped());
        // A group of its own: Ctrl-C reaches this process alone, which asks the ranks to stop.
        comm::tie_to_parent(command.process_group(0));
        let mut mpirun = command.spawn().with_context(not_started)?;
        let (sender, killed) = channel();
        if let Some(stderr) = mpirun.stderr.take() {
            thread::spawn(move || drop(sender.send(pass_on(stderr))));
        }
        Ok(Self { mpirun, control, killed })
    }

    /// Waits for its end and passes requests to stop on. Returns this run's exit code, and how it ended in words. None of its
    /// processes on this node is left.
    ///
    /// # Errors
    /// The system does not tell of mpirun.
    pub(super) fn watch(mut self) -> Result<(u8, String)> {
        let mut requests = Requests::default();
        let (mut asked, mut over, mut stopped) = (Since::default(), Since::default(), Since::default());
        let (mut looked, mut rank, mut rank_stopped) = (Instant::now(), None, Since::default());
        loop {
            self.control.listen(LOOK);
            // mpirun holds requests back; they are meant for this run.
            let signal = match requests.take() {
                Some(Request::Force(signal)) => {
                    let late = self.late();
                    return self.force(&format!("{signal} came again: {late}"));
                }
                Some(Request::Stop(signal)) => Some(signal),
                None => comm::pending_request(self.mpirun.id()),
            };
            if let Some(signal) = signal.filter(|_| asked.0.is_none()) {
                say(&format!("{signal}: stopping after the step under way"));
                request_stop();
                self.control.stop();
            }
            if let Some(status) = self.mpirun.try_wait().context("waiting for mpirun")? {
                return Ok(self.end(status));
            }
            let patience = self.control.patience();
            if asked.lasts(stop_requested()) > patience {
                let (patience, late) = (patience.as_secs(), self.late());
                return self.force(&format!("no answer to the request to stop within {patience} s: {late}"));
            }
            let ended = self.control.code().is_some();
            if over.lasts(ended) > AFTER_END {
                return self.force("mpirun does not end");
            }
            let Some(limit) = liveness() else { continue };
            if stopped.lasts(is_stopped(self.mpirun.id())) > limit {
                return self.force("mpirun is stopped (SIGSTOP)");
            }
            if looked.elapsed() > LOOK_AT_RANKS {
                (looked, rank) = (Instant::now(), stopped_rank(self.mpirun.id(), ended));
            }
            if rank_stopped.lasts(rank.is_some()) > limit + UNREPORTED {
                return self.force(&rank.unwrap_or_default());
            }
        }
    }

    /// Which ranks keep the others waiting, in words.
    fn late(&self) -> String {
        format!("{} did not answer", self.control.late().join(", "))
    }

    /// Ends everything at once.
    fn force(mut self, cause: &str) -> Result<(u8, String)> {
        // The ranks first: mpirun then ends those on other nodes.
        kill_ranks(self.mpirun.id());
        let began = Instant::now();
        while self.mpirun.try_wait().context("waiting for mpirun")?.is_none() && began.elapsed() < AFTER_RANKS {
            thread::sleep(LOOK);
        }
        let _ = self.mpirun.kill();
        self.mpirun.wait().context("waiting for mpirun")?;
        end_leftovers(Duration::ZERO);
        if let Some(code) = self.control.code() {
            return Ok((code, "the ranks had ended".into()));
        }
        if stop_requested() && !self.control.begun() {
            return Ok(stopped_early());
        }
        let how = format!("{cause}; everything was ended by force, and the last checkpoint stays");
        error_text(&how);
        Ok((1, how))
    }

    /// Once mpirun has ended.
    fn end(self, status: ExitStatus) -> (u8, String) {
        let killed = self.killed.recv_timeout(Duration::from_secs(1)).ok().flatten();
        if let Some(code) = self.control.code() {
            return (code, format!("the ranks ended with exit code {code}"));
        }
        let code = status.code().map_or(1, passed_on);
        if code == 1 {
            end_leftovers(GRACE);
        }
        // A request that came while the system loaded a rank ends it, and nothing is lost.
        let ended_by_request = killed.as_deref().is_some_and(|killed| {
            comm::REQUESTS.iter().any(|request| killed.contains(&format!("signal {} (", *request as i32)))
        });
        if code == 1 && (stop_requested() || ended_by_request) && !self.control.begun() {
            return stopped_early();
        }
        let how = match (killed, status.signal()) {
            (Some(rank), _) => rank,
            (None, Some(signal)) => format!("mpirun was killed by signal {signal}"),
            (None, None) => {
                return (code, format!("the ranks failed (mpirun's exit code is {})", status.code().unwrap_or(1)));
            }
        };
        error_text(&how);
        (code, how)
    }
}

/// The time since when something holds.
#[derive(Default)]
struct Since(Option<Instant>);

impl Since {
    /// How long it has held, where it `holds` now.
    fn lasts(&mut self, holds: bool) -> Duration {
        let since = holds.then(|| self.0.unwrap_or_else(Instant::now));
        self.0 = since;
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

fn stopped_early() -> (u8, String) {
    say("stopped before training began; the same command goes on from here");
    (STOPPED, "a request to stop before training began".into())
}

/// Passes on the output of the ranks, and returns the rank that mpirun reports as killed.
fn pass_on(stderr: ChildStderr) -> Option<String> {
    let mut notices = Notices::default();
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        notices.line(String::from_utf8_lossy(&line).into_owned()).iter().for_each(|line| say(line));
    }
    notices.rest().iter().for_each(|line| say(line));
    notices.killed().map(str::to_string)
}

/// Exit codes of this program are passed on; mpirun's codes for killed ranks count as a failed run.
fn passed_on(code: i32) -> u8 {
    u8::try_from(code).ok().filter(|code| [0, 2, STOPPED].contains(code)).unwrap_or(1)
}
