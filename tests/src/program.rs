//! Starting iad-launch: alone, under mpirun, or on several nodes.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::running::listen;
use crate::{Ended, Nodes, Running};

/// Every process of a program carries this variable, by which all are found again, wherever mpirun has put them.
pub(crate) const MARK: &str = "IAD_TEST_PROCESS";

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

    /// A program that was built elsewhere, by itself.
    pub fn of(program: &Path) -> Self {
        // Cargo tells the tests of the mpirun of this build.
        Self::from(Command::new(program), false).without("IAD_MPIRUN")
    }

    /// A program that was built elsewhere, by any MPI's `mpirun -n RANKS`.
    pub fn of_by(program: &Path, mpirun: &str, ranks: usize) -> Self {
        let mut command = Command::new(mpirun);
        command.args(["-n", &ranks.to_string()]).arg(program);
        Self::from(command, true).without("IAD_MPIRUN")
    }

    /// A program of the system, which starts iad-launch.
    pub fn other(name: &str) -> Self {
        Self::from(Command::new(name), false)
    }

    /// iad-launch by itself, with no file larger than so many KiB: the rest of a write is refused, as on a full disk.
    pub fn with_files_up_to(kib: u64) -> Self {
        let mut command = Command::new("bash");
        command.args(["-c", r#"trap '' XFSZ; ulimit -f "$0"; exec "$@""#, &kib.to_string()]).arg(iad_launch());
        Self::from(command, false)
    }

    fn from(mut command: Command, many: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        command.env(MARK, &mark).env("OMP_NUM_THREADS", "1");
        // These tests compare runs on the CPU. A machine's GPUs must not change the number of ranks or the arithmetic;
        // trainer/tests/gpu and scripts/gpu-check are the tests on GPUs.
        command.env("CUDA_VISIBLE_DEVICES", "-1");
        // With these, Open MPI starts more ranks than cores, as root, side by side. Other MPIs ignore them.
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

    /// The same in another folder.
    pub fn and_on_another_rank_within(mut self, folder: &Path, config: &Path, run: &Path) -> Self {
        self.command.args([":", "-n", "1", "-wdir"]).arg(folder).arg(iad_launch());
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

/// The program that cargo built beside this test.
fn iad_launch() -> PathBuf {
    let test = env::current_exe().unwrap_or_default();
    // A test lies in target/PROFILE/deps, the program in target/PROFILE.
    test.parent().and_then(Path::parent).unwrap_or(Path::new(".")).join("iad-launch")
}
