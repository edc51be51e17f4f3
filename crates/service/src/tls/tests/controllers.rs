//! Programs of several controllers: data directories of their own, one authority, names from their configuration.

use super::*;

/// A program of a controller whose configuration names itself and another one.
struct Program {
    dir: tempfile::TempDir,
    connector: Connector,
}

impl Program {
    fn new() -> Program {
        let dir = tempfile::tempdir().unwrap();
        let config = "token = \"secret\"\n[endpoints]\nscheduler = [\"https://127.0.0.1:0\", \"https://10.0.0.2:7611\"]\n";
        let settings = Settings::from_toml(config, dir.path(), dir.path()).unwrap();
        Program { connector: Connector::of(&settings), dir }
    }

    fn with(authority: &str) -> Program {
        let program = Program::new();
        program.given(authority);
        program
    }

    fn given(&self, authority: &str) {
        Authority::keep(self.dir.path(), authority).unwrap();
    }

    async fn serves(&self) -> (u16, tokio_util::sync::DropGuard) {
        served(&self.connector, "https://127.0.0.1:0").await
    }
}

#[tokio::test]
async fn another_controller_calls_and_nobody_else_does() {
    let (text, other) = (Authority::make().unwrap(), Authority::make().unwrap());
    let (ours, foreign) = (Authority::read(&text).unwrap(), Authority::read(&other).unwrap());
    let (port, _end) = Program::with(&text).serves().await;
    let at = format!("https://127.0.0.1:{port}");
    assert_eq!(refusal(&Program::with(&text).connector, &at).await, "");

    let said = refusal(&as_identity(host(&ours, "h2", &[])), &at).await;
    assert!(said.starts_with("PEER_REFUSED") && said.contains("certificate of host h2"), "{said}");
    let nobody = Connector::default().joining(Pinned::new(ours.fingerprint()));
    let said = refusal(&nobody, &at).await;
    assert!(said.starts_with("CERTIFICATE_MISSING"), "{said}");
    let said = refusal(&Program::with(&other).connector, &at).await;
    assert!(said.contains("is not trusted: its certificate is of another authority"), "{said}");
    // A stranger who trusts everybody.
    let key = given(&foreign, &Peer::Controller, &[], LONG);
    let said = refusal(&as_identity(Identity::host(&key, ours.certificate()).unwrap()), &at).await;
    assert!(said.contains("received fatal alert"), "{said}");
    // The token is for what is not TLS.
    let said = refusal(&Connector::with_token(Some("secret")), &format!("http://127.0.0.1:{port}")).await;
    assert!(said.contains("this port speaks TLS"), "{said}");
}

#[tokio::test]
async fn who_dials_looks_at_what_answers() {
    let text = Authority::make().unwrap();
    let controller = Program::with(&text);
    let (port, _end) = controller.serves().await;
    let said = refusal(&controller.connector, &format!("https://localhost:{port}")).await;
    assert!(
        said.contains("is not trusted") && said.contains("not valid for name"),
        "no name of the configuration: {said}"
    );
    let (port, _end) = serve(host(&Authority::read(&text).unwrap(), "h1", &["127.0.0.1"])).await;
    let said = refusal(&controller.connector, &format!("https://127.0.0.1:{port}")).await;
    assert!(said.contains("shows the certificate of host h1, not of the controller"), "{said}");
    let (port, _end) = served(&controller.connector, "http://127.0.0.1:0").await;
    let said = refusal(&controller.connector, &format!("https://127.0.0.1:{port}")).await;
    assert!(said.contains("does not speak TLS"), "{said}");
}

#[tokio::test]
async fn programs_wait_for_the_authority_and_go_on_when_it_is_there() {
    let text = Authority::make().unwrap();
    let (server, caller) = (Program::new(), Program::new());
    let (port, _end) = server.serves().await;
    let at = format!("https://127.0.0.1:{port}");
    let said = refusal(&caller.connector, &at).await;
    let file = caller.dir.path().join("authority.pem");
    assert!(said.contains(&format!("there is no {} yet", file.display())), "{said}");
    caller.given(&text);
    let said = refusal(&caller.connector, &at).await;
    assert!(said.contains("shows no certificate: a controller's waits for its authority.pem"), "{said}");
    server.given(&text);
    assert_eq!(refusal(&caller.connector, &at).await, "");
    for program in [&server, &caller] {
        let made = std::fs::read_to_string(program.dir.path().join("authority.pem")).unwrap();
        assert!(made == text, "neither made one of its own");
    }

    // A wrong one, and then the right one in its place.
    std::fs::write(&file, Authority::make().unwrap()).unwrap();
    assert!(refusal(&caller.connector, &at).await.contains("another authority"));
    std::fs::remove_file(&file).unwrap();
    caller.given(&text);
    assert_eq!(refusal(&caller.connector, &at).await, "");

    let nonsense = |of: &Program| std::fs::write(of.dir.path().join("authority.pem"), "nonsense").unwrap();
    nonsense(&server);
    assert_eq!(refusal(&caller.connector, &at).await, "", "what it had is good as long as it runs");
    let broken = Program::new();
    nonsense(&broken);
    let said = broken.connector.listen(&"https://127.0.0.1:0".parse().unwrap()).await.err().unwrap();
    assert!(said.to_string().contains("the authority's key cannot be used"), "{said}");
}

#[tokio::test]
async fn certificates_of_controllers_are_made_anew_before_they_are_over() {
    let authority = Arc::new(Authority::read(&Authority::make().unwrap()).unwrap());
    let names = || vec!["127.0.0.1".to_owned()];
    let [server, caller] = [(); 2].map(|()| Identity::controller(authority.clone(), names()).unwrap());
    let (port, end) = serve(server.clone()).await;
    let (address, at) = (format!("127.0.0.1:{port}"), format!("https://127.0.0.1:{port}"));
    let shown = || async {
        let stream = caller.connect(&address, &Peer::Controller).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let long = Connector::default().showing(caller.clone()).channel(&at.parse().unwrap());
    let asked = || async {
        HealthClient::new(long.clone()).check(tonic_health::pb::HealthCheckRequest::default()).await.is_ok()
    };
    let first = shown().await;
    assert_eq!(shown().await, first);
    assert!(asked().await);
    server.age();
    caller.age();
    assert_ne!(shown().await, first);
    assert!(asked().await, "what is connected stays so");
    drop(end);
    eventually("it has ended", BOUND, || async { !asked().await }).await;
    let _end = served(&as_identity(server), &at).await;
    eventually("it is connected anew", BOUND, asked).await;
}
