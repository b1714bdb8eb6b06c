//! CIARD: a term that takes the order of magnitude of others, and is the mean over the samples that count.

use super::*;

/// A step of CIARD on the samples `rows` of the golden numbers, the student's logits times 1 + `shift`: the loss, its gradients in
/// the natural and the adversarial logits, and the values of `natural`, `adversarial` and `push` as the authors' code takes them.
fn ciard(networks: &Networks, labels: &[i64], rows: &[i64], shift: f64) -> (f64, [Tensor; 2], [f64; 3]) {
    let golden = fixture();
    // Means over four classes: `loss.balance` at rate 0 halves two terms, and 5^2 multiplies the third.
    let weights =
        ["loss.terms.natural.weight=0.5", "loss.terms.adversarial.weight=0.5", "loss.terms.push.weight=-0.01"];
    let config = read("ciard", &weights);
    let terms: Vec<Term> = config.active_terms(0).collect();
    let names: Vec<&str> = terms.iter().map(|term| term.name.as_str()).collect();
    assert_eq!(names, ["natural", "adversarial", "push"]);

    let rows = Tensor::from_slice(rows);
    let pick = |name: &str| tensor_of(&golden["logits"][name]).index_select(0, &rows);
    let student = |name: &str| (pick(name) * (1.0 + shift)).set_requires_grad(true);
    let (natural, adversarial) = (student("s_nat"), student("s_adv"));
    let nothing = nothing(rows.size()[0]);
    let tutor = pick("t_adv").set_requires_grad(true);
    let logits = [
        (STUDENT, Images::Natural, &natural),
        (STUDENT, Images::Adversarial, &adversarial),
        ("tutor", Images::Adversarial, &tutor),
        ("standard", Images::Natural, &pick("n_nat")),
        ("standard", Images::Adversarial, &pick("n_adv")),
    ];
    let views = views_of(networks, &nothing, &logits);
    let labels = Tensor::from_slice(labels).index_select(0, &rows);
    networks.memory.begin_step(0, 0, 1);
    let mut summands = summands(&terms, &views, &labels, 4.0);
    let measured = |(term, value): &(&Term, Tensor)| {
        let [value, _] = term.for_balance(&views, value, &labels, 4.0);
        f64::try_from(views.sum_over_ranks(&value)).unwrap()
    };
    let measured: Vec<f64> = summands.iter().map(measured).collect();
    let before = Vec::<f64>::try_from(&networks.memory.tensors()[0].tensor).unwrap();
    balance(&views, &labels, 4.0, &mut summands);
    let total: Tensor = summands.iter().map(|(_, value)| value).sum();
    total.backward();
    assert!(!tutor.grad().defined(), "a gradient flows into the teacher that learns");
    let _ = keep(networks, Tensor::zeros([3], tch::kind::DOUBLE_CPU), &Tensor::from(true));
    let state = Vec::<f64>::try_from(&networks.memory.tensors()[0].tensor).unwrap();
    assert_eq!((before[0], state[0]), (0.5, 0.5));
    let values = [measured[0] / 2.0, measured[1] / 2.0, -measured[2]];
    (f64::try_from(total).unwrap(), [natural.grad(), adversarial.grad()], values)
}

fn ciard_networks() -> Networks {
    networks(&read("ciard", &[]))
}

#[test]
fn ciard_has_the_golden_value_and_gradients() {
    let golden = fixture();
    let case = golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == "ciard").unwrap();
    let number = |key: &str| case[key].as_f64().unwrap();
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let (loss, gradients, values) = ciard(&ciard_networks(), &labels, &[0, 1, 2, 3], 0.0);
    // The code adds 1e-5 in the logarithm of the target, which changes the logged loss and no gradient.
    assert!((loss - number("loss")).abs() < 2e-5, "loss {loss}");
    for (found, key) in values.into_iter().zip(["kl_nat", "kl_adv", "push"]) {
        assert!((found - number(key)).abs() < 1e-9 * number(key), "{key}: {found}");
    }
    let [natural, adversarial, push] = values;
    let whole = natural + adversarial - push * number("push_scale");
    assert!((whole - number("loss")).abs() < 1e-9 * number("loss"), "{whole}");
    for (gradient, key) in gradients.into_iter().zip(["d_student_nat", "d_student_adv"]) {
        let apart = f64::try_from((gradient - tensor_of(&case[key])).abs().max()).unwrap();
        assert!(apart < 1e-9, "{key} is {apart:e} off");
    }
}

/// Where the natural teacher is right everywhere, its term has no value and no gradient.
#[test]
fn without_a_mistake_nothing_is_pushed() {
    let golden = fixture();
    let right = tensor_of(&golden["logits"]["n_adv"]).argmax(1, false);
    let right = Vec::<i64>::try_from(right).unwrap();
    let (loss, [_, adversarial], [natural, teach, push]) = ciard(&ciard_networks(), &right, &[0, 1, 2, 3], 0.0);
    assert_eq!(push.abs(), 0.0);
    assert!((loss - natural - teach).abs() < 2e-5, "{loss}");
    let student = tensor_of(&golden["logits"]["s_adv"]).softmax(1, Kind::Double);
    let expected = (student - tensor_of(&golden["logits"]["t_adv"]).softmax(1, Kind::Double)) / 16.0;
    assert!(f64::try_from((adversarial - expected).abs().max()).unwrap() < 1e-12);
}

/// Unequal shards, one of them empty and one without a sample that counts, have the gradients and the scale of one rank. Larger
/// logits of the student make the scale another power of ten.
#[test]
fn ranks_push_by_the_whole_batch() {
    let golden = fixture();
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    for shift in [0.0, 30.0] {
        let (loss, [_, alone], values) = ciard(&ciard_networks(), &labels, &[0, 1, 2, 3], shift);
        let order = |value: f64| value.log10().floor();
        let scale = 10f64.powf(order(values[0]).min(order(values[1])) - order(values[2]));
        assert!(
            (loss - (values[0] + values[1] - scale * values[2])).abs() < 1e-4 * scale.max(1.0),
            "{shift}: {loss}, {scale}"
        );
        let shards = [&[0i64, 1, 2][..], &[3], &[]];
        let found = on_ranks(3, false, |ranks| {
            let rank = ranks.rank();
            let networks = Networks { ranks, ..ciard_networks() };
            let (loss, [_, gradient], values) = ciard(&networks, &labels, shards[rank], shift);
            (loss, gradient, values)
        });
        let losses: f64 = found.iter().map(|((loss, ..), _)| loss).sum();
        assert!((losses - loss).abs() < 1e-12 * loss.abs(), "{losses}, alone {loss}");
        let gradients: Vec<&Tensor> = found.iter().map(|((_, gradient, _), _)| gradient).collect();
        let apart = f64::try_from((Tensor::cat(&gradients, 0) - alone).abs().max()).unwrap();
        assert!(apart < 1e-12, "{apart:e}");
    }
}

#[test]
fn a_term_takes_the_order_of_magnitude_of_the_least() {
    for (value, others, expected) in [
        (0.176, [0.41, 0.22], 1.0),
        (-0.176, [4.1, 0.022], 0.1),
        (0.002, [31.0, 0.5], 100.0),
        (0.5, [0.0, 31.0], 1e-6),
        (0.0, [0.2, 0.3], 1e6),
    ] {
        let found = f64::try_from(power_of_ten(&Tensor::from(value), &Tensor::from_slice(&others))).unwrap();
        assert!((found / expected - 1.0).abs() < 1e-12, "{value} and {others:?}: {found}");
    }
}
