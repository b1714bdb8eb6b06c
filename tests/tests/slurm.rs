//! The scripts that `iad-launch sbatch` writes, under a real Slurm: stopped before the time limit, requeued, taken away by an
//! administrator, and finished with the bits of an unbroken run. `scripts/check-slurm` starts that Slurm.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::{Images, Program, World, assert_same_run, has_done};

/// Slurm looks at time limits every 30 s, and lets a job that is requeued wait for 10 s (`scripts/check-slurm`).
const LONGEST: Duration = Duration::from_secs(180);

/// What a scheduler's command prints.
fn ask(name: &str, words: &[&str]) -> Result<String> {
    let ended = Command::new(name).args(words).stdin(Stdio::null()).output().with_context(|| name.to_string())?;
    let said = String::from_utf8_lossy(&ended.stdout).trim().to_string();
    ensure!(ended.status.success(), "{name} {words:?}: {said}\n{}", String::from_utf8_lossy(&ended.stderr));
    Ok(said)
}

/// A job in the queue; it is cancelled where a test ends before it.
struct Job {
    number: String,
    output: PathBuf,
}

impl Job {
    /// Has `iad-launch sbatch CONFIG --run RUN` write a script for two ranks, and hands in that file as it is.
    fn submit(world: &World, config: &Path, run: &Path, options: &[&str]) -> Result<Self> {
        ensure!(std::env::var_os("SLURM_CONF").is_some(), "scripts/check-slurm starts these tests");
        let script = world.path("job.slurm");
        let words = [OsStr::new("sbatch"), config.as_os_str(), OsStr::new("--run"), run.as_os_str()];
        let written = Program::alone().args(words).args(["--ranks-per-node", "2", "--cores", "1", "--to"]);
        written.args([&script]).args(options).run()?.expect(0);
        let mut submit = Command::new("sbatch");
        submit.arg("--parsable").arg(&script).current_dir(world.path("")).stdin(Stdio::null());
        submit.env("CUDA_VISIBLE_DEVICES", "-1").env("OMPI_MCA_mpi_yield_when_idle", "1");
        // Ranks are held below for longer than they may be silent.
        let ended = submit.env("IAD_LIVENESS_SECONDS", "0").output()?;
        let number = String::from_utf8_lossy(&ended.stdout).trim().to_string();
        ensure!(ended.status.success() && !number.is_empty(), "{ended:?}");
        Ok(Self { output: world.path(&format!("slurm-{number}.out")), number })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// A field of `scontrol show job`, such as `JobState`.
    fn field(&self, name: &str) -> Result<String> {
        let text = ask("scontrol", &["show", "job", &self.number])?;
        let value = text.split_whitespace().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        Ok(value.with_context(|| format!("{name} in {text}"))?.to_string())
    }

    #[track_caller]
    fn wait_until(&self, what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        while !holds()? {
            let state = self.field("JobState")?;
            ensure!(began.elapsed() < LONGEST, "no {what} of job {}, {state}:\n{}", self.number, self.said());
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn wait_for_restart(&self, count: u32) -> Result<()> {
        self.wait_until("restart", || Ok(self.field("Restarts")? == count.to_string()))
    }

    /// Waits for its end, which is a good one.
    fn finish(&self) -> Result<()> {
        let over = |state: &str| !["PENDING", "RUNNING", "COMPLETING", "CONFIGURING"].contains(&state);
        self.wait_until("end", || Ok(over(&self.field("JobState")?)))?;
        let (state, code) = (self.field("JobState")?, self.field("ExitCode")?);
        ensure!((state.as_str(), code.as_str()) == ("COMPLETED", "0:0"), "{state}, {code}:\n{}", self.said());
        Ok(())
    }

    /// The processes of its ranks.
    fn ranks(&self) -> Vec<u32> {
        let variable = format!("SLURM_JOB_ID={}", self.number);
        let is_rank = |process: &u32| {
            let read = |file: &str| fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
            let of_job = read("environ").split(|byte| *byte == 0).any(|one| one == variable.as_bytes());
            of_job && read("comm") == b"iad-launch\n"
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_rank).collect()
    }

    /// Cuts the time limit and holds the ranks where they are until SIGUSR1 has come: the wait costs no step, and the run
    /// cannot end before it. The limit is long again afterwards.
    fn reach_the_limit(&self) -> Result<()> {
        let ranks = self.ranks();
        ensure!(ranks.len() == 2, "ranks {ranks:?} of job {}:\n{}", self.number, self.said());
        signal("STOP", &ranks);
        // A minute from the start of the job: less than the two of `--signal`, so the signal is due.
        let limited = |minutes| ask("scontrol", &["update", &format!("JobId={}", self.number), minutes]);
        limited("TimeLimit=1")?;
        // mpirun hands it to ranks that stay held, where it is pending; Slurm also lets them go on.
        self.wait_until("signal before the limit", || Ok(!ranks.iter().any(|rank| is_held_untold(*rank))))?;
        signal("CONT", &ranks);
        // A job that is just ending takes no change.
        self.wait_until("longer limit", || Ok(limited("TimeLimit=30").is_ok()))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // One that is over needs no cancelling.
        let _ = ask("scancel", &["--quiet", &self.number]);
    }
}

/// Sends a signal to those that there still are.
fn signal(name: &str, processes: &[u32]) {
    let numbers = processes.iter().map(u32::to_string);
    let _ = Command::new("kill").arg(format!("-{name}")).args(numbers).stdin(Stdio::null()).output();
}

/// Whether a process is stopped and has not got SIGUSR1.
fn is_held_untold(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let is_told = |line: &str| {
        let mask = line.strip_prefix("ShdPnd:").or_else(|| line.strip_prefix("SigPnd:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 << 9 != 0)
    };
    status.lines().any(|line| line.starts_with("State:\tT")) && !status.lines().any(is_told)
}

fn config(world: &World, epochs: &str) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    world.config("config", &data, &[("epochs", epochs)])
}

/// Steps recorded so far.
fn steps(run: &Path) -> u64 {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    metrics.lines().filter(|line| line.contains("\"event\":\"step\"")).count() as u64
}

#[test]
#[ignore = "needs a Slurm: scripts/check-slurm"]
fn a_job_of_srun_is_stopped_before_its_limit_and_taken_away_and_ends_as_an_unbroken_run() -> Result<()> {
    let world = World::new()?;
    let (config, whole, run) = (config(&world, "60")?, world.run("whole"), world.run("job"));
    let job = Job::submit(&world, &config, &run, &[])?;
    job.wait_until("third step", || Ok(has_done(&run, 3)))?;
    job.reach_the_limit()?;
    job.wait_for_restart(1)?;
    assert!(job.said().contains("the same command goes on from here"), "{}", job.said());
    let before = steps(&run);
    assert!((3..360).contains(&before), "{before} steps before the limit");
    Program::under_mpirun(2).train(&config, &whole).run()?.expect(0);

    // An administrator, or a job of higher priority: SIGTERM to all of the job's processes, and SIGKILL later.
    job.wait_until("more steps", || Ok(has_done(&run, before + 3)))?;
    ask("scontrol", &["requeue", &job.number])?;
    job.wait_for_restart(2)?;
    job.finish()?;
    assert_eq!(job.said().matches("going on from step").count(), 2, "{}", job.said());
    assert_same_run(&whole, &run, "a job in three parts")
}

#[test]
#[ignore = "needs a Slurm: scripts/check-slurm"]
fn a_job_of_mpirun_with_two_seeds_is_stopped_before_its_limit_and_ends_as_an_unbroken_run() -> Result<()> {
    let world = World::new()?;
    let (config, whole, run) = (config(&world, "20")?, world.run("whole"), world.run("job"));
    let seeds = ["--seeds", "3,4"];
    let job = Job::submit(&world, &config, &run, &[&seeds[..], &["--mpirun"]].concat())?;
    job.wait_until("third step", || Ok(has_done(&run.join("seed-3"), 3)))?;
    // Slurm tells the shell, the shell mpirun, and mpirun its ranks.
    job.reach_the_limit()?;
    job.wait_for_restart(1)?;
    assert!(!run.join("seed-4").exists(), "the first seed was done before the limit:\n{}", job.said());
    Program::under_mpirun(2).train(&config, &whole).args(seeds).run()?.expect(0);
    job.finish()?;
    let said = job.said();
    assert!(said.contains("going on from step") && said.contains("2 (3, 4)"), "{said}");
    ["seed-3", "seed-4"].iter().try_for_each(|seed| assert_same_run(&whole.join(seed), &run.join(seed), seed))
}
