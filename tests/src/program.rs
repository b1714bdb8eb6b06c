//! Running iad-launch, alone or under mpirun, and ending whatever does not end by itself.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::{Ended, Nodes};

/// Every process of a program carries this variable, by which all are found again, wherever mpirun has put them.
const MARK: &str = "IAD_TEST_PROCESS";

/// One run on several ranks at a time: a machine with two cores has no room for more.
static MPIRUN: Mutex<()> = Mutex::new(());

/// Waits until no run on several ranks is under way in this process, and keeps others out.
fn mpirun_is_free() -> MutexGuard<'static, ()> {
    // A test that failed while holding it leaves nothing behind that could hurt others.
    MPIRUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command to start.
pub struct Program {
    command: Command,
    /// Arguments that follow all others.
    last: Vec<String>,
    many: bool,
    mark: String,
    limit: Duration,
}

impl Program {
    /// iad-launch by itself.
    pub fn alone() -> Self {
        Self::from(Command::new(iad_launch()), false)
    }

    /// iad-launch on one rank without MPI, or by `mpirun -n RANKS`.
    pub fn on(ranks: usize) -> Self {
        if ranks == 1 { Self::alone() } else { Self::under_mpirun(ranks) }
    }

    /// `mpirun -n RANKS iad-launch`.
    pub fn under_mpirun(ranks: usize) -> Self {
        let mut command = Command::new(option_env!("IAD_MPIRUN").unwrap_or("mpirun"));
        command.args(["-n", &ranks.to_string()]).arg(iad_launch());
        Self::from(command, true)
    }

    fn from(mut command: Command, many: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        command.env(MARK, &mark).env("OMP_NUM_THREADS", "1");
        // What Open MPI needs to start more ranks than cores, as root, side by side; other MPIs do not look at it.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.env("OMPI_MCA_rmaps_base_oversubscribe", "1").env("OMPI_MCA_hwloc_base_binding_policy", "none");
        command.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
        // Ranks that wait leave their core to those that work.
        command.env("OMPI_MCA_mpi_yield_when_idle", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        Self { command, last: vec![], many, mark, limit: Duration::from_secs(180) }
    }

    /// Arguments for iad-launch.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// `CONFIG --run RUN`.
    pub fn train(self, config: &Path, run: &Path) -> Self {
        self.args([config.as_os_str(), OsStr::new("--run"), run.as_os_str()])
    }

    /// `mpirun -n RANKS iad-launch`, typed on the first of `nodes`, with `slots` ranks on each of those `on`.
    pub fn on_nodes(nodes: &Nodes, on: &[usize], slots: usize) -> Self {
        let mut command = nodes.enter(on[0]);
        let ranks = (on.len() * slots).to_string();
        command.args([option_env!("IAD_MPIRUN").unwrap_or("mpirun"), "--host", &nodes.hosts(on, slots), "-n", &ranks]);
        command.arg(iad_launch());
        nodes.connect(Self::from(command, true))
    }

    /// `iad-launch` typed on the first of `nodes`; those `on` are what its mpirun finds, as in a scheduler's allocation.
    pub fn alone_on_nodes(nodes: &Nodes, on: &[usize], slots: usize) -> Self {
        let mut command = nodes.enter(on[0]);
        command.arg(iad_launch());
        let program = nodes.connect(Self::from(command, true));
        program.variable("OMPI_MCA_orte_default_hostfile", &nodes.hostfile(on, slots).display().to_string())
    }

    /// One more rank under the same mpirun, with another configuration.
    pub fn and_on_another_rank(mut self, config: &Path, run: &Path) -> Self {
        self.command.args([":", "-n", "1"]).arg(iad_launch());
        self.train(config, run)
    }

    /// `--stop-after-steps STEPS`.
    pub fn stop_after(self, steps: u64) -> Self {
        self.args(["--stop-after-steps".to_string(), steps.to_string()])
    }

    /// `--ranks RANKS`: the program starts mpirun itself.
    pub fn starting_ranks(mut self, ranks: usize) -> Self {
        self.many = true;
        self.last = vec!["--ranks".into(), ranks.to_string()];
        self
    }

    /// `--set KEY=VALUE`.
    pub fn set(self, key: &str, value: impl std::fmt::Display) -> Self {
        self.args(["--set".to_string(), format!("{key}={value}")])
    }

    /// A variable of its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Without a variable that the tests were started with.
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// The folder to start in.
    pub fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// The time after which it counts as hanging.
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The program was not built, or does not start.
    pub fn start(mut self) -> Result<Running> {
        ensure!(
            iad_launch().is_file(),
            "{} is missing: run cargo build --release -p launcher first",
            iad_launch().display()
        );
        let turn = self.many.then(mpirun_is_free);
        self.command.args(&self.last);
        // Killed ranks leave files behind; here they are found and removed.
        let files = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        self.command.env("TMPDIR", files.path()).env("OMPI_MCA_btl_vader_backing_directory", files.path());
        let mut child = self.command.spawn().with_context(|| format!("starting {:?}", self.command))?;
        let said = Arc::<Mutex<String>>::default();
        let output = child.stdout.take().context("piped")?;
        let errors = child.stderr.take().context("piped")?;
        let listeners = vec![listen(output, &said), listen(errors, &said)];
        let text = format!("{:?}", self.command);
        Ok(Running {
            child,
            text,
            said,
            listeners,
            mark: self.mark,
            ends: Instant::now() + self.limit,
            _files: files,
            _turn: turn,
        })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It does not start, or does not end in time.
    pub fn run(self) -> Result<Ended> {
        self.start()?.wait()
    }
}

/// Appends all that comes from `source` to `said`.
fn listen(mut source: impl Read + Send + 'static, said: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let said = Arc::clone(said);
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = source.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    })
}

/// The program that cargo built beside this test.
fn iad_launch() -> PathBuf {
    let test = env::current_exe().unwrap_or_default();
    // A test stands in target/PROFILE/deps, the program in target/PROFILE.
    test.parent().and_then(Path::parent).unwrap_or(Path::new(".")).join("iad-launch")
}

/// A program under way. Dropping it ends all its processes.
pub struct Running {
    child: Child,
    text: String,
    said: Arc<Mutex<String>>,
    listeners: Vec<JoinHandle<()>>,
    mark: String,
    ends: Instant,
    _files: tempfile::TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Running {
    /// What it has printed so far.
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
    pub fn signal(&self, name: &str, processes: &[u32]) {
        if !processes.is_empty() {
            let numbers = processes.iter().map(u32::to_string);
            let _ = Command::new("kill").arg(format!("-{name}")).args(numbers).stderr(Stdio::null()).status();
        }
    }

    /// Kills every process at once.
    pub fn kill_all(&self) {
        self.signal("KILL", &self.all_processes());
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
