//! How fast sums over the ranks are, in the conventions of nccl-tests: algorithm and bus bandwidth, and whether they are right.

use std::time::Instant;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use crate::communicator::Communicator;
use crate::mpi;
use crate::nccl::SumGraph;
use crate::session::Session;

/// A message that was summed many times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredSum {
    /// Bytes of float32 values.
    pub bytes: u64,
    /// How often it was timed.
    pub repeats: u32,
    /// Seconds of one sum, of the rank that took longest: mean over the repeats.
    pub seconds: f64,
    /// The seconds of the fastest repeat.
    pub fastest: f64,
    /// Values that were not the sum, over all ranks.
    pub wrong: u64,
}

impl MeasuredSum {
    /// Two measurements of the same sum as one.
    pub fn with(self, other: Self) -> Self {
        let (one, two) = (f64::from(self.repeats), f64::from(other.repeats));
        Self {
            bytes: self.bytes,
            repeats: self.repeats + other.repeats,
            seconds: (self.seconds * one + other.seconds * two) / (one + two),
            fastest: self.fastest.min(other.fastest),
            wrong: self.wrong + other.wrong,
        }
    }

    /// Bytes a second, as a user sees them.
    pub fn algorithm_bandwidth(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }

    /// What each rank's link must carry at least: 2 (n - 1) / n of it.
    pub fn bus_bandwidth(&self, ranks: usize) -> f64 {
        self.algorithm_bandwidth() * 2.0 * (ranks as f64 - 1.0) / ranks as f64
    }
}

/// Times [`Communicator::sum_at_once`] of `bytes` of float32 on `device`, for about `seconds`.
///
/// # Errors
/// A failure of the transport.
pub fn measure_sum(ranks: &dyn Communicator, device: Device, bytes: u64, seconds: f64) -> Result<MeasuredSum> {
    measure(ranks, device, bytes, seconds, &mut |tensor| ranks.sum_at_once(tensor))
}

/// The same for one plain call of `MPI_Allreduce` in host memory: what this crate adds to MPI is the difference. Nothing
/// where the run has no MPI.
///
/// # Errors
/// A failure of the transport.
pub fn measure_plain_mpi(session: &Session, bytes: u64, seconds: f64) -> Result<Option<MeasuredSum>> {
    if !session.has_mpi() {
        return Ok(None);
    }
    measure(session.ranks.as_ref(), Device::Cpu, bytes, seconds, &mut |tensor| mpi::plain_sum(tensor)).map(Some)
}

/// The same for a sum in a graph, which is captured once and replayed. Nothing where tensors do not travel by NCCL.
///
/// # Errors
/// A failure of the transport, or what cannot be captured.
pub fn measure_captured_sum(session: &Session, bytes: u64, seconds: f64) -> Result<Option<MeasuredSum>> {
    let Some(nccl) = session.nccl() else { return Ok(None) };
    let mut graph = None;
    let measured = measure(session.ranks.as_ref(), session.device, bytes, seconds, &mut |tensor| match &graph {
        None => {
            // Once without a graph: NCCL connects what this size needs.
            let aside = tensor.copy();
            nccl.start_sum(&aside)?;
            nccl.finish_sums()?;
            graph.insert(SumGraph::capture(nccl, tensor)?).replay()
        }
        Some(graph) => SumGraph::replay(graph),
    });
    measured.map(Some)
}

/// Times `sum` of `bytes` of float32, as [`measure_sum`] does.
pub(crate) fn measure(
    ranks: &dyn Communicator,
    device: Device,
    bytes: u64,
    seconds: f64,
    sum: &mut dyn FnMut(&Tensor) -> Result<()>,
) -> Result<MeasuredSum> {
    let count = (bytes / 4).max(1) as i64;
    // Whole numbers below 2^24 add up without rounding: value i of rank r is (i mod 251) + r.
    let ramp = Tensor::arange(count, (Kind::Int64, device)).remainder(251).to_kind(Kind::Float);
    let mut values = &ramp + ranks.rank() as f64;
    let all = ranks.world_size() as f64;
    let expected = &ramp * all + all * (all - 1.0) / 2.0;
    sum(&values)?;
    let mut wrong = [values.ne_tensor(&expected).sum(Kind::Double).double_value(&[])];
    ranks.sum(&mut wrong)?;

    let one = |values: &Tensor, sum: &mut dyn FnMut(&Tensor) -> Result<()>| -> Result<f64> {
        synchronise(device);
        ranks.barrier()?;
        let began = Instant::now();
        sum(values)?;
        synchronise(device);
        Ok(began.elapsed().as_secs_f64())
    };
    // Zeros stay zeros, however often they are summed.
    let _ = values.zero_();
    let mut trial = [0.0; 3];
    for slot in &mut trial {
        *slot = one(&values, sum)?;
    }
    let mut guess = [trial[1].min(trial[2])];
    ranks.sum(&mut guess)?;
    let repeats = (seconds * all / guess[0].max(1e-7)).clamp(3.0, 10_000.0) as u32;
    let mut times = vec![0.0; repeats as usize];
    for time in &mut times {
        *time = one(&values, sum)?;
    }
    // A place for each rank: what counts is the slowest.
    let mut each = vec![0.0; 2 * ranks.world_size()];
    each[2 * ranks.rank()] = times.iter().sum::<f64>() / f64::from(repeats);
    each[2 * ranks.rank() + 1] = times.iter().copied().fold(f64::INFINITY, f64::min);
    ranks.sum(&mut each)?;
    let slowest = |place: usize| each.iter().skip(place).step_by(2).copied().fold(0.0, f64::max);
    let bytes = 4 * count as u64;
    Ok(MeasuredSum { bytes, repeats, seconds: slowest(0), fastest: slowest(1), wrong: wrong[0] as u64 })
}

fn synchronise(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::single::Single;

    #[test]
    fn one_rank_sums_right_and_sends_nothing() {
        let measured = measure_sum(&Single, Device::Cpu, 4096, 0.001).unwrap();
        assert_eq!((measured.bytes, measured.wrong), (4096, 0));
        assert!(measured.seconds > 0.0 && measured.fastest <= measured.seconds && measured.repeats >= 3);
        assert_eq!(measured.bus_bandwidth(1), 0.0);
        let measured = MeasuredSum { bytes: 8_000, repeats: 1, seconds: 2.0, fastest: 2.0, wrong: 0 };
        assert_eq!((measured.algorithm_bandwidth(), measured.bus_bandwidth(4)), (4_000.0, 6_000.0));
        let both = measured.with(MeasuredSum { repeats: 3, seconds: 1.0, fastest: 0.5, wrong: 1, ..measured });
        assert_eq!((both.repeats, both.seconds, both.fastest, both.wrong), (4, 1.25, 0.5, 1));
    }

    #[test]
    fn a_sum_that_is_wrong_is_counted() {
        let mut wrong = |tensor: &Tensor| {
            let _ = tensor.narrow(0, 0, 3).g_add_scalar_(1.0);
            Ok(())
        };
        assert_eq!(measure(&Single, Device::Cpu, 64, 0.001, &mut wrong).unwrap().wrong, 3);
    }
}
