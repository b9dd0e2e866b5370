//! Random writes while watchers connect, drop, lag and resume: every history that was received is compared with
//! what was written.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{Events, Naming, Resp, queue};

/// What is bound below what is watched: the address by name.
type State = BTreeMap<String, String>;

/// The name that is bound last.
const LAST: &str = "a/last";

/// What one watcher saw: the state at each revision of which it heard.
#[derive(Default)]
struct Seen {
    state: State,
    revision: u64,
    /// The state and its revision, and whether it was told whole.
    story: Vec<(u64, State, bool)>,
    /// Names of a state that is being told.
    telling: State,
}

impl Seen {
    /// Takes an event. False where the watch is over and starts anew.
    fn take(&mut self, event: &Value) -> bool {
        match event["kind"].as_str().expect("a kind") {
            "state" => {
                let before = self.telling.insert(name_of(event), address_of(event));
                assert_eq!(before, None, "a name is told once: {event}");
            }
            "bookmark" => {
                self.state = std::mem::take(&mut self.telling);
                self.revision = event["revision"].as_u64().expect("a revision");
                self.story.push((self.revision, self.state.clone(), true));
            }
            "changed" => self.follow(event),
            "compacted" => {
                self.telling.clear();
                self.revision = 0;
                return false;
            }
            other => panic!("{other}"),
        }
        true
    }

    fn follow(&mut self, event: &Value) {
        let revision = event["revision"].as_u64().expect("a revision");
        assert!(
            revision > self.revision,
            "{revision} comes after {}",
            self.revision
        );
        self.revision = revision;
        for change in event["changes"].as_array().expect("changes") {
            let name = name_of(change);
            if change["event"] == "unbound" {
                assert!(
                    self.state.remove(&name).is_some(),
                    "{name} was not bound before {revision}"
                );
            } else {
                let was_bound = self.state.insert(name, address_of(change)).is_some();
                assert_eq!(was_bound, change["event"] == "rebound", "{event}");
            }
        }
        self.story.push((revision, self.state.clone(), false));
    }

    /// Every revision that changed what is watched was told once, in order and whole.
    fn check(&self, model: &BTreeMap<u64, State>, seed: u64) {
        let mut last: Option<(u64, &State)> = None;
        for (revision, state, whole) in &self.story {
            assert_eq!(
                Some(state),
                model.get(revision),
                "seed {seed}: revision {revision}"
            );
            if let (Some((before, known)), false) = (last, whole) {
                let missed = model
                    .range(before + 1..*revision)
                    .find(|(_, between)| *between != known);
                assert_eq!(missed, None, "seed {seed}: between {before} and {revision}");
            }
            last = Some((*revision, state));
        }
    }
}

fn name_of(change: &Value) -> String {
    change["name"].as_str().expect("a name").to_owned()
}

fn address_of(change: &Value) -> String {
    change["binding"]["object"]["address"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A watch through either door.
enum Watch {
    Resp(Resp),
    Http(Events),
}

impl Watch {
    async fn begin(addr: SocketAddr, over_http: bool, from: u64) -> Self {
        if over_http {
            let id = from.to_string();
            let resume = [("Last-Event-ID", id.as_str())];
            let headers = if from > 0 { &resume[..] } else { &[] };
            return Self::Http(Events::open(addr, "/v1/watch/a?scope=one-level", headers).await);
        }
        let mut resp = Resp::connect(addr).await;
        resp.ask(&["HELLO", "3"]).await;
        let id = from.to_string();
        let mut words = vec!["WATCH", "a", "SCOPE", "one-level"];
        if from > 0 {
            words.extend(["FROM", &id]);
        }
        resp.watch(&words).await;
        Self::Resp(resp)
    }

    async fn next(&mut self) -> Option<Value> {
        match self {
            Self::Resp(resp) => Some(resp.event().await.1),
            Self::Http(events) => events.next().await.map(|event| event.data),
        }
    }
}

/// Watches in pieces until the last name is bound, and now and then does not read for a while.
async fn follow(addr: SocketAddr, mut random: fastrand::Rng) -> Seen {
    let mut seen = Seen::default();
    while !seen.state.contains_key(LAST) {
        seen.telling.clear();
        let mut watch = Watch::begin(addr, random.bool(), seen.revision).await;
        for _ in 0..random.usize(1..60) {
            if random.u8(0..20) == 0 {
                // Many writes pass meanwhile.
                for _ in 0..random.usize(0..2_000) {
                    tokio::task::yield_now().await;
                }
            }
            match watch.next().await {
                Some(event) if seen.take(&event) => {}
                Some(_) | None => break,
            }
            if seen.state.contains_key(LAST) {
                break;
            }
        }
    }
    seen
}

/// One random write and what it does to the state.
async fn write(resp: &mut Resp, random: &mut fastrand::Rng, state: &mut State, count: u64) -> u64 {
    let name = |random: &mut fastrand::Rng| format!("a/n{}", random.u8(0..12));
    let address = format!("{count}-{}", "x".repeat(random.usize(0..2_000)));
    let written = match random.u8(0..10) {
        0..5 => {
            let name = name(random);
            state.insert(name.clone(), address.clone());
            resp.json(&["REBIND", &name, &queue(&address)]).await
        }
        5..7 => {
            let name = name(random);
            state.remove(&name);
            resp.json(&["UNBIND", &name]).await
        }
        7 => resp.json(&["REBIND", "elsewhere", &queue(&address)]).await,
        _ => {
            let mut writes = Vec::new();
            for _ in 0..random.usize(2..6) {
                let name = name(random);
                state.insert(name.clone(), address.clone());
                writes
                    .push(json!({"rebind": {"name": name, "object": {"type": "queue", "address": address}}}));
            }
            resp.json(&["TRANSACT", &Value::from(writes).to_string()]).await
        }
    };
    written["revision"].as_u64().expect("a revision")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_history_is_ordered_unique_complete_and_whole_whatever_watchers_do() {
    const WRITES: u64 = 300;
    let seed = match std::env::var("DAYMARK_NAMING_TEST_SEED") {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("DAYMARK_NAMING_TEST_SEED={seed}");
    let naming = Naming::start_with(|options| {
        options.directory.changes_kept = 60;
        options.limits.watch_buffer_bytes_max = 32 << 10;
    })
    .await;
    let mut writer = naming.resp().await;
    let made = writer.json(&["CREATESUBCONTEXT", "a"]).await;
    let mut revision = made["revision"].as_u64().expect("a revision");
    let watchers: Vec<_> = (1..=6)
        .map(|n| {
            let random = fastrand::Rng::with_seed(seed.wrapping_add(n));
            tokio::spawn(follow(naming.addr(), random))
        })
        .collect();
    let (mut random, mut state) = (fastrand::Rng::with_seed(seed), State::new());
    let mut model = BTreeMap::from([(revision, state.clone())]);
    for count in 0..WRITES {
        revision = write(&mut writer, &mut random, &mut state, count).await;
        model.insert(revision, state.clone());
    }
    let last = writer.json(&["REBIND", LAST, &queue("last")]).await;
    revision = last["revision"].as_u64().expect("a revision");
    state.insert(LAST.to_owned(), "last".to_owned());
    model.insert(revision, state);
    for watcher in watchers {
        let seen = watcher.await.expect("a history");
        assert!(!seen.story.is_empty());
        seen.check(&model, seed);
    }
}
