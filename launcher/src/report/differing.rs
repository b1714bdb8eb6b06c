//! The keys in which the configurations of several runs differ.

use toml::Table;

/// The keys that have not the same value in all of the configurations, with each one's value.
pub fn differing(configs: &[Table]) -> Vec<(String, Vec<Option<String>>)> {
    let mut keys: Vec<&String> = vec![];
    for key in configs.iter().flat_map(Table::keys) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let values =
        |key: &String| configs.iter().map(|config| config.get(key).map(ToString::to_string)).collect::<Vec<_>>();
    let all = keys.into_iter().map(|key| (key.clone(), values(key)));
    all.filter(|(_, values)| values.iter().any(|value| *value != values[0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_are_listed_and_others_are_not() {
        let one: Table = "seed = 1\nepochs = 3".parse().unwrap();
        let other: Table = "seed = 2\nepochs = 3\nextra = \"x\"".parse().unwrap();
        let found = differing(&[one.clone(), other]);
        let values = |values: [Option<&str>; 2]| values.map(|value| value.map(str::to_string)).to_vec();
        assert_eq!(
            found,
            [("seed".into(), values([Some("1"), Some("2")])), ("extra".into(), values([None, Some("\"x\"")]))]
        );
        assert_eq!(differing(&[one.clone(), one]), []);
    }
}
