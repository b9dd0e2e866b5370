//! Drills of a running group: what they report, what they refuse, and that they end what they began.

use daymark_test_support::{Process, Ran, eventually, http_get, run_tool, skipped, tool};
use serde_json::Value;

use crate::stage::{Member, Pair, SOON, Stage};

/// A primary that is back stays what it is, so that one drill is one failover.
const NO_FAILBACK: &str = "[failover]\nauto_switchover = false\n";
/// The same, and a frozen broker is followed only by an operator.
const LONG_LEASE: &str = "[failover]\nauto_switchover = false\nlease_ms = 3600000\n";

#[test]
fn each_kind_of_drill_loses_and_doubles_nothing_and_says_where_the_time_went() {
    let mut pair = Pair::new(NO_FAILBACK);
    ready(&pair.two);
    let kill = drill(&pair.stage, "--kill");
    assert_change(&kill, ("one", "two"), 2, "killed");
    assert!(!pair.one.process.is_running());
    for step in [
        "noticing",
        "suspected",
        "lock-taken",
        "recovered",
        "listening",
        "first-acknowledged",
    ] {
        assert!(share(&kill, step).is_some(), "{step} in {kill}");
    }
    pair.one.restart(&pair.stage);
    ready(&pair.one);
    let switchover = drill(&pair.stage, "--switchover");
    assert_change(&switchover, ("two", "one"), 3, "standby");
    ready(&pair.two);
    let freeze = drill(&pair.stage, "--freeze");
    assert_change(&freeze, ("one", "two"), 4, "standby");
    let gap = freeze["longest_gap_ms"].as_f64().expect("a gap");
    assert!(gap > 200.0, "the detector waits that long: {freeze}");
    assert_ne!(state_of(&pair.one.process), Some('T'), "it goes on");
    assert_left_nothing(&pair.two);
}

#[test]
fn a_drill_that_cannot_be_done_touches_nothing() {
    let mut pair = Pair::new(NO_FAILBACK);
    ready(&pair.two);
    refused(&pair.stage, &["drill", "orders", "--kill"], 2, "NotConfirmed");
    refused(&pair.stage, &["drill", "nothing", "--yes"], 3, "GroupNotFound");
    pair.two.process.terminate();
    pair.two.process.ended(SOON);
    refused(
        &pair.stage,
        &["drill", "orders", "--freeze", "--yes"],
        4,
        "NobodyReady",
    );
    assert!(pair.one.process.is_running());
    let status = http_get(&pair.one.admin, "/v1/status").expect("an answer");
    assert_eq!(
        (&status.body["state"], &status.body["epoch"]),
        (&"active".into(), &1.into())
    );
    assert_eq!(
        status.body["messaging"]["queues"].as_array().map(Vec::len),
        Some(1)
    );
    pair.one.process.terminate();
    pair.one.process.ended(SOON);
    refused(&pair.stage, &["drill", "orders", "--yes"], 4, "NoActive");
}

#[test]
fn signals_are_refused_where_process_ids_mean_other_processes() {
    let Some(unshare) = tool("unshare") else {
        return;
    };
    let pair = Pair::new(NO_FAILBACK);
    ready(&pair.two);
    // The drill runs as in a container of its own; the brokers do not.
    let exe = env!("CARGO_BIN_EXE_daymark");
    let provider = pair.stage.address.as_str();
    let arguments = [
        "--pid",
        "--fork",
        exe,
        "drill",
        "orders",
        "--kill",
        "--yes",
        "--provider",
        provider,
    ];
    let ran = run_tool(&unshare, &arguments);
    if ran.stderr.contains("unshare failed") {
        return skipped(&format!("process namespaces need root: {}", ran.stderr.trim()));
    }
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr
            .starts_with("error: Elsewhere: one runs on this machine"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("hint: run it on "), "{ran:?}");
    pair.stage.group_served_by("one", 1);
}

#[test]
fn without_json_the_report_is_facts_and_a_table() {
    let pair = Pair::new(NO_FAILBACK);
    ready(&pair.two);
    let ran = pair.stage.ask(&["drill", "orders", "--yes"]).ok();
    for row in [
        "failover      one -> two, epoch 2",
        "doubled       0",
        "old active    one is the standby, in the same process",
        "step",
        "recovered",
    ] {
        assert!(ran.stdout.contains(row), "{row:?} is missing in\n{}", ran.stdout);
    }
}

#[test]
fn ctrl_c_lets_a_frozen_broker_go_on() {
    let pair = Pair::new(LONG_LEASE);
    ready(&pair.two);
    let mut drill = begun(&pair, &["drill", "orders", "--freeze", "--yes"]);
    drill.interrupt();
    assert_eq!(drill.ended(SOON).code(), Some(1), "{}", drill.whole_log());
    assert!(
        drill.whole_log().contains("error: Interrupted: "),
        "{}",
        drill.log()
    );
    goes_on(&pair);
}

#[test]
fn a_drill_that_takes_too_long_lets_a_frozen_broker_go_on() {
    let pair = Pair::new(LONG_LEASE);
    ready(&pair.two);
    let mut drill = begun(
        &pair,
        &["drill", "orders", "--freeze", "--yes", "--deadline", "4s"],
    );
    assert_eq!(drill.ended(SOON).code(), Some(4), "{}", drill.whole_log());
    assert!(drill.whole_log().contains("error: Deadline: "), "{}", drill.log());
    goes_on(&pair);
}

#[test]
fn an_operator_who_takes_over_by_force_ends_a_freeze() {
    let pair = Pair::new(LONG_LEASE);
    ready(&pair.two);
    let mut drill = begun(&pair, &["drill", "orders", "--freeze", "--yes", "--json"]);
    pair.stage.ask(&["promote", "orders", "two", "--force"]).ok();
    let report = drill
        .line(SOON)
        .unwrap_or_else(|| panic!("a report: {}", drill.log()));
    let report: Value = serde_json::from_str(&report).expect("a document");
    assert_change(&report, ("one", "two"), 2, "standby");
    assert_eq!(drill.ended(SOON).code(), Some(0), "{}", drill.whole_log());
}

/// Waits until it could be handed the service.
#[track_caller]
fn ready(standby: &Member) {
    eventually(SOON, "a standby that is ready", || {
        http_get(&standby.admin, "/v1/status").is_some_and(|status| status.body["ready"] == true)
    });
}

#[track_caller]
fn drill(stage: &Stage, how: &str) -> Value {
    let ran = stage.ask(&["drill", "orders", how, "--yes", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.json()
}

/// A drill that has frozen the active broker.
#[track_caller]
fn begun(pair: &Pair, arguments: &[&str]) -> Process {
    let provider = ["--provider", pair.stage.address.as_str()];
    let drill = pair.stage.program.start(&[arguments, &provider].concat());
    eventually(SOON, "one is frozen", || state_of(&pair.one.process) == Some('T'));
    drill
}

#[track_caller]
fn refused(stage: &Stage, arguments: &[&str], exit: i32, code: &str) -> Ran {
    let ran = stage.ask(arguments);
    assert_eq!(ran.code, Some(exit), "{ran:?}");
    assert!(ran.stderr.contains(&format!("error: {code}: ")), "{ran:?}");
    ran
}

#[track_caller]
fn assert_change(report: &Value, (from, to): (&str, &str), epoch: u64, old: &str) {
    assert_eq!(
        (&report["from"], &report["to"]),
        (&from.into(), &to.into()),
        "{report}"
    );
    assert_eq!(
        (&report["epoch"], &report["old"]),
        (&epoch.into(), &old.into()),
        "{report}"
    );
    for count in ["lost", "doubled", "out_of_order"] {
        assert_eq!(report[count], 0, "{count} in {report}");
    }
    assert_eq!(report["sent"], report["received"], "{report}");
    assert!(report["acknowledged"].as_u64() >= Some(200), "{report}");
    let shares = report["steps"].as_array().expect("steps").iter();
    let sum: f64 = shares.filter_map(|step| step["share"].as_f64()).sum();
    assert!((99.0..=101.0).contains(&sum), "{sum} % in {report}");
}

fn share(report: &Value, step: &str) -> Option<f64> {
    let steps = report["steps"].as_array()?;
    steps.iter().find(|found| found["step"] == step)?["share"].as_f64()
}

/// One serves as before, and the standby that never took over watches it.
#[track_caller]
fn goes_on(pair: &Pair) {
    eventually(SOON, "one goes on", || state_of(&pair.one.process) != Some('T'));
    let group = pair.stage.group_served_by("one", 1);
    assert_eq!(group["epoch"], 1);
    assert_left_nothing(&pair.one);
}

/// No message of any drill is left.
#[track_caller]
fn assert_left_nothing(active: &Member) {
    eventually(SOON, "an empty queue", || {
        let status = http_get(&active.admin, "/v1/status").expect("an answer").body;
        status["messaging"]["messages"] == 0
    });
}

/// The state of a process: the third field of `/proc/PID/stat`.
fn state_of(process: &Process) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).ok()?;
    text.rsplit_once(')')?.1.trim_start().chars().next()
}
