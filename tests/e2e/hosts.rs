//! Two hosts that share a directory or a database, and find each other without naming.

use std::path::{Path, PathBuf};
use std::time::Duration;

use daymark_test_support::{ADDRESSES, Hosts, Postgres, Process, Program, eventually, free_port};

use crate::stage::{SOON, program};

/// Settings that do not let a busy machine decide.
const PATIENT: &str = "[failover]\ndiscovery_response_timeout = 1000\ncheck_health_response_timeout = 1000\n\
                       fail_over_max_try_count = 2\nclaim_timeout_ms = 100\n";

const MULTICAST: &str = "[group]\ntransport = \"multicast\"\n";

/// Where the peers of the second test receive heartbeats.
const PEER_PORT: u16 = 9742;

fn virtual_multicast(host: usize, other: &str) -> String {
    format!(
        "[group]\ntransport = \"virtual-multicast\"\nvirtual_multicast = \"{}:{PEER_PORT}|{other}\"\n",
        ADDRESSES[1 - host]
    )
}

/// How long packets are lost or late: a minute where an operator wants to see it.
const LOSSES: &str = "DAYMARK_TEST_LOSS_SECONDS";

/// A broker on one of two hosts. Naming is asked at an address where nobody is, unless the test says otherwise.
struct Member {
    process: Process,
    name: &'static str,
}

struct Pair {
    program: Program,
    hosts: Hosts,
    one: Member,
    two: Member,
}

fn arguments(name: &str, address: &str, naming: &str, store: &str, config: &Path) -> Vec<String> {
    let role = if name == "one" { "primary" } else { "backup" };
    let listen = format!("{address}:9741");
    let config = config.display().to_string();
    [
        "broker",
        "--name",
        name,
        "--role",
        role,
        "--group",
        "orders",
        "--store",
        store,
        "--naming",
        naming,
        "--listen",
        &listen,
        "--exit-with-parent",
        "--config",
        &config,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_daymark"))
}

fn start(program: &Program, hosts: &Hosts, host: usize, name: &'static str, group: &str) -> Member {
    let nobody = format!("{}:9", ADDRESSES[host]);
    start_with(program, hosts, host, name, &nobody, &format!("{PATIENT}{group}"))
}

fn start_with(
    program: &Program,
    hosts: &Hosts,
    host: usize,
    name: &'static str,
    naming: &str,
    config: &str,
) -> Member {
    let address = ADDRESSES[host];
    let peer = format!("peer_listen = \"{address}:{PEER_PORT}\"\n");
    let config = program.file(&format!("{name}.toml"), &format!("{peer}{config}"));
    let store = format!("journal:{}", program.path("store").display());
    let (exe, arguments) = hosts.on(host, &exe(), &arguments(name, address, naming, &store, &config));
    let directory = program.path("");
    let mut process = Process::start(&exe, &arguments, &directory, &[("NO_COLOR", "1")]);
    let _ = process.announced("admin", SOON);
    Member { process, name }
}

impl Member {
    /// Waits until it said this so often.
    #[track_caller]
    fn says(&self, code: &str, times: usize) {
        let what = format!("{} says {code} {times} times", self.name);
        eventually(SOON, &what, || self.said(code) >= times);
    }

    fn said(&self, code: &str) -> usize {
        let text = format!("code=\"{code}\"");
        self.process.log().matches(&text).count()
    }
}

impl Pair {
    /// `one` is active, `two` watches it.
    fn new(one: &str, two: &str) -> Option<Self> {
        let hosts = Hosts::new()?;
        let program = program();
        let one = start(&program, &hosts, 0, "one", one);
        one.says("active", 1);
        let two = start(&program, &hosts, 1, "two", two);
        eventually(SOON, "two watches one", || {
            two.process.log().contains("watching=one")
        });
        Some(Self {
            program,
            hosts,
            one,
            two,
        })
    }
}

#[test]
fn members_find_each_other_by_multicast_and_a_killed_active_is_followed_while_naming_is_down() {
    let Some(mut pair) = Pair::new(MULTICAST, MULTICAST) else {
        return;
    };
    assert_eq!(pair.two.said("active"), 0);
    pair.one.process.kill_9();
    pair.two.says("active", 1);
    // It comes back as the standby of the one that followed it.
    let one = start(&pair.program, &pair.hosts, 0, "one", MULTICAST);
    eventually(SOON, "one watches two", || {
        one.process.log().contains("watching=two")
    });
    assert_eq!(one.said("active"), 0);
}

#[test]
fn members_find_each_other_by_a_list_and_a_killed_active_is_followed_while_naming_is_down() {
    let Some(mut pair) = Pair::new(&virtual_multicast(0, "two"), &virtual_multicast(1, "one")) else {
        return;
    };
    pair.one.process.kill_9();
    pair.two.says("active", 1);
}

#[test]
fn a_cut_in_one_direction_makes_no_second_active_on_a_shared_directory() {
    // With a lease of an hour nobody counts as isolated: only the lock of the shared directory decides.
    let config = format!("lease_ms = 3600000\n{MULTICAST}");
    let Some(pair) = Pair::new(&config, &config) else {
        return;
    };
    for host in [0, 1] {
        let (suspected, busy) = (pair.two.said("suspected"), pair.two.said("lock-busy"));
        pair.hosts.mute(host);
        pair.two.says("suspected", suspected + 1);
        pair.two.says("lock-busy", busy + 1);
        pair.hosts.unmute(host);
        eventually(SOON, "two watches one again", || {
            let log = pair.two.process.log();
            log.rfind("watching=one") > log.rfind("lock-busy")
        });
    }
    assert_eq!(pair.two.said("active"), 0, "{}", pair.two.process.log());
    assert_eq!(pair.one.said("active"), 1, "{}", pair.one.process.log());
}

#[test]
fn an_active_that_is_cut_off_from_everybody_gives_its_term_up_and_the_other_one_serves() {
    let Some(pair) = Pair::new(MULTICAST, MULTICAST) else {
        return;
    };
    for host in [0, 1] {
        pair.hosts.mute(host);
    }
    pair.one.says("isolated", 1);
    pair.two.says("active", 1);
    assert_eq!(pair.one.said("active"), 1, "{}", pair.one.process.log());
}

/// Lets the network be poor for some seconds, and makes sure that nobody took over or tried to.
fn no_failover_while(hosts: &Hosts, one: &Member, two: &Member, poor: impl FnOnce(&Hosts)) {
    let seconds = std::env::var(LOSSES).ok().and_then(|text| text.parse().ok());
    // Who finds nobody at its start in time tries the lock; that is over once it watches.
    let tried = two.said("promoting");
    poor(hosts);
    std::thread::sleep(Duration::from_secs(seconds.unwrap_or(5)));
    hosts.lose(0);
    hosts.delay(Duration::ZERO);
    println!(
        "suspicions: {}, cleared: {}",
        two.said("suspected"),
        two.said("cleared")
    );
    assert_eq!(two.said("promoting"), tried, "{}", two.process.log());
    assert_eq!(two.said("active"), 0, "{}", two.process.log());
    for code in ["promoting", "active"] {
        assert_eq!(one.said(code), 1, "{}", one.process.log());
    }
}

fn no_failover_while_every_fifth_packet_is_lost(mut hosts: Hosts, one: &Member, two: &Member) {
    no_failover_while(&hosts, one, two, |hosts| hosts.lose(20));
    let lost = hosts.lost();
    assert!(lost >= 20, "only {lost} packets were lost");
    println!("{lost} packets lost");
}

/// Two hosts on a poor cable, with naming at the standby's side: the active one's renewals take the cable.
fn pair_with_naming(hosts: &Hosts, program: &Program) -> (Process, Member, Member) {
    let address = format!("{}:9736", ADDRESSES[1]);
    let data = program.path("naming").display().to_string();
    let naming = [
        "naming",
        "--listen",
        &address,
        "--data",
        &data,
        "--exit-with-parent",
    ];
    let (on, naming) = hosts.on(1, &exe(), &naming.map(str::to_owned));
    let mut naming = Process::start(&on, &naming, &program.path(""), &[]);
    let _ = naming.announced("listening", SOON);
    let one = start_with(program, hosts, 0, "one", &address, "");
    one.says("active", 1);
    let two = start_with(program, hosts, 1, "two", &address, "");
    eventually(SOON, "two watches one", || {
        two.process.log().contains("watching=one")
    });
    (naming, one, two)
}

#[test]
fn a_network_that_loses_every_fifth_packet_causes_no_failover_while_naming_answers() {
    let Some(hosts) = Hosts::with_poor_cable() else {
        return;
    };
    let program = program();
    let (_naming, one, two) = pair_with_naming(&hosts, &program);
    no_failover_while_every_fifth_packet_is_lost(hosts, &one, &two);
}

#[test]
fn a_network_whose_packets_are_late_and_overtake_each_other_causes_no_failover() {
    let Some(hosts) = Hosts::with_poor_cable() else {
        return;
    };
    let program = program();
    let (_naming, one, two) = pair_with_naming(&hosts, &program);
    no_failover_while(&hosts, &one, &two, |hosts| {
        hosts.delay(Duration::from_millis(300))
    });
}

#[test]
fn members_find_each_other_on_a_network_that_loses_every_fifth_packet_and_no_failover_follows() {
    let Some(hosts) = Hosts::with_poor_cable() else {
        return;
    };
    hosts.lose(20);
    let program = program();
    let one = start(&program, &hosts, 0, "one", MULTICAST);
    one.says("active", 1);
    let two = start(&program, &hosts, 1, "two", MULTICAST);
    eventually(SOON, "two watches one", || {
        two.process.log().contains("watching=one")
    });
    no_failover_while_every_fifth_packet_is_lost(hosts, &one, &two);
}

#[test]
fn a_killed_active_on_postgresql_is_followed_and_a_third_broker_is_refused_by_name() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let program = program();
    let (naming, address) = program.naming("naming");
    let config = program.file("broker.toml", PATIENT);
    let start = |name: &'static str, role: &str| {
        let listen = format!("127.0.0.1:{}", free_port());
        let url = server.url("e2e");
        let config = config.display().to_string();
        let mut process = program.start(&[
            "broker",
            "--name",
            name,
            "--role",
            role,
            "--group",
            "orders",
            "--store",
            &url,
            "--naming",
            &address,
            "--listen",
            &listen,
            "--exit-with-parent",
            "--config",
            &config,
        ]);
        let admin = process.announced("admin", SOON);
        (Member { process, name }, admin)
    };
    let (mut one, admin) = start("one", "primary");
    one.says("active", 1);
    let status = daymark_test_support::http_get(&admin, "/v1/status").expect("a status");
    assert!(!status.body.to_string().contains(server.password()), "{status:?}");
    let (two, _) = start("two", "backup");
    eventually(SOON, "two watches one", || {
        two.process.log().contains("watching=one")
    });
    let refused = program.run(&["promote", "orders", "two", "--provider", &address]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    one.process.kill_9();
    two.says("active", 1);
    assert!(!one.process.whole_log().contains(server.password()));
    drop(naming);
    // The loss of the database ends the term and the process, with the code of a store that failed.
    assert_eq!(
        server.sql("SELECT pg_terminate_backend(backend) FROM e2e.store"),
        "t"
    );
    let mut two = two;
    assert_eq!(two.process.ended(SOON).code(), Some(11), "{}", two.process.log());
}
