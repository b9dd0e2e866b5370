//! The peers, each started on a free loopback port with a directory of its own, ended when it is dropped, and the
//! ready tools that ask them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daymark_test_support::free_port;

use crate::peer::Peer;
use crate::{Outcome, other};

/// Redis without persistence: its lookups are from memory, as ours.
///
/// # Errors
/// That it is not installed or does not start.
pub fn redis(dir: &Path) -> Outcome<Peer> {
    let port = free_port();
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir);
    Peer::start(command, port)
}

/// etcd, one member, with its default fsync.
///
/// # Errors
/// That it is not installed or does not start.
pub fn etcd(dir: &Path) -> Outcome<Peer> {
    let (client, peer) = (free_port(), free_port());
    let (client_url, peer_url) = (
        format!("http://127.0.0.1:{client}"),
        format!("http://127.0.0.1:{peer}"),
    );
    let mut command = Command::new("etcd");
    command
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args([
            "--listen-client-urls",
            &client_url,
            "--advertise-client-urls",
            &client_url,
        ])
        .args([
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
        ])
        .args(["--initial-cluster", &format!("default={peer_url}")]);
    Peer::start(command, client)
}

/// ZooKeeper, standalone, with its default fsync.
///
/// # Errors
/// That it is not installed or does not start.
pub fn zookeeper(dir: &Path) -> Outcome<Peer> {
    const MAIN: &str = "org.apache.zookeeper.server.ZooKeeperServerMain";
    let port = free_port();
    let config = dir.join("zoo.cfg");
    let data = dir.join("zookeeper");
    std::fs::create_dir_all(&data)?;
    let text = format!(
        "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\n\
         admin.enableServer=false\n",
        data.display()
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new("java");
    command
        .args(["-Xmx1g", "-Dzookeeper.root.logger=ERROR,CONSOLE", "-cp"])
        .arg("/usr/share/java/zookeeper.jar")
        .arg(MAIN)
        .arg(&config);
    let peer = Peer::start(command, port)?;
    until_it_serves(&peer.address)?;
    Ok(peer)
}

/// ZooKeeper opens its port before it serves, and closes every connection made in between.
fn until_it_serves(address: &str) -> Outcome<()> {
    const START: Duration = Duration::from_secs(60);
    let end = Instant::now() + START;
    while !says_its_mode(address).unwrap_or(false) {
        if Instant::now() > end {
            return Err(other("ZooKeeper does not serve").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Whether the answer to `srvr` tells the mode, which it does once sessions are taken.
fn says_its_mode(address: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"srvr")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said.contains("Mode: "))
}

/// nginx with one static file of these bytes.
///
/// # Errors
/// That it is not installed or does not start.
pub fn nginx(dir: &Path, body: &str) -> Outcome<Peer> {
    let port = free_port();
    let root = dir.join("nginx");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("binding.json"), body)?;
    let path = root.display();
    let text = format!(
        "daemon off; worker_processes 2; pid {path}/pid; error_log {path}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;\n\
         open_file_cache max=16; default_type application/json;\n\
         client_body_temp_path {path}; proxy_temp_path {path}; fastcgi_temp_path {path};\n\
         uwsgi_temp_path {path}; scgi_temp_path {path};\n\
         server {{ listen 127.0.0.1:{port}; root {path};\n\
         location / {{ try_files /binding.json =404; }} }} }}\n"
    );
    let config = root.join("nginx.conf");
    std::fs::write(&config, text)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&config).arg("-p").arg(&root);
    Peer::start(command, port)
}

/// `redis-benchmark` with one command: requests a second.
///
/// # Errors
/// That it is not installed, or that it printed no rate.
pub fn redis_benchmark(peer: &Peer, requests: u64, pipeline: usize, command: &[&str]) -> Outcome<f64> {
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", peer.port(), "-c", "50"])
        .args(["-n", &requests.to_string(), "-P", &pipeline.to_string()])
        .args(["-r", &super::NAMES.to_string(), "--csv"])
        .args(command)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| other(format!("redis-benchmark: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // The last line: "the command","requests a second","latencies"...
    let line = text.lines().last().unwrap_or_default();
    let rate = line.split("\",\"").nth(1).and_then(|rate| rate.parse().ok());
    rate.ok_or_else(|| other(format!("redis-benchmark printed {text:?}")).into())
}

/// `wrk` with 2 threads and 64 connections on `prefix` and a random name: requests a second.
///
/// # Errors
/// That it is not installed, that it printed no rate, or that an answer was no success.
pub fn wrk(peer: &Peer, dir: &Path, prefix: &str, time: Duration) -> Outcome<f64> {
    let script = names_script(dir, prefix)?;
    let output = Command::new("wrk")
        .args(["-t2", "-c64", &format!("-d{}s", time.as_secs()), "-s"])
        .arg(script)
        .arg(format!("http://{}", peer.address))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| other(format!("wrk: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(other(format!("wrk saw errors: {text}")).into());
    }
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    let rate = line.and_then(|rate| rate.trim().parse().ok());
    rate.ok_or_else(|| other(format!("wrk printed {text:?}")).into())
}

/// Requests are made beforehand, so that every peer is asked at the same price.
fn names_script(dir: &Path, prefix: &str) -> Outcome<PathBuf> {
    let path = dir.join("names.lua");
    let text = format!(
        "local made, at = {{}}, 0\n\
         function init(args)\n  math.randomseed(os.time())\n  for i = 1, 20000 do\n\
         \x20   made[i] = wrk.format('GET', string.format('{prefix}binding:%012d', math.random(0, {})))\n\
         \x20 end\nend\n\
         function request()\n  at = at % 20000 + 1\n  return made[at]\nend\n",
        super::NAMES - 1
    );
    std::fs::write(&path, text)?;
    Ok(path)
}
