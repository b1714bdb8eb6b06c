//! The program `iad-launch`. Exit codes: 0 done; 1 the run failed; 2 the command, the configuration or the data are wrong;
//! 85 stopped on request, the same command goes on.

mod bench;
mod command;
mod console;
mod data;
mod evaluate;
mod jobs;
mod launch;
mod paper;
mod ranks;
mod report;
mod signals;
mod train;
mod weights;

use std::process::ExitCode;

use clap::Parser as _;

use crate::command::{Command, CommandLine};

/// The run was asked to stop and can be resumed.
pub(crate) const STOPPED: u8 = 85;

fn main() -> ExitCode {
    let arguments = command::with_implied_train(std::env::args_os().collect());
    let command = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line.command,
        // Every rank sees the same mistake: one tells it.
        Err(_) if comm::launcher_rank().is_some_and(|rank| rank > 0) => return ExitCode::from(2),
        Err(error) => error.exit(),
    };
    let result = match command {
        Command::Train(train) => train::run(&train),
        Command::Eval(eval) => evaluate::run(&eval),
        Command::Data(data) => data::run(&data).map(|()| 0),
        Command::Report(report) => {
            report::run(&report.runs, report.page.as_deref(), report.figure.as_deref()).map(|()| 0)
        }
        Command::Paper(paper) => paper::run(&paper),
        Command::Bench(bench) => bench::run(&bench),
        Command::Weights(weigh) => weights::run(&weigh).map(|()| 0),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // What comes here has been found before the ranks joined, or by all of them.
            if comm::launcher_rank().is_none_or(|rank| rank == 0) {
                console::error(&error);
            }
            ExitCode::from(ranks::exit_code(&error))
        }
    }
}
