//! Our own pair: a naming server and two brokers with a journal in one directory.

use std::path::Path;
use std::process::Command;

use daymark_test_support::{ADDRESSES, Hosts, free_port, http_get, http_post};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Gap;
use super::report::{Shares, shares, unix_us};
use super::{Cause, Pair, wait_for};
use crate::peer::{Peer, own};
use crate::{Outcome, other};

/// A naming server and two brokers. On hosts of their own, the first broker is alone on the first host, and everything
/// else, the bench too, on the second.
#[derive(Debug)]
pub struct Daymark<'a> {
    seats: [Seat; 2],
    naming: Peer,
    hosts: Option<&'a Hosts>,
    dir: TempDir,
}

#[derive(Debug)]
struct Seat {
    name: &'static str,
    role: &'static str,
    address: &'static str,
    listen: u16,
    admin: u16,
    process: Option<Peer>,
    is_frozen: bool,
}

/// The group of the bench.
const GROUP: &str = "bench";
/// The file with the brokers' settings.
const CONFIG: &str = "broker.toml";

/// One step of a way into office.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its code.
    pub code: String,
    /// When, in microseconds since 1970 UTC.
    pub at_unix_us: u64,
}

impl<'a> Daymark<'a> {
    /// Starts them with their default settings, except that a primary that is back stays the standby: each
    /// failover is one of its own.
    ///
    /// # Errors
    /// That one of them does not start.
    pub fn start(hosts: Option<&'a Hosts>) -> Outcome<Self> {
        let [one, two] = if hosts.is_some() {
            ADDRESSES
        } else {
            ["127.0.0.1"; 2]
        };
        let listen = format!("{two}:{}", free_port());
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("naming").display().to_string();
        let naming = own(&["as-daymark", "naming", "--listen", &listen, "--data", &data])?;
        let settings = "[failover]\nauto_switchover = false\n[messaging]\nauto_create = true\n";
        std::fs::write(dir.path().join(CONFIG), settings)?;
        let mut pair = Self {
            seats: [Seat::new("one", "primary", one), Seat::new("two", "backup", two)],
            naming,
            hosts,
            dir,
        };
        pair.become_whole()?;
        Ok(pair)
    }

    /// Where naming is.
    #[must_use]
    pub fn naming(&self) -> &str {
        &self.naming.address
    }

    /// Where the brokers serve.
    #[must_use]
    pub fn addresses(&self) -> [String; 2] {
        [0, 1].map(|at| self.seats[at].listen())
    }

    /// The steps of the way into office that ended the gap: the newest that began before its end.
    fn steps(&self, gap: &Gap) -> Outcome<Vec<Step>> {
        let path = format!("/v1/groups/{GROUP}/timeline");
        let answer = http_get(&self.naming.address, &path).ok_or_else(|| other("naming does not answer"))?;
        let began_us =
            |failover: &Value| failover["report"]["began_unix_ms"].as_u64().unwrap_or_default() * 1000;
        let failovers = answer.body["failovers"].as_array().map_or(&[][..], Vec::as_slice);
        let before = failovers
            .iter()
            .filter(|failover| began_us(failover) <= unix_us(gap.to_ns));
        let last = before.max_by_key(|failover| failover["epoch"].as_u64());
        let last = last.ok_or_else(|| other(format!("no timeline in {}", answer.body)))?;
        let steps = last["report"]["steps"].as_array().map_or(&[][..], Vec::as_slice);
        let step = |step: &Value| Step {
            code: step["step"].as_str().unwrap_or_default().to_owned(),
            at_unix_us: began_us(last) + step["at_us"].as_u64().unwrap_or_default(),
        };
        Ok(steps.iter().map(step).collect())
    }

    fn active(&self) -> Outcome<usize> {
        let active = self
            .seats
            .iter()
            .position(|seat| seat.is("phase", &json!("active")));
        active.ok_or_else(|| other("no broker is active").into())
    }

    /// Only the first host can be cut off.
    fn cut(&mut self) -> Outcome<()> {
        let hosts = self.hosts.ok_or_else(|| other("there are no hosts to cut"))?;
        hosts.lose(100);
        Ok(())
    }

    /// A standby that says that it is ready may not have been heard yet by the active broker.
    fn switch_over(&self, active: usize) -> Outcome<()> {
        let admin = self.seats[active].admin();
        wait_for("a switchover", || {
            http_post(&admin, "/v1/switchover", &json!({})).is_some_and(|answer| answer.status == 200)
        })
    }

    fn wait_until_whole(&self) -> Outcome<()> {
        wait_for("one broker is active and the other one is ready", || {
            let seats = self.seats.iter();
            let is = |key: &str, value: &Value| seats.clone().any(|seat| seat.is(key, value));
            is("phase", &json!("active")) && is("ready", &json!(true))
        })
    }
}

impl Pair for Daymark<'_> {
    fn become_whole(&mut self) -> Outcome<()> {
        if let Some(hosts) = self.hosts {
            hosts.lose(0);
        }
        for (host, seat) in self.seats.iter_mut().enumerate() {
            seat.thaw();
            if seat.is_running() {
                continue;
            }
            let arguments = seat.arguments(self.dir.path(), &self.naming.address);
            let exe = std::env::current_exe()?;
            // This process is on the second host.
            let (exe, arguments) = match self.hosts {
                Some(hosts) if host == 0 => hosts.on(host, &exe, &arguments),
                Some(_) | None => (exe, arguments),
            };
            let mut command = Command::new(exe);
            command.args(arguments);
            seat.process = Some(Peer::start_at(command, &seat.admin())?);
        }
        self.wait_until_whole()?;
        if self.hosts.is_some() && self.active()? == 1 {
            self.switch_over(1)?;
            self.wait_until_whole()?;
        }
        Ok(())
    }

    fn fail(&mut self, cause: Cause) -> Outcome<()> {
        let active = self.active()?;
        match cause {
            Cause::Kill => self.seats[active].kill(),
            Cause::Freeze => self.seats[active].freeze(),
            Cause::Cut => return self.cut(),
            Cause::Switchover => return self.switch_over(active),
        }
        Ok(())
    }

    /// Naming is told of a failover once its clients are back: by the time the pair is whole again.
    fn shares(&mut self, gap: &Gap) -> Outcome<Shares> {
        self.become_whole()?;
        Ok(shares(gap, &self.steps(gap)?))
    }
}

impl Drop for Daymark<'_> {
    fn drop(&mut self) {
        for seat in &mut self.seats {
            seat.thaw();
        }
    }
}

impl Seat {
    fn new(name: &'static str, role: &'static str, address: &'static str) -> Self {
        Self {
            name,
            role,
            address,
            listen: free_port(),
            admin: free_port(),
            process: None,
            is_frozen: false,
        }
    }

    fn arguments(&self, dir: &Path, naming: &str) -> Vec<String> {
        let (listen, admin) = (self.listen(), self.admin());
        let store = format!("journal:{}", dir.join("store").display());
        let config = dir.join(CONFIG).display().to_string();
        let flags = [
            ("--group", GROUP),
            ("--name", self.name),
            ("--role", self.role),
            ("--store", &store),
            ("--naming", naming),
            ("--listen", &listen),
            ("--admin", &admin),
            ("--config", &config),
        ];
        let flags = flags.iter().flat_map(|(flag, value)| [*flag, *value]);
        ["as-daymark", "broker"]
            .into_iter()
            .chain(flags)
            .map(str::to_owned)
            .collect()
    }

    fn listen(&self) -> String {
        format!("{}:{}", self.address, self.listen)
    }

    fn admin(&self) -> String {
        format!("{}:{}", self.address, self.admin)
    }

    fn is(&self, key: &str, value: &Value) -> bool {
        http_get(&self.admin(), "/v1/status").is_some_and(|status| status.body[key] == *value)
    }

    fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Peer::is_running)
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::KILL);
            process.wait();
        }
    }

    fn freeze(&mut self) {
        self.is_frozen = true;
        if let Some(process) = &self.process {
            process.signal(Signal::STOP);
        }
    }

    fn thaw(&mut self) {
        if std::mem::take(&mut self.is_frozen)
            && let Some(process) = &self.process
        {
            process.signal(Signal::CONT);
        }
    }
}
