//! The cost model against the counted networks, the published table of passes, and steps that are counted while they run.

use std::path::Path;

use super::*;

fn form(architecture: &str, image: [usize; 3], classes: usize) -> ModelSpec {
    ModelSpec::new(architecture.parse().unwrap(), image, classes)
}

fn config(preset: &str, overrides: &[&str]) -> RunConfig {
    let text = format!(
        r#"
epochs = 200
batch = {{ size = 128 }}
data = {{ train = "none", test = "none" }}
student = {{ architecture = "convnet" }}
optimizer = {{ lr = 0.1, lr_policy = "reference" }}
teachers = {{ robust.checkpoint = "none", standard.checkpoint = "none" }}
batch_norm = {{ compat = "lean" }}
metrics = {{ diagnostics = "free" }}
loss.preset = {preset:?}
"#
    );
    let overrides: Vec<_> = overrides.iter().map(|text| text.parse().unwrap()).collect();
    RunConfig::parse(&text, Path::new("test.toml"), &overrides).unwrap()
}

#[test]
fn forward_passes_are_those_of_the_reference_networks() {
    for (architecture, size, classes, all, stem) in [
        ("resnet18", 32, 10, 555_422_720, 1_769_472),
        ("resnet18", 32, 100, 555_468_800, 1_769_472),
        ("wrn-34-10", 32, 10, 6_658_906_368, 442_368),
        ("preact-resnet18", 64, 200, 2_221_772_800, 7_077_888),
        ("preact-resnet18", 32, 10, 555_422_720, 1_769_472),
        ("mobilenet-v2", 32, 10, 91_154_944, 884_736),
        ("mobilenet-v2", 32, 100, 91_270_144, 884_736),
    ] {
        let counted = Forward::of(form(architecture, [3, size, size], classes));
        assert_eq!(counted, Forward { all, stem }, "{architecture} at {size} for {classes}");
    }
}

/// Each row: a method, an epoch, and GMAC and GFLOP of an image's step for ResNet-18, WRN-34-10 and PreActResNet-18 at 64x64.
#[test]
fn a_step_costs_what_its_passes_say() {
    let networks = [(555_422_720, 1_769_472), (6_658_906_368, 442_368), (2_221_772_800, 7_077_888)];
    let detached = "loss.terms.introspect.stop_gradient=true";
    for (preset, overrides, epochs, expected) in [
        ("st", &[][..], &[0][..], ["1.664 3.33", "19.976 39.95", "6.658 13.32"]),
        ("at", &[], &[0], ["12.773 25.55", "153.154 306.31", "51.094 102.19"]),
        ("trades", &[], &[0], ["14.993 29.99", "179.790 359.58", "59.974 119.95"]),
        ("ard", &[], &[0], ["13.328 26.66", "159.813 319.63", "53.315 106.63"]),
        ("iad-1", &[], &[0, 59], ["13.328 26.66", "159.813 319.63", "53.315 106.63"]),
        ("akd2", &[], &[0], ["13.884 27.77", "166.472 332.94", "55.537 111.07"]),
        ("iad-2", &[], &[0, 39], ["13.884 27.77", "166.472 332.94", "55.537 111.07"]),
        ("iad-1", &[detached], &[60], ["14.439 28.88", "173.131 346.26", "57.759 115.52"]),
        ("iad-2", &[detached], &[40], ["14.439 28.88", "173.131 346.26", "57.759 115.52"]),
        ("iad-1", &[], &[60, 199], ["15.548 31.10", "186.448 372.90", "62.195 124.39"]),
        ("iad-2", &[], &[40, 199], ["15.548 31.10", "186.448 372.90", "62.195 124.39"]),
    ] {
        for epoch in epochs {
            for ((all, stem), expected) in networks.into_iter().zip(expected) {
                let passes = passes(&config(preset, overrides), *epoch);
                let cost: u64 = passes.values().map(|passes| passes.multiply_adds(Forward { all, stem })).sum();
                let found = format!("{:.3} {:.2}", cost as f64 / 1e9, 2.0 * cost as f64 / 1e9);
                assert_eq!(found, expected, "{preset} {overrides:?} in epoch {epoch}");
            }
        }
    }
}

#[test]
fn passes_in_units_of_a_forward_pass_are_those_of_the_methods() {
    let units = |preset: &str, overrides: &[&str], epoch| {
        passes(&config(preset, overrides), epoch)
            .values()
            .map(|one| one.multiply_adds(Forward { all: 1, stem: 0 }))
            .sum()
    };
    let lambda = ["loss.terms.label.weight=0.1"];
    let constant = ["loss.terms.introspect.trust="];
    let reference = ["batch_norm.compat=reference"];
    let found: [u64; 11] = [
        units("ard", &lambda, 0),
        units("iad-1", &lambda, 59),
        units("iad-1", &lambda, 60),
        units("iad-1", &constant, 60),
        // Without gradient, the reference's passes that are not used cost one each.
        units("ard", &reference, 0),
        units("iad-1", &reference, 0),
        units("iad-1", &reference, 60),
        units("trades", &reference, 0),
        // The teacher's natural prediction serves the attack and the loss.
        units("rslad", &[], 0),
        // Diagnostics: the student on natural images, its teacher on adversarial ones.
        units("ard", &["metrics.diagnostics=full"], 0),
        units("ard", &["metrics.diagnostics=full", "batch_norm.compat=reference"], 0),
    ];
    assert_eq!(found, [27, 27, 28, 27, 25, 26, 30, 28, 27, 26, 26]);
}

#[test]
fn a_run_costs_its_steps_and_measurements() {
    let one = Forward::of(form("resnet8", [1, 28, 28], 10));
    let images = ImageCounts { train: 50_000, selection: 1_000, test: 10_000 };
    let suite = "evaluation.suite=[\"natural\", \"fgsm\", \"pgd20\"]";
    let cost = of(&config("iad-1", &[suite]), one, &BTreeMap::new(), images);
    let (warm, full) = (24 * one.all - one.stem, 28 * one.all - 2 * one.stem);
    assert_eq!(cost.step_per_image, [(0, warm), (60, full)]);
    assert_eq!(cost.training, 50_000 * (60 * u128::from(warm) + 140 * u128::from(full)));
    assert_eq!(cost.selection, 200 * 1_000 * 22 * u128::from(one.all));
    assert_eq!(cost.evaluation, 10_000 * (1 + 3 + 41) * u128::from(one.all));

    let larger = BTreeMap::from([("robust".to_string(), Forward::of(form("resnet18", [1, 28, 28], 10)))]);
    let teacher = larger["robust"].all;
    let cost = of(&config("iad-1", &["evaluation.selection=none"]), one, &larger, images);
    assert_eq!(cost.step_per_image[1], (60, 26 * one.all - 2 * one.stem + 2 * teacher));
    assert_eq!(cost.selection, 0);
    let standard = of(&config("st", &["evaluation.every=3"]), one, &BTreeMap::new(), images);
    assert_eq!((standard.step_per_image.len(), standard.selection), (1, 66 * 1_000 * u128::from(one.all)));
}
