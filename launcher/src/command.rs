//! The command line. No option mirrors a configuration key: `--set` changes those.

mod bench;
mod paper;
mod weigh;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use trainer::config::{Override, Pixels};

pub(crate) use self::bench::{Bench, BenchStep, Mode, Project, Scaling, Sums};
pub(crate) use self::paper::{Paper, Part};
pub(crate) use self::weigh::Weigh;

/// Trains adversarially robust networks by introspective adversarial distillation, on one or many ranks.
///
/// `iad-launch CONFIG.toml` trains; `mpirun -n 8 iad-launch CONFIG.toml` trains on eight ranks.
#[derive(Debug, Parser)]
#[command(name = "iad-launch", version, max_term_width = 100)]
pub(crate) struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train what a configuration describes, or go on where it left off (`train` may be left out).
    Train(Train),
    /// Attack a run's network, or a file of weights, on the test images.
    Eval(Eval),
    /// Read checkpoints of PyTorch, and write them.
    #[command(subcommand)]
    Weights(Weigh),
    /// Make and inspect image containers.
    #[command(subcommand)]
    Data(Data),
    /// Print the results of runs and write a page with their curves.
    Report(Report),
    /// Measure this machine, and foretell others.
    #[command(subcommand)]
    Bench(Bench),
    /// Train the rows of a table of the paper, and print their numbers beside the published ones.
    Paper(Paper),
    /// Print how many GPUs a process that starts now can use.
    #[command(hide = true)]
    CountGpus,
}

/// Where a command computes.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// Start this many ranks (default: one per visible GPU, or one on a CPU). Not under mpirun, which decides itself.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ranks: Option<u16>,
    /// Which devices to compute on.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
    /// Start the ranks again after a failure, up to N times, from the newest checkpoint and on the GPUs that are left.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_restarts: u32,
}

/// Which devices to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceChoice {
    /// GPUs where there are any, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
}

impl DeviceChoice {
    /// The same for the ranks.
    pub(crate) fn compute(self) -> comm::Compute {
        match self {
            DeviceChoice::Auto => comm::Compute::Auto,
            DeviceChoice::Cpu => comm::Compute::Cpu,
        }
    }
}

/// `iad-launch [train] CONFIG`
#[derive(Debug, Args)]
pub(crate) struct Train {
    /// The configuration of the run.
    pub(crate) config: PathBuf,
    /// The run folder (default: runs/ and the configuration's name).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) run: Option<PathBuf>,
    /// Change a key of the configuration, as in --set optimizer.lr=0.05; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Train missing teachers first, by the configurations that teachers.NAME.config name.
    #[arg(long)]
    pub(crate) with_teachers: bool,
    /// Stop, resumably, once the run has done this many steps.
    #[arg(long, value_name = "STEPS")]
    pub(crate) stop_after_steps: Option<u64>,
    /// Trace the first steps of this session (20, or as many) on all ranks, into the run folder's trace-STEP.json, for
    /// chrome://tracing or ui.perfetto.dev.
    #[arg(long, value_name = "STEPS", num_args = 0..=1, require_equals = true, default_missing_value = "20",
        value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) trace: Option<u64>,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) place: Where,
}

/// `iad-launch eval RUN_OR_WEIGHTS`
#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// The run folder, or a file of weights (with --data).
    #[arg(value_name = "RUN_OR_WEIGHTS")]
    pub(crate) run: PathBuf,
    /// Which weights: best, final, latest (the newest checkpoint), ema or swa; by default the first of these that there is.
    #[arg(long, value_enum)]
    pub(crate) weights: Option<Weights>,
    /// The attacks, separated by commas: natural, fgsm, fgsm_rs, pgdN, cw_inf, apgd_ce, apgd_t, fab_t, square, autoattack or
    /// paper (default: those of the run's configuration).
    #[arg(long, value_name = "ATTACKS", value_delimiter = ',')]
    pub(crate) suite: Option<Vec<String>>,
    /// Only the first images of the test set.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) images: Option<u32>,
    /// Another container with a test split.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Another radius of the ball, as in 4/255.
    #[arg(long, value_name = "LENGTH")]
    pub(crate) eps: Option<Pixels>,
    /// Another number of rows of a batch, a multiple of 16.
    #[arg(long, value_name = "ROWS")]
    pub(crate) batch: Option<usize>,
    /// Another seed of the attacks.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// The folder for the results (default: the run folder, or that of the weights).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Also write the table to this file.
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) csv: Option<PathBuf>,
    /// Also keep an adversarial image of every image.
    #[arg(long, value_name = "FILE.h5")]
    pub(crate) save_adversarial: Option<PathBuf>,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) place: Where,
}

/// Which weights of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weights {
    /// The best by the run's selection.
    Best,
    /// Those after the last epoch.
    Final,
    /// Those of the newest checkpoint.
    Latest,
    /// The moving average over steps.
    Ema,
    /// The mean over epochs.
    Swa,
}

/// `iad-launch data ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// Download a published data set, compare it with its checksums, and turn it into one container.
    Fetch {
        /// The data set: cifar10, cifar100, tiny-imagenet or fashion-mnist.
        dataset: String,
        /// The container to make; never overwritten (default: data/DATASET.h5).
        #[arg(long, value_name = "FILE.h5")]
        to: Option<PathBuf>,
        /// Look for the files here by their names, instead of at their official addresses.
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Where downloads are kept (default: downloads in $IAD_CACHE or ~/.cache/iad).
        #[arg(long, value_name = "FOLDER")]
        cache: Option<PathBuf>,
        /// How images lie in the container.
        #[command(flatten)]
        layout: LayoutOptions,
    },
    /// Turn the files of a data set into one container.
    Import {
        /// What to read: cifar10, cifar100, tiny-imagenet, fashion-mnist, mnist, image-folder or npz.
        dataset: String,
        /// Its folder, or the archive as it was downloaded.
        #[arg(long, value_name = "PATH")]
        from: PathBuf,
        /// The container to make; never overwritten.
        #[arg(long, value_name = "FILE.h5")]
        to: PathBuf,
        /// How images lie in the container.
        #[command(flatten)]
        layout: LayoutOptions,
    },
    /// Say what a container holds.
    Info {
        /// The container.
        file: PathBuf,
        /// Also draw the first images of each class, with its name.
        #[arg(long, value_name = "FILE.png")]
        sheet: Option<PathBuf>,
    },
    /// Compare everything in a container with its checksums.
    Verify {
        /// The container.
        file: PathBuf,
    },
}

/// How images lie in a container.
#[derive(Debug, Args)]
pub(crate) struct LayoutOptions {
    /// Store images in chunks of this many, to be read piece by piece; in one piece otherwise, which ranks share.
    #[arg(long, value_name = "IMAGES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) chunks: Option<u32>,
    /// Compress the chunks by deflate, from 1 (fast) to 9 (small).
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) compress: Option<u8>,
    /// Threads that read (default: one for each core). The container does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
}

/// `iad-launch report RUN ...`
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// The run folders.
    #[arg(required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// The page to write (default: report.html in the last of the folders).
    #[arg(long, value_name = "FILE.html")]
    pub(crate) page: Option<PathBuf>,
    /// Also write the curves alone, as a picture.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) figure: Option<PathBuf>,
}

/// Inserts `train` where the first argument is a file, or an option of training before one: `iad-launch CONFIG` as it is
/// typed under mpirun.
pub(crate) fn with_implied_train(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let implied = arguments.get(1).is_some_and(|first| {
        let path = Path::new(first);
        let option = first.to_string_lossy().starts_with('-');
        let general = ["-h", "--help", "-V", "--version"].iter().any(|general| first == general);
        option && !general || path.extension().is_some_and(|extension| extension == "toml") || path.is_file()
    });
    if implied {
        arguments.insert(1, "train".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!((train.config.to_str(), train.place.ranks), (Some("a.toml"), Some(3)));
        let before = parse(&["iad-launch", "--ranks", "3", "a.toml"]).unwrap().command;
        assert!(matches!(before, Command::Train(Train { place: Where { ranks: Some(3), .. }, .. })));
        assert_eq!((train.overrides[0].key.as_str(), train.overrides[0].value.as_str()), ("seed", "2"));
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
