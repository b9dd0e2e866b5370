//! A group of brokers and a naming server in one process, over real sockets and files: who takes office,
//! who hears of it, and what each end leaves behind. A broker that is dropped ends like a killed one: its
//! sockets close, its lock goes, and it says nothing to anybody.

use std::future::pending;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use daymark_broker_server::store::MemoryStore;
use daymark_broker_server::{Broker, BrokerError, BrokerOptions, StoreUrl};
use daymark_client::proto::{
    Attributes, Endpoint, FactorySettings, GroupName, GroupView, MemberName, Name, NamingError, Object, Role,
    UnavailableReason,
};
use daymark_client::{ConnectionFactory, Destination, Message, Naming, NamingConfig, Providers};
use daymark_journal::{Holder, Locked};
use daymark_naming_server::{NamingOptions, Server};
use daymark_test_support::{HttpAnswer, free_port, http_delete, http_get, http_post, http_put};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything these tests wait for.
const PATIENCE: Duration = Duration::from_secs(30);

struct Stage {
    directory: tempfile::TempDir,
    naming_port: u16,
    server: Option<Server>,
    naming: Naming,
}

impl Stage {
    async fn with_naming() -> Self {
        let mut stage = Self::without_naming();
        stage.start_naming().await;
        stage
    }

    fn without_naming() -> Self {
        let naming_port = free_port();
        let providers = providers(naming_port);
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            naming_port,
            server: None,
            naming: Naming::new(providers, NamingConfig::default()),
        }
    }

    async fn start_naming(&mut self) {
        let options = NamingOptions {
            listen: endpoint(self.naming_port),
            ..NamingOptions::new(self.directory.path().join("naming"))
        };
        self.server = Some(Server::start(options).await.expect("a naming server"));
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn options(&self, name: &str, role: Role) -> BrokerOptions {
        BrokerOptions {
            name: member(name),
            role,
            group: group(),
            store: StoreUrl::Journal { dir: self.store() },
            naming: providers(self.naming_port),
            listen: endpoint(free_port()),
            admin: None,
            config: self.config("[failover]\nauto_switchover = false\n"),
        }
    }

    fn config(&self, text: &str) -> Option<PathBuf> {
        let path = self.directory.path().join(format!("broker-{}.toml", free_port()));
        std::fs::write(&path, text).expect("a file");
        Some(path)
    }

    async fn primary(&self, name: &str) -> Running {
        Running::start(self.options(name, Role::Primary)).await
    }

    async fn backup(&self, name: &str) -> Running {
        Running::start(self.options(name, Role::Backup)).await
    }

    /// Waits until the group is as it should be.
    async fn group(&self, what: &str, is_so: impl Fn(&GroupView) -> bool) -> GroupView {
        let asking = async {
            loop {
                if let Ok(view) = self.naming.group(&group()).await
                    && is_so(&view)
                {
                    return view;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.unwrap_or_else(|_| panic!("the group never showed {what}"))
    }

    /// Waits until this member is active and its exports are visible.
    async fn active(&self, name: &str) -> GroupView {
        let name = member(name);
        self.group("the active member", |view| {
            view.active.as_ref() == Some(&name) && view.withheld.is_none() && !view.exports.is_empty()
        })
        .await
    }

    /// The ports in the exported factory, in order.
    async fn factory_ports(&self) -> Vec<u16> {
        let binding = self.naming.lookup(&factory_name()).await.expect("the factory");
        let Object::ConnectionFactory(factory) = binding.object else {
            panic!("{:?} is no factory", binding.object);
        };
        factory.brokers.iter().map(|broker| broker.port).collect()
    }
}

struct Running {
    admin: SocketAddr,
    listen: Endpoint,
    stop: Option<oneshot::Sender<()>>,
    /// How it ended, once it has.
    outcome: Arc<OnceLock<String>>,
    ended: JoinHandle<Result<(), BrokerError>>,
}

impl Running {
    async fn start(options: BrokerOptions) -> Self {
        let listen = options.listen.clone();
        let broker = Broker::start(options).await.expect("a broker");
        let admin = broker.admin_addr();
        let (stop, stopped) = oneshot::channel();
        let outcome = Arc::new(OnceLock::new());
        let told = Arc::clone(&outcome);
        let ended = tokio::spawn(async move {
            let ended = broker.run(async {
                if stopped.await.is_err() {
                    pending::<()>().await;
                }
            });
            let ended = ended.await;
            let _ = told.set(format!("{ended:?}")); // Set nowhere else.
            ended
        });
        Self {
            admin,
            listen,
            outcome,
            stop: Some(stop),
            ended,
        }
    }

    /// Ends it like a killed process.
    async fn crash(self) {
        self.ended.abort();
        let _ = self.ended.await;
    }

    fn stop(&mut self) {
        self.stop
            .take()
            .expect("not stopped yet")
            .send(())
            .expect("it runs");
    }

    async fn ended(self) -> Result<(), BrokerError> {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await;
        ended.expect("it ends").expect("it does not panic")
    }

    /// Asks until it is answered: a machine whose disk is busy may take longer than one question waits.
    async fn get(&self, path: &'static str) -> HttpAnswer {
        let asking = async {
            loop {
                let admin = self.admin.to_string();
                let asked = tokio::task::spawn_blocking(move || http_get(&admin, path));
                if let Some(answer) = asked.await.expect("asked") {
                    return answer;
                }
                if let Some(outcome) = self.outcome.get() {
                    panic!("the broker ended: {outcome}");
                }
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.expect("an answer")
    }

    async fn post(&self, path: &'static str, body: Value) -> HttpAnswer {
        let admin = self.admin.to_string();
        let asked = tokio::task::spawn_blocking(move || http_post(&admin, path, &body));
        asked.await.expect("asked").expect("an answer")
    }

    /// Another request, made by a blocking function.
    async fn ask(&self, ask: impl FnOnce(&str) -> Option<HttpAnswer> + Send + 'static) -> HttpAnswer {
        let admin = self.admin.to_string();
        let asked = tokio::task::spawn_blocking(move || ask(&admin));
        asked.await.expect("asked").expect("an answer")
    }

    async fn status(&self) -> Value {
        self.get("/v1/status").await.body
    }

    /// Waits until the status is as it should be.
    async fn status_when(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let status = self.status().await;
                if is_so(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.unwrap_or_else(|_| panic!("the status never showed {what}"))
    }

    async fn standby_watching(&self, name: &str) -> Value {
        self.status_when("whom it watches", |status| {
            status["phase"] == "standby" && status["watching"] == name
        })
        .await
    }

    /// Waits until the broker that is active could hand over to this one.
    async fn ready_behind(&self, active: &str) {
        self.standby_watching(active).await;
        self.status_when("that it is ready", |status| status["ready"] == true)
            .await;
    }

    /// Asks for a switchover until the active broker has heard that the other one is ready.
    async fn switch_over(&self, to: &str) -> HttpAnswer {
        let asking = async {
            loop {
                let answer = self.post("/v1/switchover", json!({"to": to})).await;
                if !["NotReady", "MemberNotHeard"].contains(&answer.body["code"].as_str().unwrap_or("")) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.expect("the standby is heard to be ready")
    }

    fn serves_messages(&self) -> bool {
        TcpStream::connect((self.listen.host.as_str(), self.listen.port)).is_ok()
    }
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        host: "127.0.0.1".into(),
        port,
    }
}

fn providers(port: u16) -> Providers {
    Providers::new([endpoint(port)]).expect("a provider list")
}

fn group() -> GroupName {
    "orders".parse().expect("a label")
}

fn member(name: &str) -> MemberName {
    name.parse().expect("a label")
}

fn factory_name() -> Name {
    "QueueConnectionFactory".parse().expect("a name")
}

fn steps(status: &Value) -> Vec<&str> {
    let timeline = status["timeline"].as_array().expect("a timeline");
    timeline
        .iter()
        .filter_map(|entry| entry["step"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_serves_and_a_backup_waits_without_a_port_a_store_or_exports() {
    let stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    let view = stage.active("a").await;
    assert_eq!(view.epoch.0, 1);
    let b = stage.backup("b").await;
    b.standby_watching("a").await;
    assert!(a.serves_messages());
    assert!(!b.serves_messages());
    let expected = vec![a.listen.port, b.listen.port];
    while stage.factory_ports().await != expected {
        tokio::time::sleep(Duration::from_millis(5)).await; // The exports follow the new member.
    }
    let status = a.status().await;
    assert_eq!(
        steps(&status),
        [
            "promoting",
            "lock-taken",
            "claimed",
            "epoch-written",
            "recovered",
            "listening",
            "published",
            "active"
        ]
    );
    assert_eq!(b.status().await["messaging"], Value::Null);
    for broker in [&a, &b] {
        assert_eq!(broker.get("/livez").await.status, 200);
        assert_eq!(broker.get("/readyz").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_noticed_by_its_connections_and_the_standby_takes_over() {
    let stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    stage.active("a").await;
    // Silence is no suspicion here, however late a busy machine closes the sockets.
    let patient = stage.directory.path().join("patient.toml");
    std::fs::write(&patient, "[failover]\nsuspect_ms = 20000\nfailed_ms = 30000\n").expect("a file");
    let b = Running::start(BrokerOptions {
        config: Some(patient),
        ..stage.options("b", Role::Backup)
    })
    .await;
    b.standby_watching("a").await;
    a.crash().await;
    let view = stage.active("b").await;
    assert_eq!(view.epoch.0, 2);
    assert!(b.serves_messages());
    assert_eq!(stage.factory_ports().await[0], b.listen.port);
    let status = b
        .status_when("its office", |status| status["state"] == "active")
        .await;
    assert_eq!(
        steps(&status),
        [
            "suspected",
            "confirmed",
            "promoting",
            "lock-taken",
            "claimed",
            "epoch-written",
            "recovered",
            "listening",
            "published",
            "active"
        ]
    );
    let text = status["timeline"][0]["text"].as_str().expect("a text");
    assert!(text.contains("suspicion=dropped"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_crashes_in_a_row_are_three_terms() {
    let stage = Stage::with_naming().await;
    let mut active = stage.primary("a").await;
    stage.active("a").await;
    for (epoch, (dies, follows)) in [("a", "b"), ("b", "a"), ("a", "b")].into_iter().enumerate() {
        let standby = stage.backup(follows).await;
        standby.standby_watching(dies).await;
        active.crash().await;
        assert_eq!(stage.active(follows).await.epoch.0, epoch as u64 + 2);
        active = standby;
    }
}

/// A backup that does not search for long.
async fn hasty_backup(stage: &Stage, name: &str) -> Running {
    let mut options = stage.options(name, Role::Backup);
    options.config = stage.config("[failover]\ndiscovery_response_timeout = 100\nfailback_delay_ms = 100\n");
    Running::start(options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_starts_first_serves_until_the_primary_is_there() {
    let stage = Stage::with_naming().await;
    let b = hasty_backup(&stage, "b").await;
    assert_eq!(stage.active("b").await.epoch.0, 1);
    let a = stage.primary("a").await;
    assert_eq!(stage.active("a").await.epoch.0, 2);
    b.standby_watching("a").await;
    assert!(a.serves_messages() && !b.serves_messages());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_start_at_once_end_as_the_primary_active_and_the_backup_behind_it() {
    let stage = Stage::with_naming().await;
    let (b, a) = tokio::join!(hasty_backup(&stage, "b"), stage.primary("a"));
    stage.active("a").await;
    b.standby_watching("a").await;
    assert!(a.serves_messages() && !b.serves_messages());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_primary_never_comes_back_serves_and_does_so_again_after_its_own_death() {
    let stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    stage.active("a").await;
    let b = stage.backup("b").await;
    b.standby_watching("a").await;
    a.crash().await;
    assert_eq!(stage.active("b").await.epoch.0, 2);
    b.crash().await;
    let b = hasty_backup(&stage, "b").await;
    stage.group("a third term", |group| group.epoch.0 == 3).await;
    stage.active("b").await;
    assert!(b.serves_messages());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_stop_withdraws_the_exports_and_causes_no_failover() {
    let stage = Stage::with_naming().await;
    let mut a = stage.primary("a").await;
    stage.active("a").await;
    let b = stage.backup("b").await;
    b.standby_watching("a").await;
    a.stop();
    a.ended().await.expect("a planned end");
    let error = stage.naming.lookup(&factory_name()).await.expect_err("withheld");
    assert!(
        matches!(
            error.naming_error(),
            Some(NamingError::NameUnavailable {
                reason: UnavailableReason::Withdrawn,
                ..
            })
        ),
        "{error}"
    );
    let status = b
        .status_when("the planned shutdown", |status| {
            let events = status["events"].as_array().expect("events");
            events.iter().any(|event| event["step"] == "planned-shutdown")
        })
        .await;
    assert_eq!(status["phase"], "standby");
    // The store is free, so that an operator's promotion succeeds.
    let answer = b.post("/v1/promote", json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(stage.active("b").await.epoch.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_stop_hands_over_where_that_is_configured() {
    let stage = Stage::with_naming().await;
    let mut options = stage.options("a", Role::Primary);
    options.config = stage.config("[failover]\nfailover_on_shutdown = true\n");
    let mut a = Running::start(options).await;
    stage.active("a").await;
    let b = stage.backup("b").await;
    b.standby_watching("a").await;
    a.stop();
    a.ended().await.expect("a planned end");
    assert_eq!(stage.active("b").await.epoch.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_naming_the_lock_decides_and_the_exports_follow() {
    let mut stage = Stage::without_naming();
    let mut options = stage.options("a", Role::Primary);
    options.config = stage.config("[failover]\ndiscovery_response_timeout = 100\nclaim_timeout_ms = 50\n");
    let a = Running::start(options).await;
    a.status_when("its office", |status| status["state"] == "active")
        .await;
    assert!(a.serves_messages());
    stage.start_naming().await;
    let view = stage.active("a").await;
    assert_eq!(view.epoch.0, 1, "naming grants the epoch that was taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_somebody_else_holds_makes_a_standby_that_says_by_whom() {
    let stage = Stage::with_naming().await;
    let holder = Holder::here("other");
    let held = Locked::acquire(&stage.store(), &holder, daymark_journal::Options::default());
    let a = stage.primary("a").await;
    let status = a
        .status_when("the lock's holder", |status| {
            let events = status["events"].as_array().expect("events");
            events.iter().any(|event| event["step"] == "lock-busy")
        })
        .await;
    assert!(status["events"].to_string().contains("other (pid"), "{status}");
    let answer = a.post("/v1/promote", json!({"force": false})).await;
    assert_eq!(answer.status, 409);
    assert!(answer.body.to_string().contains("other (pid"), "{}", answer.body);
    drop(held);
    stage.active("a").await; // The store is tried again once a second.
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_ends_the_promotion_and_releases_the_store() {
    let stage = Stage::with_naming().await;
    let options = stage.options("a", Role::Primary);
    let taken = std::net::TcpListener::bind(("127.0.0.1", options.listen.port)).expect("a port");
    let error = Running::start(options).await.ended().await.expect_err("it ends");
    assert_eq!(error.exit_code(), 10);
    assert!(error.to_string().contains("open-port"), "{error}");
    drop(taken);
    let holder = Holder::here("test");
    Locked::acquire(&stage.store(), &holder, daymark_journal::Options::default()).expect("the store is free");
    stage
        .group("nobody", |view| view.active.is_none() && view.members.is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_bound_by_hand_ends_the_promotion() {
    let stage = Stage::with_naming().await;
    let queue = Object::Queue {
        address: "mine".into(),
    };
    let bound = stage
        .naming
        .bind(&factory_name(), queue, Attributes::default())
        .await;
    bound.expect("bound by hand");
    let error = stage.primary("a").await.ended().await.expect_err("it ends");
    assert_eq!(error.exit_code(), 10);
    assert!(error.to_string().contains("QueueConnectionFactory"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_forces_the_standby_and_the_old_active_becomes_its_standby() {
    let stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    stage.active("a").await;
    let b = stage.backup("b").await;
    b.standby_watching("a").await;
    let refused = b.post("/v1/promote", json!({"force": false})).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    let answer = b.post("/v1/promote", json!({"force": true})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        (&answer.body["state"], &answer.body["epoch"]),
        (&json!("active"), &json!(2))
    );
    assert_eq!(stage.active("b").await.epoch.0, 2);
    a.standby_watching("b").await;
    assert!(!a.serves_messages());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_leaves_the_old_active_as_the_standby_and_goes_back_and_forth() {
    let stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    stage.active("a").await;
    let b = stage.backup("b").await;
    let mut epoch = 1;
    for (from, to) in [
        ((&a, "a"), (&b, "b")),
        ((&b, "b"), (&a, "a")),
        ((&a, "a"), (&b, "b")),
    ] {
        to.0.ready_behind(from.1).await;
        let answer = from.0.switch_over(to.1).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        epoch += 1;
        assert_eq!(
            (&answer.body["from"], &answer.body["to"], &answer.body["epoch"]),
            (&json!(from.1), &json!(to.1), &json!(epoch))
        );
        assert_eq!(stage.active(to.1).await.epoch.0, epoch);
        from.0.standby_watching(to.1).await;
        assert!(to.0.serves_messages() && !from.0.serves_messages());
        let status = to.0.status().await;
        assert_eq!(
            steps(&status),
            [
                "handing-over",
                "drained",
                "withdrawn",
                "released",
                "taking-over",
                "promoting",
                "lock-taken",
                "claimed",
                "epoch-written",
                "recovered",
                "listening",
                "published",
                "active"
            ]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_that_cannot_be_is_refused_with_its_reason() {
    let stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    stage.active("a").await;
    a.status_when("its office", |status| status["state"] == "active")
        .await;
    for (body, code) in [
        (json!({}), "NobodyReady"),
        (json!({"to": "a"}), "ActiveAlready"),
        (json!({"to": "c"}), "MemberNotHeard"),
    ] {
        let answer = a.post("/v1/switchover", body).await;
        assert_eq!((answer.status, &answer.body["code"]), (409, &json!(code)));
    }
    let b = stage.backup("b").await;
    b.ready_behind("a").await;
    let answer = b.post("/v1/switchover", json!({})).await;
    assert_eq!((answer.status, &answer.body["code"]), (409, &json!("NotActive")));
    assert_eq!(a.post("/v1/switchover", json!({"two": 1})).await.status, 400);
    assert_eq!(stage.active("a").await.epoch.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_to_a_broker_whose_port_is_taken_comes_back() {
    let stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    stage.active("a").await;
    let options = stage.options("b", Role::Backup);
    let taken = std::net::TcpListener::bind(("127.0.0.1", options.listen.port)).expect("a port");
    let b = Running::start(options).await;
    b.ready_behind("a").await;
    let answer = a.switch_over("b").await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (409, &json!("HandoverFailed"))
    );
    assert_eq!(b.ended().await.expect_err("a port in use").exit_code(), 10);
    let view = stage.active("a").await;
    assert!(view.epoch.0 > 1, "it took the store back under a new epoch");
    assert!(a.serves_messages());
    drop(taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_back_is_handed_the_service() {
    let stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    stage.active("a").await;
    let options = BrokerOptions {
        config: stage.config("[failover]\nfailback_delay_ms = 100\n"),
        ..stage.options("b", Role::Backup)
    };
    let b = Running::start(options).await;
    b.standby_watching("a").await;
    a.crash().await;
    assert_eq!(stage.active("b").await.epoch.0, 2);
    let a = stage.primary("a").await;
    assert_eq!(stage.active("a").await.epoch.0, 3);
    b.standby_watching("a").await;
    assert!(a.serves_messages());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_finds_the_active_at_the_address_an_operator_gave() {
    let stage = Stage::without_naming();
    let peer = free_port();
    let at = format!("peer_listen = \"127.0.0.1:{peer}\"\n[failover]\ndiscovery_response_timeout = 200\n");
    let options = BrokerOptions {
        config: stage.config(&at),
        ..stage.options("a", Role::Primary)
    };
    let a = Running::start(options).await;
    a.status_when("its office", |status| status["state"] == "active")
        .await;
    let told = format!("[failover]\nactive_transport_url = \"tcp://127.0.0.1:{peer}\"\n");
    let options = BrokerOptions {
        config: stage.config(&told),
        ..stage.options("b", Role::Backup)
    };
    Running::start(options).await.standby_watching("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_naming_does_not_end_a_term() {
    let mut stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    stage.active("a").await;
    let b = stage.backup("b").await;
    b.standby_watching("a").await;
    stage.server.take().expect("a server").stop().await;
    // A crash while naming is down: the lock decides, and the exports follow when it is back.
    a.crash().await;
    let status = b
        .status_when("its office", |status| status["state"] == "active")
        .await;
    assert!(steps(&status).contains(&"claim-unanswered"), "{status}");
    stage.start_naming().await;
    let view = stage.active("b").await;
    assert_eq!(view.epoch.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_under_the_active_broker_ends_its_term_and_the_standby_takes_over() {
    let stage = Stage::with_naming().await;
    let name = format!("hangs-{}", stage.naming_port);
    let options = |member, role| BrokerOptions {
        store: StoreUrl::Memory { name: name.clone() },
        config: stage.config("[failover]\nauto_switchover = false\ncommit_timeout_ms = 300\n"),
        ..stage.options(member, role)
    };
    let a = Running::start(options("a", Role::Primary)).await;
    stage.active("a").await;
    let b = Running::start(options("b", Role::Backup)).await;
    b.standby_watching("a").await;
    let alone = FactorySettings {
        reconnect_enabled: false,
        ..FactorySettings::default()
    };
    let factory = ConnectionFactory::explicit([("127.0.0.1", a.listen.port)], alone);
    let connection = factory.connect().await.expect("a connection");
    let session = connection.session().await.expect("a session");
    let producer = session.producer(&Destination::queue("examples")).await;
    let producer = producer.expect("a producer");
    producer
        .send(Message::text("before"))
        .await
        .expect("acknowledged");
    let store = MemoryStore::named(&name);
    store.hang();
    let sent = producer.send(Message::text("while it hangs")).await;
    sent.expect_err("what is not durable is not acknowledged");
    let error = a.ended().await.expect_err("its store failed");
    assert_eq!(error.exit_code(), 11, "{error}");
    assert!(error.to_string().contains("the disk hangs"), "{error}");
    // A process that ends lets go of the lock; here the one that hangs holds it.
    store.resume();
    // An attempt that met the hanging store may have used up an epoch.
    assert!(stage.active("b").await.epoch.0 >= 2);
    let status = b.status().await;
    assert_eq!(status["messaging"]["messages"], 2, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_that_naming_ended_is_followed_by_a_new_one_of_the_same_broker() {
    let stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    let view = stage.active("a").await;
    let lease = view.members[0].lease;
    let ended = stage.naming.leave(&group(), &member("a"), lease).await;
    ended.expect("the membership is ended behind its back");
    assert_eq!(stage.active("a").await.epoch.0, 2);
    assert!(a.serves_messages());
    assert!(!a.ended.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_sends_wrongly_is_refused_and_explained() {
    let stage = Stage::without_naming();
    let a = stage.backup("a").await;
    let answer = a.post("/v1/promote", json!({"forse": true})).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.to_string().contains("forse"), "{}", answer.body);
    assert_eq!(a.get("/v1/nothing").await.status, 404);
}

async fn refused(options: BrokerOptions) -> BrokerError {
    Broker::start(options).await.expect_err("it does not start")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_refused_before_anything_is_touched() {
    let stage = Stage::without_naming();
    let with = |change: &dyn Fn(&mut BrokerOptions)| {
        let mut options = stage.options("a", Role::Primary);
        change(&mut options);
        options
    };
    let unknown_key = stage.config("colour = 1\n");
    let file = stage.config("").expect("a file");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address");
    for (options, code, part) in [
        (
            with(&|options| options.config.clone_from(&unknown_key)),
            2,
            "colour",
        ),
        (
            with(&|options| options.config = Some("/nowhere.toml".into())),
            2,
            "/nowhere.toml",
        ),
        (with(&|options| options.listen.port = 0), 2, "port 0"),
        (
            with(&|options| options.store = journal(&file)),
            2,
            "not a directory",
        ),
        (
            with(&|options| options.store = journal(Path::new("/no/where"))),
            2,
            "parent directory",
        ),
        (
            with(&|options| options.admin = Some(endpoint(taken.port()))),
            6,
            "admin endpoint",
        ),
    ] {
        let error = refused(options).await;
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(!stage.store().exists());
}

fn journal(dir: &Path) -> StoreUrl {
    StoreUrl::Journal { dir: dir.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_endpoint_of_the_active_broker_manages_destinations_and_a_standby_says_that_it_is_none() {
    let stage = Stage::with_naming().await;
    let a = stage.primary("a").await;
    stage.active("a").await;
    let b = stage.backup("b").await;
    b.standby_watching("a").await;
    for path in [
        "/v1/queues",
        "/v1/topics",
        "/v1/connections",
        "/v1/links",
        "/v1/subscriptions",
        "/v1/factories",
    ] {
        let refused = b.get(path).await;
        assert_eq!(
            (refused.status, &refused.body["code"]),
            (409, &json!("NotActive")),
            "{path}"
        );
        assert_eq!(a.get(path).await.status, 200, "{path}");
    }
    let put = |path, body| a.ask(move |admin| http_put(admin, path, &body));
    assert_eq!(
        put("/v1/queues/made", json!({"max_messages": 5})).await.status,
        204
    );
    assert_eq!(put("/v1/topics/made.too", json!({})).await.status, 204);
    let queue = a.get("/v1/queues/made").await;
    assert_eq!((queue.status, &queue.body["messages"]), (200, &json!(0)));
    let settings = json!({
        "max_messages": 5, "max_bytes": null, "when_full": "block", "max_delivery_attempts": 10,
        "dead_letter": "DLQ", "expiry": "",
    });
    assert_eq!(queue.body["settings"], settings);
    assert_eq!(put("/v1/queues/made", settings).await.status, 204);
    let topic = a.get("/v1/topics/made.too").await.body;
    assert_eq!(
        (&topic["name"], &topic["settings"]["expiry"]),
        (&json!("made.too"), &json!(""))
    );
    let factories = a.get("/v1/factories").await.body;
    assert_eq!(factories["factories"][0]["export"], "QueueConnectionFactory");
    assert_eq!(
        factories["factories"][0]["settings"]["initial_connect_attempts"],
        10
    );
    let listed = a.get("/v1/topics").await.body;
    assert_eq!(listed["topics"][0]["name"], "made.too");
    assert_eq!(
        a.get("/v1/queues/made/messages?limit=5").await.body,
        json!({"messages": []})
    );
    let purged = a.post("/v1/queues/made/purge", json!({})).await;
    assert_eq!(purged.body, json!({"messages_dropped": 0}));
    let problem = |answer: HttpAnswer| (answer.status, answer.body["code"].clone());
    let (bad, absent) = (json!("InvalidRequest"), json!("NotFound"));
    assert_eq!(
        problem(put("/v1/queues/x", json!({"colour": 1})).await),
        (400, bad.clone())
    );
    assert_eq!(
        problem(put("/v1/queues/x", json!({"export": ""})).await),
        (400, bad.clone())
    );
    assert_eq!(
        problem(put("/v1/queues/x", json!({"max_bytes": 0})).await),
        (400, bad.clone())
    );
    assert_eq!(
        problem(put("/v1/topics/a.*", json!({})).await),
        (400, bad.clone())
    );
    assert_eq!(
        problem(put("/v1/queues/examples", json!({})).await),
        (409, json!("Configured"))
    );
    for path in ["/v1/queues/absent", "/v1/topics/absent", "/v1/factories/absent"] {
        assert_eq!(problem(a.get(path).await), (404, absent.clone()), "{path}");
    }
    assert_eq!(
        problem(a.get("/v1/queues/made/messages?limit=0").await),
        (400, bad.clone())
    );
    assert_eq!(
        problem(a.get("/v1/queues/made/messages?selector=a%20=").await),
        (400, bad)
    );
    let delete = |path| a.ask(move |admin| http_delete(admin, path));
    assert_eq!(
        delete("/v1/queues/made").await.body,
        json!({"messages_dropped": 0})
    );
    assert_eq!(
        delete("/v1/topics/made.too?only_if_unused=true").await.body,
        json!({"messages_dropped": 0})
    );
    for path in [
        "/v1/queues/made",
        "/v1/factories/absent",
        "/v1/subscriptions/s?client=c",
        "/v1/connections/99",
        "/v1/links/99",
    ] {
        assert_eq!(problem(delete(path).await), (404, absent.clone()), "{path}");
    }
    let text = |answer: HttpAnswer| answer.body.as_str().expect("text").to_owned();
    let metrics = text(a.get("/metrics").await);
    assert!(metrics.contains("daymark_broker_active 1\n"), "{metrics}");
    assert!(
        metrics.contains("daymark_queue_messages{queue=\"examples\"} 0\n"),
        "{metrics}"
    );
    assert!(text(b.get("/metrics").await).contains("daymark_broker_active 0\n"));
}
