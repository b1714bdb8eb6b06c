//! Fused kernels, which `kernels/*.py` describe and the build compiled: found in the program, loaded into a GPU, launched on
//! libtorch's stream. Each kernel's own file says how it is called.
//!
//! Nothing here waits for the device, so launches can be recorded in a CUDA graph.

mod attack_step;
mod batch_norm;
mod divergence;
mod sgd;

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::ptr;

use cudarc::driver::result::{ctx, device, init, launch_kernel, module, primary_ctx};
use cudarc::driver::sys;
use tch::{Device, Kind, Tensor};

pub use self::batch_norm::{Finished, Layer};
pub use self::divergence::Trust;
pub use self::sgd::Judged;
use crate::stream::current_stream;

/// A kernel compiled for one kind of GPU: a row of the table that `kernels/compile.py` writes.
struct Compiled {
    name: &'static str,
    /// The oldest compute capability that runs it, as in 90 for 9.0; those of the same first digit after it do too.
    target: i32,
    symbol: &'static CStr,
    parameters: &'static [Parameter],
    /// Pointers that Triton adds behind the parameters, to memory that these kernels do not use.
    added: usize,
    /// The extents that one program works on.
    block: &'static [i64],
    threads: u32,
    /// Bytes of dynamic shared memory.
    shared: u32,
    registers: u32,
    spills: u32,
    image: &'static [u8],
}

/// What a kernel takes in one place.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Parameter {
    Values(Kind),
    I32,
    I64,
    F32,
}

static COMPILED: &[Compiled] = {
    #[allow(unused_imports)] // a program without kernels names none
    use Kind::{BFloat16, Bool, Float, Int64};
    #[allow(unused_imports)]
    use Parameter::{F32, I32, I64, Values};
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"))
};

/// An argument of a launch.
#[derive(Clone, Copy)]
enum Argument<'a> {
    Values(&'a Tensor),
    I32(i32),
    I64(i64),
    F32(f32),
}

impl Argument<'_> {
    fn parameter(self) -> Parameter {
        match self {
            Self::Values(tensor) => Parameter::Values(tensor.kind()),
            Self::I32(_) => Parameter::I32,
            Self::I64(_) => Parameter::I64,
            Self::F32(_) => Parameter::F32,
        }
    }

    /// Its bits in a place of 8 bytes, of which the kernel reads as many as its parameter has.
    fn bits(self) -> u64 {
        match self {
            Self::Values(tensor) => tensor.data_ptr() as u64,
            Self::I32(value) => u64::from(value as u32),
            Self::I64(value) => value as u64,
            Self::F32(value) => u64::from(value.to_bits()),
        }
    }
}

/// A kernel that a GPU has loaded.
struct Loaded {
    function: sys::CUfunction,
    compiled: &'static Compiled,
}

/// The fused kernels of one GPU. They stay loaded to the end of the process: a CUDA graph may still hold them.
pub struct Kernels {
    context: sys::CUcontext,
    tensors: Device,
    loaded: BTreeMap<&'static str, Loaded>,
}

// SAFETY: handles of the driver, which may be used from any thread and are never destroyed.
unsafe impl Send for Kernels {}
// SAFETY: as above.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Loads the kernels of the program into GPU `number` of the driver, for tensors that live on `tensors`. (That is the host in
    /// tests, with a stand-in for the driver.)
    ///
    /// # Errors
    /// The program was built without Triton, the GPU is of a kind that it has no kernels for, or the driver fails.
    pub fn load(number: usize, tensors: Device) -> Result<Self, String> {
        if COMPILED.is_empty() {
            return Err(
                "this program was built without Triton, so it has none; `scripts/setup --cuda` brings it, then build \
                        again"
                    .into(),
            );
        }
        // SAFETY: opens and closes a library that is meant to be opened so; asked first because cudarc panics without it.
        if !unsafe { sys::is_culib_present() } {
            return Err("libcuda.so.1, the library of NVIDIA's driver, does not load".into());
        }
        Self::of(number, tensors).map_err(|reason| format!("GPU {number}: {reason}"))
    }

    fn of(number: usize, tensors: Device) -> Result<Self, String> {
        init().map_err(in_words)?;
        let device = device::get(i32::try_from(number).map_err(in_words)?).map_err(in_words)?;
        let capability = capability(device)?;
        // SAFETY: `device` comes from the driver. The context is libtorch's own, the primary one, and is never released.
        let context = unsafe { primary_ctx::retain(device) }.map_err(in_words)?;
        let mut kernels = Self { context, tensors, loaded: BTreeMap::new() };
        kernels.enter()?;
        for compiled in COMPILED.iter().filter(|compiled| runs(compiled.target, capability)) {
            // SAFETY: the image is a whole cubin, and constant.
            let module = unsafe { module::load_data(compiled.image.as_ptr().cast()) }.map_err(in_words)?;
            // SAFETY: the module was loaded above and is never unloaded.
            let function = unsafe { module::get_function(module, compiled.symbol.into()) }.map_err(in_words)?;
            kernels.loaded.insert(compiled.name, Loaded { function, compiled });
        }
        if kernels.loaded.is_empty() {
            let (major, minor) = (capability / 10, capability % 10);
            return Err(format!("there are kernels for compute capability 8, 9 and 10, and it has {major}.{minor}"));
        }
        Ok(kernels)
    }

    /// The names of the kernels in the program, with registers of a thread, bytes that it spills and bytes of shared memory of a
    /// block, for each compute capability.
    pub fn resources() -> impl Iterator<Item = (&'static str, i32, [u32; 3])> {
        COMPILED.iter().map(|kernel| (kernel.name, kernel.target, [kernel.registers, kernel.spills, kernel.shared]))
    }

    /// Makes the GPU that of the calling thread: a thread begins without one.
    fn enter(&self) -> Result<(), String> {
        // SAFETY: the context was retained and is never released.
        unsafe { ctx::set_current(self.context) }.map_err(in_words)
    }

    /// The extents that one program of a kernel works on.
    fn block(&self, name: &str) -> &'static [i64] {
        self.loaded[name].compiled.block
    }

    /// Queues a kernel on libtorch's stream of the calling thread.
    ///
    /// # Panics
    /// Arguments of other types than the kernel's, or an error of the driver: as every tch operation does.
    fn launch(&self, name: &str, grid: [i64; 2], arguments: &[Argument]) {
        let Loaded { function, compiled } = &self.loaded[name];
        let types: Vec<_> = arguments.iter().map(|argument| argument.parameter()).collect();
        assert_eq!(types, compiled.parameters, "the arguments of the kernel {name}");
        let queued = self.queue(*function, compiled, grid.map(|extent| extent as u32), arguments);
        queued.unwrap_or_else(|reason| panic!("the kernel {name}: {reason}"));
    }

    fn queue(
        &self,
        function: sys::CUfunction,
        compiled: &Compiled,
        [across, down]: [u32; 2],
        arguments: &[Argument],
    ) -> Result<(), String> {
        let stream = match self.tensors {
            Device::Cuda(gpu) => current_stream(gpu)?.cast(),
            _ => ptr::null_mut(),
        };
        self.enter()?;
        let mut bits: Vec<u64> = arguments.iter().map(|argument| argument.bits()).collect();
        bits.resize(arguments.len() + compiled.added, 0);
        let mut places: Vec<*mut c_void> = bits.iter_mut().map(|place| ptr::from_mut(place).cast()).collect();
        let (threads, shared) = ((compiled.threads, 1, 1), compiled.shared);
        // SAFETY: the function is loaded in the current context. It has as many parameters as `places`, of the types that were
        // compared, and the driver copies them before it returns. The tensors that they name live through the call, and
        // libtorch gives their memory to nobody else before what its stream holds by now is done.
        unsafe { launch_kernel(function, (across, down, 1), threads, shared, stream, &mut places) }.map_err(in_words)
    }

    /// Whether a kernel can take `tensors`: on this device, and at addresses that are multiples of 16.
    fn reach(&self, tensors: &[&Tensor]) -> bool {
        tensors.iter().all(|tensor| {
            tensor.device() == self.tensors && tensor.numel() > 0 && (tensor.data_ptr() as usize).is_multiple_of(16)
        })
    }
}

/// The compute capability of a GPU, as in 90 for 9.0.
fn capability(device: sys::CUdevice) -> Result<i32, String> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    // SAFETY: `device` comes from the driver.
    let of = |attribute| unsafe { device::get_attribute(device, attribute) }.map_err(in_words);
    Ok(10 * of(MAJOR)? + of(MINOR)?)
}

/// Whether what was compiled for `target` runs on a GPU of `capability`: that of the same generation, and not older.
fn runs(target: i32, capability: i32) -> bool {
    target / 10 == capability / 10 && target <= capability
}

fn in_words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// `value` over `by`, rounded up.
fn parts(value: i64, by: i64) -> i64 {
    (value + by - 1) / by
}

/// A tensor's values as those of `like` lie in memory: itself if they do.
fn laid_out_like(tensor: &Tensor, like: &Tensor) -> Tensor {
    if tensor.stride() == like.stride() {
        return tensor.shallow_clone();
    }
    let mut same = like.empty_like();
    same.copy_(tensor);
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_runs_on_gpus_of_its_generation() {
        for (target, capability, expected) in
            [(80, 80, true), (80, 89, true), (80, 90, false), (90, 90, true), (100, 103, true), (90, 80, false)]
        {
            assert_eq!(runs(target, capability), expected, "{target} on {capability}");
        }
    }

    #[test]
    fn every_kernel_is_there_for_every_kind_of_gpu_and_spills_nothing() {
        let of = |target| Kernels::resources().filter(move |kernel| kernel.1 == target).map(|kernel| kernel.0);
        assert!(of(80).eq(of(90)) && of(80).eq(of(100)));
        for (name, target, [registers, spills, shared]) in Kernels::resources() {
            // 128 registers leave room for four blocks of four warps; 48 KiB are what a launch may ask for.
            assert!(registers <= 128 && spills == 0 && shared <= 48 << 10, "{name} on {target}");
        }
    }

    #[test]
    fn a_machine_without_gpu_says_what_is_missing() {
        let Err(reason) = Kernels::load(99, Device::Cuda(99)) else { panic!("kernels on a GPU that is none") };
        let expected = ["built without Triton", "libcuda", "GPU 99"];
        assert!(expected.iter().any(|words| reason.contains(words)), "{reason}");
    }
}
