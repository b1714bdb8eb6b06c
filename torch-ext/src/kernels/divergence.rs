//! The Kullback-Leibler divergence of a batch with its trust and its gradients (`kernels/divergence.py`).

use tch::{Kind, Tensor, no_grad};

use super::{Argument, Kernels, parts};
use crate::known_backward::with_backward;

/// The factor of each sample: alpha = t_y^exponent, where t is the softmax of a teacher's logits and y the label.
pub struct Trust<'a> {
    /// The teacher's logits `[N, classes]`.
    pub teacher: &'a Tensor,
    /// The labels `[N]`, int64.
    pub labels: &'a Tensor,
    /// The exponent.
    pub exponent: f64,
    /// Whether the factor is 1 - alpha.
    pub inverted: bool,
}

impl Kernels {
    /// KL(softmax(guide) || softmax(student)) of each sample, `[N]`, times its trust; logits are `[N, classes]`, float32. It can
    /// be differentiated once, by both sides; trust has no gradient.
    ///
    /// None where the kernel takes no such tensors: other types, or more than 1,024 classes.
    pub fn divergence(&self, guide: &Tensor, student: &Tensor, trust: Option<&Trust>) -> Option<Tensor> {
        let &[samples, classes] = student.size().as_slice() else { return None };
        let name = [16, 128, 1024].into_iter().find(|&most| classes <= most);
        let name = format!("divergence_{}", name?);
        let (values, known) = no_grad(|| {
            let [q, p] = [student, guide].map(|logits| logits.detach().contiguous());
            let t = trust.map_or_else(|| p.shallow_clone(), |trust| trust.teacher.detach().contiguous());
            let fits = |logits: &Tensor| logits.kind() == Kind::Float && logits.size() == [samples, classes];
            if ![&q, &p, &t].into_iter().all(fits) || !self.reach(&[&q, &p, &t]) {
                return None;
            }
            let labels = match trust {
                Some(trust) => trust.labels.contiguous(),
                None => Tensor::empty([1], (Kind::Int64, student.device())),
            };
            if labels.kind() != Kind::Int64 || labels.dim() != 1 || !self.reach(&[&labels]) {
                return None;
            }
            let values = Tensor::empty([samples], (Kind::Float, student.device()));
            let (to_student, to_guide) = (q.empty_like(), p.empty_like());
            let tensors = [&q, &p, &t, &labels, &values, &to_student, &to_guide].map(Argument::Values);
            let kind = trust.map_or(0, |trust| if trust.inverted { 2 } else { 1 });
            let numbers = [
                Argument::I64(samples),
                Argument::I64(classes),
                Argument::F32(trust.map_or(0.0, |trust| trust.exponent as f32)),
                Argument::I32(kind),
                Argument::I32(i32::from(guide.requires_grad())),
            ];
            self.launch(&name, [parts(samples, self.block(&name)[0]), 1], &[&tensors[..], &numbers].concat());
            Some((values, [to_student, to_guide]))
        })?;
        Some(with_backward(values, &[student, guide], &known.each_ref(), |gradient, known, wanted| {
            let each = gradient.unsqueeze(1);
            known.iter().zip(wanted).map(|(known, wanted)| wanted.then(|| known * &each)).collect()
        }))
    }
}
