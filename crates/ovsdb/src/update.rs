//! Applies what the server says has changed to a copy of the database. Pure.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::db::{Db, Row};
use crate::schema::{Column, Schema};
use crate::value::Value;

/// How updates are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// RFC 7047: a changed row comes whole.
    V1,
    /// `monitor_cond` and later: a new row without its defaults, a changed row as a difference.
    V2,
}

/// Applies one update, which is one committed transaction, to `db`.
///
/// # Errors
/// When the update does not fit the schema or `db`; `db` is then of no use any more.
pub(crate) fn apply(db: &mut Db, schema: &Schema, format: Format, updates: &Json) -> Result<(), String> {
    for (table, rows) in object(updates)? {
        let Some((&table, columns)) = schema.get_key_value(table.as_str()) else {
            return Err(format!("an update of table {table}, which is not monitored"));
        };
        for (uuid, change) in object(rows)? {
            let uuid: Uuid = uuid.parse().map_err(|_| format!("{uuid:?} is not a uuid"))?;
            match change_of(format, object(change)?) {
                Change::Whole(row) => db.put(table, uuid, read(columns, Row::new(), row, false)?),
                Change::Difference(row) => {
                    let old = db.row(table, &uuid).cloned();
                    let old =
                        old.ok_or_else(|| format!("a change of row {uuid} of {table}, which is not there"))?;
                    db.put(table, uuid, read(columns, old, row, true)?);
                }
                Change::Gone => db.remove(table, &uuid),
            }
        }
    }
    Ok(())
}

enum Change<'a> {
    Whole(&'a Json),
    Difference(&'a Json),
    Gone,
}

fn change_of(format: Format, change: &Map<String, Json>) -> Change<'_> {
    let whole = match format {
        Format::V1 => change.get("new"),
        Format::V2 => change.get("initial").or(change.get("insert")),
    };
    match (whole, change.get("modify")) {
        (Some(row), _) => Change::Whole(row),
        (None, Some(row)) => Change::Difference(row),
        (None, None) => Change::Gone,
    }
}

/// `base` with the columns in `row`; what a new row does not mention has its default.
fn read(
    columns: &HashMap<&'static str, Column>,
    base: Row,
    row: &Json,
    difference: bool,
) -> Result<Row, String> {
    let mut result = base;
    for (name, column) in columns {
        let old = result.get(name);
        let new = match row.get(name) {
            Some(json) => match (Value::decode(json)?, old) {
                (diff, Some(old)) if difference && column.several => Some(old.patched(&diff)),
                (value, _) => Some(value),
            },
            None if difference => None,
            None => column.default.clone(),
        };
        if let Some(new) = new {
            result.set(name, new);
        }
    }
    Ok(result)
}

fn object(json: &Json) -> Result<&Map<String, Json>, String> {
    json.as_object().ok_or_else(|| format!("{json} is not an object"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: Uuid = Uuid::from_u128(1);

    fn schema() -> Schema {
        let column = |several, default| Column { several, default };
        let columns = [
            ("name", column(false, Some(Value::from("")))),
            ("tag", column(false, None)),
            ("ports", column(true, None)),
            ("ids", column(true, None)),
        ];
        [("T", columns.into())].into()
    }

    fn update(db: &mut Db, format: Format, change: Json) -> Result<(), String> {
        apply(db, &schema(), format, &json!({"T": {(ID.to_string()): change}}))
    }

    #[test]
    fn a_new_row_gets_the_defaults_it_does_not_mention() {
        let mut db = Db::default();
        update(&mut db, Format::V2, json!({"insert": {"tag": 3}})).unwrap();
        let row = db.row("T", &ID).unwrap();
        assert_eq!((row.str("name"), row.int("tag")), (Some(""), Some(3)));
        assert_eq!(row.strs("ports"), [""; 0]);
    }

    #[test]
    fn a_difference_toggles_elements_and_replaces_single_values() {
        let mut db = Db::default();
        let first = json!({"name": "a", "tag": 3, "ports": ["set", ["p", "q"]], "ids": ["map", [["k", "1"], ["l", "2"]]]});
        update(&mut db, Format::V2, json!({"initial": first})).unwrap();
        let before = db.clone();
        let diff = json!({"tag": ["set", []], "ports": ["set", ["q", "r"]], "ids": ["map", [["k", "1"], ["l", "3"], ["m", "4"]]]});
        update(&mut db, Format::V2, json!({"modify": diff})).unwrap();
        let row = db.row("T", &ID).unwrap();
        assert_eq!((row.str("name"), row.int("tag")), (Some("a"), None));
        assert_eq!(row.strs("ports"), ["p", "r"]);
        assert_eq!(row.map("ids"), [("l".into(), "3".into()), ("m".into(), "4".into())].into());
        assert_eq!(before.row("T", &ID).unwrap().int("tag"), Some(3), "an older snapshot has not changed");
        // What is taken out to the last and put back again.
        update(&mut db, Format::V2, json!({"modify": {"ports": ["set", ["p", "r"]]}})).unwrap();
        assert_eq!(db.row("T", &ID).unwrap().strs("ports"), [""; 0]);
        update(&mut db, Format::V2, json!({"modify": {"ports": "z"}})).unwrap();
        assert_eq!(db.row("T", &ID).unwrap().strs("ports"), ["z"]);
    }

    #[test]
    fn rfc_7047_updates_come_whole() {
        let mut db = Db::default();
        update(&mut db, Format::V1, json!({"new": {"name": "a", "tag": 3}})).unwrap();
        update(&mut db, Format::V1, json!({"old": {"tag": 3}, "new": {"name": "a", "tag": ["set", []]}}))
            .unwrap();
        assert_eq!(db.row("T", &ID).unwrap().int("tag"), None);
        update(&mut db, Format::V1, json!({"old": {"name": "a"}})).unwrap();
        assert_eq!(db.count("T"), 0);
    }

    #[test]
    fn a_deleted_row_goes() {
        let mut db = Db::default();
        update(&mut db, Format::V2, json!({"insert": {}})).unwrap();
        update(&mut db, Format::V2, json!({"delete": null})).unwrap();
        assert_eq!(db.row("T", &ID), None);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut db = Db::default();
        assert!(update(&mut db, Format::V2, json!({"modify": {}})).is_err());
        assert!(update(&mut db, Format::V2, json!({"insert": {"name": ["bag", 1]}})).is_err());
        assert!(update(&mut db, Format::V2, json!(7)).is_err());
        assert!(apply(&mut db, &schema(), Format::V2, &json!({"U": {}})).is_err());
    }
}
