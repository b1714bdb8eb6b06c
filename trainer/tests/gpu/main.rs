//! What only a GPU can show: that it computes, sums and waits as the CPU's tests say. Without one, each test says so and passes;
//! with `IAD_TEST_GPU=cpu` they rehearse, the CPU in the GPU's place; those of graphs with `IAD_TEST_GRAPHS=1` too.

mod graphs;
mod kernels;
mod queue;
mod steps;
mod sums;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use comm::Single;
use datasets::{Draws, HostBatch, Purpose};
use tch::{Cuda, Device, Kind, Tensor};
use trainer::config::{RunConfig, Term};
use trainer::method::attack::Noise;
use trainer::method::networks::Networks;
use trainer::model::{Model, ModelSpec};
use trainer::step::Step;
use trainer::step::batch::Batch;
use trainer::step::diagnostics::Observed;

/// A GPU, for one test at a time: what is forbidden and what is counted holds for the whole process.
struct Gpu {
    device: Device,
    _alone: MutexGuard<'static, ()>,
}

/// The first GPU, if there is one.
#[allow(clippy::print_stdout)] // A test that tested nothing says so.
fn gpu() -> Option<Gpu> {
    static FOUND: OnceLock<Option<Device>> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());
    let found = *FOUND.get_or_init(|| {
        // libtorch remembers the first answer about GPUs, so its CUDA half must be there before the question.
        let loaded = torch_ext::load_cuda();
        torch_ext::exact_arithmetic().unwrap();
        let rehearsed = std::env::var_os("IAD_TEST_GPU").is_some_and(|device| device == "cpu");
        let found = loaded.is_ok() && Cuda::is_available();
        if rehearsed { Some(Device::Cpu) } else { found.then_some(Device::Cuda(0)) }
    });
    if found.is_none() {
        println!("skipped: no GPU");
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    found.map(|device| Gpu { device, _alone: alone })
}

const BASE: &str = r#"
epochs = 1
batch = { size = 6 }
data = { train = "none", test = "none" }
student = { architecture = "resnet8" }
teachers = { robust.checkpoint = "none", standard.checkpoint = "none" }
attack = { steps = 3, start = "uniform" }
optimizer = { lr = 0.05, lr_policy = "constant" }
metrics = { diagnostics = "full" }
"#;

/// The run of a preset whose terms all count from the first epoch, with a random start of the attack.
fn config(preset: &str, overrides: &[&str]) -> RunConfig {
    let begun: &[&str] = match preset {
        "iad-1" => &["loss.terms.introspect.from_epoch=0"],
        "iad-2" => &["loss.terms.introspect.from_epoch=0", "loss.terms.teach.trust.from_epoch=0"],
        "trades" => &["attack.start=gaussian"],
        _ => &[],
    };
    let overrides: Vec<_> = begun.iter().chain(overrides).map(|text| text.parse().unwrap()).collect();
    RunConfig::parse(&format!("{BASE}loss.preset = {preset:?}\n"), Path::new("test.toml"), &overrides).unwrap()
}

/// A new network; the same values on every device.
fn network(seed: u64, kind: Kind, device: Device) -> Model {
    let form = ModelSpec::new("resnet8".parse().unwrap(), [3, 16, 16], 5);
    Model::build(form, seed, kind, device, None)
}

/// A step on a device, and the batches it takes.
struct Taking {
    step: Step,
    config: RunConfig,
    terms: Vec<Term>,
    device: Device,
}

impl Taking {
    fn new(config: RunConfig, device: Device) -> Self {
        let kind = config.precision.dtype.kind();
        let teachers = [("robust", 2), ("standard", 3)];
        let teachers: BTreeMap<_, _> =
            teachers.into_iter().map(|(name, seed)| (name.to_string(), network(seed, kind, device))).collect();
        let learners = config.learners.keys().map(|name| (name.clone(), network(4, kind, device))).collect();
        let networks = Networks::new(network(1, kind, device), teachers, config.precision).with_learners(learners);
        let step = Step::new(&config, networks, Arc::new(Single)).unwrap();
        let terms = config.active_terms(0).collect();
        Self { step, config, terms, device }
    }

    /// Takes the step of this number, from bytes on the host.
    fn step(&mut self, number: u64) -> Observed {
        let draws = Draws::new(1, Purpose::AttackStart, number);
        let samples: Vec<u64> = (0..6).collect();
        let byte = |place: u64| (draws.key(1000 + place / 8) >> (place % 8 * 8)) as u8;
        let host = HostBatch {
            images: (0..6 * 3 * 16 * 16).map(byte).collect(),
            labels: samples.iter().map(|sample| (sample * 3 + number) as i64 % 5).collect(),
            samples,
            global_count: 6,
            mixture: None,
        };
        let batch = Batch::upload(&host, [3, 16, 16], self.config.precision.dtype.kind(), self.device);
        let noise = Noise::new(&draws, &batch.samples, self.device);
        self.step.run(&batch, &noise, &self.terms, 0.05 / (1.0 + number as f64)).unwrap()
    }
}

/// The relative distance (L2) of two tensors, wherever they are.
fn apart(one: &Tensor, other: &Tensor) -> f64 {
    let [one, other] = [one, other].map(|tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double));
    f64::try_from((one - &other).norm() / other.norm()).unwrap()
}
