//! Whatever is wrong gets a specific message and an exit code that is not 0, and nothing is lost.

use std::net::TcpListener;

use daymark_client::LookupError;
use daymark_client::proto::{Endpoint, Epoch, Evidence, JoinRequest, NamingError, Role};
use daymark_test_support::{Ran, free_port};

use crate::stage::{Pair, SOON, Stage, program, wait};

/// It failed with this exit code, and said all of this.
#[track_caller]
fn refused(ran: &Ran, code: i32, says: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    for part in says {
        assert!(ran.stderr.contains(part), "{part:?} is missing in {ran:?}");
    }
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}

#[test]
fn an_unknown_flag_is_named() {
    refused(&program().run(&["naming", "--prot", "1"]), 2, &["'--prot'"]);
    refused(
        &program().run(&["lookup", "x", "--wait", "10"]),
        2,
        &["--wait", "500ms, 10s"],
    );
}

#[test]
fn an_unknown_config_key_is_named() {
    let stage = Stage::new();
    let config = stage
        .program
        .file("broker.toml", "stray_key = 1\n")
        .display()
        .to_string();
    let listen = format!("127.0.0.1:{}", free_port());
    let ran = run_broker(&stage, "store", &["--config", &config, "--listen", &listen]);
    refused(&ran, 2, &["error: InvalidConfig: ", "stray_key", "broker.toml"]);
}

#[test]
fn a_malformed_name_is_refused_with_the_reason() {
    refused(
        &program().run(&["lookup", "'open"]),
        2,
        &["a quote is not closed"],
    );
    let long = "x".repeat(300);
    refused(&program().run(&["lookup", &long]), 2, &["300 bytes", "255"]);
}

#[test]
fn a_name_that_is_taken_stays_as_it_is() {
    let stage = Stage::new();
    stage.ask(&["bind", "x", "--value", "1"]).ok();
    refused(
        &stage.ask(&["bind", "x", "--value", "2"]),
        1,
        &["error: NameAlreadyBound: x is already bound", "rebind"],
    );
    assert_eq!(stage.json(&["lookup", "x"])["object"]["value"], 1);
    let json = stage.ask(&["bind", "x", "--value", "2", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&json.stderr).expect("a JSON document");
    assert_eq!(error["error"], "NameAlreadyBound");
    assert_eq!(error["exit"], 1);
}

#[test]
fn unknown_names_groups_and_members_are_not_found() {
    let stage = Stage::new();
    refused(
        &stage.ask(&["lookup", "a/b"]),
        3,
        &["error: NameNotFound: a/b", "hint: "],
    );
    refused(
        &stage.ask(&["groups", "nobody"]),
        3,
        &["error: GroupNotFound: group nobody is unknown"],
    );
    refused(&stage.ask(&["promote", "nobody", "one"]), 3, &["GroupNotFound"]);
    wait(async {
        let client = stage.client();
        client
            .join(&label("orders"), &label("one"), join_request())
            .await
            .expect("a membership");
    });
    refused(
        &stage.ask(&["promote", "orders", "two"]),
        3,
        &["MemberNotFound", "its members are: one"],
    );
    refused(&stage.ask(&["promote", "orders", "one"]), 1, &["NoAdminEndpoint"]);
}

#[test]
fn a_stale_epoch_changes_nothing() {
    let stage = Stage::new();
    let (group, one, two) = (label("orders"), label("one"), label("two"));
    wait(async {
        let client = stage.client();
        client
            .join(&group, &one, join_request())
            .await
            .expect("a membership");
        client
            .join(&group, &two, join_request())
            .await
            .expect("a membership");
        let first = client
            .claim(&group, &one, Epoch(0), Evidence::StoreLock)
            .await
            .expect("an epoch");
        let second = client
            .claim(&group, &two, first, Evidence::StoreLock)
            .await
            .expect("an epoch");
        assert!(second > first);
        let stale = client.publish(&group, &one, first, Vec::new()).await;
        let is_stale = matches!(
            &stale,
            Err(LookupError::Refused(NamingError::StaleEpoch { given, current, .. })) if *given == first && *current == second
        );
        assert!(is_stale, "{stale:?}");
    });
}

#[test]
fn a_port_in_use_is_named() {
    let program = program();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    refused(
        &program.run(&["naming", "--listen", &address, "--data", "data"]),
        1,
        &["PortInUse", &address],
    );
}

#[test]
fn an_admin_port_in_use_is_named() {
    let stage = Stage::new();
    let broker = [
        "--listen",
        &format!("127.0.0.1:{}", free_port()),
        "--admin",
        &stage.address,
    ];
    refused(
        &run_broker(&stage, "store", &broker),
        6,
        &["error: CannotListen: ", &stage.address],
    );
}

#[test]
fn a_messaging_port_in_use_ends_the_promotion_and_releases_everything() {
    let stage = Stage::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let ran = run_broker(&stage, "store", &["--listen", &address]);
    refused(&ran, 10, &["error: PromotionFailed: ", "open-port", &address]);
    let group = stage.json(&["groups", "orders"]);
    assert_eq!(
        (&group["active"], &group["exports"]),
        (&serde_json::Value::Null, &serde_json::json!([]))
    );
}

#[test]
fn a_store_that_cannot_be_one_is_named() {
    let stage = Stage::new();
    stage.program.file("file", "");
    let listen = ["--listen", &format!("127.0.0.1:{}", free_port())];
    refused(&run_broker(&stage, "file/store", &listen), 2, &["file/store"]);
    let listen = ["--listen", &format!("127.0.0.1:{}", free_port())];
    refused(
        &run_broker(&stage, "", &listen),
        2,
        &["error: InvalidStore: --store", "journal:DIR"],
    );
}

/// Runs a broker that cannot run to its end.
#[track_caller]
fn run_broker(stage: &Stage, store: &str, rest: &[&str]) -> Ran {
    let store = format!("journal:{store}");
    let broker = [
        "broker", "--name", "one", "--role", "primary", "--group", "orders",
    ];
    let shared = ["--store", &store, "--naming", &stage.address];
    stage.program.run(&[&broker[..], &shared, rest].concat())
}

#[test]
fn a_data_directory_is_held_by_one_process_which_is_named() {
    let stage = Stage::new();
    let data = stage.program.path("naming").display().to_string();
    let second = stage
        .program
        .run(&["naming", "--listen", "127.0.0.1:0", "--data", &data]);
    refused(&second, 1, &["DataInUse", &stage.naming.id().to_string()]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let program = program();
    let file = program.file("file", "").display().to_string();
    let data = format!("{file}/data");
    let ran = program.run(&["naming", "--listen", "127.0.0.1:0", "--data", &data]);
    refused(&ran, 1, &["error: DataDirectory: ", &data]);
}

#[test]
fn an_empty_provider_list_is_refused() {
    refused(
        &program().run(&["status", "--provider", ""]),
        2,
        &["error: InvalidProviders: --provider", "hint: "],
    );
    let environment = [("DAYMARK_PROVIDER_URL", " , ")];
    refused(
        &program().run_with(&["status"], &environment),
        2,
        &["DAYMARK_PROVIDER_URL"],
    );
    refused(
        &program().run(&["status", "--jndi-properties", "missing"]),
        2,
        &["missing", "no such file"],
    );
    refused(
        &program().run(&["status", "--provider", "kkam:x"]),
        2,
        &["kkam:x"],
    );
}

#[test]
fn a_provider_list_nobody_answers_is_told_server_by_server() {
    let (one, two) = (
        format!("127.0.0.1:{}", free_port()),
        format!("127.0.0.1:{}", free_port()),
    );
    let list = format!("{one},{two}");
    let ran = program().run(&["lookup", "x", "--provider", &list, "--timeout", "300ms"]);
    refused(
        &ran,
        5,
        &["error: Unreachable: ", &one, &two, "refused", "daymark naming"],
    );
}

#[test]
fn a_standby_cannot_take_a_locked_store_and_says_who_holds_it() {
    let mut pair = Pair::new("");
    let ran = pair.stage.ask(&["promote", "orders", "two"]);
    let holder = format!("locked by one (pid {}", pair.one.process.id());
    refused(&ran, 1, &["error: PromotionRefused: ", &holder, "--force"]);
    assert!(pair.one.process.is_running() && pair.two.process.is_running());
    pair.stage
        .group_when("one is still active", |group| group["active"] == "one");
    pair.one.process.terminate();
    pair.one.process.ended(SOON);
}

fn label<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a label")
}

fn join_request() -> JoinRequest {
    JoinRequest {
        role: Role::Primary,
        endpoint: Endpoint {
            host: "127.0.0.1".to_owned(),
            port: 1,
        },
        admin: None,
        peer: None,
        lease_ms: 60_000,
        shadow: Vec::new(),
    }
}
