//! What a committed transaction gave back.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use uuid::Uuid;

use crate::error::Error;
use crate::txn::{Op, Txn};

/// The results of a committed transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The uuids of inserted rows, by the name they had in the transaction.
    pub uuids: BTreeMap<String, Uuid>,
    /// How many rows each operation updated, mutated or deleted; 0 for other operations.
    pub counts: Vec<u64>,
    /// `Open_vSwitch.next_cfg` after [`crate::Txn::bump_next_cfg`]: ovs-vswitchd has taken up the change when
    /// `cur_cfg` in the snapshot has reached it.
    pub next_cfg: Option<i64>,
}

/// Checks the server's results one by one against the operations of `txn`.
///
/// Results end with the first operation that failed; when all went well but the commit did not, one more result
/// than there are operations tells why.
pub(crate) fn check(txn: &Txn, results: &Json) -> Result<Outcome, Error> {
    let Some(results) = results.as_array() else {
        return Err(Error::Malformed(format!("a transaction's result is {results}, not an array")));
    };
    for (index, result) in results.iter().enumerate() {
        if let Some(error) = result.get("error").and_then(Json::as_str) {
            let op = txn.ops().get(index);
            return Err(Error::Rejected {
                op: op.map(|_| index),
                table: op.and_then(Op::table),
                error: error.to_owned(),
                details: result["details"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    if results.len() != txn.ops().len() {
        let (got, wanted) = (results.len(), txn.ops().len());
        return Err(Error::Malformed(format!("a transaction of {wanted} operations has {got} results")));
    }
    let mut outcome = Outcome::default();
    for (op, result) in txn.ops().iter().zip(results) {
        outcome.counts.push(result["count"].as_u64().unwrap_or_default());
        if let Op::Insert { name, .. } = op {
            let uuid = result["uuid"][1].as_str().and_then(|text| text.parse().ok());
            let uuid = uuid.ok_or_else(|| Error::Malformed(format!("an insert's result is {result}")))?;
            outcome.uuids.insert(name.clone(), uuid);
        }
    }
    outcome.next_cfg = txn.next_cfg_op().and_then(|op| results[op]["rows"][0]["next_cfg"].as_i64());
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Row, Where};

    fn txn() -> Txn {
        let mut txn = Txn::new();
        txn.insert("Port", "p", Row::new().with("name", "p")).delete("Port", Where::eq("name", "q"));
        txn.bump_next_cfg();
        txn
    }

    #[test]
    fn a_committed_transaction_gives_uuids_counts_and_the_sequence_number() {
        let id = Uuid::from_u128(7);
        let results = json!([
            {"uuid": ["uuid", id.to_string()]}, {"count": 3}, {"count": 1}, {"rows": [{"next_cfg": 42}]}
        ]);
        let outcome = check(&txn(), &results).unwrap();
        assert_eq!(outcome.uuids, [("p".to_owned(), id)].into());
        assert_eq!(outcome.counts, [0, 3, 1, 0]);
        assert_eq!(outcome.next_cfg, Some(42));
    }

    #[test]
    fn the_operation_at_fault_is_named() {
        let fault = json!({"error": "constraint violation", "details": "too long"});
        let Err(Error::Rejected { op, table, error, details }) =
            check(&txn(), &json!([{}, fault, null, null]))
        else {
            panic!("not rejected");
        };
        assert_eq!((op, table), (Some(1), Some("Port")));
        assert_eq!((error.as_str(), details.as_str()), ("constraint violation", "too long"));
    }

    #[test]
    fn a_refused_commit_is_nobodys_fault() {
        let fault = json!({"error": "referential integrity violation"});
        let rejected = check(&txn(), &json!([{}, {}, {}, {}, fault])).unwrap_err();
        assert!(matches!(rejected, Error::Rejected { op: None, table: None, .. }), "{rejected:?}");
        assert_eq!(rejected.to_string(), "OVSDB refused the commit: referential integrity violation");
    }

    #[test]
    fn nonsense_is_malformed() {
        for results in [json!(null), json!([]), json!([{}, {}, {}, {}]), json!([{"uuid": 3}, {}, {}, {}])] {
            assert!(matches!(check(&txn(), &results), Err(Error::Malformed(_))), "{results}");
        }
    }
}
