//! The stories of failover, told as files: events above `----`, the actions they must cause below.
//!
//! A file in `tests/data/failover` begins with `member NAME primary|backup` and any number of
//! `set SETTING VALUE`; then come lines `MILLISECONDS EVENT …`. Between two events every tick that is due is
//! made. `until MILLISECONDS` lets time pass. An expected line is `MILLISECONDS ACTION`, in order. Lines that begin with `#` are comments. With `UPDATE_SCENARIOS=1` the expected part is
//! written anew, to be reviewed as a diff.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daymark_broker_core::failover::{
    About, AddedExport, EVENT_CODES, Event, ExportChange, Failover, GroupSeen, NamingEvent, PeerEvent,
    ProbeAnswer, Refusal, Settings, StepEvent, Target, Tries,
};
use daymark_naming_proto::{Epoch, MemberName, MemberState, Role};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/failover")
}

#[test]
fn every_story_ends_as_it_is_told() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder of scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "only {} scenarios were found", files.len());
    let wrong: Vec<String> = files.iter().filter_map(|path| check(path).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// No code is without a story, and no story has a code that is not in the list.
#[test]
fn every_event_code_is_told_of_in_some_story() {
    let mut told = BTreeSet::new();
    for entry in std::fs::read_dir(folder()).expect("the folder of scenarios") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a scenario");
        let notes = text.lines().filter_map(|line| line.split_once(" note "));
        told.extend(notes.filter_map(|(_, note)| note.split(' ').next().map(str::to_owned)));
    }
    let listed: BTreeSet<String> = EVENT_CODES.iter().map(|code| (*code).to_owned()).collect();
    assert_eq!(told, listed);
}

fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).expect("a scenario");
    let (told, expected) = text
        .split_once("----\n")
        .ok_or_else(|| format!("{}: there is no line of ----", path.display()))?;
    let happened = run(told).map_err(|error| format!("{}: {error}", path.display()))?;
    if std::env::var_os("UPDATE_SCENARIOS").is_some() {
        std::fs::write(path, format!("{told}----\n{happened}")).expect("a scenario that can be written");
        return Ok(());
    }
    if happened == expected {
        return Ok(());
    }
    Err(format!(
        "{}:\nexpected:\n{expected}\nhappened:\n{happened}",
        path.display()
    ))
}

/// Tells one story and returns the actions it caused.
fn run(told: &str) -> Result<String, String> {
    let lines: Vec<&str> = told
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let mut teller = Teller::new(&lines)?;
    for line in lines {
        if line.starts_with("member ") || line.starts_with("set ") {
            continue;
        }
        let (at, what) = line
            .split_once(' ')
            .ok_or_else(|| format!("{line:?}: no event"))?;
        if at == "until" {
            teller.pass_until(number(what)?)?;
            continue;
        }
        let at = number(at)?;
        teller.pass_until(at)?;
        let event = event(what).ok_or_else(|| format!("{line:?} is not an event"))?;
        teller.tell(at, event);
    }
    Ok(teller.trace)
}

struct Teller {
    start: Instant,
    failover: Failover,
    trace: String,
}

impl Teller {
    fn new(lines: &[&str]) -> Result<Self, String> {
        let mut settings = Settings::default();
        let mut member = None;
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["member", name, "primary"] => member = Some((peer(name)?, Role::Primary)),
                ["member", name, "backup"] => member = Some((peer(name)?, Role::Backup)),
                ["set", setting, value] => set(&mut settings, setting, value)?,
                _ => {}
            }
        }
        settings.check().map_err(|error| error.to_string())?;
        let (name, role) = member.ok_or("no line says who is told of")?;
        Ok(Self {
            start: now(),
            failover: Failover::new(name, role, settings),
            trace: String::new(),
        })
    }

    fn pass_until(&mut self, at: u64) -> Result<(), String> {
        let until = self.start + Duration::from_millis(at);
        for _ in 0..100_000 {
            match self.failover.deadline() {
                Some(due) if due < until => {
                    let at = due.saturating_duration_since(self.start).as_millis();
                    self.tell(u64::try_from(at).expect("a short story"), Event::Tick);
                }
                Some(_) | None => return Ok(()),
            }
        }
        Err("ticks without end".to_owned())
    }

    fn tell(&mut self, at: u64, event: Event) {
        for action in self.failover.step(self.start + Duration::from_millis(at), event) {
            writeln!(self.trace, "{at} {action}").expect("a string takes everything");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a story needs a first instant")]
fn now() -> Instant {
    Instant::now()
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn peer(text: &str) -> Result<MemberName, String> {
    text.parse()
        .map_err(|error: daymark_naming_proto::InvalidLabel| error.to_string())
}

fn set(settings: &mut Settings, setting: &str, value: &str) -> Result<(), String> {
    let ms = || number(value).map(Duration::from_millis);
    match setting {
        "check_health_response_timeout" => settings.check_health_response_timeout = ms()?,
        "discovery_response_timeout" => settings.discovery_response_timeout = ms()?,
        "start_up_max_try_count" => settings.start_up_max_try_count = number(value)?,
        "fail_over_max_try_count" if value == "-1" => settings.fail_over_max_try_count = Tries::Never,
        "fail_over_max_try_count" => settings.fail_over_max_try_count = Tries::Times(number(value)?),
        "auto_switchover" => settings.auto_switchover = value == "true",
        "failback_delay_ms" => settings.failback_delay = ms()?,
        "switchover_timeout_ms" => settings.switchover_timeout = ms()?,
        "step_timeout_ms" => settings.step_timeout = ms()?,
        "recovery_timeout_ms" => settings.recovery_timeout = ms()?,
        "failover_on_shutdown" => settings.failover_on_shutdown = value == "true",
        "lease_ms" => settings.lease = ms()?,
        "lock_window" => settings.lock_window = ms()?,
        _ => return Err(format!("{setting:?} is not a setting")),
    }
    Ok(())
}

/// `word key=value …`; a value runs to the next blank.
fn event(text: &str) -> Option<Event> {
    let mut words = text.split(' ');
    let word = words.next()?;
    let said = Said(
        words
            .map(|pair| pair.split_once('=').unwrap_or((pair, "true")))
            .collect(),
    );
    Some(match word {
        "started" => Event::Started,
        "promote" => Event::Promote {
            force: said.is("force"),
        },
        "switchover" => Event::Switchover {
            to: said.0.get("to").and_then(|name| name.parse().ok()),
        },
        "export" => Event::Export(ExportChange {
            add: said.names("add").pop(),
            remove: said.text("remove").and_then(|name| name.parse().ok()),
        }),
        "stop" => Event::Stop,
        "store-superseded" => Event::StoreSuperseded {
            epoch: said.epoch("epoch")?,
        },
        "store-taken" => Event::StoreTaken {
            why: said.text("why")?,
        },
        "store-failed" => Event::StoreFailed {
            why: said.text("why")?,
        },
        _ => naming_event(word, &said)
            .map(Event::Naming)
            .or_else(|| peer_event(word, &said).map(Event::Peer))
            .or_else(|| step_event(word, &said).map(Event::Step))?,
    })
}

struct Said<'a>(BTreeMap<&'a str, &'a str>);

impl Said<'_> {
    fn text(&self, key: &str) -> Option<String> {
        self.0.get(key).map(|value| (*value).to_owned())
    }

    fn is(&self, key: &str) -> bool {
        self.0.get(key) == Some(&"true")
    }

    fn epoch(&self, key: &str) -> Option<Epoch> {
        self.0.get(key)?.parse().ok()
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.parse().ok()
    }

    fn peer(&self) -> Option<MemberName> {
        self.0.get("peer")?.parse().ok()
    }

    fn group(&self) -> Option<GroupSeen> {
        Some(GroupSeen {
            epoch: self.epoch("epoch")?,
            active: self.0.get("active").and_then(|name| name.parse().ok()),
            lease_expired: self.is("lease-expired"),
        })
    }

    /// `primary`, `ready`, `run=N` and `to=MEMBER`, each of which may be missing.
    fn about(&self) -> About {
        let role = if self.is("primary") {
            Role::Primary
        } else {
            Role::Backup
        };
        About {
            role,
            is_ready: self.is("ready"),
            incarnation: self.number("run").unwrap_or(0),
            is_failback: self.is("failback"),
            hands_over_to: self.0.get("to").and_then(|name| name.parse().ok()),
        }
    }

    /// Names with commas between them, each of a queue.
    fn names(&self, key: &str) -> Vec<AddedExport> {
        let names = self.0.get(key).into_iter().flat_map(|names| names.split(','));
        let export = |name: &str| AddedExport {
            name: name.parse().expect("a name"),
            to: Target::Queue(name.to_owned()),
        };
        names.map(export).collect()
    }

    fn refusal(&self) -> Option<Refusal> {
        Some(match *self.0.get("refusal")? {
            "not-member" => Refusal::NotMember,
            "active-exists" => Refusal::ActiveExists {
                active: self.peer()?,
                epoch: self.epoch("epoch")?,
            },
            "stale-epoch" => Refusal::StaleEpoch {
                current: self.epoch("epoch")?,
            },
            "name" => Refusal::Name {
                name: self.0.get("name")?.parse().ok()?,
                why: self.text("why")?,
            },
            other => Refusal::Other(other.to_owned()),
        })
    }
}

fn naming_event(word: &str, said: &Said<'_>) -> Option<NamingEvent> {
    Some(match word {
        "joined" => NamingEvent::Joined { group: said.group()? },
        "renewed" => NamingEvent::Renewed { group: said.group()? },
        "lease-ended" => NamingEvent::LeaseEnded,
        "naming-silent" => NamingEvent::Silent,
        "naming-refused" => NamingEvent::Refused {
            why: said.text("why")?,
        },
        "members-changed" => NamingEvent::MembersChanged,
        _ => return None,
    })
}

fn peer_event(word: &str, said: &Said<'_>) -> Option<PeerEvent> {
    Some(match word {
        "heard-active" | "heard-standby" => PeerEvent::Heard {
            peer: said.peer()?,
            state: if word == "heard-active" {
                MemberState::Active
            } else {
                MemberState::Standby
            },
            epoch: said.epoch("epoch")?,
            about: said.about(),
        },
        "leaving" => PeerEvent::Leaving {
            peer: said.peer()?,
            handover: said.is("handover"),
        },
        "dropped" => PeerEvent::Dropped { peer: said.peer()? },
        "refused" => PeerEvent::Refused { peer: said.peer()? },
        "probed-active" => probed(said, ProbeAnswer::Active)?,
        "probed-standby" => probed(said, ProbeAnswer::Standby)?,
        "probed-refused" => probed(said, ProbeAnswer::Refused)?,
        "probed-silent" => probed(said, ProbeAnswer::Silent)?,
        _ => return None,
    })
}

fn probed(said: &Said<'_>, answer: ProbeAnswer) -> Option<PeerEvent> {
    Some(PeerEvent::Probed {
        probe: said.number("probe")?,
        answer,
    })
}

fn step_event(word: &str, said: &Said<'_>) -> Option<StepEvent> {
    Some(match word {
        "locked" => StepEvent::Locked {
            store_epoch: said.epoch("store_epoch")?,
        },
        "lock-busy" => StepEvent::LockBusy {
            holder: said.text("holder")?,
            member: said.peer(),
        },
        "claimed" => StepEvent::Claimed {
            epoch: said.epoch("epoch")?,
        },
        "claim-refused" => StepEvent::ClaimRefused(said.refusal()?),
        "claim-unanswered" => StepEvent::ClaimUnanswered,
        "epoch-written" => StepEvent::EpochWritten,
        "epoch-stale" => StepEvent::EpochStale {
            current: said.epoch("epoch")?,
        },
        "recovered" => StepEvent::Recovered {
            messages: said.number("messages")?,
            bytes: said.number("bytes")?,
            exports: said.names("exports"),
        },
        "port-opened" => StepEvent::PortOpened,
        "published" => StepEvent::Published,
        "publish-refused" => StepEvent::PublishRefused(said.refusal()?),
        "publish-unanswered" => StepEvent::PublishUnanswered,
        "step-failed" => StepEvent::Failed {
            why: said.text("why")?,
        },
        _ => return None,
    })
}
