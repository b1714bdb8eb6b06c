//! Parts of a run on synthetic images, for timing. The timed code is the code of a run.
//!
//! Uses every folder but `evaluate`.

pub mod calibrate;
pub mod launches;
pub mod saves;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use datasets::{Draws, Purpose, Shard};
use serde::Serialize;
use tch::{Cuda, Device, Kind, Tensor, no_grad};
use torch_ext::has_fused_batch_norm;

use crate::config::{AcrossRanks, EMA, Learner, Norm, Precision, RunConfig, STUDENT, Term};
use crate::method::attack::{Attack, Ball, Noise, Pgd};
use crate::method::loss::log_probability_of;
use crate::method::networks::{Networks, over_ranks};
use crate::model::{Mode, Model, ModelSpec};
use crate::step::Step;
use crate::step::batch::Batch;
use crate::system::{Activity, Phase, Sums, Worker, timeline::Timeline};

/// A step, and the batch on which it is repeated.
pub struct Bench {
    step: Step,
    terms: Vec<Term>,
    /// All images of the global batch, and their labels.
    whole: Batch,
    own: Batch,
    noise: Noise,
    start: Tensor,
    rate: f64,
    device: Device,
    precision: Precision,
    activity: Activity,
}

/// A timed step.
#[derive(Debug, Clone, Serialize)]
pub struct Timed {
    /// The loss before the update.
    pub loss: f64,
    /// Seconds from the images on the device to the numbers on the host.
    pub seconds: f64,
    /// The seconds of each phase on this rank.
    pub phases: BTreeMap<&'static str, f64>,
    /// Sums of tensors over the ranks that this rank started.
    pub sums: u64,
    /// Their bytes.
    pub sum_bytes: u64,
    /// The most bytes that tensors have held on the GPU so far, or the process on a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// A warning about this step for the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

impl Bench {
    /// The step of `config` in `epoch` on networks of `form` with initial values. Their batch norms have seen the batch
    /// a few times.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn new(config: &RunConfig, form: ModelSpec, epoch: u64, place: &Worker) -> Result<Self> {
        let Worker { ranks, device, .. } = place;
        let (kind, count) = (config.precision.dtype.kind(), config.batch.global(ranks.world_size()));
        let samples: Vec<u64> = (0..count as u64).collect();
        let noise = |purpose, samples: &[u64]| Noise::new(&Draws::new(config.seed, purpose, epoch), samples, *device);
        let [channels, height, width] = form.image.map(|size| size as i64);
        let like = Tensor::zeros([count as i64, channels, height, width], (kind, *device));
        let labels: Vec<i64> = samples.iter().map(|sample| *sample as i64 % form.classes as i64).collect();
        let whole = Batch {
            images: noise(Purpose::Evaluation(0), &samples).uniform(&like),
            labels: Tensor::from_slice(&labels).to_device(*device),
            samples,
            global_count: count,
        };
        let starts = noise(Purpose::AttackStart, &whole.samples);
        let start = Pgd { steps: 0, ..config.attack.pgd() }.perturb(&whole.images, &starts, &|_| unreachable!());
        let slots: Vec<u64> =
            Shard { rank: ranks.rank(), world_size: ranks.world_size() }.slots(count).map(|slot| slot as u64).collect();
        let rows = Tensor::from_slice(&slots.iter().map(|slot| *slot as i64).collect::<Vec<_>>()).to_device(*device);
        let (images, labels) = (whole.images.index_select(0, &rows), whole.labels.index_select(0, &rows));
        let noise = noise(Purpose::AttackStart, &slots);
        let own = Batch { images, labels, samples: slots, global_count: count };

        let timeline = Timeline::new(*device, place.activity.clone());
        let seasoned = |seed, reached| {
            let model = Model::build(form, seed, kind, *device, reached);
            (0..10).for_each(|_| drop(no_grad(|| model.logits(&whole.images, Mode::Train))));
            model
        };
        let terms: Vec<Term> = config.active_terms(epoch).collect();
        // The student's average is made with the step.
        let average = config.averages_teach().then_some(EMA);
        let learns = |network: &str| config.learners.contains_key(network);
        let teachers = config.asked(&terms).into_iter().filter(|network| Some(*network) != average && !learns(network));
        let teachers: BTreeMap<String, Model> = teachers
            .enumerate()
            .map(|(place, name)| (name.to_string(), seasoned(config.seed + 1 + place as u64, None)))
            .collect();
        let sync = config.batch_norm.across_ranks == AcrossRanks::Sync && ranks.world_size() > 1;
        let fused = config.batch_norm.fused && has_fused_batch_norm(*device);
        let reached = || sync.then(|| over_ranks(Arc::clone(ranks), timeline.clone(), fused));
        let student = seasoned(config.seed, reached());
        let learner = |(name, learner): (&String, &Learner)| {
            let form = ModelSpec::of(&learner.network(&config.student), form.image, form.classes);
            (name.clone(), Model::build(form, config.seed_of_learner(name), kind, *device, reached()))
        };
        let learners = config.learners.iter().map(learner).collect();
        let networks = Networks::new(student, teachers, config.precision).with_learners(learners);
        let networks = Networks { timeline, ..networks };
        let mut step = Step::new(config, networks, Arc::clone(ranks))?;
        step.work.begin_epoch(config, epoch);
        let (rate, precision, activity) = (config.optimizer.lr, config.precision, place.activity.clone());
        Ok(Self { step, terms, whole, own, noise, start, rate, device: *device, precision, activity })
    }

    /// What it computes in, and with which instructions.
    pub fn precision(&self) -> String {
        self.precision.at_work(self.device)
    }

    /// Runs the step once.
    ///
    /// # Errors
    /// A failure of the transport or of the device.
    pub fn run(&mut self) -> Result<Timed> {
        synchronize(self.device);
        let began = Instant::now();
        let timeline = self.step.work.networks.timeline.clone();
        timeline.pause();
        let _ = self.activity.take_sums();
        let seen = self.step.run(&self.own, &self.noise, &self.terms, self.rate)?.read()?;
        synchronize(self.device);
        let seconds = began.elapsed().as_secs_f64();
        let loss: f64 = seen.sums.losses.values().sum();
        let phases = Phase::ALL.iter().map(|phase| phase.name()).zip(timeline.lap().seconds()).collect();
        let peak_memory = torch_ext::peak_memory(self.device);
        let warning = self.step.take_warning();
        let Sums { count: sums, bytes: sum_bytes } = self.activity.take_sums();
        let loss = loss / self.own.global_count as f64;
        Ok(Timed { loss, seconds, phases, sums, sum_bytes, peak_memory, warning })
    }

    /// Writes the step's inputs to a safetensors file in single precision: `images`, `labels`, the attack's `start`,
    /// and tensors as `student/NAME` and `TEACHER/NAME`. Teachers must not be cast to bfloat16 yet.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn save(&self, file: &Path) -> Result<()> {
        let Networks { student, teachers, .. } = &self.step.work.networks;
        let mut tensors = vec![
            ("images".to_string(), self.whole.images.to_kind(Kind::Float)),
            ("labels".to_string(), self.whole.labels.shallow_clone()),
            ("start".to_string(), self.start.to_kind(Kind::Float)),
        ];
        let teachers = teachers.iter().map(|(name, model)| (name.as_str(), model));
        for (network, model) in std::iter::once((STUDENT, student)).chain(teachers) {
            let named = model.tensors().map(|named| (format!("{network}/{}", named.name), &named.tensor));
            tensors.extend(named.map(|(name, tensor)| (name, tensor.detach().to_kind(Kind::Float))));
        }
        let on_host: Vec<_> = tensors.iter().map(|(name, tensor)| (name, tensor.to_device(Device::Cpu))).collect();
        Ok(Tensor::write_safetensors(&on_host, file)?)
    }

    /// Attacks the student in evaluation mode by 20 steps on cross-entropy, like an evaluation. From then on the
    /// student is folded.
    pub fn evaluate(&mut self, fold: bool) -> f64 {
        let student = &self.step.work.networks.student;
        student.freeze();
        if fold {
            student.fold_batch_norm(student.kind());
        }
        let attack = Pgd {
            ball: Ball { norm: Norm::Linf, eps: 8.0 / 255.0 },
            step: 2.0 / 255.0,
            steps: 20,
            start: crate::config::Start::Uniform,
            clamp_start: true,
        };
        let objective = |candidate: &Tensor| {
            let logits = student.logits(candidate, Mode::Eval);
            -log_probability_of(&logits, &self.own.labels).sum(Kind::Float)
        };
        synchronize(self.device);
        let began = Instant::now();
        drop(attack.perturb(&self.own.images, &self.noise, &objective));
        synchronize(self.device);
        began.elapsed().as_secs_f64()
    }
}

/// Waits until `device` is idle.
fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}
