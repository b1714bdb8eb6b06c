//! TorchScript files: a network of any kind together with its program, as `torch.jit.save` writes it.
//!
//! libtorch interprets the program. It can compute and read its own tensors; still, evaluate only files whose makers you trust.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use datasets::zip::{At, Member, Zip};
use datasets::{UserError, open_regular};
use serde::Serialize;
use tch::{CModule, Device, Kind, TchError, Tensor, no_grad};

/// Logits of an image that differ by more than this share of the largest one depend on the other images of the batch.
const BATCH_DEPENDENCE: f64 = 1e-3;
/// The method of a file whose gradient stands in for that of `forward` in the adaptive check.
const STAND_IN: &str = "stand_in";
/// The extra file that names the outputs, as a list of strings in JSON.
pub const CLASS_NAMES: &str = "extra/class_names.json";
/// The most bytes it may have.
const MOST_NAMES: u64 = 1 << 22;

/// What a TorchScript network takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ScriptSpec {
    /// Always `torchscript`.
    pub architecture: &'static str,
    /// Channels, height and width of its images.
    pub image: [usize; 3],
    /// The number of its outputs.
    pub classes: usize,
    /// Whether the file has a method `stand_in`. It is written only then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stand_in: bool,
}

/// A loaded TorchScript network in evaluation mode.
pub struct ScriptedNetwork {
    /// What it takes and gives.
    pub spec: ScriptSpec,
    /// The type of its parameters, and so of its images: float32 or float64.
    pub kind: Kind,
    /// Where it computes.
    pub device: Device,
    /// The names of its outputs, where the file has them.
    pub class_names: Vec<String>,
    module: CModule,
    /// The outputs that are used, if not all in their order.
    selected: Option<Tensor>,
}

/// Whether `file` is a TorchScript file.
pub fn is_script(file: &Path) -> bool {
    let zip = open_regular(file).ok().and_then(|file| Zip::open(Arc::new(file)).ok());
    zip.is_some_and(|zip| holds_script(&zip))
}

/// Whether an archive is a TorchScript file: it has `code/` and `constants.pkl` in its one folder.
pub(super) fn holds_script<B: At>(zip: &Zip<B>) -> bool {
    let has = |wanted: &dyn Fn(&str) -> bool| {
        zip.members.iter().any(|member| member.name.split_once('/').is_some_and(|(_, inner)| wanted(inner)))
    };
    has(&|name| name == "constants.pkl") && has(&|name| name.starts_with("code/"))
}

impl ScriptedNetwork {
    /// Loads the network in `file` onto `device` and tries it on `images [N, C, H, W]`, a whole batch of an evaluation. Also
    /// returns warnings.
    ///
    /// # Errors
    /// A [`UserError`] for a file that libtorch cannot load, a network that fails on the images, gives something other than
    /// logits `[N, classes]`, or gives no gradient.
    pub fn load(file: &Path, images: &Tensor, device: Device) -> Result<(Self, Vec<String>), UserError> {
        let error = |expected: &str, value: String| UserError::expected(expected).file(file).value(value);
        // The plain interpreter computes what PyTorch computes eagerly, and the same in every pass.
        tch::jit::set_graph_executor_optimize(false);
        let mut module = CModule::load_on_device(file, device).map_err(|problem| {
            error("a TorchScript file that this libtorch loads", summary(&problem))
                .hint("save it again with the torch.jit.save of a PyTorch that is not newer than this program's")
        })?;
        module.set_eval();
        let parameters = module.named_parameters().map_err(|problem| error("parameters", summary(&problem)))?;
        for (_, parameter) in &parameters {
            let _ = parameter.set_requires_grad(false);
        }
        let mut kinds = parameters.iter().map(|(_, parameter)| parameter.kind());
        let kind = kinds.find(|kind| kind_is_floating(*kind)).unwrap_or(Kind::Float);
        if ![Kind::Float, Kind::Double].contains(&kind) {
            return Err(error("parameters of float32 or float64", format!("{kind:?}"))
                .hint("call model.float() before torch.jit.trace or torch.jit.script"));
        }
        let images = images.to_kind(kind);
        let [rows, channels, height, width] = [0, 1, 2, 3].map(|place| images.size()[place]);
        let variable = images.detach().set_requires_grad(true);
        let logits = module.forward_ts(&[&variable]).map_err(|problem| {
            error(
                &format!("a network that takes images [{rows}, {channels}, {height}, {width}] in [0, 1]"),
                summary(&problem),
            )
            .hint("make it take any number of images and return the logits alone, as docs/evaluation.md shows")
        })?;
        let checked = |logits: &Tensor, what: &str| -> Result<i64, UserError> {
            let shape = logits.size();
            let &[found, classes] = shape.as_slice() else {
                let value = format!("an output of shape {shape:?}");
                return Err(error(&format!("logits of shape [{rows}, classes]{what}"), value));
            };
            if found != rows || classes < 2 || logits.kind() != kind {
                let value = format!("an output of shape {shape:?} and type {:?}", logits.kind());
                let expected = format!("logits of shape [{rows}, 2 or more classes] and type {kind:?}{what}");
                return Err(error(&expected, value));
            }
            if !logits.requires_grad() {
                let expected = format!("logits with a gradient towards the images{what}");
                return Err(error(&expected, "logits without".into())
                    .hint("leave torch.no_grad, detach and argmax out of its forward"));
            }
            Ok(classes)
        };
        let classes = checked(&logits, "")?;
        let stand_in = match module.method_ts(STAND_IN, &[&variable]) {
            Ok(smooth) if checked(&smooth, " from its method stand_in")? == classes => true,
            Ok(smooth) => {
                let expected = format!("{classes} logits from its method stand_in, as from forward");
                return Err(error(&expected, format!("{}", smooth.size()[1])));
            }
            Err(problem) if problem.to_string().contains(&format!("Method '{STAND_IN}' is not defined")) => false,
            Err(problem) => {
                let expected = format!("a method stand_in that takes images [{rows}, {channels}, {height}, {width}]");
                return Err(error(&expected, summary(&problem)));
            }
        };
        let spec = ScriptSpec {
            architecture: "torchscript",
            image: [channels, height, width].map(|size| size as usize),
            classes: classes as usize,
            stand_in,
        };
        let network = Self { spec, kind, device, class_names: class_names(file), module, selected: None };
        let warnings = network.batch_dependence(&images, &logits.detach()).into_iter().collect();
        Ok((network, warnings))
    }

    /// Uses only these outputs, in that order, from now on.
    pub fn select(&mut self, outputs: Option<&[usize]>) {
        let places = |outputs: &[usize]| outputs.iter().map(|&output| output as i64).collect::<Vec<_>>();
        self.selected = outputs.map(|outputs| Tensor::from_slice(&places(outputs)).to_device(self.device));
    }

    /// The number of outputs that are used.
    pub fn outputs(&self) -> usize {
        self.selected.as_ref().map_or(self.spec.classes, Tensor::numel)
    }

    /// Images `[N, C, H, W]` in [0, 1] to logits `[N, outputs]`.
    ///
    /// # Panics
    /// When its program fails, which it did not on the first batch.
    pub fn logits(&self, images: &Tensor) -> Tensor {
        self.chosen(self.module.forward_ts(&[images]))
    }

    /// The logits `[N, outputs]` of its method `stand_in`, if it has one.
    ///
    /// # Panics
    /// As [`logits`](Self::logits).
    pub fn stand_in(&self, images: &Tensor) -> Option<Tensor> {
        self.spec.stand_in.then(|| self.chosen(self.module.method_ts(STAND_IN, &[images])))
    }

    /// The outputs that are used, of all that it gave.
    fn chosen(&self, logits: Result<Tensor, TchError>) -> Tensor {
        let logits = logits.unwrap_or_else(|problem| panic!("the TorchScript network failed: {}", summary(&problem)));
        self.selected.as_ref().map_or(logits.shallow_clone(), |outputs| logits.index_select(1, outputs))
    }

    /// A warning if the first image's logits change with the other images, as they do in training mode.
    fn batch_dependence(&self, images: &Tensor, logits: &Tensor) -> Option<String> {
        let others = images.flip([3]) * 0.5;
        others.get(0).copy_(&images.get(0));
        let (alone, before) = (no_grad(|| self.logits(&others)).get(0), logits.get(0));
        let largest = f64::try_from(before.abs().max()).unwrap_or(f64::NAN);
        let difference = f64::try_from((alone - before).abs().max()).unwrap_or(f64::NAN);
        (difference > BATCH_DEPENDENCE * largest).then(|| {
            "an image's logits depend on the other images of its batch: the network normalises by the batch, as in training \
             mode. Its accuracies mean little; call model.eval() before torch.jit.trace"
                .into()
        })
    }
}

/// The names that `extra/class_names.json` in the file gives the outputs.
fn class_names(file: &Path) -> Vec<String> {
    let read = || {
        let zip = Zip::open(Arc::new(open_regular(file).ok()?)).ok()?;
        let named = |member: &&Member| member.name.split_once('/').is_some_and(|(_, inner)| inner == CLASS_NAMES);
        let text = zip.read(zip.members.iter().find(named)?, MOST_NAMES).ok()?;
        serde_json::from_slice(&text).ok()
    };
    read().unwrap_or_default()
}

fn kind_is_floating(kind: Kind) -> bool {
    [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16].contains(&kind)
}

/// The line of libtorch's message that says what is wrong, without its traces.
fn summary(problem: &TchError) -> String {
    let text = problem.to_string().replace("Internal torch error: ", "");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let telling = lines.iter().find_map(|line| line.split_once("Error: ").map(|(_, rest)| rest));
    telling.or(lines.first().copied()).unwrap_or("failed").to_string()
}
