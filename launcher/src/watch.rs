//! A thread that ends this rank when whoever started it is gone. The rank's own thread may sit in a collective for ever.

use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use signal_hook::low_level::exit;

use crate::console;
use crate::rank_log::RankLog;

/// Tells the ranks which process started their mpirun.
pub(crate) const PARENT: &str = "IAD_PARENT";

/// Watches from now on, before the rank joins, in which it may wait for others too. mpirun, its daemons on other nodes and
/// SLURM's are parents of their ranks. Rank 0 also watches the `iad-launch` that started mpirun, which would go on by itself:
/// mpirun puts that rank on the same node, and ends all others when it ends.
pub(crate) fn start(log: &Arc<RankLog>) {
    let launcher = parent_id();
    let first = comm::launcher_rank() == Some(0);
    let starter = std::env::var(PARENT).ok().map(|starter| PathBuf::from("/proc").join(starter).join("stat"));
    let starter = starter.filter(|starter| first && lives(starter));
    let log = Arc::clone(log);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_millis(100));
            if let Some(signal) = crate::signals::new_request() {
                log.line(&format!("{signal} came"));
            }
            if parent_id() != launcher {
                end(&log, "the process that started this rank (mpirun, or the launcher's daemon on this node) is gone");
            }
            if starter.as_deref().is_some_and(|starter| !lives(starter)) {
                end(&log, "the iad-launch that started these ranks is gone");
            }
        }
    });
}

/// Ends this process as it is: MPI cannot be asked while another thread is in it.
pub(crate) fn end(log: &RankLog, cause: &str) -> ! {
    let text = format!("{cause}; this rank ends, and the same command resumes");
    log.last_words(&text);
    console::error_text(&text);
    exit(1)
}

/// Whether the process of this /proc/PID/stat lives: its state follows the name in brackets, Z for one that is dead and
/// not yet waited for.
fn lives(stat: &Path) -> bool {
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
