//! What the kernel gave and what it refused: the result of carrying out the plan.

use std::io;

use serde::Serialize;

use super::Tier;

/// How each row of the plan is served, in the order of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The tier that serves.
    pub tier: Tier,
    pub rows: Vec<Row>,
    /// Structure members that this kernel does not have, as `structure.member`.
    pub missing_members: Vec<String>,
}

/// One thing to observe.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is observed, e.g. `tcp states`.
    pub observe: &'static str,
    pub required: bool,
    /// The alternative that serves, e.g. `fexit __inet_bind, __inet6_bind`; absent when none does.
    pub chosen: Option<String>,
    /// Alternatives that were tried and refused before it, in order.
    pub refused: Vec<Refusal>,
    /// What a user misses when nothing serves this row.
    pub loses: &'static str,
}

/// An alternative that did not load or attach.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    pub tier: Tier,
    /// E.g. `fexit __inet_bind`.
    pub alternative: String,
    /// In the kernel's own words.
    pub error: String,
    /// `None`: as far as the error tells, the kernel does not have it.
    #[serde(skip)]
    pub denial: Option<Denial>,
}

/// Why the kernel does not give this process what it gives others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    Permission,
    /// Open files or memory.
    Room,
}

/// No tier that was tried can serve.
#[derive(Clone, Debug)]
pub struct Unserved {
    /// In one line.
    pub verdict: String,
    /// What was refused, for each thing to observe; nothing is chosen.
    pub rows: Vec<Row>,
}

impl Unserved {
    pub const REMEDY: &str = "Try another tier (--probes), a newer kernel, or check lockdown and the \
                              container's privileges";
}

impl std::fmt::Display for Unserved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}:", self.verdict)?;
        for refusal in self.rows.iter().flat_map(|row| &row.refused) {
            let Refusal {
                tier,
                alternative,
                error,
                ..
            } = refusal;
            writeln!(f, "  {tier} ({alternative}): {error}")?;
        }
        write!(f, "{} (portwatch doctor)", Self::REMEDY)
    }
}

impl std::error::Error for Unserved {}

impl Denial {
    pub fn of(error: &anyhow::Error) -> Option<Self> {
        let errno = |cause: &io::Error| cause.raw_os_error();
        let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
        match causes.find_map(errno)? {
            libc::EPERM => Some(Self::Permission),
            libc::EMFILE | libc::ENFILE | libc::ENOMEM => Some(Self::Room),
            _ => None,
        }
    }
}

impl Report {
    /// Rows that nothing serves: what this run cannot see.
    pub fn degraded(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.chosen.is_none())
    }

    /// Those of them that the kernel has, but denied.
    pub fn denied(&self) -> impl Iterator<Item = &Row> {
        let denied = |refusal: &Refusal| refusal.tier == self.tier && refusal.denial.is_some();
        self.degraded()
            .filter(move |row| row.refused.iter().any(denied))
    }
}
