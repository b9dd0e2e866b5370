//! Starting the brokers, each with persistence that syncs, on free loopback ports, in a directory of its own.
//!
//! RabbitMQ is Debian's; Artemis's distribution is fetched by Maven, `ramqp-brokerd` is built by cargo, both once, into
//! the target directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daymark_test_support::free_port;

use super::Broker;
use crate::peer::{Peer, own};
use crate::{Outcome, other};

/// The version that is measured.
const ARTEMIS: &str = "2.44.0";
const RAMQP: &str = "0.9.5";

/// Our own: a naming server and an active broker with a journal.
///
/// # Errors
/// That one of them does not start.
pub fn daymark(dir: &Path) -> Outcome<Broker> {
    let path = |name: &str| dir.join(name).display().to_string();
    let naming = own(&[
        "as-daymark",
        "naming",
        "--listen",
        "127.0.0.1:0",
        "--data",
        &path("naming"),
    ])?;
    let config = "[messaging]\nauto_create = true\nmax_bytes = 2147483648\nmax_connections = 6000\n";
    std::fs::write(dir.join("broker.toml"), config)?;
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "as-daymark",
            "broker",
            "--name",
            "active",
            "--role",
            "primary",
            "--group",
            "bench",
        ])
        .args([
            "--store",
            &format!("journal:{}", path("store")),
            "--naming",
            &naming.address,
        ])
        .args(["--listen", &address, "--config", &path("broker.toml")]);
    let broker = Peer::start(command, port)?;
    Ok(Broker {
        name: "Daymark",
        address,
        prefix: "",
        id: broker.id(),
        _processes: vec![broker, naming],
    })
}

/// RabbitMQ with its AMQP 1.0 plugin, and an `epmd` of its own.
///
/// # Errors
/// That Debian's `rabbitmq-server` is not installed, or does not start.
pub fn rabbitmq(dir: &Path) -> Outcome<Broker> {
    let (port, dist, epmd_port) = (free_port(), free_port(), free_port().to_string());
    let home = dir.join("rabbitmq");
    std::fs::create_dir_all(&home)?;
    std::fs::write(home.join("plugins"), "[rabbitmq_amqp1_0].\n")?;
    let config = format!(
        "listeners.tcp.default = 127.0.0.1:{port}\namqp1_0.default_user = guest\n\
         amqp1_0.protocol_strict_mode = false\n"
    );
    std::fs::write(home.join("rabbitmq.conf"), config)?;
    let mut epmd = Command::new("epmd");
    epmd.args(["-address", "127.0.0.1", "-port", &epmd_port]);
    let epmd = Peer::start(epmd, epmd_port.parse()?)?;
    let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    command
        .env("HOME", &home)
        .env("ERL_EPMD_PORT", &epmd_port)
        .env("RABBITMQ_NODENAME", "daymark-bench@localhost")
        .env("RABBITMQ_DIST_PORT", dist.to_string())
        .env("RABBITMQ_MNESIA_BASE", home.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", home.join("log"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("plugins"))
        .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.conf"))
        .env("RABBITMQ_PID_FILE", home.join("pid"));
    let server = Peer::start(command, port)?;
    let id = descendant(server.id(), "beam.smp")?;
    Ok(Broker {
        name: "RabbitMQ",
        address: server.address.clone(),
        prefix: "/queue/",
        id,
        _processes: vec![server, epmd],
    })
}

/// Apache ActiveMQ Artemis with an NIO journal that syncs.
///
/// # Errors
/// That it cannot be fetched, or does not start.
pub fn artemis(dir: &Path, target: &Path) -> Outcome<Broker> {
    let home = artemis_home(target)?;
    let instance = dir.join("artemis");
    let port = free_port();
    let mut create = Command::new(home.join("bin/artemis"));
    create
        .arg("create")
        .arg(&instance)
        .args([
            "--silent",
            "--user",
            "admin",
            "--password",
            "admin",
            "--allow-anonymous",
            "--no-web",
        ])
        .args([
            "--no-stomp-acceptor",
            "--no-mqtt-acceptor",
            "--no-hornetq-acceptor",
            "--no-autotune",
            "--nio",
        ])
        .args([
            "--host",
            "127.0.0.1",
            "--no-amqp-acceptor",
            "--default-port",
            &port.to_string(),
        ]);
    ran(create)?;
    let file = instance.join("etc/broker.xml");
    let config = std::fs::read_to_string(&file)?;
    // Every address of the bench is a queue, and nothing is paged or throttled before our own limit is.
    let config = config
        .replace(
            "<address-setting match=\"#\">",
            "<address-setting match=\"#\">\n<default-address-routing-type>ANYCAST</default-address-routing-type>\n\
             <default-queue-routing-type>ANYCAST</default-queue-routing-type>",
        )
        .replace("<max-disk-usage>90</max-disk-usage>", "<max-disk-usage>99</max-disk-usage>");
    std::fs::write(&file, config)?;
    let mut command = Command::new(instance.join("bin/artemis"));
    command.arg("run");
    let server = Peer::start(command, port)?;
    let id = descendant(server.id(), "java")?;
    Ok(Broker {
        name: "Artemis",
        address: server.address.clone(),
        prefix: "",
        id,
        _processes: vec![server],
    })
}

pub(crate) fn artemis_home(target: &Path) -> Outcome<PathBuf> {
    let peers = target.join("peers");
    let home = peers.join(format!("apache-artemis-{ARTEMIS}"));
    if home.join("bin/artemis").exists() {
        return Ok(home);
    }
    std::fs::create_dir_all(&peers)?;
    let mut fetch = Command::new("mvn");
    fetch
        .args([
            "-B",
            "-q",
            "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
        ])
        .arg(format!(
            "-Dartifact=org.apache.activemq:apache-artemis:{ARTEMIS}:tar.gz:bin"
        ))
        .arg(format!("-DoutputDirectory={}", peers.display()));
    ran(fetch)?;
    let mut unpack = Command::new("tar");
    unpack
        .arg("-xzf")
        .arg(peers.join(format!("apache-artemis-{ARTEMIS}-bin.tar.gz")))
        .arg("-C")
        .arg(&peers);
    ran(unpack)?;
    Ok(home)
}

/// A bare journal behind a bare port: no broker, but asked like one.
///
/// # Errors
/// That it does not start.
pub fn floor(dir: &Path) -> Outcome<Broker> {
    let journal = dir.join("floor");
    let server = own(&["as-floor", &journal.display().to_string()])?;
    Ok(Broker {
        name: "bare journal",
        address: server.address.clone(),
        prefix: "",
        id: server.id(),
        _processes: vec![server],
    })
}

/// `ramqp-brokerd` with its queues in memory: it has no others.
///
/// # Errors
/// That it cannot be built, or does not start.
pub fn ramqp(target: &Path) -> Outcome<Broker> {
    let root = target.join("peers").join("ramqp");
    let program = root.join("bin/ramqp-brokerd");
    if !program.exists() {
        let mut install = Command::new("cargo");
        install
            .args([
                "install",
                "ramqp-broker",
                "--locked",
                "--version",
                RAMQP,
                "--root",
            ])
            .arg(&root);
        ran(install)?;
    }
    let port = free_port();
    let mut command = Command::new(program);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    let server = Peer::start(command, port)?;
    Ok(Broker {
        name: "ramqp-brokerd",
        address: server.address.clone(),
        prefix: "",
        id: server.id(),
        _processes: vec![server],
    })
}

pub(crate) fn ran(mut command: Command) -> Outcome<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| other(format!("{name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let tail: Vec<&str> = said.lines().rev().take(5).collect();
    Err(other(format!("{name} failed: {}", tail.join(" / "))).into())
}

/// The process of this name that is `id` itself or comes from it: scripts start what does the work.
pub(crate) fn descendant(id: u32, name: &str) -> Outcome<u32> {
    let command = std::fs::read_to_string(format!("/proc/{id}/comm"))?;
    if command.trim() == name {
        return Ok(id);
    }
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .find_map(|child| descendant(child, name).ok())
        .ok_or_else(|| other(format!("no process {name} came from {id}")).into())
}
