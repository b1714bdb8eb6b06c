//! Recognises the network of tensors by their names and shapes.

use crate::config::Architecture;
use crate::weights::foreign::prefixes::Entries;

/// How many names a message shows of each sort.
const SHOWN: usize = 5;

/// Networks that are recognised but not read: a part of a tensor's name, and the network.
const OTHERS: [(&str, &str); 6] = [
    (".se.fc1.", "a WideResNet with squeeze-and-excitation (RaWRN, NormalizedWideResNet)"),
    ("meansparse_", "a MeanSparse network"),
    ("activation.alpha", "a WideResNet with a parametric activation (PSSiLU)"),
    ("stem_conv.", "a RobustWRN or WRN-A4"),
    ("blocks.0.attn", "a transformer (XCiT, ViT or Swin)"),
    ("layer1.0.bn0.", "a pre-activation ResNet-50"),
];

/// The network of tensors of these names, and what was assumed of it.
///
/// # Errors
/// In words: what the names lack, or which networks they may belong to.
pub fn recognise(tensors: &Entries) -> Result<(Architecture, Option<String>), String> {
    let has = |name: &str| tensors.contains_key(name);
    let size = |name: &str, place: usize| tensors.get(name).and_then(|tensor| tensor.shape.get(place)).copied();
    if let Some((_, other)) = OTHERS.iter().find(|(part, _)| tensors.keys().any(|name| name.contains(part))) {
        return Err(format!("{other}, which this program does not have"));
    }
    let blocks = |name: &dyn Fn(usize) -> String| (0..).take_while(|block| has(&name(*block))).count();
    if has("block1.layer.0.conv1.weight") {
        let blocks = blocks(&|block| format!("block1.layer.{block}.conv1.weight"));
        let channels = size("block1.layer.0.conv1.weight", 0).unwrap_or(0);
        return Ok((format!("wrn-{}-{}", 6 * blocks + 4, channels / 16).parse()?, None));
    }
    if has("layer.0.block.0.conv_0.weight") {
        let blocks = blocks(&|block| format!("layer.0.block.{block}.conv_0.weight"));
        let channels = size("layer.0.block.0.conv_0.weight", 0).unwrap_or(0);
        return Err(activation_unknown(&format!("dm-wrn-{}-{}", 6 * blocks + 4, channels / 16)));
    }
    if has("layer_0.0.conv_2d_1.weight") {
        return Err(activation_unknown("dm-preact-resnet18"));
    }
    if has("layers.0.conv3.weight") {
        return Ok((Architecture::MobileNetV2, None));
    }
    if has("layer1.0.conv1.weight") {
        // A pre-activation block normalises the channels that come in; a basic one those that it has made.
        return if size("layer2.0.bn1.weight", 0) == size("layer2.0.conv1.weight", 1) {
            preact_resnet(has("bn.weight"), has("bn1.weight"))
        } else {
            resnet(tensors).map(|architecture| (architecture, None))
        };
    }
    if has("conv4.weight") && has("linear.weight") {
        return Ok((Architecture::ConvNet, None));
    }
    let first: Vec<&str> = tensors.keys().take(SHOWN).map(String::as_str).collect();
    Err(format!("tensors of no network that is known: {}, ...", first.join(", ")))
}

fn activation_unknown(name: &str) -> String {
    format!(
        "its tensors are those of {name}, and do not tell its activation: give --architecture {name} (SiLU, as all of \
         RobustBench's networks of this kind have it), --architecture {name}-relu, or --id and its name in RobustBench"
    )
}

fn preact_resnet(last_norm: bool, normalises_stem: bool) -> Result<(Architecture, Option<String>), String> {
    if normalises_stem {
        return Err(
            "a pre-activation ResNet with a batch norm after its first convolution, which this program does not \
                    have"
                .into(),
        );
    }
    if last_norm {
        let assumed = "assumed shortcuts that take the activated images, as in all published networks with a last batch \
                       norm; --architecture preact-resnet18-raw says otherwise. The tensors do not tell: compare the \
                       accuracy with --data";
        return Ok((Architecture::PreActResNet18 { raw_shortcut: false, last_norm }, Some(assumed.into())));
    }
    Err("a PreActResNet-18 without a batch norm before its classifier, whose tensors do not tell what its shortcuts take: \
         give --architecture preact-resnet18-no-last-norm (activated images, as in the reference's \
         pre_train/models/preact_resnet.py), --architecture preact-resnet18-raw-no-last-norm (raw images, as in Wong2020Fast \
         and Andriushchenko2020Understanding), or --id and its name in RobustBench"
        .into())
}

fn resnet(tensors: &Entries) -> Result<Architecture, String> {
    let has = |name: &str| tensors.contains_key(name);
    let count = |layer| (0..).take_while(|block| has(&format!("layer{layer}.{block}.conv1.weight"))).count();
    let counts = [1, 2, 3, 4].map(count);
    let depth = match (counts, has("layer1.0.conv3.weight")) {
        ([_, _, _, 0], false) => return Ok(Architecture::ResNet8),
        ([2, 2, 2, 2], false) => 18,
        ([3, 4, 6, 3], false) => 34,
        ([3, 4, 6, 3], true) => 50,
        _ => return Err(format!("a ResNet of {counts:?} blocks; those of ResNet-18, -34 and -50 are known")),
    };
    let large = tensors.get("conv1.weight").and_then(|stem| stem.shape.get(2)) == Some(&7);
    Ok(if large { Architecture::TorchvisionResNet { depth } } else { Architecture::ResNet { depth } })
}

/// The names of the first and the last layer of a network.
pub fn ends(architecture: Architecture) -> (&'static str, &'static str) {
    match architecture {
        Architecture::WideResNet { .. } | Architecture::TorchvisionResNet { .. } => ("conv1.weight", "fc.weight"),
        Architecture::DeepMindWideResNet { .. } => ("init_conv.weight", "logits.weight"),
        Architecture::DeepMindPreActResNet18 { .. } => ("conv_2d.weight", "logits.weight"),
        _ => ("conv1.weight", "linear.weight"),
    }
}

/// Whether DeepMind's code trained it, which never saves the normalisation that it does.
pub fn hides_normalization(architecture: Architecture) -> bool {
    matches!(architecture, Architecture::DeepMindWideResNet { .. } | Architecture::DeepMindPreActResNet18 { .. })
}

/// The first of these names, and how many more there are.
pub fn shortened(names: &[String]) -> String {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}
