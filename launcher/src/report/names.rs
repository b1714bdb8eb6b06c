//! Names that several runs share, such as those of loss terms and attacks.

/// Adds the names not yet in `known`, keeping the order of first appearance.
pub fn collect<'a>(known: &mut Vec<String>, names: impl Iterator<Item = &'a str>) {
    for name in names {
        if !known.iter().any(|own| own == name) {
            known.push(name.to_owned());
        }
    }
}
