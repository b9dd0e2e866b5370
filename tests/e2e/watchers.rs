//! Watchers that know nothing of Daymark: a browser's EventSource, and a Redis client in RESP3 mode.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use daymark_test_support::{Process, eventually, node, skipped, tool};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

/// Rebinds `q` and returns the revision of that.
fn rebound(stage: &Stage, address: &str) -> u64 {
    let written = stage.json(&["rebind", "q", "--queue", address]);
    written["revision"].as_u64().expect("a revision")
}

/// The next event that an EventSource printed.
fn event(source: &mut Process) -> Value {
    serde_json::from_str(&source.announced("event", SOON)).expect("an event")
}

#[test]
fn an_event_source_goes_on_after_the_server_was_killed_without_a_gap_or_a_repeat() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e/node/events.js");
    let Some((node, script)) = node::script(&script) else {
        return;
    };
    let mut stage = Stage::new();
    let first = rebound(&stage, "first");
    let url = format!("http://{}/v1/watch/q", stage.address);
    let arguments = [script.display().to_string(), url];
    let mut source = Process::start(&node, &arguments, &stage.program.path("."), &[]);
    assert_eq!(event(&mut source)["kind"], "state");
    assert_eq!(event(&mut source)["id"], json!(first.to_string()), "the bookmark");
    let second = rebound(&stage, "second");
    assert_eq!(event(&mut source)["id"], json!(second.to_string()));
    stage.naming.kill_9();
    (stage.naming, _) = stage.program.naming_at(&stage.address, "naming");
    let missed = [rebound(&stage, "third"), rebound(&stage, "fourth")];
    for revision in missed {
        let told = event(&mut source);
        assert_eq!(
            (&told["kind"], &told["data"]["revision"]),
            (&json!("changed"), &json!(revision))
        );
    }
}

#[test]
fn redis_cli_is_told_of_changes_in_push_frames() {
    let Some(redis_cli) = tool("redis-cli") else {
        return;
    };
    let stage = Stage::new();
    rebound(&stage, "first");
    let Some((host, port)) = stage.address.rsplit_once(':') else {
        return skipped("the address has no port");
    };
    let mut child = Command::new(redis_cli)
        .args(["-3", "--show-pushes", "yes", "-h", host, "-p", port])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli");
    let (input, mut output) = (
        child.stdin.take().expect("input"),
        child.stdout.take().expect("output"),
    );
    let printed = Arc::new(Mutex::new(String::new()));
    let (heard, mut piece) = (printed.clone(), [0; 4096]);
    let reader = std::thread::spawn(move || {
        while let Ok(read @ 1..) = output.read(&mut piece) {
            heard
                .lock()
                .expect("no panic")
                .push_str(&String::from_utf8_lossy(&piece[..read]));
        }
    });
    // It prints what was pushed when it reads the next answer.
    let prints = |wanted: &str| {
        eventually(SOON, wanted, || {
            (&input).write_all(b"PING\n").expect("typed");
            printed.lock().expect("no panic").contains(wanted)
        });
    };
    prints("PONG");
    (&input).write_all(b"WATCH q\n").expect("typed");
    prints("bookmark");
    rebound(&stage, "second");
    prints("second");
    drop(input);
    child.wait().expect("its end");
    reader.join().expect("everything was read");
}
