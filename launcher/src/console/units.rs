//! Durations, rates and shares as text.

/// `850 GFLOP/s`, `12.3 TFLOP/s`.
pub(crate) fn rate_of_operations(flops: f64) -> String {
    if flops < 1e12 { format!("{:.3} GFLOP/s", flops / 1e9) } else { format!("{:.1} TFLOP/s", flops / 1e12) }
}

/// A fraction as `63.2 %`.
pub(crate) fn percent(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    // A rare value must not look absent.
    if 0.0 < percent && percent < 0.1 { format!("{percent:.4} %") } else { format!("{percent:.1} %") }
}

/// `1 rank`, `2 ranks`: so many of what `one` names.
pub(crate) fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// `12.3 PFLOP`.
pub(crate) fn operations(flop: f64) -> String {
    scaled(flop, &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"])
}

/// `184.6 MB`: powers of 1000.
pub(crate) fn bytes(bytes: f64) -> String {
    scaled(bytes, &["bytes", "kB", "MB", "GB", "TB", "PB"])
}

fn scaled(value: f64, units: &[&str]) -> String {
    let mut power = 0;
    while value / 1000f64.powi(power as i32) >= 999.95 && power + 1 < units.len() {
        power += 1;
    }
    let digits = usize::from(power > 0);
    format!("{:.digits$} {}", value / 1000f64.powi(power as i32), units[power])
}

/// `12.3 s`, `3 min 20 s`, `5 h 12 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_units_that_fit() {
        assert_eq!(
            [3.1e17, 1.25e18, 2e12, 5e6].map(operations),
            ["310.0 PFLOP", "1.2 EFLOP", "2.0 TFLOP", "5.0 MFLOP"]
        );
        assert_eq!(
            [0.0, 999.0, 1000.0, 184_641_896.0, 9.9999e8].map(bytes),
            ["0 bytes", "999 bytes", "1.0 kB", "184.6 MB", "1.0 GB"]
        );
    }

    #[test]
    fn durations_and_shares_read_naturally() {
        assert_eq!([41.26, 210.0, 7384.0].map(duration), ["41.3 s", "3 min 30 s", "2 h 03 min"]);
        assert_eq!([0.5, 0.0, 0.0001].map(percent), ["50.0 %", "0.0 %", "0.0100 %"]);
    }
}
