//! A count as a percentage with its standard error.

/// Percentage and binomial standard error in percentage points.
pub fn percentage(count: u64, of: u64) -> Option<(f64, f64)> {
    (of > 0 && count <= of).then(|| {
        let fraction = count as f64 / of as f64;
        (100.0 * fraction, 100.0 * (fraction * (1.0 - fraction) / of as f64).sqrt())
    })
}

/// The quantile of the normal distribution for 95 % on both sides.
const Z: f64 = 1.959_964;

/// Wilson's 95 % interval of a share in percent. It is sound where the standard error is 0: at none or all of few images.
pub fn wilson(count: u64, of: u64) -> Option<(f64, f64)> {
    let (percent, _) = percentage(count, of)?;
    let (fraction, of) = (percent / 100.0, of as f64);
    let scale = 1.0 + Z * Z / of;
    let middle = (fraction + Z * Z / (2.0 * of)) / scale;
    let half = Z / scale * (fraction * (1.0 - fraction) / of + Z * Z / (4.0 * of * of)).sqrt();
    Some((100.0 * (middle - half).max(0.0), 100.0 * (middle + half).min(1.0)))
}

/// A percentage with its standard error, or at none or all of the images with the bound of Wilson's interval.
pub fn with_uncertainty(count: u64, of: u64) -> Option<String> {
    let ((percent, error), (low, high)) = (percentage(count, of)?, wilson(count, of)?);
    Some(match count {
        0 => format!("{percent:.2} (< {high:.2})"),
        _ if count == of => format!("{percent:.2} (> {low:.2})"),
        _ => format!("{percent:.2} ± {error:.2}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_carry_the_binomial_error() {
        let (percent, error) = percentage(8721, 10000).unwrap();
        assert!((percent - 87.21).abs() < 1e-9 && (error - 0.33397).abs() < 1e-4);
        assert_eq!(percentage(0, 0), None);
    }

    #[test]
    fn none_and_all_of_the_images_are_uncertain_too() {
        // Wilson (1927), as statsmodels' proportion_confint(method="wilson") gives them.
        for (count, of, low, high) in
            [(0, 16, 0.0, 19.361), (16, 16, 80.639, 100.0), (8, 16, 27.999, 72.001), (1, 100, 0.177, 5.449)]
        {
            let found = wilson(count, of).unwrap();
            assert!((found.0 - low).abs() < 1e-2 && (found.1 - high).abs() < 1e-2, "{count} of {of}: {found:?}");
        }
        assert_eq!(with_uncertainty(0, 16).unwrap(), "0.00 (< 19.36)");
        assert_eq!(with_uncertainty(16, 16).unwrap(), "100.00 (> 80.64)");
        assert_eq!(with_uncertainty(8721, 10000).unwrap(), "87.21 ± 0.33");
        assert_eq!(with_uncertainty(0, 0), None);
    }
}
