//! What ties a process to its parent and to requests to stop, before the program's own code runs and after its parent has gone.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::{CommandExt as _, parent_id};
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};

/// The signals that ask for an orderly stop.
pub const REQUESTS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1];

fn requests() -> SigSet {
    REQUESTS.into_iter().collect()
}

/// Holds requests to stop back until [`release_requests`], and refuses a current folder that is gone.
/// [`hold_requests_from_the_start`](crate::hold_requests_from_the_start) calls it.
#[doc(hidden)]
pub extern "C" fn hold_requests() {
    // A failure leaves the signals as they were.
    let _ = requests().thread_block();
    // oneMKL, which libtorch brings, would end the process with a message about something else.
    if std::env::current_dir().is_err() {
        let text = "iad-launch: error: the current folder is gone; next: change to a folder that exists\n";
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
        std::process::exit(2);
    }
}

/// Lets requests come through that were held back, to the handlers that are installed by now.
pub fn release_requests() {
    let _ = requests().thread_unblock();
}

/// Lets the system loader hold requests to stop back before it initialises the libraries. libtorch alone takes tenths of a
/// second to initialise, and a request that comes meanwhile would end the process. For the root of a program.
#[macro_export]
macro_rules! hold_requests_from_the_start {
    () => {
        // SAFETY: the loader calls the functions of this section once, with one thread and the C library ready; this one
        // uses nothing but the C library.
        #[allow(unsafe_code)]
        #[used]
        #[unsafe(link_section = ".preinit_array")]
        static HOLD_REQUESTS: extern "C" fn() = $crate::hold_requests;
    };
}

/// Lets `command` die with the thread that starts it, and holds requests to stop back from it for good: mpirun would answer
/// them by killing its ranks. They stay pending, where [`pending_request`] finds them.
pub fn tie_to_parent(command: &mut Command) -> &mut Command {
    let parent = std::process::id();
    let tie = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        requests().thread_block()?;
        // The parent may have died before the first line.
        if parent_id() == parent { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: between fork and exec the closure makes three system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(tie) }
}

/// A request to stop that `process` holds back.
pub fn pending_request(process: u32) -> Option<Signal> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    REQUESTS.into_iter().find(|signal| mask & 1 << (*signal as i32 - 1) != 0)
}

/// Wakes this process, if it is stopped, when its parent dies: a stopped process cannot notice that by itself.
pub fn wake_when_orphaned() {
    let _ = set_pdeathsig(Signal::SIGCONT);
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    fn sleeper() -> Child {
        let mut command = Command::new("sleep");
        tie_to_parent(command.arg("60").stdout(Stdio::null())).spawn().unwrap()
    }

    #[test]
    fn a_tied_process_keeps_requests_pending() {
        let mut child = sleeper();
        assert_eq!(pending_request(child.id()), None);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        let began = Instant::now();
        while pending_request(child.id()).is_none() && began.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(pending_request(child.id()), Some(Signal::SIGINT));
        assert!(child.try_wait().unwrap().is_none(), "the request ended it");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_tied_process_dies_with_the_thread_that_started_it() {
        let mut child = thread::spawn(sleeper).join().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    }
}
