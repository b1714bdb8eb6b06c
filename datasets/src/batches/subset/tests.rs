//! Which samples a part has: as many as asked for, of the classes asked for, the same every time.

use proptest::prelude::*;

use super::*;
use crate::Memory;
use crate::ground::memory::numbered;

/// Samples with these labels, in five classes `a` to `e`.
fn labelled(labels: &[i64]) -> Arc<dyn Source> {
    let names = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
    let images = (0..labels.len()).map(|sample| sample as u8).collect();
    Arc::new(Memory::new([1, 1, 1], names, images, labels.to_vec()).expect("five classes"))
}

#[test]
fn holding_out_divides_the_samples() {
    for (len, fraction, expected) in [(1000, 0.02, 20), (10, 0.01, 1), (3, 0.5, 2), (1, 0.1, 1), (0, 0.5, 0)] {
        for stratified in [false, true] {
            let (kept, held_out) = hold_out(&numbered(len, [1, 1, 1]), fraction, stratified, 7);
            assert_eq!(held_out.len(), expected);
            assert!(kept.is_sorted() && held_out.is_sorted());
            let mut all = [kept, held_out].concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..len));
        }
    }
    let source = numbered(1000, [1, 1, 1]);
    assert_eq!(hold_out(&source, 0.02, false, 7), hold_out(&source, 0.02, false, 7));
    assert_ne!(hold_out(&source, 0.02, false, 7), hold_out(&source, 0.02, false, 8));
    let stratified = Subset::new(Arc::new(source.clone()), hold_out(&source, 0.02, true, 7).1);
    assert_eq!(per_class(&stratified), [2; 10]);
}

#[test]
fn a_subset_renumbers_its_samples() -> Result<()> {
    let inner = Arc::new(numbered(10, [1, 2, 2]));
    let subset = Subset::new(inner.clone(), vec![7, 2]);
    assert_eq!((subset.len(), subset.shape(), subset.class_names()), (2, [1, 2, 2], inner.class_names()));
    assert_eq!([subset.label(0), subset.label(1)], [inner.label(7), inner.label(2)]);
    let (mut image, mut other) = ([0; 4], [0; 4]);
    subset.read(0, &mut image)?;
    assert_eq!(image[0], 7);
    subset.read_all(&mut [(1, &mut image[..]), (0, &mut other[..])])?;
    assert_eq!((image[0], other[0]), (2, 7));
    assert!(subset.read(2, &mut image).is_err());
    assert!(subset.read_all(&mut [(2, &mut image[..])]).is_err());
    Ok(())
}

#[test]
#[should_panic(expected = "beyond the 3 of its source")]
fn a_subset_of_missing_samples_is_refused() {
    Subset::new(Arc::new(numbered(3, [1, 1, 1])), vec![3]);
}

#[test]
fn chosen_classes_are_numbered_anew() -> Result<()> {
    let source = labelled(&[0, 3, 1, 3, 4]);
    let subset = Subset::of_classes(source.clone(), &["d".into(), "a".into()])?;
    assert_eq!((subset.len(), subset.class_names()), (3, &["d".to_string(), "a".into()][..]));
    assert_eq!([0, 1, 2].map(|sample| subset.label(sample)), [1, 0, 0]);
    let mut image = [0];
    subset.read(2, &mut image)?;
    assert_eq!(image, [3]);
    for (names, message) in [
        (&["f"][..], "data.subset.classes is \"f\"; expected a class of the data set: a, b, c, d, e"),
        (&["a", "a"], "data.subset.classes is \"a\"; expected each class once"),
        (&["a", "c"], "data.subset.classes is \"c\"; expected a class with samples"),
    ] {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let error = Subset::of_classes(source.clone(), &names).err().expect("a wrong name");
        assert_eq!(error.to_string(), message);
    }
    Ok(())
}

#[test]
fn impossible_choices_are_refused() {
    let message = |choice: Choice| {
        let made = choice.check().and_then(|()| choice.of(labelled(&[0, 1, 1, 2, 3, 4]), 1).map(|_| ()));
        made.expect_err("an impossible choice").to_string()
    };
    let choice = Choice::default;
    for (choice, expected) in [
        (Choice { count: Some(2), per_class: Some(2), ..choice() }, "data.subset.count is 2; expected count or per"),
        (Choice { count: Some(0), ..choice() }, "data.subset.count is 0; expected at least 1 image"),
        (Choice { per_class: Some(0), ..choice() }, "data.subset.per_class is 0; expected at least 1"),
        (Choice { stratified: true, ..choice() }, "data.subset.stratified is true; expected count"),
        (Choice { classes: Some(vec![]), ..choice() }, "data.subset.classes is []; expected at least one"),
        (Choice { count: Some(7), ..choice() }, "data.subset.count is 7; expected at most the 6 training images"),
        (Choice { per_class: Some(2), ..choice() }, "data.subset.per_class is 2; expected at most the 1 images of"),
    ] {
        assert!(message(choice).starts_with(expected), "{expected}");
    }
}

proptest! {
    #[test]
    fn as_many_are_chosen_as_asked_for(
        labels in prop::collection::vec(0i64..5, 1..200), share in 0.0f64..=1.0, stratified: bool, seed: u64,
    ) {
        let source = labelled(&labels);
        let count = ((labels.len() as f64 * share) as usize).max(1);
        let choice = Choice { count: Some(count), stratified, ..Choice::default() };
        let chosen = choice.of(source.clone(), seed).expect("there are enough");
        prop_assert_eq!(chosen.len(), count);
        let numbers = |part: &dyn Source| -> Vec<u8> {
            let mut image = [0];
            (0..part.len()).map(|sample| { part.read(sample, &mut image).expect("in memory"); image[0] }).collect()
        };
        // Ascending without repetition, and the same again.
        prop_assert!(numbers(chosen.as_ref()).is_sorted_by(|one, next| one < next));
        let again = choice.of(source.clone(), seed).expect("there are enough");
        prop_assert_eq!(numbers(chosen.as_ref()), numbers(again.as_ref()));
        if stratified {
            for (kept, all) in per_class(chosen.as_ref()).into_iter().zip(per_class(source.as_ref())) {
                let exact = all as f64 * count as f64 / labels.len() as f64;
                prop_assert!((kept as f64 - exact).abs() < 1.0, "{kept} of {all}, for {exact}");
            }
        }
    }

    #[test]
    fn equally_many_of_each_class(each in 1usize..4, seed: u64) {
        let labels: Vec<i64> = (0..20).map(|sample| sample % 5).collect();
        let choice = Choice { per_class: Some(each), classes: Some(vec!["e".into(), "b".into()]), ..Choice::default() };
        prop_assert_eq!(per_class(choice.of(labelled(&labels), seed).expect("four of each").as_ref()), vec![each; 2]);
    }
}
