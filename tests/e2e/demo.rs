//! The demo's promise, with its numbers, and that it leaves nothing behind.

use daymark_test_support::{Process, Program, eventually, eventually_some};
use serde_json::Value;

use crate::stage::{SOON, program};

#[test]
fn three_failovers_in_a_row_lose_and_double_nothing() {
    let ran = program().run(&["demo", "--messages", "3000", "--kills", "3", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report = ran.json();
    for count in ["sent", "acknowledged", "received"] {
        assert_eq!(report[count], 3000, "{count} in {report}");
    }
    for count in ["lost", "doubled", "out_of_order", "left_in_queue"] {
        assert_eq!(report[count], 0, "{count} in {report}");
    }
    let failovers = report["failovers"].as_array().expect("failovers");
    let epochs: Vec<u64> = failovers
        .iter()
        .filter_map(|failover| failover["epoch"].as_u64())
        .collect();
    assert_eq!(epochs, [2, 3, 4], "{report}");
    let victims: Vec<&Value> = failovers.iter().map(|failover| &failover["killed"]).collect();
    assert_eq!(
        victims,
        ["one", "two", "one"],
        "the victim comes back as the standby"
    );
    for failover in failovers {
        assert_steps_in_order(failover);
    }
}

fn assert_steps_in_order(failover: &Value) {
    let steps = failover["steps"].as_array().expect("steps");
    let at = |code: &str| {
        let step = steps.iter().find(|step| step["step"] == code);
        step.and_then(|step| step["after_kill_ms"].as_f64())
            .unwrap_or_else(|| panic!("no {code} in {failover}"))
    };
    let order = [
        "suspected",
        "confirmed",
        "lock-taken",
        "claimed",
        "epoch-written",
        "recovered",
        "listening",
        "published",
        "first-acknowledged",
    ];
    let times: Vec<f64> = order.iter().map(|code| at(code)).collect();
    // The last two are on two sides: the client may be served before the exports are published.
    assert!(times[..8].is_sorted(), "{order:?} at {times:?}");
    assert!(at("first-acknowledged") >= at("listening"), "{failover}");
}

#[test]
fn without_a_terminal_progress_is_plain_lines_and_the_report_a_table() {
    let ran = program().run(&["demo", "--messages", "200", "--kills", "1"]).ok();
    assert!(
        ran.stderr.contains("killed one: two acknowledged after "),
        "{ran:?}"
    );
    assert!(
        !ran.stderr.contains('\u{1b}') && !ran.stdout.contains('\u{1b}'),
        "no control sequences: {ran:?}"
    );
    for row in [
        "sent           200",
        "lost           0",
        "doubled        0",
        "one -> two  2",
    ] {
        assert!(ran.stdout.contains(row), "{row:?} is missing in\n{}", ran.stdout);
    }
}

#[test]
fn more_kills_than_messages_allow_are_refused() {
    let ran = program().run(&["demo", "--messages", "20", "--kills", "2"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr.starts_with("error: InvalidPlan: too few messages"),
        "{ran:?}"
    );
}

#[test]
fn a_directory_that_is_not_empty_is_not_worked_in() {
    let program = program();
    program.file("precious", "");
    let directory = program.path("").display().to_string();
    let ran = program.run(&["demo", "--keep", &directory]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("is not empty"), "{ran:?}");
}

#[test]
fn ctrl_c_ends_every_process() {
    let program = program();
    let (mut demo, children) = streaming(&program);
    demo.interrupt();
    assert_eq!(demo.ended(SOON).code(), Some(1), "{}", demo.whole_log());
    assert!(
        demo.whole_log().contains("error: Interrupted: "),
        "{}",
        demo.log()
    );
    assert_eq!(alive(&children), [0; 0], "every child is gone before the demo is");
}

#[test]
fn a_demo_that_is_killed_leaves_no_process_behind() {
    let program = program();
    let (mut demo, children) = streaming(&program);
    demo.kill_9();
    eventually(SOON, "every child is gone", || alive(&children).is_empty());
}

/// A demo in the middle of its stream, and its children.
fn streaming(program: &Program) -> (Process, Vec<u32>) {
    let demo = program.start(&["demo", "--messages", "10000000", "--kills", "0"]);
    eventually(SOON, "the brokers are up", || {
        demo.log().contains("standby broker are up")
    });
    let children = eventually_some(SOON, "three children", || {
        let children = children_of(demo.id());
        (children.len() == 3).then_some(children)
    });
    (demo, children)
}

fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent))
        .collect()
}

/// Those that run. One that ended and was not waited for does not.
fn alive(pids: &[u32]) -> Vec<u32> {
    let runs = |pid: &&u32| stat(**pid).is_some_and(|stat| stat.state != 'Z' && stat.is_daymark);
    pids.iter().filter(runs).copied().collect()
}

struct Stat {
    is_daymark: bool,
    state: char,
    parent: u32,
}

/// The second, third and fourth field of `/proc/PID/stat`.
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = text.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    Some(Stat {
        is_daymark: before.ends_with("(daymark"),
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
    })
}
