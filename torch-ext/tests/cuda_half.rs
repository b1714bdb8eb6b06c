//! What needs libtorch's CUDA half in the process, without a GPU: in a process of its own, for it stays loaded.

use tch::Device;
use torch_ext::{Graph, Queue, load_cuda};

#[test]
fn a_machine_without_gpu_has_no_graph_of_one() {
    if load_cuda().is_err() || tch::Cuda::is_available() {
        return;
    }
    let Err(reason) = Graph::record(Device::Cuda(0), || ()) else { panic!("a graph without a GPU") };
    // The library was found and loaded: what is missing is the device.
    assert!(!reason.contains("headers") && !reason.contains("symbol"), "{reason}");
    assert!(Queue::own(Device::Cuda(0)).is_err() && Queue::own(Device::Cpu).is_ok());
}
