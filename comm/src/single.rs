//! A run of one rank: every sum is the value itself.

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::clock::Alignment;
use crate::communicator::Communicator;
use crate::host_sum::HostSum;

/// The only rank of a run.
pub struct Single;

impl Communicator for Single {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn start_sum(&self, _tensor: &Tensor) -> Result<()> {
        Ok(())
    }

    fn overlaps(&self) -> bool {
        false
    }

    fn sums(&self, _kind: Kind) -> bool {
        true
    }

    fn finish_sums(&self) -> Result<()> {
        Ok(())
    }

    fn captures(&self) -> bool {
        true
    }

    fn broadcast(&self, _tensor: &Tensor) -> Result<()> {
        Ok(())
    }

    fn sum(&self, _values: &mut [f64]) -> Result<()> {
        Ok(())
    }

    fn start_host_sum(&self, values: Vec<f64>) -> Result<HostSum> {
        Ok(HostSum::new(|| Ok(values)))
    }

    fn gather(&self, text: &str) -> Result<Vec<String>> {
        Ok(vec![text.to_string()])
    }

    fn align(&self, _clock: &dyn Fn() -> f64) -> Result<Alignment> {
        Ok(Alignment::NONE)
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_alone_is_its_own_sum() {
        let mut values = [1.5, 2.0];
        Single.sum(&mut values).unwrap();
        assert_eq!(values, [1.5, 2.0]);
        assert_eq!(Single.start_host_sum(values.to_vec()).unwrap().finish().unwrap(), values);
        assert_eq!(Single.gather("here").unwrap(), ["here"]);
        assert!(Single.is_leader());
    }
}
