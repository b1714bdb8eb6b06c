use std::sync::{Barrier, Mutex};
use std::thread;

use tch::Kind;

use super::*;
use crate::count_operations;

const CHANNELS: i64 = 3;

fn values(shape: &[i64], scale: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    ((Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.7 + scale).sin() * scale + 0.3).view(shape)
}

/// What one batch norm gives: output, gradient of the images, gradients of weight and bias, running mean and variance.
type Found = [Tensor; 6];

/// How a batch norm is called.
#[derive(Clone, Copy)]
struct Case<'a> {
    /// The images of each rank.
    shares: &'a [i64],
    images: Kind,
    parameters: Kind,
    channels_last: bool,
    updates: bool,
    /// Whether the ranks are told how many images all of them have.
    told: bool,
}

impl Case<'_> {
    /// Images, loss weights of the output, weight and bias, running statistics, of all ranks together. Values that bfloat16 holds.
    fn inputs(&self) -> [Tensor; 6] {
        let all: i64 = self.shares.iter().sum();
        let rounded =
            |tensor: Tensor, kind: Kind| (tensor + 2.0).to_kind(Kind::BFloat16).to_kind(kind).set_requires_grad(false);
        let laid_out = |tensor: Tensor| match self.channels_last {
            true => tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
            false => tensor,
        };
        let maps = |scale| laid_out(rounded(values(&[all, CHANNELS, 5, 4], scale), self.images));
        let each = |scale| rounded(values(&[CHANNELS], scale), self.parameters);
        [maps(2.0), maps(3.0), each(1.5), each(0.5), each(0.2), each(0.4)]
    }

    /// By the fused layer, each rank a thread; outputs and gradients of the images stand together again.
    fn fused(&self) -> Found {
        let (count, all, told) = (self.shares.len(), self.shares.iter().sum::<i64>(), self.told);
        let (barrier, table) = (Arc::new(Barrier::new(count)), Arc::new(Mutex::new(Vec::<Tensor>::new())));
        let [maps, ahead, weight, bias, mean, variance] = self.inputs();
        let of_ranks: Vec<(Found, usize)> = thread::scope(|scope| {
            let mut first = 0;
            let threads: Vec<_> = self
                .shares
                .iter()
                .enumerate()
                .map(|(rank, share)| {
                    let (barrier, table, calls) = (Arc::clone(&barrier), Arc::clone(&table), Arc::new(Mutex::new(0)));
                    let counted = Arc::clone(&calls);
                    let sum: Sum = Arc::new(move |tensor: &mut Tensor| {
                        table.lock().unwrap().push(tensor.copy());
                        barrier.wait();
                        let all: Tensor = table.lock().unwrap().iter().sum();
                        barrier.wait();
                        table.lock().unwrap().clear();
                        tensor.copy_(&all);
                        *counted.lock().unwrap() += 1;
                        barrier.wait();
                        Ok(())
                    });
                    let own = |tensor: &Tensor| tensor.narrow(0, first, *share).set_requires_grad(false);
                    let (images, ahead) = (own(&maps).detach().set_requires_grad(true), own(&ahead));
                    let [weight, bias] = [&weight, &bias].map(|tensor| tensor.copy().set_requires_grad(true));
                    let [mean, variance] = [&mean, &variance].map(Tensor::copy);
                    let parameters = self.parameters;
                    let updates = self.updates;
                    first += share;
                    let own_images = *share as usize;
                    scope.spawn(move || {
                        let ranks = StatisticsRanks::new(&sum, rank, count);
                        if told {
                            ranks.expect(own_images, all as usize);
                        }
                        let running = updates.then_some([&mean, &variance]);
                        let output = fused_batch_norm(&images, [&weight, &bias], running, 0.1, 1e-5, &ranks);
                        // The graph owns what it needs of the ranks.
                        drop((ranks, sum));
                        (&output * ahead).sum(parameters).backward();
                        let calls = *calls.lock().unwrap();
                        ([output.detach(), images.grad(), weight.grad(), bias.grad(), mean, variance], calls)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(of_ranks.iter().all(|(_, calls)| *calls == 2), "a sum for each pass");
        let of_ranks: Vec<Found> = of_ranks.into_iter().map(|(found, _)| found).collect();
        let every = |place: usize| of_ranks.iter().map(|found| found[place].shallow_clone()).collect::<Vec<_>>();
        for place in [4, 5] {
            assert!(every(place).iter().all(|found| found.equal(&of_ranks[0][place])), "running statistics differ");
        }
        let joined = |place| Tensor::cat(&every(place), 0);
        let summed = |place| every(place).iter().sum();
        let [.., mean, variance] = of_ranks[0].each_ref().map(Tensor::shallow_clone);
        [joined(0), joined(1), summed(2), summed(3), mean, variance]
    }

    /// By autograd through PyTorch's ordinary batch norm of all images, in float64.
    fn exact(&self) -> Found {
        let [maps, ahead, weight, bias, mean, variance] = self.inputs().map(|tensor| tensor.to_kind(Kind::Double));
        let [maps, weight, bias] = [maps, weight, bias].map(|tensor| tensor.set_requires_grad(true));
        let (kept_mean, kept_variance) = (mean.copy(), variance.copy());
        let output = maps.batch_norm(Some(&weight), Some(&bias), Some(&mean), Some(&variance), true, 0.1, 1e-5, false);
        (&output * ahead).sum(Kind::Double).backward();
        let [mean, variance] = if self.updates { [mean, variance] } else { [kept_mean, kept_variance] };
        [output.detach(), maps.grad(), weight.grad(), bias.grad(), mean, variance]
    }

    /// The largest relative distance of each result.
    fn apart(&self) -> [f64; 6] {
        let (found, exact) = (self.fused(), self.exact());
        assert_eq!(found.each_ref().map(Tensor::kind)[..3], [self.images, self.images, self.parameters]);
        std::array::from_fn(|place| {
            let difference = found[place].to_kind(Kind::Double) - &exact[place];
            f64::try_from(difference.norm() / exact[place].norm()).unwrap()
        })
    }
}

const DOUBLE: Case = Case {
    shares: &[7],
    images: Kind::Double,
    parameters: Kind::Double,
    channels_last: false,
    updates: true,
    told: false,
};

/// On ranks with equal, unequal and empty shares: also where the first rank has no image, and all but one.
const SHARES: [&[i64]; 9] = [&[7], &[4, 4], &[5, 2], &[7, 0], &[0, 7], &[3, 3, 1], &[0, 5, 2], &[0, 0, 4], &[2, 0, 1]];

#[test]
fn shares_of_a_batch_are_normalised_as_the_whole_batch_is() {
    for shares in SHARES {
        for (channels_last, updates, told) in
            [(false, true, false), (true, true, true), (false, false, false), (false, true, true)]
        {
            let apart = Case { shares, channels_last, updates, told, ..DOUBLE }.apart();
            assert!(apart.iter().all(|apart| *apart < 1e-12), "{shares:?}, channels last {channels_last}: {apart:?}");
        }
    }
}

/// Ranks that know how many images all have need a kernel less, and find the same; what they know of other passes is no matter.
#[test]
fn a_known_number_of_images_spares_a_kernel() {
    let [maps, _, weight, bias, ..] = DOUBLE.inputs();
    let found = [None, Some((7, 7)), Some((8, 16))].map(|known| {
        let sum: Sum = Arc::new(|_: &mut Tensor| Ok(()));
        let ranks = StatisticsRanks::new(&sum, 0, 1);
        if let Some((own, all)) = known {
            ranks.expect(own, all);
        }
        let images = maps.copy().set_requires_grad(true);
        let pass = || fused_batch_norm(&images, [&weight, &bias], None, 0.1, 1e-5, &ranks).square().sum(Kind::Double);
        // The first pass of a kind makes what later ones find.
        pass().backward();
        let loss = pass();
        let ((), called) = count_operations(|| loss.backward());
        let casts = called.get("aten::_to_copy").map_or(0, |called| called.times);
        (casts, images.grad())
    });
    let [(plain, expected), (known, gradient), (unknown, same)] = found;
    assert_eq!((known, unknown), (plain - 1, plain));
    assert!(gradient.equal(&expected) && same.equal(&expected));
}

#[test]
fn lower_types_keep_statistics_in_single_precision() {
    for shares in SHARES {
        for (images, bounds) in [
            (Kind::Float, [1e-5, 2e-5, 1e-5, 1e-5, 1e-6, 1e-6]),
            (Kind::BFloat16, [0.01, 0.01, 0.01, 0.01, 1e-6, 1e-6]),
        ] {
            let apart = Case { shares, images, parameters: Kind::Float, channels_last: true, ..DOUBLE }.apart();
            let within = apart.iter().zip(bounds).all(|(apart, bound)| *apart <= bound);
            assert!(within, "{shares:?} in {images:?}: {apart:?}, allowed {bounds:?}");
        }
    }
}

/// What the kernel that merges statistics does with a rank without images, as libtorch computes it: one rank after the other, with
/// the count so far in whole numbers. (The formulas that stand in for it on a CPU go another way.)
#[test]
fn a_rank_without_images_is_nothing_to_the_kernel_that_merges() {
    let merged = |rows: &[(f32, f32, f32)]| {
        let (mut average, mut sum, mut count) = (0f32, 0f32, 0i32);
        for (mean, inverse, elements) in rows {
            let deviation = 1.0 / inverse;
            let factor = (1.0 / f64::from(count as f32 + elements)) as f32;
            sum += (deviation * deviation - 1e-5) * elements
                + (average - mean) * (average - mean) * count as f32 * elements * factor;
            average = count as f32 * factor * average + elements * factor * mean;
            count = (count as f32 + elements) as i32;
        }
        [average, 1.0 / (sum / count as f32 + 1e-5).sqrt(), sum / (count - 1) as f32]
    };
    let (one, other, none) = ((0.3, 2.5, 640.0), (-1.7, 0.4, 320.0), (0.0, 1.0, 1e-30));
    let expected = merged(&[one, other]);
    for rows in [&[none, one, other][..], &[one, none, other], &[one, other, none], &[none, none, one, none, other]] {
        for (found, expected) in merged(rows).into_iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{rows:?}: {found} for {expected}");
        }
    }
    // With a plain 0 the kernel divides by 0.
    assert!(merged(&[(0.0, 1.0, 0.0), one])[0].is_nan());
}
