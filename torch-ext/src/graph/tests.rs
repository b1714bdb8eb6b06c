use tch::{Tensor, no_grad};

use super::*;

fn sequence(count: i64, scale: f64) -> Tensor {
    (Tensor::arange(count, tch::kind::DOUBLE_CPU) * scale).sin()
}

/// What a training step does to memory: views, gradients added into a buffer, updates in place, running statistics.
struct Work {
    weight: Tensor,
    gradient: Tensor,
    statistics: Tensor,
    images: Tensor,
    rate: Tensor,
}

impl Work {
    fn new() -> Self {
        let weight = sequence(2 * 3 * 9, 0.7).view([2, 3, 3, 3]).set_requires_grad(true);
        let gradient = weight.zeros_like();
        crate::set_gradient(&weight, &gradient).unwrap();
        let statistics = Tensor::zeros([2, 2], tch::kind::DOUBLE_CPU);
        Self {
            weight,
            gradient,
            statistics,
            images: sequence(4 * 3 * 25, 0.3).view([4, 3, 5, 5]),
            rate: sequence(1, 1.0),
        }
    }

    fn set(&self, number: f64) {
        no_grad(|| {
            self.images.shallow_clone().copy_(&sequence(4 * 3 * 25, 0.3 + number).view([4, 3, 5, 5]));
            let _ = self.rate.shallow_clone().fill_(0.1 / (1.0 + number));
        });
    }

    /// An attack step, a backward pass and an update; the loss.
    fn act(&self) -> Tensor {
        let _ = no_grad(|| self.gradient.shallow_clone().zero_());
        let loss = |images: &Tensor| {
            let maps = images.conv2d(&self.weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
            let (mean, variance) = (self.statistics.get(0), self.statistics.get(1));
            let maps =
                maps.batch_norm(None::<Tensor>, None::<Tensor>, Some(mean), Some(variance), true, 0.1, 1e-5, false);
            maps.relu().mean_dim([2i64, 3].as_slice(), false, None).log_softmax(1, None).get(0).dot(&sequence(2, 0.9))
        };
        let images = self.images.copy().set_requires_grad(true);
        let slope = Tensor::run_backward(&[loss(&images)], &[&images], false, false).remove(0);
        let loss = loss(&(self.images.shallow_clone() + slope.sign() * 0.01));
        loss.backward();
        no_grad(|| {
            let mut weight = self.weight.shallow_clone();
            weight -= &self.gradient * &self.rate;
        });
        loss.detach()
    }

    fn state(&self) -> [Tensor; 3] {
        [&self.weight, &self.gradient, &self.statistics].map(|tensor| tensor.detach().copy())
    }
}

#[test]
fn a_replay_does_what_the_work_would_do_now() {
    let (called, recorded) = (Work::new(), Work::new());
    called.set(1.0);
    recorded.set(1.0);
    let before = recorded.state();
    let (graph, loss) = Graph::record(Device::Cpu, || recorded.act()).unwrap();
    assert!(recorded.state().iter().zip(&before).all(|(now, before)| now.equal(before)), "recording had an effect");
    for number in [1.0, 2.0, 5.0] {
        called.set(number);
        recorded.set(number);
        let expected = called.act();
        graph.replay().unwrap();
        assert!(loss.equal(&expected), "{number}");
        assert!(called.state().iter().zip(&recorded.state()).all(|(one, other)| one.equal(other)), "{number}");
    }
}

#[test]
fn numbers_of_the_host_are_frozen() {
    let input = Tensor::from_slice(&[1.0, 2.0]);
    let mut factor = 10.0;
    let (graph, product) = Graph::record(Device::Cpu, || &input * factor).unwrap();
    factor += 1.0;
    let _ = input.shallow_clone().fill_(factor);
    graph.replay().unwrap();
    assert!(product.equal(&Tensor::from_slice(&[110.0, 110.0])));
}

#[test]
fn work_that_waits_is_refused_and_leaves_no_trace() {
    let work = Work::new();
    let before = work.state();
    let wait = |loss: Tensor| no_grad(|| loss.is_nonzero());
    let Err(reason) = Graph::record(Device::Cpu, || wait(work.act())) else { panic!("a recording waited") };
    assert!(reason.contains("_local_scalar_dense waits for the device"), "{reason}");
    assert!(work.state().iter().zip(&before).all(|(now, before)| now.equal(before)));
    assert!(!is_recording());
    // Gradients are still remembered, and the next recording is none the worse.
    assert!((&work.weight * 2.0).requires_grad());
    assert!(Graph::record(Device::Cpu, || work.act()).is_ok());
}

#[test]
fn memory_that_nobody_keeps_is_refused() {
    let kept = Tensor::from_slice(&[1.0, 2.0]);
    let lost = Tensor::from_slice(&[1.0, 2.0]);
    let reason = Graph::record(Device::Cpu, move || kept_and(&kept, lost)).err().unwrap();
    assert!(reason.contains("belongs to nobody"), "{reason}");
    let kept = Tensor::from_slice(&[1.0, 2.0]);
    assert!(Graph::record(Device::Cpu, || kept_and(&kept, kept.view([2]))).is_ok());
}

fn kept_and(kept: &Tensor, other: Tensor) -> Tensor {
    kept * 2.0 + other
}

/// As sums over ranks are: each replay makes them, between the operations before and after.
#[test]
fn calls_of_the_host_are_made_by_each_replay() {
    let input = Tensor::from_slice(&[1.0, 2.0]);
    let calls = std::rc::Rc::new(Cell::new(0));
    let work = || {
        let counted = std::rc::Rc::clone(&calls);
        let doubled = &input * 2.0;
        let recorded = record_call(Some(&doubled), move |tensor| {
            counted.set(counted.get() + 1);
            let tensor = tensor.ok_or("no tensor")?;
            let _ = no_grad(|| tensor.shallow_clone().g_add_scalar_(0.5));
            if counted.get() > 2 { Err("no third time".to_string()) } else { Ok(()) }
        });
        assert_eq!(recorded, Ok(true));
        doubled + 100.0
    };
    let (graph, found) = Graph::record(Device::Cpu, work).unwrap();
    assert_eq!(calls.get(), 0);
    graph.replay().unwrap();
    assert!(found.equal(&Tensor::from_slice(&[102.5, 104.5])));
    let _ = input.shallow_clone().fill_(7.0);
    graph.replay().unwrap();
    assert!(found.equal(&Tensor::from_slice(&[114.5, 114.5])));
    assert_eq!(graph.replay(), Err("no third time".to_string()));
    assert_eq!(calls.get(), 3);
    drop(graph);
    assert_eq!(std::rc::Rc::strong_count(&calls), 1, "the recording kept its call");
    assert_eq!(record_call(None, |_| Err("called".into())), Ok(false));
}

#[test]
fn a_panic_is_a_reason() {
    let bread = |there: bool| assert!(there, "no bread");
    let reason = Graph::record(Device::Cpu, || bread(false)).err();
    assert_eq!(reason.as_deref(), Some("no bread"));
}
