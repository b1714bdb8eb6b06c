//! The program `iad-launch`: parses the command line and calls what it names. Exit codes are in `exit`.
//!
//! Folders in their order; each uses only those before it: exit, command, console, draw, start, report, train, evaluate,
//! weights and data, paper, bench, machine, plan, doctor, runs, metrics, sbatch, init, settings.

mod bench;
mod command;
mod console;
mod data;
mod doctor;
mod draw;
mod evaluate;
mod exit;
mod init;
mod machine;
mod metrics;
mod paper;
mod plan;
mod report;
mod runs;
mod sbatch;
mod settings;
mod start;
mod train;
mod weights;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::command::{Bench, Command, CommandLine};

// A test harness has no handlers.
#[cfg(not(test))]
comm::hold_requests_from_the_start!();

fn main() -> ExitCode {
    let arguments = command::with_implied_train(std::env::args_os().collect());
    let command = match CommandLine::try_parse_from(arguments) {
        Ok(line) => {
            console::set_quiet(line.quiet);
            console::set_plain(line.plain);
            line.command
        }
        // Every rank meets the same mistake; one rank prints it.
        Err(_) if comm::launcher_rank().is_some_and(|rank| rank > 0) => return ExitCode::from(2),
        Err(error) => error.exit(),
    };
    match run(&command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // The error occurred before the ranks joined, or all ranks have it.
            if start::speaks(start::variable) {
                console::error(&error);
            }
            ExitCode::from(exit::exit_code(&error))
        }
    }
}

/// Runs a command and returns its exit code.
fn run(command: &Command) -> Result<u8> {
    match command {
        Command::Train(_) | Command::Eval(_) | Command::Replay(_) | Command::Paper(_) => start::listen_to_requests()?,
        // All others end as the system ends a process.
        _ => comm::release_requests(),
    }
    match command {
        Command::Train(train) if train.dry_run => plan::run(&train.plan()).map(|()| 0),
        Command::Train(train) => train::run(train),
        Command::Doctor(doctor) => doctor::run(doctor),
        Command::Plan(plan) => plan::run(plan).map(|()| 0),
        Command::Eval(eval) => evaluate::run(eval),
        Command::Replay(replay) => train::run_again(replay),
        Command::Data(data) => data::run(data).map(|()| 0),
        Command::Report(report) => report::run_command(report).map(|()| 0),
        Command::Init(init) => init::run(init).map(|()| 0),
        Command::Sbatch(sbatch) => sbatch::run(sbatch).map(|()| 0),
        Command::Metrics(metrics) => metrics::run(metrics).map(|()| 0),
        Command::Runs(runs) => runs::list(runs).map(|()| 0),
        Command::Compare(compare) => runs::compare(compare).map(|()| 0),
        Command::Config(config) => settings::config(config).map(|()| 0),
        Command::Completions(completions) => settings::completions(completions).map(|()| 0),
        Command::Man(man) => settings::man(man).map(|()| 0),
        Command::Paper(paper) => paper::run(paper),
        Command::Bench(Bench::Step(step)) => bench::step::run(step),
        Command::Bench(Bench::Save(save)) => bench::save::run(save),
        Command::Bench(Bench::Comm(sums)) => bench::comm::run(sums),
        Command::Bench(Bench::Scaling(scaling)) => bench::scaling::run(scaling).map(|()| 0),
        Command::Bench(Bench::Project(project)) => bench::project::run(project).map(|()| 0),
        Command::Weights(weigh) => weights::run(weigh).map(|()| 0),
        Command::CountGpus => start::print_gpus().map(|()| 0),
    }
}
