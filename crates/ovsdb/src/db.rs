//! The monitored part of the database: immutable snapshots of rows.
//!
//! A snapshot shares with the one before it every table and row that did not change, so keeping one costs little.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::ser::{Serialize, Serializer};
use uuid::Uuid;

use crate::value::{Atom, Value};

/// The values of one row, by column.
///
/// The getters do not care how a value was spelt: an optional value, a set of one and a bare value read alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Sorted by column.
    columns: Vec<(&'static str, Value)>,
}

impl Row {
    /// A row without values; OVSDB fills in the defaults on insert.
    pub fn new() -> Row {
        Row::default()
    }

    /// The same row with `column` set.
    #[must_use]
    pub fn with(mut self, column: &'static str, value: impl Into<Value>) -> Row {
        self.set(column, value.into());
        self
    }

    /// Sets `column`.
    pub fn set(&mut self, column: &'static str, value: impl Into<Value>) {
        let value = value.into();
        match self.columns.binary_search_by_key(&column, |(name, _)| name) {
            Ok(at) => self.columns[at].1 = value,
            Err(at) => self.columns.insert(at, (column, value)),
        }
    }

    /// The value of `column`, if the row has one.
    pub fn get(&self, column: &str) -> Option<&Value> {
        let at = self.columns.binary_search_by(|(name, _)| (*name).cmp(column)).ok()?;
        Some(&self.columns[at].1)
    }

    /// Columns and values, sorted by column.
    pub fn columns(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.columns.iter().map(|(name, value)| (*name, value))
    }

    fn atoms(&self, column: &str) -> &[Atom] {
        self.get(column).map_or(&[], Value::atoms)
    }

    fn one(&self, column: &str) -> Option<&Atom> {
        match self.atoms(column) {
            [atom] => Some(atom),
            _ => None,
        }
    }

    /// The string in `column`; `None` if unset.
    pub fn str(&self, column: &str) -> Option<&str> {
        match self.one(column) {
            Some(Atom::Str(value)) => Some(value),
            _ => None,
        }
    }

    /// The integer in `column`; `None` if unset.
    pub fn int(&self, column: &str) -> Option<i64> {
        match self.one(column) {
            Some(Atom::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// The boolean in `column`; `None` if unset.
    pub fn bool(&self, column: &str) -> Option<bool> {
        match self.one(column) {
            Some(Atom::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// The reference in `column`; `None` if unset or if there are several.
    pub fn uuid(&self, column: &str) -> Option<Uuid> {
        match self.one(column) {
            Some(Atom::Uuid(value)) => Some(*value),
            _ => None,
        }
    }

    /// All references in `column`.
    pub fn uuids(&self, column: &str) -> BTreeSet<Uuid> {
        let uuid = |atom: &Atom| if let Atom::Uuid(value) = atom { Some(*value) } else { None };
        self.atoms(column).iter().filter_map(uuid).collect()
    }

    /// All strings in `column`, sorted.
    pub fn strs(&self, column: &str) -> Vec<&str> {
        let strs = self.atoms(column).iter().filter_map(|atom| match atom {
            Atom::Str(value) => Some(&**value),
            _ => None,
        });
        strs.collect()
    }

    /// The map in `column`, keys and values as text; empty if unset.
    pub fn map(&self, column: &str) -> BTreeMap<String, String> {
        let pairs = self.get(column).map_or(&[][..], Value::pairs);
        pairs.iter().map(|(key, value)| (key.text(), value.text())).collect()
    }

    /// One string of the map in `column`, without building the map.
    pub fn key(&self, column: &str, key: &str) -> Option<&str> {
        let mut pairs = self.get(column)?.pairs().iter();
        pairs.find_map(|pair| match pair {
            (Atom::Str(name), Atom::Str(value)) if **name == *key => Some(&**value),
            _ => None,
        })
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.columns())
    }
}

type Table = HashMap<Uuid, Arc<Row>>;

/// One state of the monitored tables, between two transactions. Never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Db {
    tables: HashMap<&'static str, Arc<Table>>,
}

impl Db {
    /// The rows of a table, in no order; none if the table is not monitored.
    pub fn table(&self, table: &str) -> impl Iterator<Item = (&Uuid, &Row)> {
        self.tables.get(table).into_iter().flat_map(|rows| rows.iter()).map(|(uuid, row)| (uuid, &**row))
    }

    /// One row.
    pub fn row(&self, table: &str, uuid: &Uuid) -> Option<&Row> {
        self.tables.get(table)?.get(uuid).map(|row| &**row)
    }

    /// A row whose string column `column` is `value`, such as a bridge by its name. Looks at every row.
    pub fn find(&self, table: &str, column: &str, value: &str) -> Option<(&Uuid, &Row)> {
        self.table(table).find(|(_, row)| row.str(column) == Some(value))
    }

    /// How many rows a table has.
    pub fn count(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |rows| rows.len())
    }

    /// Puts a row in place of the one with the same uuid, if any. Other snapshots do not see it.
    pub fn put(&mut self, table: &'static str, uuid: Uuid, row: Row) {
        Arc::make_mut(self.tables.entry(table).or_default()).insert(uuid, Arc::new(row));
    }

    /// Takes a row out. Other snapshots do not see it.
    pub fn remove(&mut self, table: &'static str, uuid: &Uuid) {
        let Some(rows) = self.tables.get_mut(table) else { return };
        Arc::make_mut(rows).remove(uuid);
        if rows.is_empty() {
            self.tables.remove(table); // equal states compare equal, whatever led to them
        }
    }
}
