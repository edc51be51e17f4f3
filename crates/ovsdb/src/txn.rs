//! Transactions as data: composing, comparing and testing one needs no server.

use std::collections::BTreeSet;

use serde::Serialize;
use uuid::Uuid;

use crate::db::Row;
use crate::value::Value;

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Function {
    /// The column equals the value.
    #[serde(rename = "==")]
    Equal,
    /// The column differs from the value.
    #[serde(rename = "!=")]
    NotEqual,
    /// The column, a set or a map, holds all of the value.
    #[serde(rename = "includes")]
    Includes,
    /// The column, a set or a map, holds nothing of the value.
    #[serde(rename = "excludes")]
    Excludes,
}

/// Which rows of a table an operation is about: those that meet every condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Where(Vec<(&'static str, Function, Value)>);

impl Where {
    /// Every row.
    pub fn all() -> Where {
        Where::default()
    }

    /// The row with this uuid.
    pub fn uuid(uuid: Uuid) -> Where {
        Where::eq("_uuid", uuid)
    }

    /// Rows whose `column` equals `value`.
    pub fn eq(column: &'static str, value: impl Into<Value>) -> Where {
        Where::all().and(column, Function::Equal, value)
    }

    /// Rows whose `column` holds all of `value`, such as one pair of `external_ids`.
    pub fn includes(column: &'static str, value: impl Into<Value>) -> Where {
        Where::all().and(column, Function::Includes, value)
    }

    /// One more condition.
    #[must_use]
    pub fn and(mut self, column: &'static str, function: Function, value: impl Into<Value>) -> Where {
        self.0.push((column, function, value.into()));
        self
    }
}

/// How `mutate` changes a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Mutator {
    /// Adds to a number.
    #[serde(rename = "+=")]
    Add,
    /// Puts elements into a set, or pairs into a map (a key that is there keeps its value).
    #[serde(rename = "insert")]
    Insert,
    /// Takes elements out of a set; out of a map, pairs or, given a set, keys.
    #[serde(rename = "delete")]
    Delete,
}

/// What a `wait` asks of the rows it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Until {
    /// They are exactly the given rows.
    #[serde(rename = "==")]
    Equal,
    /// They are not exactly the given rows.
    #[serde(rename = "!=")]
    NotEqual,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
#[allow(missing_docs, reason = "the fields are those of RFC 7047, section 5.2")]
pub enum Op {
    /// Makes a row; `name` is what other operations of the transaction call it.
    Insert {
        table: &'static str,
        #[serde(rename = "uuid-name")]
        name: String,
        row: Row,
    },
    /// Reads columns of rows.
    Select {
        table: &'static str,
        #[serde(rename = "where")]
        filter: Where,
        columns: Vec<&'static str>,
    },
    /// Sets the columns in `row`.
    Update {
        table: &'static str,
        #[serde(rename = "where")]
        filter: Where,
        row: Row,
    },
    /// Changes columns in place.
    Mutate {
        table: &'static str,
        #[serde(rename = "where")]
        filter: Where,
        mutations: Vec<(&'static str, Mutator, Value)>,
    },
    /// Deletes rows.
    Delete {
        table: &'static str,
        #[serde(rename = "where")]
        filter: Where,
    },
    /// Refuses the transaction unless the rows are (not) as given.
    Wait {
        table: &'static str,
        timeout: u32,
        #[serde(rename = "where")]
        filter: Where,
        columns: Vec<&'static str>,
        until: Until,
        rows: Vec<Row>,
    },
    /// A remark for the server's log of transactions.
    Comment {
        #[serde(rename = "comment")]
        text: String,
    },
}

impl Op {
    /// The table the operation is on.
    pub fn table(&self) -> Option<&'static str> {
        match self {
            Op::Insert { table, .. }
            | Op::Select { table, .. }
            | Op::Update { table, .. }
            | Op::Mutate { table, .. }
            | Op::Delete { table, .. }
            | Op::Wait { table, .. } => Some(table),
            Op::Comment { .. } => None,
        }
    }
}

/// A transaction: it commits whole, or not at all.
///
/// Serialises to the list of operations that `transact` sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Txn {
    ops: Vec<Op>,
    #[serde(skip)]
    next_cfg: Option<usize>,
}

impl Txn {
    /// A transaction without operations.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// True while there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The operations so far.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    fn push(&mut self, op: Op) -> &mut Txn {
        self.ops.push(op);
        self
    }

    /// Inserts `row`. Other operations refer to it by [`Value::named`], and the outcome tells its uuid under
    /// `name`, which must be letters, digits and underscores, not begin with a digit, and be used once.
    pub fn insert(&mut self, table: &'static str, name: impl Into<String>, row: Row) -> &mut Txn {
        self.push(Op::Insert { table, name: name.into(), row })
    }

    /// Sets the columns in `row`, whole, on all rows that meet `filter`.
    pub fn update(&mut self, table: &'static str, filter: Where, row: Row) -> &mut Txn {
        self.push(Op::Update { table, filter, row })
    }

    /// Changes one column in place, whatever it holds when the transaction runs.
    pub fn mutate(
        &mut self,
        table: &'static str,
        filter: Where,
        column: &'static str,
        mutator: Mutator,
        value: impl Into<Value>,
    ) -> &mut Txn {
        self.push(Op::Mutate { table, filter, mutations: vec![(column, mutator, value.into())] })
    }

    /// Deletes rows. A row that is not a root, such as a Port, goes by itself with the last reference to it.
    pub fn delete(&mut self, table: &'static str, filter: Where) -> &mut Txn {
        self.push(Op::Delete { table, filter })
    }

    /// Guards the transaction: it is refused (`timed out`, at once) unless the `columns` of the rows that meet
    /// `filter` are, or are not, `rows`.
    pub fn wait(
        &mut self,
        table: &'static str,
        filter: Where,
        columns: &[&'static str],
        until: Until,
        rows: Vec<Row>,
    ) -> &mut Txn {
        self.push(Op::Wait { table, timeout: 0, filter, columns: columns.to_vec(), until, rows })
    }

    /// Guards the transaction: it is refused (`timed out`, at once) if any row meets `filter`. Put before an
    /// insert it keeps two writers from making the same thing twice.
    pub fn wait_absent(&mut self, table: &'static str, filter: Where) -> &mut Txn {
        let columns: BTreeSet<&'static str> = filter.0.iter().map(|(column, ..)| *column).collect();
        let columns: Vec<&'static str> = columns.into_iter().collect();
        self.wait(table, filter, &columns, Until::Equal, Vec::new())
    }

    /// Leaves a remark in the server's log.
    pub fn comment(&mut self, text: impl Into<String>) -> &mut Txn {
        self.push(Op::Comment { text: text.into() })
    }

    /// Asks ovs-vswitchd to say when it has taken up this transaction: adds one to `Open_vSwitch.next_cfg` and
    /// reads it back into [`crate::Outcome::next_cfg`]. It has when `cur_cfg` in a snapshot is no less.
    pub fn bump_next_cfg(&mut self) -> &mut Txn {
        if self.next_cfg.is_none() {
            self.mutate("Open_vSwitch", Where::all(), "next_cfg", Mutator::Add, 1);
            self.next_cfg = Some(self.ops.len());
            self.push(Op::Select { table: "Open_vSwitch", filter: Where::all(), columns: vec!["next_cfg"] });
        }
        self
    }

    /// The index of the operation that reads `next_cfg` back.
    pub(crate) fn next_cfg_op(&self) -> Option<usize> {
        self.next_cfg
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transaction_is_what_rfc_7047_says() {
        let id = Uuid::from_u128(1);
        let mut txn = Txn::new();
        txn.wait_absent("Port", Where::eq("name", "p1"))
            .insert("Interface", "i1", Row::new().with("name", "p1").with("mtu_request", 9500))
            .insert(
                "Port",
                "p1",
                Row::new()
                    .with("name", "p1")
                    .with("interfaces", Value::named("i1"))
                    .with("external_ids", Value::map([("owner", "o"), ("k", "v")])),
            )
            .mutate("Bridge", Where::eq("name", "nl0"), "ports", Mutator::Insert, Value::named("p1"))
            .mutate("Bridge", Where::uuid(id), "ports", Mutator::Delete, Value::set([id, Uuid::nil()]))
            .update("Interface", Where::uuid(id), Row::new().with("mtu_request", Value::none()))
            .delete("Port", Where::includes("external_ids", Value::map([("owner", "o")])))
            .comment("why")
            .bump_next_cfg()
            .bump_next_cfg();
        let (one, nil) = (json!(["uuid", id.to_string()]), json!(["uuid", Uuid::nil().to_string()]));
        let expected = json!([
            {"op": "wait", "table": "Port", "timeout": 0, "where": [["name", "==", "p1"]],
             "columns": ["name"], "until": "==", "rows": []},
            {"op": "insert", "table": "Interface", "uuid-name": "i1", "row": {"name": "p1", "mtu_request": 9500}},
            {"op": "insert", "table": "Port", "uuid-name": "p1", "row": {
                "name": "p1",
                "interfaces": ["named-uuid", "i1"],
                "external_ids": ["map", [["k", "v"], ["owner", "o"]]],
            }},
            {"op": "mutate", "table": "Bridge", "where": [["name", "==", "nl0"]],
             "mutations": [["ports", "insert", ["named-uuid", "p1"]]]},
            {"op": "mutate", "table": "Bridge", "where": [["_uuid", "==", one]],
             "mutations": [["ports", "delete", ["set", [nil, one]]]]},
            {"op": "update", "table": "Interface", "where": [["_uuid", "==", one]],
             "row": {"mtu_request": ["set", []]}},
            {"op": "delete", "table": "Port", "where": [["external_ids", "includes", ["map", [["owner", "o"]]]]]},
            {"op": "comment", "comment": "why"},
            {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]},
            {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]},
        ]);
        assert_eq!(serde_json::to_value(&txn).unwrap(), expected);
        assert_eq!(txn.next_cfg_op(), Some(9));
    }

    #[test]
    fn transactions_compare_by_what_they_do() {
        let compose = |ports: [&str; 2]| {
            let mut txn = Txn::new();
            txn.update("T", Where::all(), Row::new().with("strs", Value::set(ports)).with("n", 1));
            txn
        };
        assert_eq!(compose(["a", "b"]), compose(["b", "a"]));
        assert_ne!(compose(["a", "b"]), compose(["a", "c"]));
        assert!(Txn::new().is_empty());
    }
}
