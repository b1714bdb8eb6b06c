//! A program under way: its processes, its output and its end. A program that hangs is killed.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::Ended;
use crate::program::MARK;

/// Appends all that comes from `source` to `said`.
pub(crate) fn listen(mut source: impl Read + Send + 'static, said: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let said = Arc::clone(said);
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = source.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    })
}

/// Whether a process holds SIGTERM back or handles it: before that, the system ends it as any process it loads.
pub fn holds_requests(process: u32) -> bool {
    masked(process, &["SigBlk:", "SigCgt:"])
}

/// Whether a process handles SIGTERM: its watching thread starts right after.
pub fn handles_requests(process: u32) -> bool {
    masked(process, &["SigCgt:"])
}

/// Whether one of the process's signal masks of these names has SIGTERM.
fn masked(process: u32, names: &[&str]) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mask = |name: &&str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    names.iter().any(|name| mask(name) & 1 << 14 != 0)
}

/// A program under way. Dropping it ends all its processes.
pub struct Running {
    pub(crate) child: Child,
    pub(crate) text: String,
    pub(crate) said: Arc<Mutex<String>>,
    pub(crate) listeners: Vec<JoinHandle<()>>,
    pub(crate) mark: String,
    pub(crate) ends: Instant,
    pub(crate) _files: tempfile::TempDir,
    pub(crate) _turn: Option<MutexGuard<'static, ()>>,
}

impl Running {
    /// Its output so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process that was started: mpirun, or iad-launch itself.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The living processes of this program whose command begins with a file of that name.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        let named = |process: &u32| {
            let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let file = command.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(file).rsplit('/').next() == Some(name)
        };
        self.all_processes().into_iter().filter(named).collect()
    }

    /// The process of a rank, once it has been started by Open MPI.
    pub fn rank(&self, rank: usize) -> Option<u32> {
        let variable = format!("OMPI_COMM_WORLD_RANK={rank}");
        let of_rank = |process: &u32| {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
        };
        self.processes("iad-launch").into_iter().find(of_rank)
    }

    /// Waits until every process is gone.
    ///
    /// # Errors
    /// Some live on after `limit`.
    pub fn gone_within(&self, limit: Duration) -> Result<Duration> {
        let began = Instant::now();
        while !self.all_processes().is_empty() {
            ensure!(began.elapsed() < limit, "processes live on after {limit:?}:\n{}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(began.elapsed())
    }

    /// Every living process that descends from the start of this program.
    pub fn all_processes(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.mark);
        let marked = |process: &u32| {
            // The environment of a process that has ended but was not waited for is empty.
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(marked).collect()
    }

    /// Sends a signal (`TERM`, `KILL`) to some of its processes.
    ///
    /// # Panics
    /// No process receives it, so that a test of a fault cannot pass without the fault.
    #[track_caller]
    pub fn signal(&self, name: &str, processes: &[u32]) {
        assert!(self.try_signal(name, processes), "no process received SIG{name}:\n{}", self.said());
    }

    /// As `signal`, for a program that may have ended. Returns whether any process received it.
    pub fn try_signal(&self, name: &str, processes: &[u32]) -> bool {
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}")).args(processes.iter().map(u32::to_string));
        // `kill` writes a line for each process that it does not reach.
        let missed = |errors: &[u8]| errors.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        kill.stdin(Stdio::null()).output().is_ok_and(|ended| missed(&ended.stderr) < processes.len())
    }

    /// Kills every process at once.
    pub fn kill_all(&mut self) {
        // A process shows no environment in its first moments, so the first one is killed by name.
        let _ = self.child.kill();
        // A process may be starting another one meanwhile.
        loop {
            let processes = self.all_processes();
            if processes.is_empty() {
                return;
            }
            self.try_signal("KILL", &processes);
        }
    }

    /// Waits until `holds`.
    ///
    /// # Errors
    /// The program ends before that, or its time is up.
    pub fn wait_until(&mut self, what: &str, holds: impl Fn() -> bool) -> Result<()> {
        while !holds() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}:\n{}", self.text, self.said());
            }
            self.check_time(what)?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It is not over in time; all its processes are then killed.
    pub fn wait(mut self) -> Result<Ended> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            self.check_time("its end")?;
            thread::sleep(Duration::from_millis(5));
        };
        // The pipes stay open as long as any of its processes live.
        while !self.listeners.iter().all(JoinHandle::is_finished) {
            self.check_time("the end of its ranks")?;
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Ended { code: status.code(), said: self.said(), command: self.text.clone() })
    }

    fn check_time(&self, what: &str) -> Result<()> {
        ensure!(Instant::now() < self.ends, "{}: no sign of {what} in time; it has said:\n{}", self.text, self.said());
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_all();
        let _ = self.child.wait();
    }
}
