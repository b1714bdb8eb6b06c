//! A thread that tells the launcher what this rank is doing, hears its requests to stop, and ends this rank when the process
//! that started it is gone. The rank's own thread may block in a collective.

use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::low_level::exit;
use trainer::system::Activity;

use super::beat::{Beat, does_not_go_on, report};
use super::control::{Answer, Line};
use super::deadline::Deadline;
use super::environment::PARENT;
use super::signals::{Request, Requests, request_stop, stop_requested};
use super::watchdog::exceeded;
use crate::console::{self, RankLog};

/// How often a rank tells the launcher what it is doing.
const BEAT: Duration = Duration::from_millis(250);

/// Who looks around this often has not been stopped meanwhile.
const AWAKE: Duration = Duration::from_secs(1);

/// A rank that hangs ends itself so long after rank 0 should have done so.
const UNHEARD: Duration = Duration::from_secs(4);

static ACTIVITY: LazyLock<Activity> = LazyLock::new(Activity::default);

/// What this process is doing.
pub(crate) fn activity() -> Activity {
    ACTIVITY.clone()
}

/// Starts to watch before the rank joins, since joining may block too. mpirun, its daemons on other nodes and
/// SLURM's are parents of their ranks. An `iad-launch` that started mpirun takes mpirun with it when it dies. Rank 0 watches it
/// as well, for other MPIs: mpirun puts that rank on the same node, and ends all others when it ends.
pub(crate) fn start(log: &Arc<RankLog>, deadline: Option<Deadline>) {
    let log = Arc::clone(log);
    let rank = comm::launcher_rank();
    let parents = rank.map(Parents::new);
    let mut line = Line::of_environment().filter(|_| rank.is_some());
    thread::spawn(move || {
        let (mut requests, mut beaten, mut looked) = (Requests::default(), None, Instant::now());
        loop {
            let slept = looked.elapsed().saturating_sub(AWAKE);
            looked = Instant::now();
            if !slept.is_zero() {
                activity().slept(slept);
            }
            match &mut line {
                None => thread::sleep(Duration::from_millis(100)),
                Some(line) => {
                    if beaten.is_none_or(|beaten: Instant| beaten.elapsed() >= BEAT) {
                        line.send(&Beat::of(rank.unwrap_or(0), &activity().look(), None));
                        beaten = Some(Instant::now());
                    }
                    if line.receive(Duration::from_millis(100)) == Some(Answer::Stop) && !stop_requested() {
                        log.line("the iad-launch that started this rank asks to stop");
                        request_stop();
                    }
                }
            }
            // Rank 0 reports on all ranks, unless no datagram of it comes through.
            let doing = activity().look();
            let grace = rank.map_or(Duration::ZERO, |rank| UNHEARD + Duration::from_secs(rank as u64));
            if let Some(budget) = exceeded(&doing).filter(|budget| doing.lasts > *budget + grace) {
                let beat = Beat::of(rank.unwrap_or(0), &doing, None);
                give_up(&log, &report(&does_not_go_on(&beat, budget), &[(beat, Duration::ZERO)]));
            }
            if !stop_requested() && deadline.is_some_and(|deadline| deadline.is_near(&activity())) {
                let text = "the time limit is near: stopping after the step under way";
                log.line(text);
                if rank.unwrap_or(0) == 0 {
                    console::say(text);
                }
                request_stop();
            }
            match requests.take() {
                Some(Request::Stop(signal)) => log.line(&format!("{signal} came")),
                Some(Request::Force(signal)) => end(&log, &format!("{signal} came again")),
                None => {}
            }
            if let Some(cause) = parents.as_ref().and_then(Parents::gone) {
                end(&log, cause);
            }
        }
    });
}

/// The processes that a rank must not outlive.
struct Parents {
    launcher: u32,
    /// The /proc/PID/stat of the iad-launch that started mpirun.
    starter: Option<PathBuf>,
}

impl Parents {
    fn new(rank: usize) -> Self {
        comm::wake_when_orphaned();
        let starter = std::env::var(PARENT).ok().map(|starter| PathBuf::from("/proc").join(starter).join("stat"));
        Self { launcher: parent_id(), starter: starter.filter(|starter| rank == 0 && lives(starter)) }
    }

    /// Which of them is gone, in words.
    fn gone(&self) -> Option<&'static str> {
        if self.starter.as_deref().is_some_and(|starter| !lives(starter)) {
            return Some("the iad-launch that started these ranks is gone");
        }
        let cause = "the process that started this rank (mpirun, or the launcher's daemon on this node) is gone";
        (parent_id() != self.launcher).then_some(cause)
    }
}

/// Ends this process at once: MPI cannot be called while another thread is inside it.
fn end(log: &RankLog, cause: &str) -> ! {
    give_up(log, &format!("{cause}; this rank ends, and the same command resumes"))
}

/// Tells the user and ends this process at once.
pub(super) fn give_up(log: &RankLog, text: &str) -> ! {
    log.last_words(text);
    console::error_text(text);
    exit(1)
}

/// Whether the process of this /proc/PID/stat lives: its state follows the name in brackets, Z for one that is dead and
/// not yet waited for.
fn lives(stat: &Path) -> bool {
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
