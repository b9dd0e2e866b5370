//! Apache ActiveMQ Artemis as a pair with a shared store: its failover is that of the lock on a file in the store.

use std::path::{Path, PathBuf};
use std::process::Command;

use daymark_test_support::free_port;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::Gap;
use super::report::Shares;
use super::{Cause, Pair, wait_for};
use crate::messaging::brokers::{artemis_home, descendant, ran};
use crate::peer::Peer;
use crate::{Outcome, other};

/// How a pair is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// As `artemis create` leaves it.
    Defaults,
    /// As fast at failover as it can sensibly be made: a planned stop is a failover, no code is compiled twice in a fresh
    /// broker, and the journal is not searched for files to reuse. The backup's way of waiting for the lock, a look every
    /// half a second, cannot be set.
    Fastest,
}

/// Two brokers.
#[derive(Debug)]
pub struct Artemis {
    seats: [Seat; 2],
    _dir: TempDir,
}

#[derive(Debug)]
struct Seat {
    instance: PathBuf,
    address: String,
    process: Option<Peer>,
    frozen: Option<Pid>,
}

/// What a backup says when it could follow, and when it has.
const READY: &str = "AMQ221031";
const FOLLOWED: &str = "AMQ221010";

impl Artemis {
    /// Creates and starts them.
    ///
    /// # Errors
    /// That Artemis cannot be fetched, or one of them does not start.
    pub fn start(target: &Path, tuning: Tuning) -> Outcome<Self> {
        let home = artemis_home(target)?;
        let dir = tempfile::tempdir()?;
        let addresses = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let mut seats = Vec::new();
        for (at, name) in ["one", "two"].into_iter().enumerate() {
            let instance = dir.path().join(name);
            create(
                &home,
                &instance,
                &dir.path().join("shared"),
                [&addresses[at], &addresses[1 - at]],
                tuning,
            )?;
            seats.push(Seat {
                instance,
                address: addresses[at].clone(),
                process: None,
                frozen: None,
            });
        }
        let seats = seats.try_into().map_err(|_| other("not two brokers"))?;
        let mut pair = Self { seats, _dir: dir };
        pair.become_whole()?;
        Ok(pair)
    }

    /// Where the brokers serve.
    #[must_use]
    pub fn addresses(&self) -> [String; 2] {
        [0, 1].map(|at| self.seats[at].address.clone())
    }
}

fn create(
    home: &Path,
    instance: &Path,
    shared: &Path,
    [own, other]: [&str; 2],
    tuning: Tuning,
) -> Outcome<()> {
    let port = own.rsplit(':').next().unwrap_or_default();
    let name = instance.file_name().unwrap_or_default();
    let mut create = Command::new(home.join("bin/artemis"));
    create.arg("create").arg(instance).arg("--name").arg(name);
    create.arg("--data").arg(shared);
    create.args([
        "--silent",
        "--user",
        "admin",
        "--password",
        "admin",
        "--allow-anonymous",
        "--no-web",
    ]);
    create.args([
        "--no-stomp-acceptor",
        "--no-mqtt-acceptor",
        "--no-hornetq-acceptor",
        "--no-amqp-acceptor",
    ]);
    create.args([
        "--clustered",
        "--cluster-user",
        "bench",
        "--cluster-password",
        "bench",
        "--shared-store",
    ]);
    create.args(["--host", "127.0.0.1", "--default-port", port]);
    create.args(["--staticCluster", &format!("tcp://{other}")]);
    if name == "two" {
        create.arg("--backup");
    }
    if tuning == Tuning::Fastest {
        create.args([
            "--failover-on-shutdown",
            "--java-options",
            "-XX:TieredStopAtLevel=1 -Xshare:auto",
        ]);
    }
    ran(create)?;
    let file = instance.join("etc/broker.xml");
    // Every address of the bench is a queue, and a disk that is nearly full does not stop it.
    let config = std::fs::read_to_string(&file)?
        .replace(
            "<address-setting match=\"#\">",
            "<address-setting match=\"#\">\n<default-address-routing-type>ANYCAST</default-address-routing-type>\n\
             <default-queue-routing-type>ANYCAST</default-queue-routing-type>",
        )
        .replace("<max-disk-usage>90</max-disk-usage>", "<max-disk-usage>99</max-disk-usage>");
    Ok(std::fs::write(&file, config)?)
}

impl Pair for Artemis {
    /// A primary that is back takes the service over from its backup.
    fn become_whole(&mut self) -> Outcome<()> {
        for seat in &mut self.seats {
            seat.thaw();
            if !seat.process.as_mut().is_some_and(Peer::is_running) {
                // What it said in an earlier life counts no more.
                let _ = std::fs::remove_file(seat.log());
                let mut command = Command::new(seat.instance.join("bin/artemis"));
                command.arg("run");
                seat.process = Some(Peer::spawn(&command, &seat.address)?);
            }
        }
        let [primary, backup] = &self.seats;
        let whole = wait_for("Artemis' primary serves and its backup is ready", || {
            primary.is_listening() && !backup.is_listening() && backup.could_follow()
        });
        let said = |why| {
            other(format!(
                "{why}; {}; {}",
                primary.last_words(),
                backup.last_words()
            ))
        };
        Ok(whole.map_err(said)?)
    }

    fn fail(&mut self, cause: Cause) -> Outcome<()> {
        let primary = &mut self.seats[0];
        let id = primary.java()?;
        match cause {
            Cause::Kill => kill_process(id, Signal::KILL)?,
            Cause::Freeze => {
                primary.frozen = Some(id);
                kill_process(id, Signal::STOP)?;
            }
            Cause::Switchover => kill_process(id, Signal::TERM)?,
            Cause::Cut => return Err(other("a pair on one host has no network to cut").into()),
        }
        Ok(())
    }

    fn shares(&mut self, _gap: &Gap) -> Outcome<Shares> {
        Ok(Shares::new())
    }
}

impl Drop for Artemis {
    fn drop(&mut self) {
        for seat in &mut self.seats {
            seat.thaw();
        }
    }
}

impl Seat {
    fn log(&self) -> PathBuf {
        self.instance.join("log/artemis.log")
    }

    fn is_listening(&self) -> bool {
        std::net::TcpStream::connect(&self.address).is_ok()
    }

    /// Whether it has said that it could, after it last followed.
    fn could_follow(&self) -> bool {
        let said = std::fs::read_to_string(self.log()).unwrap_or_default();
        said.rfind(READY) > said.rfind(FOLLOWED)
    }

    /// The beginning of what it said last, without the time.
    fn last_words(&self) -> String {
        const ENOUGH: usize = 120;
        let said = std::fs::read_to_string(self.log()).unwrap_or_default();
        let last = said
            .lines()
            .rev()
            .find_map(|line| line.find("AMQ").map(|at| &line[at..]));
        let name = self.instance.file_name().unwrap_or_default().to_string_lossy();
        let last: String = last.unwrap_or("nothing").chars().take(ENOUGH).collect();
        format!("{name}: {last}")
    }

    fn java(&self) -> Outcome<Pid> {
        let script = self.process.as_ref().ok_or_else(|| other("it does not run"))?;
        let id = i32::try_from(descendant(script.id(), "java")?)?;
        Ok(Pid::from_raw(id).ok_or_else(|| other("no process id"))?)
    }

    fn thaw(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            // One that has ended needs no signal.
            let _ = kill_process(frozen, Signal::CONT);
        }
    }
}
