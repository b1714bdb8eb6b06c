//! Pixel operations against Pillow.

use serde::Deserialize;
use serde_json::Value;

use super::*;

#[derive(Deserialize)]
struct Golden {
    augment: Augmented,
}

#[derive(Deserialize)]
struct Augmented {
    image_hwc: Vec<Vec<[u8; 3]>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    op: String,
    #[serde(default)]
    arg: Option<f64>,
    pil: Vec<Vec<[u8; 3]>>,
}

fn planes(image: &[Vec<[u8; 3]>]) -> Vec<u8> {
    (0..3).flat_map(|channel| image.iter().flatten().map(move |pixel| pixel[channel])).collect()
}

#[test]
fn operations_equal_those_of_pillow() -> anyhow::Result<()> {
    let text = include_str!("../../../../../tests/fixtures/golden_recipe.json");
    let golden: Value = serde_json::from_str(text)?;
    let Golden { augment } = serde_json::from_value(golden)?;
    let shape = [3, augment.image_hwc.len(), augment.image_hwc[0].len()];
    let (height, width) = (shape[1] as f64, shape[2] as f64);
    let mut compared = 0;
    for Case { op, arg, pil } in augment.cases {
        let arg = arg.unwrap_or(0.0);
        let operation = match op.as_str() {
            "color" => Operation::Color(arg as f32),
            "brightness" => Operation::Brightness(arg as f32),
            "contrast" => Operation::Contrast(arg as f32),
            "sharpness" => Operation::Sharpness(arg as f32),
            "autocontrast" => Operation::AutoContrast,
            "equalize" => Operation::Equalize,
            "posterize" => Operation::Posterize(arg as u32),
            "solarize" => Operation::Solarize(arg),
            "invert" => Operation::Invert,
            "idbh_shear_x" => Operation::ShearX(arg.tan(), height / 2.0),
            "idbh_shear_y" => Operation::ShearY(arg.tan(), width / 2.0),
            "rotate" => Operation::Rotate(arg),
            // Of another implementation of AutoAugment, with interpolation; and of no pixel operation.
            "aa_ShearX" | "aa_TranslateY" | "cropshift" => continue,
            other => anyhow::bail!("an operation {other}"),
        };
        let mut image = planes(&augment.image_hwc);
        operation.apply(shape, &mut image, &mut Vec::new());
        assert_eq!(image, planes(&pil), "{op} {arg}");
        compared += 1;
    }
    assert_eq!(compared, 16);
    Ok(())
}

#[test]
fn images_without_contrast_or_size_are_left_as_they_are() {
    let operations = [Operation::AutoContrast, Operation::Equalize, Operation::Sharpness(1.9), Operation::Rotate(0.0)];
    for operation in operations {
        for shape in [[1, 1, 1], [3, 2, 2], [2, 5, 4]] {
            let mut image = vec![7; shape.iter().product()];
            operation.apply(shape, &mut image, &mut Vec::new());
            assert!(image.iter().all(|&value| value == 7), "{operation:?} of {shape:?}");
        }
    }
}

#[test]
fn a_quarter_turn_is_exact() {
    let mut image: Vec<u8> = (0..16).collect();
    Operation::Rotate(90.0).apply([1, 4, 4], &mut image, &mut Vec::new());
    assert_eq!(image, [3, 7, 11, 15, 2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12]);
}
