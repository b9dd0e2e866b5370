//! Where a process runs: on which machine, since which start of it, and under which process ids.

use serde::{Deserialize, Serialize};

/// Where a process runs. Two processes can signal each other by process id only where all of this is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The machine's name, for people: it need not be unique.
    pub host: String,
    /// What the kernel calls its present run; absent where it does not say.
    pub boot_id: Option<String>,
    /// The namespace that its process ids belong to; absent where the system has none.
    pub pid_namespace: Option<String>,
}

impl Home {
    /// Where this process runs.
    #[must_use]
    pub fn here() -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok();
        Self {
            host: daymark_journal::Holder::here("").host,
            boot_id: boot_id.map(|id| id.trim().to_owned()),
            pid_namespace: namespace.map(|link| link.to_string_lossy().into_owned()),
        }
    }

    /// Whether a process id means the same process there and here. Where the system does not say, it does not.
    #[must_use]
    pub fn shares_pids_with(&self, other: &Self) -> bool {
        self.runs_beside(other) && self.pid_namespace.is_some() && self.pid_namespace == other.pid_namespace
    }

    /// Whether it is the same run of the same machine, so that clocks read the same.
    #[must_use]
    pub fn runs_beside(&self, other: &Self) -> bool {
        self.boot_id.is_some() && self.boot_id == other.boot_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(boot_id: Option<&str>, pid_namespace: Option<&str>) -> Home {
        Home {
            host: "kkam".into(),
            boot_id: boot_id.map(str::to_owned),
            pid_namespace: pid_namespace.map(str::to_owned),
        }
    }

    #[test]
    fn a_process_id_means_the_same_only_on_the_same_run_and_in_the_same_namespace() {
        let here = home(Some("a"), Some("pid:[1]"));
        assert!(here.shares_pids_with(&here.clone()));
        assert!(!here.shares_pids_with(&home(Some("b"), Some("pid:[1]"))));
        let container = home(Some("a"), Some("pid:[2]"));
        assert!(!here.shares_pids_with(&container) && here.runs_beside(&container));
        // Equal host names prove nothing.
        let unknown = home(None, None);
        assert!(!unknown.shares_pids_with(&unknown.clone()) && !unknown.runs_beside(&unknown.clone()));
    }
}
