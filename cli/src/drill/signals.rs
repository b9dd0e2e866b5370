//! Signals to the active broker's process, by a handle that can never come to mean another process.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process};

use crate::failure::Failure;

/// A process on this machine.
#[derive(Debug)]
pub(super) struct Process {
    id: u32,
    handle: Arc<OwnedFd>,
}

/// A process that was stopped. It goes on when this is dropped.
#[derive(Debug)]
pub(super) struct Frozen(Arc<OwnedFd>);

impl Process {
    /// The process that has this id now.
    ///
    /// # Errors
    /// That there is none, or that this user may not signal it.
    pub(super) fn open(id: u32) -> Result<Self, Failure> {
        let refused = |error: Errno| match error {
            Errno::SRCH => Failure::new("NoSuchProcess", format!("there is no process {id}")),
            Errno::PERM => Failure::new("NotPermitted", format!("this user may not signal process {id}"))
                .hint("run the drill as the broker's user"),
            other => Failure::new("NoSignals", format!("process {id} cannot be signalled: {other}")),
        };
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| refused(Errno::SRCH))?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(refused)?;
        test_kill_process(pid).map_err(refused)?;
        Ok(Self {
            id,
            handle: Arc::new(handle),
        })
    }

    /// Its id.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn kill(&self) -> Result<(), Failure> {
        self.signal(Signal::KILL)
    }

    /// SIGSTOP, until what is returned is dropped.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn freeze(&self) -> Result<Frozen, Failure> {
        let frozen = Frozen(Arc::clone(&self.handle));
        self.signal(Signal::STOP)?;
        Ok(frozen)
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        // The handle of a process can be read once that has ended, whether or not somebody has waited for it.
        let mut handles = [PollFd::from_borrowed_fd(self.handle.as_fd(), PollFlags::IN)];
        poll(&mut handles, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        pidfd_send_signal(&*self.handle, signal).map_err(|error| {
            Failure::new(
                "NoSignals",
                format!("process {} cannot be signalled: {error}", self.id),
            )
        })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // One that is gone needs no signal.
        let _ = pidfd_send_signal(&*self.0, Signal::CONT);
    }
}
