//! A JSON object kept as pairs in the order it was written; must not know what the names mean.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

/// Names with values, in file order: the order of a loss's terms is the author's, not the alphabet's.
#[derive(Debug, Clone)]
pub struct Named<V>(pub Vec<(String, V)>);

impl<V> Default for Named<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Named<V> {
    /// The value of the first entry with this name.
    pub fn get(&self, name: &str) -> Option<&V> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// The names in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Named<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Pairs<V> {
            type Value = Named<V>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<V>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Named(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

/// Adds the names not yet in `known`, keeping the order of first appearance.
pub fn collect<'a>(known: &mut Vec<String>, names: impl Iterator<Item = &'a str>) {
    for name in names {
        if !known.iter().any(|own| own == name) {
            known.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_file_order() {
        let named: Named<u8> = serde_json::from_str(r#"{"teach":1,"introspect":2,"a":3}"#).unwrap();
        assert_eq!(named.names().collect::<Vec<_>>(), ["teach", "introspect", "a"]);
        assert_eq!(named.get("introspect"), Some(&2));
        assert_eq!(named.get("absent"), None);
    }
}
