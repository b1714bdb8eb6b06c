//! What libtorch can do and tch does not say. Beside a module lies the C++ file of its name.
//!
//! | function | libtorch |
//! |---|---|
//! | [`load_cuda`] | `dlopen` of libtorch_cuda |
//! | [`cuda_version`] | `CUDAHooks::versionCUDART` |
//! | [`keep_memory`] | glibc's `mallopt` |
//! | [`exact_arithmetic`] | cuDNN determinism, TF32 off |
//! | [`page_locked`] | `Tensor::pin_memory` without a device |
//! | [`current_stream`] | `c10::impl::DeviceGuardImplInterface::getStream` |
//! | [`set_gradient`] | `Tensor::mutable_grad` |
//! | [`on_gradient`] | `set_post_acc_grad_hooks` |
//! | [`batch_norm_across_ranks`] | an autograd function with its own backward |
//! | [`fused_batch_norm`] | the same by the kernels of PyTorch's `SyncBatchNorm` |
//! | [`Kernels`] | none: kernels of this program, in libtorch's stream and graph |
//! | [`Moment`] | `c10::Event` with timing |
//! | [`peak_memory`] | `DeviceAllocator::getDeviceStats` |
//! | [`Autocast`], [`Casts`] | `at::autocast` |
//! | [`Tf32`] | TF32 in products of matrices and convolutions |
//! | [`fast_bfloat16`] | `at::cpu::get_cpu_capabilities` |
//! | [`fused_sgd`], [`fused_adamw`] | `at::_fused_sgd_`, `at::_fused_adamw_` |
//! | [`Graph`], [`Queue`] | `at::cuda::CUDAGraph`, a stream of the pool |
//! | [`record_call`] | a call of the host in a recording of the CPU |
//! | [`count_operations`] | a fallback of the dispatcher |
//! | [`without_waits`] | `c10::cuda::warning_state` |
#![allow(unsafe_code)]

mod answer;
mod batch_norm;
mod fused_batch_norm;
mod gradient;
mod graph;
mod kernels;
mod known_backward;
mod library;
mod moment;
mod operations;
mod page_locked;
mod precision;
mod stream;
mod update;
mod waits;

pub use crate::batch_norm::{Normalised, Sum, batch_norm_across_ranks};
pub use crate::fused_batch_norm::{StatisticsRanks, fused_batch_norm, has_fused_batch_norm};
pub use crate::gradient::{on_gradient, set_gradient};
pub use crate::graph::{Graph, Queue, is_recording, record_call};
pub use crate::kernels::{Finished, Judged, Kernels, Layer, Trust};
pub use crate::library::{cuda_version, exact_arithmetic, keep_memory, load_cuda, version};
pub use crate::moment::{Moment, peak_memory};
pub use crate::operations::{Called, Operations, count_operations};
pub use crate::page_locked::page_locked;
pub use crate::precision::{Autocast, Casts, Tf32, fast_bfloat16, instructions};
pub use crate::stream::current_stream;
pub use crate::update::{AdamW, Sgd, fused_adamw, fused_sgd};
pub use crate::waits::without_waits;
