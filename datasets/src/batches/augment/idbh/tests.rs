//! Moving crops against Pillow.

use serde_json::Value;

use super::*;

#[test]
fn a_moving_crop_equals_that_of_the_published_code() -> anyhow::Result<()> {
    let text = include_str!("../../../../../tests/fixtures/golden_recipe.json");
    let golden: Value = serde_json::from_str(text)?;
    let cases = golden["augment"]["cases"].as_array().into_iter().flatten();
    let mut cases = cases.filter(|case| case["op"] == "cropshift");
    let case = cases.next().unwrap_or(&Value::Null);
    let planes = |image: &Value| -> anyhow::Result<(Vec<u8>, [usize; 3])> {
        let image: Vec<Vec<[u8; 3]>> = serde_json::from_value(image.clone())?;
        let bytes = (0..3).flat_map(|channel| image.iter().flatten().map(move |pixel| pixel[channel])).collect();
        Ok((bytes, [3, image.len(), image[0].len()]))
    };
    let number = |name: &str| case["draws"][name].as_u64().unwrap_or_default() as usize;
    let (mut image, shape) = planes(&golden["augment"]["image_hwc"])?;
    let shift = CropShift {
        cut: [number("crop_x"), number("strength") - number("crop_x")],
        from: [number("crop_left"), number("crop_top")],
        place: [number("place_left"), number("place_top")],
    };
    shift.apply(shape, &mut image, &mut Vec::new());
    assert_eq!(image, planes(&case["pil"])?.0);
    Ok(())
}
