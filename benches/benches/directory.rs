//! The directory beside its peers, in one run, as ratios.
//!
//! `cargo bench -p daymark-benches --bench directory [-- SECTION...]`: sections are `resp`, `http`, `writes`, `watch`
//! and `million`; all of them without a word. The peers come from Debian: `redis-server`, `redis-tools`, `etcd-server`,
//! `zookeeper`, `nginx`, `wrk`. A peer that is missing leaves its row empty and is named at the end. The table is
//! printed, and written to `target/benches/directory.md`.

use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use daymark_benches::directory::load::Work;
use daymark_benches::directory::watchers::{Listeners, Watchers};
use daymark_benches::directory::{NAMES, floor, load, payload, peers, resp, watchers};
use daymark_benches::peer::{self, Peer};
use daymark_benches::table::Table;
use daymark_benches::{Measurements, Outcome};

/// How often each figure is measured; the median counts.
const ROUNDS: usize = 3;
/// How long each load lasts.
const TIME: Duration = Duration::from_secs(4);
const WRITERS: usize = 64;
const MILLION: u64 = 1_000_000;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let outcome = match words.as_slice() {
        ["as-daymark", ..] => return daymark_cli::main_with(arguments.into_iter().skip(1)),
        ["as-floor", "echo", bytes] => number(bytes).and_then(|bytes| block_on(floor::echo(bytes))),
        ["as-floor", "hello", bytes] => number(bytes).and_then(|bytes| block_on(floor::hello(bytes))),
        ["as-floor", "journal", dir] => block_on(floor::journal_behind_tcp(Path::new(dir))),
        ["as-floor", "broadcast", bytes] => number(bytes).and_then(|bytes| block_on(floor::broadcast(bytes))),
        ["as-load", work, address, clients] => as_load(work, address, clients),
        sections => block_on(bench(sections)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no measurement: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> Outcome<usize> {
    Ok(text.parse()?)
}

fn block_on(work: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

fn as_load(work: &str, address: &str, clients: &str) -> Outcome<()> {
    let (work, clients) = (Work::of(work)?, number(clients)?);
    block_on(async {
        println!("{}", load::run(work, address, clients, TIME).await?);
        Ok(())
    })
}

/// The load in a process of its own: operations a second.
fn loaded(work: Work, peer: &Peer, clients: usize) -> Outcome<f64> {
    let output = Command::new(std::env::current_exe()?)
        .args(["as-load", work.word(), &peer.address, &clients.to_string()])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

async fn bench(sections: &[&str]) -> Outcome<()> {
    let sections: Vec<&str> = sections
        .iter()
        .filter(|word| !word.starts_with('-'))
        .copied()
        .collect();
    let wanted = |section: &str| sections.is_empty() || sections.contains(&section);
    let dir = tempfile::tempdir()?;
    let mut table = Table::default();
    let naming = naming(&dir.path().join("naming"))?;
    resp::fill_daymark(&naming.address, NAMES).await?;
    let body = resp::looked_up(&naming.address, 4711).await?;
    if wanted("resp") {
        lookups_over_resp(&mut table, &naming, &body, dir.path()).await?;
    }
    let peers = Durable::start(&mut table, dir.path(), wanted("http") || wanted("writes"));
    if wanted("http") {
        lookups_over_http(&mut table, &naming, &body, dir.path(), &peers)?;
    }
    if wanted("writes") {
        durable_rebinds(&mut table, &naming, dir.path(), &peers)?;
    }
    drop(peers);
    if wanted("watch") {
        many_watchers(&mut table, &naming).await?;
    }
    drop(naming);
    if wanted("million") {
        a_million(&mut table, &dir.path().join("million")).await?;
    }
    table.write("directory.md")
}

fn naming(data: &Path) -> Outcome<Peer> {
    let data = data.display().to_string();
    peer::own(&["as-daymark", "naming", "--listen", "127.0.0.1:0", "--data", &data])
}

/// The median of as many rounds, each of which measures everybody in turn.
fn medians<const N: usize>(
    mut round: impl FnMut() -> Outcome<[Option<f64>; N]>,
) -> Outcome<[Option<f64>; N]> {
    let mut measured: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (all, one) in measured.iter_mut().zip(round()?) {
            all.extend(one);
        }
    }
    Ok(measured.map(|all| all.into_iter().collect::<Measurements>().median()))
}

async fn lookups_over_resp(table: &mut Table, naming: &Peer, body: &str, dir: &Path) -> Outcome<()> {
    let redis = table.peer(peers::redis(dir));
    if let Some(redis) = &redis {
        resp::fill_redis(&redis.address, NAMES, body).await?;
    }
    let echo = peer::own(&["as-floor", "echo", &body.len().to_string()])?;
    for (what, pipeline, requests, of_redis, of_echo) in [
        (
            "RESP lookups, 50 connections, pipeline 16",
            16,
            3_000_000,
            1.2,
            0.35,
        ),
        ("RESP lookups, 50 connections, no pipeline", 1, 400_000, 1.0, 0.8),
    ] {
        let ask = |peer: &Peer, verb| {
            peers::redis_benchmark(peer, requests, pipeline, &[verb, "binding:__rand_int__"])
        };
        let [ours, theirs, bare] = medians(|| {
            Ok([
                Some(ask(naming, "LOOKUP")?),
                redis.as_ref().and_then(|redis| table.peer(ask(redis, "GET"))),
                Some(ask(&echo, "LOOKUP")?),
            ])
        })?;
        let others = [("Redis GET", theirs, of_redis), ("bare echo", bare, of_echo)];
        table.figure(what, "/s", ours.unwrap_or(0.0), &others);
    }
    Ok(())
}

/// The peers that keep what they are told.
struct Durable {
    etcd: Option<Peer>,
    zookeeper: Option<Peer>,
}

impl Durable {
    fn start(table: &mut Table, dir: &Path, wanted: bool) -> Self {
        let mut filled = |peer: Outcome<Peer>, work| {
            let peer = table.peer(peer)?;
            table.peer(loaded(work, &peer, WRITERS)).map(|_| peer)
        };
        if !wanted {
            return Self {
                etcd: None,
                zookeeper: None,
            };
        }
        Self {
            etcd: filled(peers::etcd(dir), Work::FillEtcd),
            zookeeper: filled(peers::zookeeper(dir), Work::FillZooKeeper),
        }
    }
}

fn lookups_over_http(
    table: &mut Table,
    naming: &Peer,
    body: &str,
    dir: &Path,
    durable: &Durable,
) -> Outcome<()> {
    let nginx = table.peer(peers::nginx(dir, body));
    let hello = peer::own(&["as-floor", "hello", &body.len().to_string()])?;
    let prefix = "/v1/names/";
    let measured = medians(|| {
        let nginx = nginx.as_ref();
        let (etcd, zookeeper) = (durable.etcd.as_ref(), durable.zookeeper.as_ref());
        Ok([
            Some(peers::wrk(naming, dir, prefix, TIME)?),
            Some(peers::wrk(&hello, dir, prefix, TIME)?),
            nginx.and_then(|nginx| table.peer(peers::wrk(nginx, dir, prefix, TIME))),
            etcd.and_then(|etcd| table.peer(loaded(Work::Range, etcd, 64))),
            zookeeper.and_then(|zookeeper| table.peer(loaded(Work::GetData, zookeeper, 64))),
        ])
    })?;
    let [ours, hello, nginx, etcd, zookeeper] = measured;
    let others = [
        ("bare hyper hello", hello, 0.8),
        ("nginx, one static file", nginx, 1.1),
        ("etcd serializable range", etcd, 8.0),
        ("ZooKeeper getData", zookeeper, 3.0),
    ];
    table.figure(
        "HTTP lookups, wrk 2 threads 64 connections",
        "/s",
        ours.unwrap_or(0.0),
        &others,
    );
    Ok(())
}

fn durable_rebinds(table: &mut Table, naming: &Peer, dir: &Path, durable: &Durable) -> Outcome<()> {
    let bytes = payload(4711);
    let behind = dir.join("journal-behind-tcp").display().to_string();
    let behind = peer::own(&["as-floor", "journal", &behind])?;
    let mut round = 0;
    let measured = medians(|| {
        round += 1;
        let (etcd, zookeeper) = (durable.etcd.as_ref(), durable.zookeeper.as_ref());
        let bare = floor::journal(&dir.join(format!("journal-{round}")), bytes, WRITERS, TIME)?;
        Ok([
            Some(loaded(Work::Rebind, naming, WRITERS)?),
            Some(loaded(Work::RebindShared, naming, WRITERS)?),
            Some(loaded(Work::Rebind, &behind, WRITERS)?),
            Some(loaded(Work::RebindShared, &behind, WRITERS)?),
            Some(bare),
            etcd.and_then(|etcd| table.peer(loaded(Work::Put, etcd, WRITERS))),
            zookeeper.and_then(|zookeeper| table.peer(loaded(Work::SetData, zookeeper, WRITERS))),
        ])
    })?;
    let [alone, shared, behind_alone, behind_shared, bare, etcd, zookeeper] = measured;
    let few = load::SHARED_CONNECTIONS;
    let rows = [
        ("a connection each".to_owned(), alone, behind_alone),
        (
            format!("on {few} connections, which is how etcd is asked"),
            shared,
            behind_shared,
        ),
    ];
    for (shape, ours, behind) in rows {
        let others = [
            ("etcd put", etcd, 5.0),
            ("ZooKeeper setData", zookeeper, 5.0),
            ("bare journal, in its own process", bare, 0.6),
            ("bare journal behind TCP, in the same shape", behind, 0.6),
        ];
        let what = format!("durable rebinds, {WRITERS} writers, {shape}");
        table.figure(&what, "/s", ours.unwrap_or(0.0), &others);
    }
    Ok(())
}

async fn many_watchers(table: &mut Table, naming: &Peer) -> Outcome<()> {
    const ROUNDS: usize = 21;
    let mut watchers = Watchers::connect(&naming.address).await?;
    let bytes = watchers.round().await?.bytes;
    let broadcast = peer::own(&["as-floor", "broadcast", &(bytes / watchers::WATCHES).to_string()])?;
    let mut listeners = Listeners::connect(&broadcast.address).await?;
    listeners.round().await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    // In turn, so that whatever else the machine does is felt by both.
    for _ in 0..ROUNDS {
        ours.push(watchers.round().await?.milliseconds);
        bare.push(listeners.round().await?.milliseconds);
    }
    let median = |times: Vec<f64>| {
        let times: Measurements = times.into_iter().collect();
        times.median().unwrap_or(f64::NAN)
    };
    let (ours, bare) = (median(ours), median(bare));
    let watches = watchers::CONNECTIONS * watchers::WATCHES;
    table.bound(
        &format!(
            "one rebind to {watches} watchers on {} connections, last one told ({bytes} bytes to each connection)",
            watchers::CONNECTIONS
        ),
        &format!("{ours:.1} ms"),
        &format!("3 × a bare broadcast ({bare:.1} ms → {:.2} ×)", ours / bare),
        ours <= 3.0 * bare,
    );
    Ok(())
}

async fn a_million(table: &mut Table, data: &Path) -> Outcome<()> {
    let server = naming(data)?;
    let empty = peer::resident(server.id())?;
    resp::fill_daymark(&server.address, MILLION).await?;
    let filled = peer::resident(server.id())?;
    drop(server);
    let bytes: usize = (0..MILLION).map(payload).sum();
    let times = |resident: u64| (resident - empty) as f64 / bytes as f64;
    let began = Instant::now();
    let server = naming(data)?;
    resp::looked_up(&server.address, MILLION - 1).await?;
    let started = began.elapsed();
    let restarted = peer::resident(server.id())?;
    let size = format!(
        "{} bytes each of name, value and attributes",
        bytes as u64 / MILLION
    );
    for (when, resident) in [("as bound", filled), ("after a restart", restarted)] {
        table.bound(
            &format!("memory per binding, 1,000,000 bindings, {size}, {when}"),
            &format!("{:.2} × ({} MiB)", times(resident), (resident - empty) >> 20),
            "2.5 ×",
            times(resident) <= 2.5,
        );
    }
    let reading = read_all(data)?;
    table.bound(
        "start-up with 1,000,000 bindings, until a lookup is answered",
        &format!("{:.2} s", started.as_secs_f64()),
        &format!("2 s (reading the files alone: {:.2} s)", reading.as_secs_f64()),
        started <= Duration::from_secs(2),
    );
    Ok(())
}

fn read_all(dir: &Path) -> Outcome<Duration> {
    let began = Instant::now();
    let mut directories = vec![dir.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else {
                std::hint::black_box(std::fs::read(path)?);
            }
        }
    }
    Ok(began.elapsed())
}
