//! The order of a GPU's work as the host sees it: moments, memory, numbers that are read while it goes on.

use std::time::Instant;

use tch::{Kind, Tensor, no_grad};
use torch_ext::{Moment, peak_memory, without_waits};
use trainer::system::transfer;

use crate::gpu;

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn moments_are_ordered_and_work_lies_between_them() {
    let Some(gpu) = gpu() else { return };
    let moments: Vec<Moment> = (0..4)
        .map(|_| {
            let ones = Tensor::ones([1024, 1024], (Kind::Float, gpu.device));
            no_grad(|| drop(ones.matmul(&ones)));
            Moment::now(gpu.device).unwrap()
        })
        .collect();
    moments.last().unwrap().wait().unwrap();
    for pair in moments.windows(2) {
        assert!(pair[1].seconds_since(&pair[0]) > 0.0);
    }
    let whole = moments[3].seconds_since(&moments[0]);
    let parts: f64 = moments.windows(2).map(|pair| pair[1].seconds_since(&pair[0])).sum();
    // Events of CUDA tell half microseconds.
    assert!((whole - parts).abs() <= 1e-5, "{parts} s of {whole} s");
    if gpu.device.is_cuda() {
        assert!(moments[0].seconds_since(&Moment::of_host()).is_nan());
    }
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn the_peak_of_memory_counts_what_was_freed() {
    let Some(gpu) = gpu() else { return };
    let bytes = 256 << 20;
    drop(Tensor::zeros([bytes], (Kind::Uint8, gpu.device)) + 1);
    assert!(peak_memory(gpu.device).unwrap() >= bytes as u64);
}

#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn numbers_are_read_while_later_work_goes_on() {
    let Some(gpu) = gpu() else { return };
    let numbers = Tensor::arange(1000, (Kind::Float, gpu.device)) / 3.0;
    let expected = transfer::read(&numbers).unwrap();
    let size = if gpu.device.is_cuda() { 8192 } else { 64 };
    let matrix = Tensor::ones([size, size], (Kind::Float, gpu.device));
    let work = || (0..50).for_each(|_| no_grad(|| drop(matrix.matmul(&matrix))));
    work();
    Moment::now(gpu.device).unwrap().wait().unwrap();

    let began = Instant::now();
    work();
    let reading = transfer::send(&numbers).unwrap();
    let sent = began.elapsed();
    work();
    let behind = Moment::now(gpu.device).unwrap();
    assert_eq!(reading.take().unwrap(), expected);
    let taken = began.elapsed();
    behind.wait().unwrap();
    let whole = began.elapsed();
    // On a CPU the work is done when its call returns. On a GPU each half takes a large part of a second, and queueing it does
    // not: who sends waits for nothing, who takes waits for the first half.
    assert!(!gpu.device.is_cuda() || (sent < whole / 4 && taken < whole * 3 / 4), "{sent:?}, {taken:?} of {whole:?}");
}

/// If libtorch did not make waits an error, the test that no step waits could not fail.
#[test]
#[ignore = "needs a GPU, or IAD_TEST_GPU=cpu to rehearse"]
fn a_wait_is_an_error_where_it_is_forbidden() {
    let Some(gpu) = gpu() else { return };
    if !gpu.device.is_cuda() {
        return;
    }
    let number = Tensor::ones([], (Kind::Float, gpu.device));
    let read = || f64::try_from(&number);
    assert!(without_waits(read).unwrap().is_err());
    assert_eq!(read().unwrap(), 1.0);
}
