use std::path::Path;

use super::*;

fn config(changes: &[&str]) -> RunConfig {
    let text = r#"
epochs = 10
batch = { size = 8 }
data = { train = "a.h5", test = "a.h5" }
student = { architecture = "resnet8" }
optimizer = { lr = 0.1, lr_policy = "constant" }
loss = { preset = "at" }
"#;
    let changes: Vec<_> = changes.iter().map(|change| change.parse().unwrap()).collect();
    RunConfig::parse(text, Path::new("test.toml"), &changes).unwrap()
}

fn all(config: &RunConfig, form: ModelSpec) -> [f64; 3] {
    let counted = StepLaunches::count(config, form, &[9]).unwrap().remove(0);
    [Statistics::Own, Statistics::Exact, Statistics::Fused].map(|statistics| counted.of(statistics).all())
}

#[test]
fn a_pass_launches_a_kernel_for_each_layer_there_and_for_each_gradient_back() {
    let form = ModelSpec::new("resnet8".parse().unwrap(), [3, 16, 16], 5);
    let network = Network::count(form, Precision::default());
    // Nine convolutions (two of shortcuts) and as many batch norms.
    let model = Model::build(form, 0, Kind::Float, Device::Cpu, None);
    let convolutions = model.parameters.iter().filter(|named| named.tensor.dim() == 4).count() as f64;
    let norms = model.statistics.len() as f64 / 2.0;
    for pass in [network.forward, network.to_image, network.to_parameters] {
        assert_eq!(pass.norms, norms);
        assert!(pass.others >= convolutions, "{pass:?}");
    }
    // The first convolution alone has no gradient of its input.
    assert!(network.to_parameters.others >= network.to_image.others + convolutions - 1.0);
    // A teacher has no batch norm of its own any more.
    assert!(network.as_teacher < network.forward.others + 1.0 && network.as_teacher >= convolutions);
}

/// A batch norm over the ranks costs its own kernels and no others, in each pass that measures the batch.
#[test]
fn fused_batch_norms_launch_seven_kernels_and_the_others_some_forty() {
    let form = ModelSpec::new("resnet8".parse().unwrap(), [3, 16, 16], 5);
    let norms = Network::count(form, Precision::default()).forward.norms;
    let [ahead, back] = exact();
    assert!((20.0..45.0).contains(&ahead) && (12.0..35.0).contains(&back), "{ahead} and {back}");
    for (attack, passes) in [("train_update", [11.0, 11.0]), ("eval", [1.0, 1.0])] {
        let changes = ["metrics.diagnostics=free", "attack.steps=10", &format!("attack.batch_norm={attack}")];
        let [own, exact, fused] = all(&config(&changes), form);
        let with =
            |[forward, backward]: [f64; 2]| norms * (passes[0] * (forward - OWN[0]) + passes[1] * (backward - OWN[1]));
        assert!((fused - own - with(FUSED)).abs() < 1e-6, "{attack}: {own} and {fused}");
        assert!((exact - own - with([ahead, back])).abs() < 1e-6, "{attack}: {own} and {exact}");
    }
}

/// Steps of the same passes through a network of twice the depth launch twice as much; parts of a batch each make all passes.
#[test]
fn launches_follow_the_passes() {
    let form = |depth: u32| ModelSpec::new(format!("wrn-{depth}-1").parse().unwrap(), [3, 16, 16], 5);
    let of = |depth| all(&config(&["attack.steps=2"]), form(depth))[0];
    let (ten, sixteen, twenty_two) = (of(10), of(16), of(22));
    assert!(((twenty_two - sixteen) / (sixteen - ten) - 1.0).abs() < 0.01, "{ten}, {sixteen}, {twenty_two}");
    let parts = all(&config(&["attack.steps=2", "batch.accumulate=2"]), form(10))[0];
    assert!((1.8..2.1).contains(&(parts / ten)), "{ten}, in two parts {parts}");
}
