use super::*;

const ID: &str = "00000000-0000-0000-0000-000000000001";

fn session() -> Session {
    Session::new("Db", vec![("T", vec!["n"])])
}

/// What the session has sent since the last look.
fn sent(session: &mut Session) -> Vec<Json> {
    let bytes = std::mem::take(session.out());
    serde_json::Deserializer::from_slice(&bytes).into_iter().map(Result::unwrap).collect()
}

fn receive(session: &mut Session, message: Json) -> Result<bool, String> {
    session.receive(serde_json::from_value(message).unwrap())
}

/// Answers the one request the session has sent; gives the request.
fn answer(session: &mut Session, reply: Result<Json, Json>) -> Json {
    let [request] = sent(session).try_into().unwrap();
    let (result, error) = match reply {
        Ok(result) => (result, Json::Null),
        Err(error) => (Json::Null, error),
    };
    receive(session, json!({"id": request["id"], "result": result, "error": error})).unwrap();
    request
}

fn schema() -> Result<Json, Json> {
    Ok(json!({"tables": {"T": {"columns": {"n": {"type": "integer"}}}}}))
}

fn value(session: &Session) -> Option<Option<i64>> {
    let db = session.snapshot()?;
    Some(db.row("T", &ID.parse().unwrap()).and_then(|row| row.int("n")))
}

/// A session whose one row holds 1, as of transaction "t1".
fn live() -> Session {
    let mut session = session();
    session.begin();
    assert_eq!(answer(&mut session, schema())["method"], "get_schema");
    let initial = json!([false, "t1", {"T": {(ID): {"initial": {"n": 1}}}}]);
    let request = answer(&mut session, Ok(initial));
    assert_eq!(request["method"], "monitor_cond_since");
    assert_eq!(request["params"], json!(["Db", "cache", {"T": [{"columns": ["n"]}]}, NO_TXN]));
    assert_eq!(value(&session), Some(Some(1)));
    session
}

#[test]
fn older_servers_are_asked_for_what_they_can() {
    let unknown = || Err(json!("unknown method"));
    for plain in [false, true] {
        let mut session = session();
        session.begin();
        answer(&mut session, schema());
        answer(&mut session, unknown());
        if plain {
            assert_eq!(answer(&mut session, unknown())["method"], "monitor_cond");
        }
        assert_eq!(value(&session), None);
        let kind = if plain { "new" } else { "initial" };
        let request = answer(&mut session, Ok(json!({"T": {(ID): {(kind): {"n": 4}}}})));
        assert_eq!(request["method"], if plain { "monitor" } else { "monitor_cond" });
        assert_eq!(value(&session), Some(Some(4)));
        let method = if plain { "update" } else { "update2" };
        let kind = if plain { "new" } else { "modify" };
        let update =
            json!({"method": method, "id": null, "params": ["cache", {"T": {(ID): {(kind): {"n": 5}}}}]});
        assert_eq!(receive(&mut session, update), Ok(true));
        assert_eq!(value(&session), Some(Some(5)));
    }
}

#[test]
fn updates_before_the_reply_are_held_and_applied_after_it() {
    let mut session = session();
    session.begin();
    answer(&mut session, schema());
    let update = json!({"method": "update3", "id": null, "params": ["cache", "t2", {"T": {(ID): {"modify": {"n": 2}}}}]});
    assert_eq!(receive(&mut session, update), Ok(false));
    assert_eq!(value(&session), None);
    answer(&mut session, Ok(json!([false, "t1", {"T": {(ID): {"initial": {"n": 1}}}}])));
    assert_eq!(value(&session), Some(Some(2)));
}

#[test]
fn a_server_that_finds_the_last_transaction_builds_on_the_cache() {
    let mut session = live();
    let update = json!({"method": "update3", "id": null, "params": ["cache", "t2", {"T": {(ID): {"modify": {"n": 2}}}}]});
    assert_eq!(receive(&mut session, update), Ok(true));
    session.begin();
    assert_eq!(value(&session), None, "no snapshot while not connected");
    answer(&mut session, schema());
    let request = answer(&mut session, Ok(json!([true, "t3", {}])));
    assert_eq!(request["params"][3], "t2");
    assert_eq!(value(&session), Some(Some(2)));
}

#[test]
fn a_server_that_does_not_empties_the_cache() {
    let mut session = live();
    session.begin();
    answer(&mut session, schema());
    answer(&mut session, Ok(json!([false, "u1", {}])));
    assert_eq!(value(&session), Some(None));
}

#[test]
fn another_schema_empties_the_cache() {
    let mut session = live();
    session.begin();
    let optional = json!({"key": "integer", "min": 0, "max": 1});
    answer(&mut session, Ok(json!({"tables": {"T": {"columns": {"n": {"type": optional}}}}})));
    assert_eq!(sent(&mut session)[0]["params"][3], NO_TXN);
}

#[test]
fn snapshots_that_were_given_out_do_not_change() {
    let mut session = live();
    let before = session.snapshot().unwrap();
    let update =
        json!({"method": "update3", "id": null, "params": ["cache", "t2", {"T": {(ID): {"delete": null}}}]});
    receive(&mut session, update).unwrap();
    assert_eq!(before.count("T"), 1);
    assert_eq!(value(&session), Some(None));
}

#[test]
fn echo_is_answered_and_what_is_not_known_is_refused() {
    let mut session = live();
    receive(&mut session, json!({"id": "e", "method": "echo", "params": ["x"]})).unwrap();
    receive(&mut session, json!({"id": 9, "method": "dance", "params": []})).unwrap();
    receive(&mut session, json!({"id": null, "method": "locked", "params": []})).unwrap();
    assert_eq!(
        sent(&mut session),
        [
            json!({"id": "e", "result": ["x"], "error": null}),
            json!({"id": 9, "result": null, "error": "unknown method"}),
        ]
    );
}

#[test]
fn a_transaction_is_sent_and_its_answer_handed_over() {
    let mut session = live();
    let (reply, mut answered) = oneshot::channel();
    session.transact(r#"[{"op":"comment","comment":"hi"}]"#, reply);
    let request = answer(&mut session, Ok(json!([{}])));
    assert_eq!(request["method"], "transact");
    assert_eq!(request["params"], json!(["Db", {"op": "comment", "comment": "hi"}]));
    assert_eq!(answered.try_recv().unwrap(), Ok(json!([{}])));

    let (reply, mut answered) = oneshot::channel();
    session.transact("[]", reply);
    let request = answer(&mut session, Err(json!({"error": "not allowed", "details": "why"})));
    assert_eq!(request["params"], json!(["Db"]));
    let refused = answered.try_recv().unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "OVSDB refused the commit: not allowed: why");
}

#[test]
fn without_a_snapshot_transactions_are_refused_and_those_under_way_given_up() {
    let mut session = live();
    let (reply, mut under_way) = oneshot::channel();
    session.transact("[]", reply);
    session.end();
    assert_eq!(under_way.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    let (reply, mut refused) = oneshot::channel();
    session.transact("[]", reply);
    assert_eq!(refused.try_recv(), Ok(Err(Error::Disconnected)));
    assert_eq!(sent(&mut session), [json!(null); 0]);
}

#[test]
fn what_ends_a_connection() {
    let mut session = live();
    assert!(
        receive(&mut session, json!({"id": null, "method": "monitor_canceled", "params": ["cache"]}))
            .is_err()
    );
    let nonsense = json!({"method": "update3", "id": null, "params": ["cache", "t2", {"T": {"x": {}}}]});
    assert!(receive(&mut session, nonsense).is_err());
    session.begin();
    let [request] = sent(&mut session).try_into().unwrap();
    assert!(
        receive(&mut session, json!({"id": request["id"], "error": "unknown database", "result": null}))
            .is_err()
    );
}
