//! A sum in a graph of the driver's: what a captured step holds of NCCL, without the rest of the step. For timing it, and for
//! tests of captures.
#![allow(unsafe_code)]

use std::sync::Arc;

use anyhow::{Context, Error, Result};
use cudarc::driver::result::{graph, stream};
use cudarc::driver::sys;
use tch::{Device, Tensor};
use torch_ext::Queue;

use super::Nccl;
use crate::communicator::Communicator;

/// Sums of a tensor over the ranks, captured.
pub(crate) struct SumGraph {
    nccl: Arc<Nccl>,
    executable: sys::CUgraphExec,
    stream: sys::CUstream,
    /// Its memory is part of the graph.
    _tensors: [Tensor; 2],
    /// The stream of libtorch that was captured, on a GPU.
    _queue: Queue,
}

impl SumGraph {
    /// Captures a sum of `tensor`, beside which a small one is made at once. Every rank makes the call. Nothing is summed yet.
    ///
    /// # Errors
    /// The driver's and NCCL's: what cannot be captured.
    pub(crate) fn capture(nccl: &Arc<Nccl>, tensor: &Tensor) -> Result<Self> {
        let mut queue = Some(Queue::own(nccl.device).map_err(Error::msg)?);
        let streams = &nccl.shared.streams;
        streams.enter()?;
        streams.be_captured(true)?;
        let tensors = [tensor.shallow_clone(), Tensor::zeros([8], (tch::Kind::Float, nccl.device))];
        let stream = streams.torch()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let mut made = None;
        let captured = nccl.capture(&mut || {
            // SAFETY: the stream lives, and is captured from here to the end of the capture below, by this thread.
            unsafe { stream::begin_capture(stream, mode) }?;
            let started = start(nccl, &tensors);
            // SAFETY: the capture that was begun above.
            let captured = unsafe { stream::end_capture(stream) };
            started?;
            let captured = captured?;
            // SAFETY: a live graph, which what is made of it does not need; it is not used after its end here.
            let executable = unsafe {
                let executable = graph::instantiate(captured, sys::CUgraphInstantiate_flags(0));
                graph::destroy(captured)?;
                executable?
            };
            // Where another rank failed, this frees it again.
            let (tensors, queue) = (tensors.each_ref().map(Tensor::shallow_clone), queue.take());
            let queue = queue.context("a capture has one end")?;
            made = Some(Self { nccl: Arc::clone(nccl), executable, stream, _tensors: tensors, _queue: queue });
            Ok(())
        });
        streams.be_captured(false)?;
        captured??;
        made.context("the transport captured nothing")
    }

    /// Queues the sums once more. What libtorch queues later comes behind them.
    ///
    /// # Errors
    /// The driver's; a failure of the transport.
    pub(crate) fn replay(&self) -> Result<()> {
        // SAFETY: both live, and the tensors that the graph names.
        let mut launch = || Ok(unsafe { graph::launch(self.executable, self.stream) }?);
        self.nccl.shared.streams.enter()?;
        let end = self.nccl.launched(self.stream, &mut launch)?;
        self.nccl.shared.streams.torch_waits(&end)
    }
}

/// As in a step: a sum that goes on beside the computation, one that is needed at once, and the end of both.
fn start(nccl: &Nccl, [beside, at_once]: &[Tensor; 2]) -> Result<()> {
    nccl.start_sum(beside)?;
    nccl.sum_at_once(at_once)?;
    nccl.finish_sums()
}

impl Drop for SumGraph {
    fn drop(&mut self) {
        let _ = self.nccl.shared.streams.enter();
        if let Device::Cuda(gpu) = self.nccl.device {
            // What is under way must not lose its graph.
            tch::Cuda::synchronize(gpu as i64);
        }
        // SAFETY: made by `capture`, and destroyed here alone.
        let _ = unsafe { graph::exec_destroy(self.executable) };
    }
}
