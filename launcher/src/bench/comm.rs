//! `iad-launch bench comm`: all-reduces, timed and checked.

use anyhow::Result;
use comm::{MeasuredSum, Session, measure_captured_sum, measure_plain_mpi, measure_sum};
use datasets::UserError;
use serde::Serialize;
use trainer::config::{Comm, RunConfig};
use trainer::model::ModelSpec;
use trainer::run::cost::Traffic;
use trainer::system::agreement::agree;

use super::output::{check_new, print, write_json};
use crate::command::BenchComm;
use crate::console;
use crate::start::{self, with_session};

/// Repeats of each size; ours and plain MPI alternate.
const TURNS: u32 = 4;

/// All results.
#[derive(Debug, Serialize)]
struct MeasuredSizes {
    ranks: usize,
    backend: String,
    places: Vec<String>,
    sums: Vec<MeasuredSize>,
}

/// The measurement of one size.
#[derive(Debug, Serialize)]
struct MeasuredSize {
    /// The network whose gradients have this size; `None` for a size of the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    gradients: Option<String>,
    bytes: u64,
    repeats: u32,
    microseconds: f64,
    fastest_microseconds: f64,
    algorithm_gb_per_s: f64,
    bus_gb_per_s: f64,
    wrong: u64,
    /// The time of one plain MPI_Allreduce of the same bytes in host memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    plain_mpi_microseconds: Option<f64>,
    /// This program's time divided by it, both the fastest repeats: the overhead of the program itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    over_plain_mpi: Option<f64>,
}

/// Prints a line for each size.
///
/// # Errors
/// A mistake of the user; a failure of the transport.
pub(crate) fn run(command: &BenchComm) -> Result<u8> {
    if !comm::started_by_mpi() {
        prepare(command)?;
        let ranks = start::ranks(&command.launch)?;
        if start::needs_mpirun(&command.launch, ranks) {
            return start::spawn(&command.launch, ranks, &[]);
        }
    }
    let transport = || {
        Ok(Comm {
            backend: command.backend,
            share_gpus: command.share_gpus,
            in_graphs: command.in_graphs,
            windows: command.windows,
            ..Comm::default()
        })
    };
    with_session(&command.launch, transport, |session, _| {
        let sizes = agree(session.ranks.as_ref(), prepare(command))?;
        let measured = measure(command, session, &sizes)?;
        if session.ranks.is_leader() {
            command.json.as_ref().map_or(Ok(()), |file| write_json(file, &measured))?;
        }
        // A transport whose sums are wrong must not train.
        Ok(u8::from(measured.sums.iter().any(|line| line.wrong > 0)))
    })
}

/// The sizes in bytes; those of gradients have a name.
fn prepare(command: &BenchComm) -> Result<Vec<(Option<String>, u64)>> {
    check_new(command.json.as_deref(), "--json")?;
    if command.from < 4 || command.from > command.to {
        let expected = format!("4 to {} (--to)", command.to);
        return Err(UserError::expected(expected).key("--from").value(command.from).into());
    }
    let factors = std::iter::successors(Some(command.from), |bytes| bytes.checked_mul(command.factor));
    let mut sizes: Vec<_> = factors.take_while(|bytes| *bytes <= command.to).map(|bytes| (None, bytes)).collect();
    for file in &command.gradients {
        let config = RunConfig::read(file, &[])?;
        let name = config.student.architecture.to_string();
        let form = ModelSpec::of(&config.student, [3, 32, 32], config.student.classes.unwrap_or(10));
        sizes.push((Some(name), 4 * Traffic::of(form).gradients as u64));
    }
    Ok(sizes)
}

fn measure(command: &BenchComm, session: &Session, sizes: &[(Option<String>, u64)]) -> Result<MeasuredSizes> {
    let ranks = session.ranks.as_ref();
    let places = ranks.gather(&format!("{}: {:?}", comm::host_name(), session.device))?;
    let say = |text: &str| if ranks.is_leader() { print(text) } else { Ok(()) };
    say(&format!("{} ranks, {}\n{}\n", ranks.world_size(), session.backend, places.join("\n")))?;
    say("       bytes      count   type       time us   algbw GB/s   busbw GB/s   wrong   over plain MPI\n")?;
    let mut sums = vec![];
    for (gradients, bytes) in sizes {
        // Alternately, so that other load on the machine slows both alike.
        let once = || -> Result<(MeasuredSum, Option<MeasuredSum>)> {
            let seconds = command.seconds / f64::from(TURNS);
            let sum = match command.in_graphs {
                true => measure_captured_sum(session, *bytes, seconds)?.ok_or_else(no_graphs)?,
                false => measure_sum(ranks, session.device, *bytes, seconds)?,
            };
            Ok((sum, measure_plain_mpi(session, *bytes, seconds)?))
        };
        let (mut sum, mut plain) = once()?;
        for _ in 1..TURNS {
            let (again, plain_again) = once()?;
            sum = sum.with(again);
            plain = plain.zip(plain_again).map(|(plain, again)| plain.with(again));
        }
        let line = line(gradients.clone(), sum, plain, ranks.world_size());
        let over = line.over_plain_mpi.map_or(String::new(), |over| format!("{over:.3}"));
        let name = gradients.as_ref().map_or(String::new(), |name| format!("   {name}"));
        say(&format!(
            "{:>12} {:>10}  float {:>13.2} {:>12.3} {:>12.3} {:>7} {over:>16}{name}\n",
            sum.bytes,
            sum.bytes / 4,
            line.microseconds,
            line.algorithm_gb_per_s,
            line.bus_gb_per_s,
            sum.wrong,
        ))?;
        if sum.wrong > 0 && ranks.is_leader() {
            console::error_text(&format!("{} of {} sums of {} bytes are wrong", sum.wrong, sum.bytes / 4, sum.bytes));
        }
        sums.push(line);
    }
    Ok(MeasuredSizes { ranks: ranks.world_size(), backend: session.backend.to_string(), places, sums })
}

fn no_graphs() -> UserError {
    let hint = "leave it out, or run on GPUs with --backend nccl";
    UserError::expected("sums by NCCL, which graphs can hold").key("--in-graphs").value("given").hint(hint)
}

fn line(gradients: Option<String>, sum: MeasuredSum, plain: Option<MeasuredSum>, ranks: usize) -> MeasuredSize {
    MeasuredSize {
        gradients,
        bytes: sum.bytes,
        repeats: sum.repeats,
        microseconds: 1e6 * sum.seconds,
        fastest_microseconds: 1e6 * sum.fastest,
        algorithm_gb_per_s: sum.algorithm_bandwidth() / 1e9,
        bus_gb_per_s: sum.bus_bandwidth(ranks) / 1e9,
        wrong: sum.wrong,
        plain_mpi_microseconds: plain.map(|plain| 1e6 * plain.seconds),
        over_plain_mpi: plain.map(|plain| sum.fastest / plain.fastest),
    }
}
