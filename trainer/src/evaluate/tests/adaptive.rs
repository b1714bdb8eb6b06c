//! The adaptive check on a network whose gradients are 0 everywhere, for its images are rounded.

use super::*;
use crate::evaluate::adaptive::through_stand_in;
use crate::fixtures::on_ranks;

/// A network of rounded images, as after a reduction of their bit depth. The network without the rounding may stand in.
struct Rounded<'a> {
    network: &'a Model,
    stands_in: bool,
}

impl Rounded<'_> {
    const LEVELS: f64 = 31.0;
}

impl Classifier for Rounded<'_> {
    fn classes(&self) -> usize {
        self.network.classes()
    }

    fn kind(&self) -> Kind {
        Classifier::kind(self.network)
    }

    fn device(&self) -> Device {
        Classifier::device(self.network)
    }

    fn logits(&self, images: &Tensor) -> Tensor {
        Classifier::logits(self.network, &((images * Self::LEVELS).round() / Self::LEVELS))
    }

    fn stand_in(&self, images: &Tensor) -> Option<Tensor> {
        self.stands_in.then(|| Classifier::logits(self.network, images))
    }
}

fn found(network: &Rounded, source: &Memory, names: &[&str], (batch, eps): (usize, f64)) -> Outcomes {
    let (suite, stop) = (Suite::named(names.iter().copied()).unwrap(), AtomicBool::new(false));
    let protocol = Protocol { eps, batch, ..protocol() };
    engine(network, source, &suite, &protocol, &stop).run(&mut Records::default(), &mut |_| ()).unwrap().unwrap()
}

#[test]
fn a_network_with_masked_gradients_looks_robust_and_falls_to_the_adaptive_check() {
    let (model, source) = network(10);
    let masked = Rounded { network: &model, stands_in: true };
    let plain = found(&masked, &source, &["pgd20", "apgd_ce"], (16, 0.05));
    let natural = plain.naturally_right();
    assert!(natural * 10 >= COUNT as u64 * 9, "{natural} right");
    assert!(correct(&plain, "pgd20") * 10 >= natural * 8, "{:?}", plain.accuracies());
    let said = warnings(&plain, "iad-launch eval RUN");
    assert!(said.len() == 1 && said[0].contains("exactly 0 for 40 of 40"), "{said:?}");
    assert!(said[0].contains("`iad-launch eval RUN --suite adaptive`"), "{said:?}");

    let adapted = found(&masked, &source, &["pgd20", "apgd_ce", "adaptive"], (16, 0.05));
    assert!(correct(&adapted, "adaptive") * 4 <= correct(&adapted, "pgd20"), "{:?}", adapted.accuracies());
    let said = warnings(&adapted, "iad-launch eval RUN");
    assert!(said.len() == 2 && said[1].contains("the adaptive check takes"), "{said:?}");
    assert!(!said.concat().contains("--suite"), "{said:?}");
    // Each start takes images that those before it left, or none.
    let parts = &adapted.components()["adaptive"];
    assert!(parts.len() == 5 && parts.is_sorted_by(|one, next| one.correct >= next.correct), "{parts:?}");

    // It is the stand-in that finds them, not the starts.
    let blind = found(&Rounded { stands_in: false, ..masked }, &source, &["adaptive"], (16, 0.05));
    assert!(correct(&blind, "adaptive") > 2 * correct(&adapted, "adaptive"), "{:?}", blind.accuracies());
}

/// Logits are the network's own to the bit, and so is what an image falls for; the gradient is that of the stand-in.
#[test]
fn the_stand_in_gives_the_gradient_alone() {
    let (model, _) = network(10);
    let masked = Rounded { network: &model, stands_in: true };
    let images = Tensor::arange(2 * 192, (Kind::Float, Device::Cpu)).view([2, 3, 8, 8]) / 400.0;
    let passes = |forward: &dyn Fn(&Tensor) -> Tensor| {
        let images = images.detach().set_requires_grad(true);
        let logits = forward(&images);
        logits.select(1, 3).sum(Kind::Float).backward();
        (logits.detach(), images.grad())
    };
    let through = passes(&|images| through_stand_in(&masked, images));
    let (own, smooth) = (passes(&|images| masked.logits(images)), passes(&|images| masked.stand_in(images).unwrap()));
    assert!(through.0.equal(&own.0) && !through.0.equal(&smooth.0));
    assert!(through.1.equal(&smooth.1) && f64::try_from(own.1.abs().max()).unwrap() == 0.0);
}

#[test]
fn ranks_and_batches_do_not_change_what_the_adaptive_check_finds() {
    const EPS: f64 = 0.02;
    let (model, source) = network(10);
    let table = |found: Outcomes| (found.table(|_| 0), found.accuracies().unwrap());
    let masked = Rounded { network: &model, stands_in: true };
    let one = table(found(&masked, &source, &["natural", "adaptive3"], (16, EPS)));
    assert!((1..COUNT as u64).contains(&one.1[1].correct), "nothing to tell apart: {:?}", one.1);
    assert_eq!(one, table(found(&masked, &source, &["natural", "adaptive3"], (64, EPS))));
    for world_size in [2, 3] {
        let of_ranks = on_ranks(world_size, true, |ranks| {
            let (model, source) = network(10);
            let network = Rounded { network: &model, stands_in: true };
            let (suite, stop) = (Suite::named(["natural", "adaptive3"]).unwrap(), AtomicBool::new(false));
            let protocol = Protocol { eps: EPS, batch: 16, ..protocol() };
            let engine = Engine { ranks: ranks.as_ref(), ..engine(&network, &source, &suite, &protocol, &stop) };
            table(engine.run(&mut Records::default(), &mut |_| ()).unwrap().unwrap())
        });
        assert!(of_ranks.iter().all(|found| found.0 == one), "{world_size} ranks");
    }
}
