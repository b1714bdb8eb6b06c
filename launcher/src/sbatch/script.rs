//! The text of a job script, by scheduler. All stop the run two minutes before the limit and start it again.

use crate::command::Scheduler;
use crate::exit::STOPPED;

/// Minutes before the limit at which the ranks are told to stop.
const BEFORE: u32 = 2;

/// What a script is made of.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) nodes: u16,
    pub(super) ranks_per_node: u16,
    pub(super) gpus_per_node: u16,
    pub(super) cores: u16,
    /// Minutes.
    pub(super) limit: u32,
    /// Start the ranks with mpirun.
    pub(super) mpirun: bool,
    /// Lines for the scheduler as they are.
    pub(super) lines: Vec<String>,
    /// The program with its arguments, for a shell.
    pub(super) command: String,
    /// The name of the script's file, by which PBS is handed it again.
    pub(super) file: String,
}

impl Job {
    /// The script.
    pub(super) fn text(&self, scheduler: Scheduler) -> String {
        match scheduler {
            Scheduler::Slurm if self.mpirun => self.slurm_with_mpirun(),
            Scheduler::Slurm => self.slurm(),
            Scheduler::Pbs => self.pbs(),
            Scheduler::Lsf => self.lsf(),
        }
    }

    fn ranks(&self) -> u32 {
        u32::from(self.nodes) * u32::from(self.ranks_per_node)
    }

    /// `04:30:00`.
    fn clock(&self) -> String {
        format!("{:02}:{:02}:00", self.limit / 60, self.limit % 60)
    }

    /// The head of a script: these lines and the user's, behind the scheduler's mark.
    fn head(&self, mark: &str, lines: &[String]) -> String {
        let lines = lines.iter().chain(&self.lines).map(|line| format!("{mark} {line}\n"));
        format!("#!/bin/bash\n{}", lines.collect::<String>())
    }

    fn slurm_head(&self, signal: &str) -> String {
        let mut lines = vec![
            format!("--job-name={}", self.name),
            format!("--nodes={}", self.nodes),
            format!("--ntasks-per-node={}", self.ranks_per_node),
            format!("--cpus-per-task={}", self.cores),
            format!("--time={}", self.clock()),
            format!("--signal={signal}@{}", 60 * BEFORE),
            "--requeue".into(),
            "--open-mode=append".into(),
        ];
        if self.gpus_per_node > 0 {
            lines.insert(3, format!("--gpus-per-node={}", self.gpus_per_node));
        }
        self.head("#SBATCH", &lines) + "cd \"$SLURM_SUBMIT_DIR\"\n\n"
    }

    /// srun hands the signal to every rank.
    fn slurm(&self) -> String {
        format!(
            "{}srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=\"$SLURM_CPUS_PER_TASK\" \\\n    {}\ncode=$?\n{}",
            self.slurm_head("USR1"),
            self.command,
            requeue("scontrol requeue \"$SLURM_JOB_ID\"")
        )
    }

    /// The signal goes to the batch shell, which hands it to mpirun.
    fn slurm_with_mpirun(&self) -> String {
        let head = self.slurm_head("B:USR1");
        head + &self.waited_for("trap 'kill -USR1 $job' USR1") + &requeue("scontrol requeue \"$SLURM_JOB_ID\"")
    }

    /// PBS has no signal before the end: the script keeps the time itself.
    fn pbs(&self) -> String {
        let gpus = if self.gpus_per_node > 0 { format!(":ngpus={}", self.gpus_per_node) } else { String::new() };
        let cores = u32::from(self.cores) * u32::from(self.ranks_per_node);
        let lines = [
            format!("-N {}", self.name),
            format!("-l select={}:ncpus={cores}:mpiprocs={}{gpus}", self.nodes, self.ranks_per_node),
            format!("-l walltime={}", self.clock()),
            "-j oe".into(),
        ];
        let seconds = 60 * (self.limit - BEFORE);
        let timer = format!("(sleep {seconds}; kill -USR1 $job) &\ntimer=$!");
        format!(
            "{}cd \"$PBS_O_WORKDIR\"\n\n{}kill $timer 2>/dev/null\n{}",
            self.head("#PBS", &lines),
            self.waited_for(&timer),
            requeue(&format!("qsub {}", self.file))
        )
    }

    /// LSF sends the signal to all processes of the job, the shell among them, and requeues by the code.
    fn lsf(&self) -> String {
        let mut lines = vec![
            format!("-J {}", self.name),
            format!("-n {}", self.ranks()),
            format!("-R \"span[ptile={}]\"", self.ranks_per_node),
            format!("-W {}:{:02}", self.limit / 60, self.limit % 60),
            format!("-wa USR1 -wt {BEFORE}"),
            format!("-Q {STOPPED}"),
        ];
        if self.gpus_per_node > 0 {
            lines.push(format!("-gpu \"num={}\"", self.gpus_per_node));
        }
        format!("{}\n{}exit $code\n", self.head("#BSUB", &lines), self.waited_for("trap : USR1"))
    }

    /// mpirun behind the shell, which waits for it: a signal interrupts the first wait.
    fn waited_for(&self, meanwhile: &str) -> String {
        format!(
            "export OMP_NUM_THREADS={}\nmpirun -n {} --bind-to none {} &\njob=$!\n{meanwhile}\nwait $job; code=$?\nwhile kill -0 \
             $job 2>/dev/null; do wait $job; code=$?; done\n",
            self.cores,
            self.ranks(),
            self.command
        )
    }
}

/// What follows a stop in good order.
fn requeue(again: &str) -> String {
    format!("if [ $code = {STOPPED} ]; then {again}; fi\nexit $code\n")
}

/// A word as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,+@%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            name: "iad1".into(),
            nodes: 2,
            ranks_per_node: 4,
            gpus_per_node: 4,
            cores: 8,
            limit: 270,
            mpirun: false,
            lines: vec!["--partition=gpu".into()],
            command: "iad-launch configs/a.toml".into(),
            file: "iad1.pbs".into(),
        }
    }

    #[test]
    fn slurm_with_srun() {
        assert_eq!(
            job().text(Scheduler::Slurm),
            r#"#!/bin/bash
#SBATCH --job-name=iad1
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:30:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --partition=gpu
cd "$SLURM_SUBMIT_DIR"

srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    iad-launch configs/a.toml
code=$?
if [ $code = 85 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
"#
        );
    }

    #[test]
    fn slurm_with_mpirun() {
        let text = Job { mpirun: true, ..job() }.text(Scheduler::Slurm);
        for part in [
            "#SBATCH --signal=B:USR1@120\n",
            "mpirun -n 8 --bind-to none iad-launch configs/a.toml &\njob=$!\ntrap 'kill -USR1 $job' USR1\nwait $job; code=$?\n",
            "scontrol requeue",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn pbs() {
        let text = job().text(Scheduler::Pbs);
        for part in [
            "#PBS -l select=2:ncpus=32:mpiprocs=4:ngpus=4\n",
            "#PBS -l walltime=04:30:00\n",
            "(sleep 16080; kill -USR1 $job) &\n",
            "if [ $code = 85 ]; then qsub iad1.pbs; fi\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn lsf() {
        let text = Job { gpus_per_node: 0, ..job() }.text(Scheduler::Lsf);
        for part in [
            "#BSUB -n 8\n",
            "#BSUB -R \"span[ptile=4]\"\n",
            "#BSUB -W 4:30\n",
            "-wa USR1 -wt 2",
            "-Q 85",
            "exit $code\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("-gpu"), "{text}");
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        assert_eq!(
            ["a=4/255", "x y", "it's", "[1]", ""].map(quoted),
            ["a=4/255", "'x y'", r"'it'\''s'", "'[1]'", "''"]
        );
    }
}
