//! The part of the server's schema that reading updates needs: which columns there are, how a difference to
//! one is written, and what an insert leaves out.

use std::collections::HashMap;

use serde_json::Value as Json;
use uuid::Uuid;

use crate::value::Value;

/// One monitored column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    /// Holds more than one element, so that `update2` tells only the difference.
    pub(crate) several: bool,
    /// The value of a column that must have one and that an `insert` does not mention.
    pub(crate) default: Option<Value>,
}

/// The monitored columns, by table.
pub(crate) type Schema = HashMap<&'static str, HashMap<&'static str, Column>>;

/// Reads from the server's schema the columns that are asked for, and tells those that it does not have.
pub(crate) fn read(
    schema: &Json,
    wanted: &[(&'static str, Vec<&'static str>)],
) -> (Schema, Vec<(&'static str, &'static str)>) {
    let (mut known, mut missing) = (Schema::new(), Vec::new());
    for (table, columns) in wanted {
        let declared = &schema["tables"][table]["columns"];
        for column in columns {
            match declared.get(column) {
                Some(declared) => {
                    known.entry(table).or_default().insert(column, read_column(&declared["type"]));
                }
                None => missing.push((*table, *column)),
            }
        }
    }
    (known, missing)
}

fn read_column(kind: &Json) -> Column {
    let max = &kind["max"];
    let several = max.as_str() == Some("unlimited") || max.as_u64().is_some_and(|max| max > 1);
    let optional = kind["min"].as_u64() == Some(0);
    let key = kind.get("key").unwrap_or(kind);
    let default = if optional || several {
        None
    } else {
        match key.as_str().or(key["type"].as_str()) {
            Some("integer") => Some(Value::from(0)),
            Some("real") => Some(Value::from(0.0)),
            Some("boolean") => Some(Value::from(false)),
            Some("string") => Some(Value::from("")),
            Some("uuid") => Some(Value::from(Uuid::nil())),
            _ => None,
        }
    };
    Column { several, default }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_read_as_the_schema_declares_them() {
        let schema = json!({"tables": {"T": {"columns": {
            "name": {"type": "string"},
            "count": {"type": {"key": {"type": "integer", "minInteger": 0}}},
            "tag": {"type": {"key": "integer", "min": 0, "max": 1}},
            "ports": {"type": {"key": {"type": "uuid", "refTable": "P"}, "min": 0, "max": "unlimited"}},
            "pair": {"type": {"key": "string", "max": 2}},
        }}}});
        let wanted = [("T", vec!["name", "count", "tag", "ports", "pair", "gone"]), ("U", vec!["x"])];
        let (known, missing) = read(&schema, &wanted);
        assert_eq!(missing, [("T", "gone"), ("U", "x")]);
        let column = |several, default| Column { several, default };
        assert_eq!(known["T"]["name"], column(false, Some(Value::from(""))));
        assert_eq!(known["T"]["count"], column(false, Some(Value::from(0))));
        assert_eq!(known["T"]["tag"], column(false, None));
        assert_eq!(known["T"]["ports"], column(true, None));
        assert_eq!(known["T"]["pair"], column(true, None));
    }
}
