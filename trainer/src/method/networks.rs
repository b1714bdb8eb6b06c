//! The networks of a run in memory: the student, its frozen teachers, and the learners that are trained beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use comm::{Communicator, Single};
use tch::{Kind, Tensor, no_grad};
use torch_ext::{Kernels, StatisticsRanks, Sum};

use super::memory::Memory;
use crate::config::{EMA, Precision, RunConfig, STUDENT};
use crate::model::{Model, OverRanks, flatten};
use crate::system::{Phase, summing, timeline::Timeline};

/// The networks of a run.
pub struct Networks {
    /// The network being trained.
    pub student: Model,
    /// Frozen networks, by their names in the configuration, and the moving average of the student if a loss needs it.
    pub teachers: BTreeMap<String, Model>,
    /// Networks that are trained beside the student, by their names in the configuration.
    pub learners: BTreeMap<String, Model>,
    /// The number formats of training, on the student's device.
    pub(crate) precision: Precision,
    /// Fused kernels, if they are asked for and there are some.
    pub(crate) kernels: Option<Arc<Kernels>>,
    /// Why there are none although they are asked for: a warning that the user has not had yet.
    pub(crate) unfused: Option<String>,
    /// The timeline of their forward passes.
    pub timeline: Timeline,
    /// What the method remembers.
    pub memory: Memory,
    /// The parameters of the moving average among the teachers, flat.
    pub(crate) average: Option<Tensor>,
    /// The ranks that share a batch.
    pub(crate) ranks: Arc<dyn Communicator>,
    /// Whether a loss needs numbers of the global batch before its backward pass.
    pub(crate) exchanges: bool,
}

impl Networks {
    /// A student and its teachers. The teachers are frozen: their tensors may not change any more.
    pub fn new(student: Model, teachers: BTreeMap<String, Model>, precision: Precision) -> Self {
        let precision = precision.on(student.device().is_cuda());
        precision.lay_out(&student);
        for teacher in teachers.values() {
            precision.lay_out(teacher);
            precision.freeze(teacher);
        }
        let (kernels, unfused) = match precision.kernels(student.device()) {
            Ok(kernels) => (kernels, None),
            Err(warning) => (None, Some(warning)),
        };
        student.fuse(kernels.as_ref());
        let (timeline, memory) = (Timeline::default(), Memory::default());
        Self {
            student,
            teachers,
            learners: BTreeMap::new(),
            precision,
            kernels,
            unfused,
            timeline,
            memory,
            average: None,
            ranks: Arc::new(Single),
            exchanges: false,
        }
    }

    /// The same with networks that are trained beside the student.
    pub fn with_learners(self, learners: BTreeMap<String, Model>) -> Self {
        learners.values().for_each(|learner| self.precision.lay_out(learner));
        Self { learners, ..self }
    }

    /// The networks that steps train: the student first.
    pub fn trained(&self) -> impl Iterator<Item = &Model> {
        std::iter::once(&self.student).chain(self.learners.values())
    }

    /// Differentiated training passes are, until the next call, those of `own` images on this rank and of `all` over the ranks.
    pub fn expect(&self, own: usize, all: usize) {
        self.trained().for_each(|model| model.expect(own, all));
    }

    /// The student or the learner of this name.
    pub fn learning(&self, name: &str) -> Option<&Model> {
        if name == STUDENT { Some(&self.student) } else { self.learners.get(name) }
    }

    /// Prepares them for the method of `config` on these ranks: its memory, and the moving average as a network. The
    /// student has its first values.
    ///
    /// # Errors
    /// Tensors that do not fit.
    pub fn prepare(&mut self, config: &RunConfig, ranks: Arc<dyn Communicator>) -> Result<()> {
        let Model { form, .. } = self.student;
        self.memory = Memory::new(&config.loss, form.classes as i64, self.student.device());
        self.exchanges = config.loss.exchanges();
        self.ranks = ranks;
        if config.averages_teach() {
            let mut average = Model::build(form, 0, self.student.kind(), self.student.device(), None);
            self.precision.lay_out(&average);
            average.freeze();
            average.load(|name| {
                let found = self.student.tensors().find(|named| named.name == name);
                found.map(|named| &named.tensor)
            })?;
            let (kind, device) = (average.kind(), average.device());
            self.average = Some(flatten(&mut average.parameters, kind, device));
            self.teachers.insert(EMA.into(), average);
        }
        Ok(())
    }

    /// Copies the moving average, flat like the student's parameters and running statistics, into the network that teaches;
    /// nothing where none does.
    pub fn take_average(&self, parameters: &Tensor, statistics: &Tensor) {
        if let Some((average, network)) = self.average.as_ref().zip(self.teachers.get(EMA)) {
            no_grad(|| average.shallow_clone().copy_(parameters));
            no_grad(|| network.flat_statistics.shallow_clone().copy_(statistics));
        }
    }

    /// The sum of `values` over the ranks, before the backward pass: every rank makes the call. It runs within the
    /// evaluation of a loss, which cannot return errors.
    pub fn sum_over_ranks(&self, values: &Tensor) -> Tensor {
        let sums = no_grad(|| values.detach().to_kind(Kind::Double).contiguous().copy());
        if self.ranks.world_size() > 1 {
            let sum = || summing::at_once(&self.ranks, &sums);
            let summed = self.timeline.during_piece(Phase::Communication, "loss sum", sum);
            summed.unwrap_or_else(|error| panic!("a sum of a loss term over the ranks: {error:#}"));
        }
        sums
    }

    /// The least and the greatest of `values [N]` over the global batch, float64 `[2]`. Every rank makes the call; N may be 0.
    pub fn extremes_over_ranks(&self, values: &Tensor) -> Tensor {
        no_grad(|| {
            let (rank, ranks) = (self.ranks.rank() as i64, self.ranks.world_size() as i64);
            // Each rank fills a row of its own, so the sum is exact.
            let all = Tensor::zeros([ranks, 2], (Kind::Double, values.device()));
            let mine = match values.numel() {
                0 => all.get(rank).full_like(f64::INFINITY),
                _ => Tensor::stack(&[values.min(), -values.max()], 0).to_kind(Kind::Double),
            };
            all.get(rank).copy_(&mine);
            let least = self.sum_over_ranks(&all).amin(0i64, false);
            Tensor::stack(&[least.get(0), -least.get(1)], 0)
        })
    }
}

/// How batch norm reaches the other ranks: by libtorch's `fused` kernels, or by sums in double precision. It runs inside forward and
/// backward passes, whose errors hold its reason.
pub fn over_ranks(ranks: Arc<dyn Communicator>, timeline: Timeline, fused: bool) -> OverRanks {
    let (rank, count) = (ranks.rank(), ranks.world_size());
    let sum: Sum = Arc::new(move |tensor| {
        let sum = || summing::at_once(&ranks, tensor);
        let summed = timeline.during_piece(Phase::Communication, "batch norm sum", sum);
        summed.map_err(|error| format!("batch norm across ranks: {error:#}"))
    });
    let fused = fused.then(|| Arc::new(StatisticsRanks::new(&sum, rank, count)));
    OverRanks { sum, fused }
}
