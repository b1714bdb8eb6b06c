//! Fewer points for the same picture.

/// First, lowest, highest and last point of each half pixel: the same picture with far fewer points, nothing averaged.
pub fn thinned(places: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for column in places.chunk_by(|left, right| (left.0 * 2.0).floor() == (right.0 * 2.0).floor()) {
        let by_height = |left: &&(f64, f64), right: &&(f64, f64)| left.1.total_cmp(&right.1);
        let ends = [column.first(), column.iter().min_by(by_height), column.iter().max_by(by_height), column.last()];
        let from = kept.len();
        for place in ends.into_iter().flatten() {
            if kept[from..].last() != Some(place) {
                kept.push(*place);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_extremes() {
        let places: Vec<_> = (0..1000).map(|index| (f64::from(index) * 0.001, f64::from(index * 37 % 101))).collect();
        let kept = thinned(&places);
        assert!(kept.len() <= 8);
        assert!(kept.iter().any(|place| place.1 == 0.0) && kept.iter().any(|place| place.1 == 100.0));
    }
}
