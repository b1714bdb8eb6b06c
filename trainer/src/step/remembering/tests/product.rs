//! Terms that multiply each other: DGAD as coded for MobileNetV2.

use super::*;

/// The product of the two losses over the global batch, as the authors' misplaced bracket has it, on one rank and on three.
#[test]
fn dgad_for_mobilenet_v2_has_the_golden_value_and_gradients() {
    let golden = fixture();
    let case = golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == "dgad_mobilenetV2_bs4").unwrap();
    let config = read("dgad", &["loss.terms.teach.weight=0.5", "loss.terms.teach.times=correct"]);
    let labels: Vec<i64> = serde_json::from_value(golden["y"].clone()).unwrap();
    let evaluate = |networks: &Networks, rows: &[i64]| {
        let rows = Tensor::from_slice(rows);
        let pick = |name: &str| tensor_of(&golden["logits"][name]).index_select(0, &rows);
        let student = |name: &str| pick(name).set_requires_grad(true);
        let (natural, adversarial) = (student("s_nat"), student("s_adv"));
        let nothing = nothing(rows.size()[0]);
        let logits = [
            (STUDENT, Images::Natural, &natural),
            (STUDENT, Images::Adversarial, &adversarial),
            ("robust", Images::Natural, &pick("t_nat")),
            ("robust", Images::Adversarial, &pick("t_adv")),
        ];
        let views = views_of(networks, &nothing, &logits);
        let labels = Tensor::from_slice(&labels).index_select(0, &rows);
        let terms: Vec<Term> = config.active_terms(0).collect();
        let mut summands = summands(&terms, &views, &labels, 4.0);
        multiply(&views, &labels, 4.0, &mut summands);
        let total: Tensor = summands.iter().map(|(_, value)| value).sum();
        total.backward();
        (f64::try_from(total).unwrap(), [natural.grad(), adversarial.grad()])
    };
    let expected = ["d_student_nat", "d_student_adv"].map(|key| tensor_of(&case[key]));
    let near = |found: &Tensor, expected: &Tensor, what: &str| {
        let apart = f64::try_from((found - expected).abs().max()).unwrap();
        assert!(apart < 1e-9, "{what} is {apart:e} off");
    };
    let (loss, found) = evaluate(&networks(&config), &[0, 1, 2, 3]);
    assert!((loss - case["loss"].as_f64().unwrap()).abs() < 1e-9, "{loss}");
    found.iter().zip(&expected).for_each(|(found, expected)| near(found, expected, "alone"));
    let shards = [&[3i64, 0, 2][..], &[1], &[]];
    let shared = on_ranks(3, false, |ranks| {
        let rank = ranks.rank();
        let (loss, gradients) = evaluate(&Networks { ranks, ..networks(&config) }, shards[rank]);
        (
            loss,
            gradients.map(|one| if one.defined() { Vec::<f64>::try_from(one.flatten(0, -1)).unwrap() } else { vec![] }),
        )
    });
    let all: f64 = shared.iter().map(|((loss, _), _)| loss).sum();
    assert!((all - loss).abs() < 1e-12, "{all}, alone {loss}");
    for (((_, gradients), _), rows) in shared.iter().zip(shards).filter(|(_, rows)| !rows.is_empty()) {
        for (found, expected) in gradients.iter().zip(&expected) {
            let expected = expected.index_select(0, &Tensor::from_slice(rows));
            near(&Tensor::from_slice(found).view_as(&expected), &expected, "a shard");
        }
    }
}

/// A teacher that is wrong on every image leaves no sample of the second term: both are 0, and no number is NaN, in any precision.
#[test]
fn a_product_without_samples_is_nothing() {
    let config = read("dgad", &["loss.terms.teach.times=correct"]);
    let networks = networks(&config);
    let nothing = nothing(2);
    for kind in [Kind::Double, Kind::Float] {
        let logits = || Tensor::from_slice(&[9.0f64, 0.0, 0.0, 0.0, 9.0, 0.0, 1.0, 0.0]).view([2, 4]).to_kind(kind);
        let students = [(); 2].map(|()| logits().set_requires_grad(true));
        let given = [
            (STUDENT, Images::Natural, &students[0]),
            (STUDENT, Images::Adversarial, &students[1]),
            ("robust", Images::Natural, &logits()),
            ("robust", Images::Adversarial, &logits()),
        ];
        let views = views_of(&networks, &nothing, &given);
        let labels = Tensor::from_slice(&[1i64, 2]);
        let terms: Vec<Term> = config.active_terms(0).collect();
        let mut summands = summands(&terms, &views, &labels, 2.0);
        let correct = f64::try_from(&summands[0].1).unwrap();
        multiply(&views, &labels, 2.0, &mut summands);
        let values = summands.iter().map(|(_, value)| f64::try_from(value).unwrap()).collect::<Vec<_>>();
        assert!(correct > 0.0 && values[..2] == [0.0, 0.0], "{kind:?}: {values:?}");
        summands.iter().map(|(_, value)| value).sum::<Tensor>().backward();
        let finite = students.iter().all(|student| bool::try_from(student.grad().isfinite().all()).unwrap());
        assert!(finite, "{kind:?}: a gradient is not finite");
    }
}
