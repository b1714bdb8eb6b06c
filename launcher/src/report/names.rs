//! Names of runs, and names that several runs share, such as those of loss terms and attacks.

use std::path::Path;

/// Adds the names not yet in `known`, keeping the order of first appearance.
pub fn collect<'a>(known: &mut Vec<String>, names: impl Iterator<Item = &'a str>) {
    for name in names {
        if !known.iter().any(|own| own == name) {
            known.push(name.to_owned());
        }
    }
}

/// The seed in the name of a run's folder, `seed-7`.
pub fn seed_of(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.strip_prefix("seed-")?.parse().ok()
}

/// The name of a run in `folder`: with the folder around it, where its own is that of a seed.
pub fn full_name(name: String, folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let around = seed_of(&whole).and_then(|_| whole.parent()?.file_name()?.to_str().map(str::to_string));
    match around {
        Some(around) if seed_of(Path::new(&name)).is_some() => format!("{around}/{name}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_of_a_seed_has_the_name_of_the_folder_around_it() {
        let folder = Path::new("/runs/mine/seed-2");
        assert_eq!(full_name("seed-2".into(), folder), "mine/seed-2");
        assert_eq!(full_name("other".into(), folder), "other");
        assert_eq!(full_name("seed-x".into(), Path::new("/runs/mine/seed-x")), "seed-x");
    }
}
