//! The command line as a whole: the subcommands, and `train` if no subcommand is given.

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory as _, Parser, Subcommand};

use super::bench::Bench;
use super::data::Data;
use super::doctor::Doctor;
use super::eval::Eval;
use super::init::Init;
use super::metrics::Metrics;
use super::paper::Paper;
use super::plan::Plan;
use super::replay::Replay;
use super::report::Report;
use super::runs::{Compare, Runs};
use super::sbatch::Sbatch;
use super::settings::{Completions, Config, Man};
use super::train::Train;
use super::weights::Weigh;

/// Trains adversarially robust networks by introspective adversarial distillation, on one or many ranks.
///
/// `iad-launch CONFIG.toml` trains; `mpirun -n 8 iad-launch CONFIG.toml` trains on eight ranks.
#[derive(Debug, Parser)]
#[command(name = "iad-launch", version, max_term_width = 100)]
pub(crate) struct CommandLine {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Show no progress on the terminal: only results, warnings and errors. The logs of a run keep everything.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Print lines instead of the live view on a terminal.
    #[arg(long, global = true)]
    pub(crate) plain: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train the run that a configuration describes, or resume it (the word `train` is optional).
    Train(Train),
    /// Write a commented configuration of your own, and those of its teachers.
    Init(Init),
    /// Estimate the work, traffic, memory, time and disk that a run needs before it starts, and print warnings.
    Plan(Plan),
    /// Check this machine, or under mpirun the machines of a job, and report problems that would stop a run.
    Doctor(Doctor),
    /// Write the script of a job for SLURM, PBS or LSF that is requeued and resumed until the run is done.
    Sbatch(Sbatch),
    /// Evaluate a run's network, a weights file or a TorchScript network under attack on the test images.
    Eval(Eval),
    /// Take a step again that went wrong, as a run kept it, and print what is not finite.
    Replay(Replay),
    /// Import and export PyTorch checkpoints.
    #[command(subcommand)]
    Weights(Weigh),
    /// Create and inspect image containers.
    #[command(subcommand)]
    Data(Data),
    /// Print the results of runs and write an HTML page with their curves.
    Report(Report),
    /// Print the numbers of metrics.jsonl as comma-separated values, or write them for TensorBoard.
    Metrics(Metrics),
    /// List the runs in a folder: state, progress, best numbers and size.
    Runs(Runs),
    /// Show the keys in which runs differ, and their numbers side by side.
    Compare(Compare),
    /// Print a configuration with everything written out, or every key there is.
    Config(Config),
    /// Benchmark this machine and project performance on larger clusters.
    #[command(subcommand)]
    Bench(Bench),
    /// Train the rows of a table of the paper, and compare their results with the published ones.
    Paper(Paper),
    /// Print the completions of a shell: bash, zsh, fish, elvish or powershell.
    Completions(Completions),
    /// Print the manual page of the program, or write those of all commands.
    Man(Man),
    /// Print the number of GPUs that a new process can use.
    #[command(hide = true)]
    CountGpus,
}

/// Inserts `train` if the first argument is a path, or a training option before a path, so that `iad-launch CONFIG`
/// works as typed under mpirun.
pub(crate) fn with_implied_train(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let implied = arguments.get(1).is_some_and(|first| {
        let path = Path::new(first);
        let command = CommandLine::command();
        if command.get_subcommands().any(|known| known.get_name() == first || first == "help") {
            return false;
        }
        let option = first.to_string_lossy().starts_with('-');
        let general = ["-h", "--help", "-V", "--version"].iter().any(|general| first == general);
        option && !general
            || path.extension().is_some_and(|extension| extension == "toml")
            || path.exists()
            || path.components().count() > 1
    });
    if implied {
        arguments.insert(1, "train".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{LaunchArgs, Part};

    fn parse(arguments: &[&str]) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(with_implied_train(arguments.iter().map(OsString::from).collect()))
    }

    #[test]
    fn a_configuration_alone_means_train() {
        let Command::Train(train) =
            parse(&["iad-launch", "a.toml", "--set", "seed=2", "--ranks", "3"]).unwrap().command
        else {
            panic!("not a training");
        };
        assert_eq!((train.config.to_str(), train.launch.ranks), (Some("a.toml"), Some(3)));
        let before = parse(&["iad-launch", "--ranks", "3", "a.toml"]).unwrap().command;
        assert!(matches!(before, Command::Train(Train { launch: LaunchArgs { ranks: Some(3), .. }, .. })));
        assert_eq!((train.overrides[0].key.as_str(), train.overrides[0].value.as_str()), ("seed", "2"));
    }

    #[test]
    fn paths_mean_train_and_commands_do_not() {
        for (first, implied) in [("runs/my", true), ("configs/missing", true), ("eval", false), ("evla", false)] {
            let arguments = with_implied_train(["iad-launch", first].iter().map(OsString::from).collect());
            assert_eq!(arguments[1] == "train", implied, "{first}");
        }
    }

    #[test]
    fn parts_share_the_work() {
        let parts: Vec<Part> = ["1/3", "2/3", "3/3"].iter().map(|text| text.parse().unwrap()).collect();
        for index in 0..7 {
            assert_eq!(parts.iter().filter(|part| part.takes(index)).count(), 1, "{index}");
        }
        for text in ["0/3", "4/3", "1", "1/0", "a/b", "-1/2"] {
            assert!(text.parse::<Part>().is_err(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in
            [&["iad-launch"][..], &["iad-launch", "a.toml", "--ranks", "0"], &["iad-launch", "a.toml", "--set", "x"]]
        {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }
}
