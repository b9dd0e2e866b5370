//! When to kill, and how far to send before. It only computes: no clock, no processes.
//!
//! Invariant: messages are left to be sent after every kill, so that there is a first one the next active
//! broker acknowledges; and nothing is sent up to a kill point before a standby is ready for it.

/// Kills spread evenly over the messages `0..messages`. One more message, the end mark, follows them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    messages: u64,
    kills: u64,
}

impl Schedule {
    /// The fewest messages between two kills.
    pub(super) const SHARE_MIN: u64 = 10;

    /// `kills` kills over `messages` messages; `None` where there are too few messages.
    pub(super) fn new(messages: u64, kills: u32) -> Option<Self> {
        let schedule = Self {
            messages,
            kills: u64::from(kills),
        };
        (kills == 0 || schedule.share() >= Self::SHARE_MIN).then_some(schedule)
    }

    /// How many messages are acknowledged when kill `kill` (from 0) is due.
    pub(super) fn kill_at(&self, kill: u32) -> u64 {
        self.share() * (u64::from(kill) + 1)
    }

    /// How many messages may be sent once a standby is ready for kill `kill`: enough for the stream to flow
    /// while the active broker is killed. After the last kill, everything.
    pub(super) fn may_send_before(&self, kill: u32) -> u64 {
        if u64::from(kill) >= self.kills {
            return self.messages + 1;
        }
        self.kill_at(kill) + self.share() / 2
    }

    /// How many messages may be sent once kill `kill` has happened: up to shortly before the next one.
    pub(super) fn may_send_after(&self, kill: u32) -> u64 {
        if u64::from(kill) + 1 >= self.kills {
            return self.messages + 1;
        }
        self.kill_at(kill + 1) - self.share() / 4
    }

    const fn share(&self) -> u64 {
        self.messages / (self.kills + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(messages: u64, kills: u32) -> Schedule {
        Schedule::new(messages, kills).expect("enough messages")
    }

    #[test]
    fn kills_come_after_even_shares() {
        let points: Vec<u64> = (0..3).map(|kill| schedule(20_000, 3).kill_at(kill)).collect();
        assert_eq!(points, [5_000, 10_000, 15_000]);
    }

    #[test]
    fn messages_are_left_for_after_every_kill() {
        for (messages, kills) in [(20_000, 3), (10, 0), (60, 5), (1_000_003, 7)] {
            let schedule = schedule(messages, kills);
            for kill in 0..kills {
                assert!(schedule.kill_at(kill) < schedule.may_send_before(kill));
                assert!(schedule.may_send_before(kill) < schedule.may_send_after(kill));
            }
        }
    }

    #[test]
    fn nothing_is_sent_up_to_a_kill_point_before_a_standby_is_ready_for_it() {
        let schedule = schedule(60, 5);
        for kill in 0..4 {
            assert!(schedule.may_send_after(kill) < schedule.kill_at(kill + 1));
        }
    }

    #[test]
    fn everything_and_the_end_mark_may_be_sent_after_the_last_kill() {
        assert_eq!(schedule(20_000, 3).may_send_after(2), 20_001);
        assert_eq!(schedule(5, 0).may_send_before(0), 6);
    }

    #[test]
    fn too_few_messages_for_the_kills_are_refused() {
        assert!(Schedule::new(59, 5).is_none());
    }
}
