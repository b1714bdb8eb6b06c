//! Batch norm with the addition and the ReLU behind it (`kernels/batch_norm.py`).

use std::sync::Arc;

use tch::{Kind, Tensor, no_grad};

use super::{Argument, Kernels, parts};
use crate::batch_norm::Sum;
use crate::known_backward::with_backward;

/// What is computed of a map.
pub struct Layer<'a> {
    /// The factor of each channel `[C]`, float32.
    pub weight: &'a Tensor,
    /// The summand of each channel `[C]`, float32.
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub epsilon: f64,
    /// What is added to the normalised map, in its shape and type.
    pub addend: Option<&'a Tensor>,
    /// Whether values below 0 become 0 at the end.
    pub relu: bool,
    /// The sum over the ranks, if statistics are those of all. Both passes call it once, with what
    /// [`batch_norm_across_ranks`](crate::batch_norm_across_ranks) gives it.
    pub sum: Option<&'a Sum>,
}

/// The map behind the layer, and the statistics that it was normalised by.
pub struct Finished {
    /// In the shape and type of the input.
    pub output: Tensor,
    /// Mean per channel `[C]`.
    pub mean: Tensor,
    /// Biased variance per channel `[C]`.
    pub variance: Tensor,
    /// Number of values per channel, over all ranks if statistics are: `[1]`, float64.
    pub count: Tensor,
}

/// The extents of a map and of the work on it.
#[derive(Clone, Copy)]
struct Extents {
    rows: i64,
    channels: i64,
    /// Rows of each program of a pass that sums.
    share: i64,
    programs: i64,
    across: i64,
}

/// What both passes take of a layer.
#[derive(Clone, Copy)]
struct Form {
    kind: Kind,
    epsilon: f64,
    relu: bool,
    adds: bool,
}

impl Form {
    fn name(self, pass: &str) -> String {
        format!("batch_norm_{pass}_{}", if self.kind == Kind::BFloat16 { "bf16" } else { "fp32" })
    }

    fn flags(self) -> [Argument<'static>; 3] {
        let flag = |is| Argument::I32(i32::from(is));
        [Argument::F32(self.epsilon as f32), flag(self.relu), flag(self.adds)]
    }
}

impl Kernels {
    /// Normalises `images [N, C, H, W]`, float32 or bfloat16 and channels last, by the batch's statistics, adds and cuts off as
    /// `layer` says; differentiable once in the images, the addend, weight and bias. The gradients of weight and bias are this
    /// rank's part.
    ///
    /// None where the kernels take no such tensors: other types or layouts, or channels that are no multiple of 16.
    pub fn batch_norm(self: &Arc<Self>, images: &Tensor, layer: &Layer) -> Option<Finished> {
        let &[count, channels, height, width] = images.size().as_slice() else { return None };
        let kind = images.kind();
        let adds = layer.addend.is_some();
        let form = Form { kind, epsilon: layer.epsilon, relu: layer.relu, adds };
        let fits = |map: &Tensor| map.kind() == kind && map.size() == images.size() && lies_channels_last(map);
        let plain = [layer.weight, layer.bias].into_iter().all(|tensor| tensor.kind() == Kind::Float);
        let addend = layer.addend.unwrap_or(images);
        if !matches!(kind, Kind::Float | Kind::BFloat16)
            || channels % 16 != 0
            || !plain
            || !fits(images)
            || !fits(addend)
        {
            return None;
        }
        if !self.reach(&[images, addend, layer.weight, layer.bias]) {
            return None;
        }
        let extents = self.extents(form, count * height * width, channels);
        let (mean, variance, total) = no_grad(|| self.statistics(images, form, extents, layer.sum));
        let output = no_grad(|| {
            let output = images.empty_like();
            let tensors = [images, addend, &output, &mean, &variance, layer.weight, layer.bias].map(Argument::Values);
            self.whole(form, "apply", extents, &tensors);
            output
        });
        let saved = [images, &output, &mean, &variance, layer.weight, layer.bias, &total];
        let (kernels, sum) = (Arc::clone(self), layer.sum.cloned());
        let mut inputs = vec![images, layer.weight, layer.bias];
        inputs.extend(layer.addend);
        let behind = output.shallow_clone();
        let output = with_backward(behind, &inputs, &saved, move |gradient, saved, wanted| {
            kernels.batch_norm_backward(gradient, saved, wanted, form, extents, sum.as_ref())
        });
        Some(Finished { output, mean, variance, count: total })
    }

    fn extents(&self, form: Form, rows: i64, channels: i64) -> Extents {
        let &[block, wide] = self.block(&form.name("apply")) else { unreachable!("two extents") };
        let across = parts(channels, wide);
        // Some 1,024 programs in all, and at least four blocks of rows for each.
        let most = (1024 / across).max(1);
        let share = parts(parts(rows, most), block).max(4) * block;
        Extents { rows, channels, share, programs: parts(rows, share), across }
    }

    /// A pass over the whole map.
    fn whole(&self, form: Form, pass: &str, extents: Extents, tensors: &[Argument]) {
        let name = form.name(pass);
        let counts = [Argument::I64(extents.rows), Argument::I64(extents.channels)];
        let grid = [parts(extents.rows, self.block(&name)[0]), extents.across];
        self.launch(&name, grid, &[tensors, &counts, &form.flags()].concat());
    }

    /// Mean and biased variance of each channel, float32, and the number of values, float64, over all ranks if there is a sum.
    fn statistics(&self, images: &Tensor, form: Form, extents: Extents, sum: Option<&Sum>) -> (Tensor, Tensor, Tensor) {
        let Extents { rows, channels, share, programs, across } = extents;
        let device = images.device();
        let empty = |shape: &[i64]| Tensor::empty(shape, (Kind::Float, device));
        let (means, squares) = (empty(&[programs, channels]), empty(&[programs, channels]));
        let counts = [Argument::I64(rows), Argument::I64(channels), Argument::I64(share)];
        let tensors = [images, &means, &squares].map(Argument::Values);
        self.launch(&form.name("statistics"), [programs, across], &[&tensors[..], &counts].concat());
        let (mean, variance) = (empty(&[channels]), empty(&[channels]));
        let tensors = [&means, &squares, &mean, &variance].map(Argument::Values);
        let programs = [Argument::I32(programs as i32)];
        self.launch("batch_norm_combine", [across, 1], &[&tensors[..], &counts, &programs].concat());
        let total = Tensor::full([1], rows, (Kind::Double, device));
        let Some(sum) = sum else { return (mean, variance, total) };
        // Sums travel in float64, so that the variance as E[x^2] - E[x]^2 keeps its digits.
        let (mean, variance) = (mean.to_kind(Kind::Double), variance.to_kind(Kind::Double));
        let squares = (variance + mean.square()) * &total;
        let mut sums = Tensor::cat(&[mean * &total, squares, total], 0);
        sum(&mut sums).unwrap_or_else(|reason| panic!("{reason}"));
        let total = sums.narrow(0, 2 * channels, 1);
        let mean = sums.narrow(0, 0, channels) / &total;
        let variance = (sums.narrow(0, channels, channels) / &total - mean.square()).clamp_min(0.0);
        (mean.to_kind(Kind::Float), variance.to_kind(Kind::Float), total)
    }

    /// The gradients of images, weight, bias and addend.
    fn batch_norm_backward(
        &self,
        gradient: &Tensor,
        saved: &[Tensor],
        wanted: &[bool],
        form: Form,
        extents: Extents,
        sum: Option<&Sum>,
    ) -> Vec<Option<Tensor>> {
        let [images, output, mean, variance, weight, bias, count] = saved else { unreachable!("seven were saved") };
        let Extents { rows, channels, share, programs, across } = extents;
        let gradient = channels_last(&gradient.to_kind(form.kind));
        let maps = [&gradient, images, output, mean, variance, weight, bias].map(Argument::Values);
        let empty = |shape: &[i64]| Tensor::empty(shape, (Kind::Float, images.device()));
        let (sums, products) = (empty(&[programs, channels]), empty(&[programs, channels]));
        let counts = [Argument::I64(rows), Argument::I64(channels), Argument::I64(share)];
        let partial = [&sums, &products].map(Argument::Values);
        let arguments = [&maps[..], &partial, &counts, &form.flags()].concat();
        self.launch(&form.name("backward_sums"), [programs, across], &arguments);
        let (bias_gradient, weight_gradient) = (empty(&[channels]), empty(&[channels]));
        let tensors = [&sums, &products, &bias_gradient, &weight_gradient].map(Argument::Values);
        let counts = [Argument::I64(channels), Argument::I32(programs as i32)];
        self.launch("batch_norm_backward_combine", [across, 1], &[&tensors[..], &counts].concat());
        let (mut total, mut product) = (bias_gradient.shallow_clone(), weight_gradient.shallow_clone());
        if let Some(sum) = sum {
            let mut sums = Tensor::cat(&[&product, &total], 0).to_kind(Kind::Double);
            sum(&mut sums).unwrap_or_else(|reason| panic!("{reason}"));
            // Copies: a kernel takes addresses that are multiples of 16.
            let of = |from| sums.narrow(0, from, channels).to_kind(Kind::Float);
            (product, total) = (of(0), of(channels));
        }
        let images_gradient = images.empty_like();
        let to_addend = if form.adds { images.empty_like() } else { images_gradient.shallow_clone() };
        let count = count.to_kind(Kind::Float);
        let tensors = [&total, &product, &images_gradient, &to_addend, &count].map(Argument::Values);
        self.whole(form, "backward_apply", extents, &[&maps[..], &tensors].concat());
        let all = [Some(images_gradient), Some(weight_gradient), Some(bias_gradient), form.adds.then_some(to_addend)];
        all.into_iter().zip(wanted).map(|(gradient, wanted)| gradient.filter(|_| *wanted)).collect()
    }
}

/// Whether all channels of a pixel lie together in memory, without gaps.
fn lies_channels_last(map: &Tensor) -> bool {
    map.permute([0, 2, 3, 1]).is_contiguous()
}

/// The same map with all channels of a pixel together in memory.
fn channels_last(map: &Tensor) -> Tensor {
    map.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}
