//! Values of columns, and how RFC 7047 writes them.
//!
//! OVSDB writes a set of one as its bare element, and an optional column as a set of none or one. Both collapse
//! here into one normal form, sorted, so that equal values compare equal whichever way the server spelt them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeTuple, Serializer};
use serde_json::Value as Json;
use uuid::Uuid;

/// One indivisible value.
#[derive(Clone, Debug)]
pub enum Atom {
    /// A 64-bit integer.
    Int(i64),
    /// A floating point number.
    Real(f64),
    /// A boolean.
    Bool(bool),
    /// A string.
    Str(Box<str>),
    /// A reference to a row, or the id of one.
    Uuid(Uuid),
    /// A reference to a row that the same transaction inserts under this name.
    Named(Box<str>),
}

impl Atom {
    fn rank(&self) -> u8 {
        match self {
            Atom::Int(_) => 0,
            Atom::Real(_) => 1,
            Atom::Bool(_) => 2,
            Atom::Str(_) => 3,
            Atom::Uuid(_) => 4,
            Atom::Named(_) => 5,
        }
    }

    /// The text of this atom: a string as it is, anything else as it would be printed.
    pub(crate) fn text(&self) -> String {
        match self {
            Atom::Int(v) => v.to_string(),
            Atom::Real(v) => v.to_string(),
            Atom::Bool(v) => v.to_string(),
            Atom::Uuid(v) => v.to_string(),
            Atom::Str(v) | Atom::Named(v) => v.to_string(),
        }
    }

    fn decode(json: &Json) -> Result<Atom, String> {
        match json {
            Json::Bool(v) => Ok(Atom::Bool(*v)),
            Json::String(v) => Ok(Atom::Str(v.as_str().into())),
            Json::Number(v) => match (v.as_i64(), v.as_f64()) {
                (Some(int), _) => Ok(Atom::Int(int)),
                (None, Some(real)) => Ok(Atom::Real(real)),
                (None, None) => Err(format!("{v} is not a number")),
            },
            Json::Array(pair) => match pair.as_slice() {
                [Json::String(tag), Json::String(id)] if tag == "uuid" => {
                    id.parse().map(Atom::Uuid).map_err(|_| format!("{id:?} is not a uuid"))
                }
                [Json::String(tag), Json::String(name)] if tag == "named-uuid" => {
                    Ok(Atom::Named(name.as_str().into()))
                }
                _ => Err(format!("{json} is not an atom")),
            },
            Json::Null | Json::Object(_) => Err(format!("{json} is not an atom")),
        }
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Atom::Int(a), Atom::Int(b)) => a.cmp(b),
            (Atom::Real(a), Atom::Real(b)) => a.total_cmp(b),
            (Atom::Bool(a), Atom::Bool(b)) => a.cmp(b),
            (Atom::Str(a), Atom::Str(b)) | (Atom::Named(a), Atom::Named(b)) => a.cmp(b),
            (Atom::Uuid(a), Atom::Uuid(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Atom {}

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Atom::Int(v) => serializer.serialize_i64(*v),
            Atom::Real(v) => serializer.serialize_f64(*v),
            Atom::Bool(v) => serializer.serialize_bool(*v),
            Atom::Str(v) => serializer.serialize_str(v),
            Atom::Uuid(v) => ("uuid", v.hyphenated().to_string()).serialize(serializer),
            Atom::Named(v) => ("named-uuid", v).serialize(serializer),
        }
    }
}

impl From<i64> for Atom {
    fn from(value: i64) -> Self {
        Atom::Int(value)
    }
}

impl From<f64> for Atom {
    fn from(value: f64) -> Self {
        Atom::Real(value)
    }
}

impl From<bool> for Atom {
    fn from(value: bool) -> Self {
        Atom::Bool(value)
    }
}

impl From<&str> for Atom {
    fn from(value: &str) -> Self {
        Atom::Str(value.into())
    }
}

impl From<&String> for Atom {
    fn from(value: &String) -> Self {
        Atom::Str(value.as_str().into())
    }
}

impl From<String> for Atom {
    fn from(value: String) -> Self {
        Atom::Str(value.into())
    }
}

impl From<Uuid> for Atom {
    fn from(value: Uuid) -> Self {
        Atom::Uuid(value)
    }
}

/// The value of a column: an atom, a set of atoms or a map between atoms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(Repr);

/// Invariants: a set is sorted, without duplicates, and never has exactly one element (that is `One`); a map is
/// sorted by key, without duplicate keys.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Repr {
    One(Atom),
    Set(Vec<Atom>),
    Map(Vec<(Atom, Atom)>),
}

impl Value {
    /// A set. Order and duplicates do not matter.
    pub fn set<A: Into<Atom>>(atoms: impl IntoIterator<Item = A>) -> Value {
        let mut atoms: Vec<Atom> = atoms.into_iter().map(Into::into).collect();
        atoms.sort_unstable();
        atoms.dedup();
        match atoms.len() {
            1 => Value(Repr::One(atoms.remove(0))),
            _ => Value(Repr::Set(atoms)),
        }
    }

    /// A map; of pairs with the same key the last one counts.
    pub fn map<K: Into<Atom>, V: Into<Atom>>(pairs: impl IntoIterator<Item = (K, V)>) -> Value {
        let pairs: BTreeMap<Atom, Atom> = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Value(Repr::Map(pairs.into_iter().collect()))
    }

    /// No value: an optional column that is unset, or an empty set.
    pub fn none() -> Value {
        Value(Repr::Set(Vec::new()))
    }

    /// A reference to the row that the same transaction inserts under `name`.
    pub fn named(name: impl AsRef<str>) -> Value {
        Value(Repr::One(Atom::Named(name.as_ref().into())))
    }

    /// The elements of a set, or the one element of a scalar; a map has none.
    pub fn atoms(&self) -> &[Atom] {
        match &self.0 {
            Repr::One(atom) => std::slice::from_ref(atom),
            Repr::Set(atoms) => atoms,
            Repr::Map(_) => &[],
        }
    }

    /// The pairs of a map, sorted by key; anything else has none.
    pub fn pairs(&self) -> &[(Atom, Atom)] {
        match &self.0 {
            Repr::Map(pairs) => pairs,
            _ => &[],
        }
    }

    pub(crate) fn decode(json: &Json) -> Result<Value, String> {
        let malformed = || format!("{json} is not a value");
        match json {
            Json::Array(pair) => match pair.as_slice() {
                [Json::String(tag), Json::Array(atoms)] if tag == "set" => {
                    Ok(Value::set(atoms.iter().map(Atom::decode).collect::<Result<Vec<_>, _>>()?))
                }
                [Json::String(tag), Json::Array(pairs)] if tag == "map" => {
                    let pair = |pair: &Json| match pair.as_array().map(Vec::as_slice) {
                        Some([key, value]) => Ok((Atom::decode(key)?, Atom::decode(value)?)),
                        _ => Err(malformed()),
                    };
                    Ok(Value::map(pairs.iter().map(pair).collect::<Result<Vec<_>, _>>()?))
                }
                _ => Atom::decode(json).map(Value::from),
            },
            _ => Atom::decode(json).map(Value::from),
        }
    }

    /// Applies the difference that an `update2` gives for a column that holds more than one element: an element
    /// on both sides goes, one on the other side comes, a map's key with another value changes.
    pub(crate) fn patched(&self, diff: &Value) -> Value {
        if matches!(diff.0, Repr::Map(_)) {
            let mut map: BTreeMap<Atom, Atom> = self.pairs().iter().cloned().collect();
            for (key, value) in diff.pairs() {
                if map.get(key) == Some(value) {
                    map.remove(key);
                } else {
                    map.insert(key.clone(), value.clone());
                }
            }
            Value(Repr::Map(map.into_iter().collect()))
        } else {
            let (old, diff) = (self.atoms(), diff.atoms());
            let stay = old.iter().filter(|atom| diff.binary_search(atom).is_err());
            let come = diff.iter().filter(|atom| old.binary_search(atom).is_err());
            Value::set(stay.chain(come).cloned())
        }
    }
}

impl<A: Into<Atom>> From<A> for Value {
    fn from(atom: A) -> Self {
        Value(Repr::One(atom.into()))
    }
}

impl From<&BTreeMap<String, String>> for Value {
    fn from(map: &BTreeMap<String, String>) -> Self {
        Value::map(map)
    }
}

impl From<BTreeMap<String, String>> for Value {
    fn from(map: BTreeMap<String, String>) -> Self {
        Value::map(map)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tagged = match &self.0 {
            Repr::One(atom) => return atom.serialize(serializer),
            Repr::Set(_) | Repr::Map(_) => serializer.serialize_tuple(2)?,
        };
        match &self.0 {
            Repr::Map(pairs) => {
                tagged.serialize_element("map")?;
                tagged.serialize_element(pairs)?;
            }
            _ => {
                tagged.serialize_element("set")?;
                tagged.serialize_element(self.atoms())?;
            }
        }
        tagged.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn decode(json: Json) -> Value {
        Value::decode(&json).unwrap()
    }

    #[test]
    fn equal_values_compare_equal_however_they_are_spelt() {
        assert_eq!(decode(json!("a")), decode(json!(["set", ["a"]])));
        assert_eq!(decode(json!(["set", [2, 1, 2]])), Value::set([1, 2]));
        assert_eq!(decode(json!(["set", []])), Value::none());
        assert_eq!(decode(json!(["map", [["b", 2], ["a", 1]]])), Value::map([("a", 1), ("b", 2)]));
        assert_eq!(decode(json!(["named-uuid", "x"])), Value::named("x"));
        assert_eq!(decode(json!(true)).atoms(), [Atom::Bool(true)]);
        assert_eq!(decode(json!(1.5)).atoms(), [Atom::Real(1.5)]);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for json in [
            json!(null),
            json!({}),
            json!([]),
            json!(["uuid", "x"]),
            json!(["set", [null]]),
            json!(["map", [["a"]]]),
        ] {
            assert!(Value::decode(&json).is_err(), "{json}");
        }
    }

    fn an_atom() -> impl Strategy<Value = Atom> {
        prop_oneof![
            any::<i64>().prop_map(Atom::Int),
            any::<bool>().prop_map(Atom::Bool),
            "\\PC*".prop_map(Atom::from),
            any::<u128>().prop_map(|bits| Atom::Uuid(Uuid::from_u128(bits))),
            "[a-z]+".prop_map(|name| Atom::Named(name.into())),
        ]
    }

    fn a_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            an_atom().prop_map(Value::from),
            proptest::collection::vec(an_atom(), 0..4).prop_map(Value::set),
            proptest::collection::vec((an_atom(), an_atom()), 0..4).prop_map(Value::map),
        ]
    }

    proptest! {
        #[test]
        fn values_survive_a_round_trip(value in a_value()) {
            prop_assert_eq!(decode(serde_json::to_value(&value).unwrap()), value);
        }

        #[test]
        fn a_difference_of_sets_leads_from_one_to_the_other(
            old: std::collections::BTreeSet<i64>,
            new: std::collections::BTreeSet<i64>,
        ) {
            let diff = Value::set(old.symmetric_difference(&new).copied());
            prop_assert_eq!(Value::set(old).patched(&diff), Value::set(new));
        }
    }
}
