//! The report of `doctor`: facts of the machine, how each thing is observed, and what to do about
//! what is not; for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::facts::{Fact, State};
use crate::probe::{self, Denial, Report, Row, Tier, Unserved};
use crate::sanitize;

/// All there is to say.
pub struct Diagnosis {
    pub facts: Vec<Fact>,
    /// What was attached; or why nothing could be.
    pub probes: Result<Report, Nothing>,
}

/// Why nothing can be traced.
pub struct Nothing {
    /// At length.
    error: String,
    /// In short, where it is that all was refused.
    verdict: Option<String>,
    /// What was refused, for each thing to observe.
    rows: Vec<Row>,
}

impl Nothing {
    pub fn of(error: &anyhow::Error) -> Self {
        let tried = error.downcast_ref::<Unserved>();
        Self {
            error: format!("{error:#}"),
            verdict: tried.map(|x| format!("{}. {}.", x.verdict, Unserved::REMEDY)),
            rows: tried.map_or_else(probe::untried, |x| x.rows.clone()),
        }
    }
}

/// The same as JSON; the keys are documented by `doctor --help`.
#[derive(Serialize)]
struct Json<'a> {
    portwatch: &'a str,
    facts: &'a [Fact],
    serves: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<Tier>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    plan: Vec<JsonRow<'a>>,
    missing_members: &'a [String],
}

#[derive(Serialize)]
struct JsonRow<'a> {
    #[serde(flatten)]
    row: &'a Row,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'a str>,
}

impl Diagnosis {
    pub fn json(&self) -> String {
        let report = self.probes.as_ref().ok();
        let rows = match &self.probes {
            Ok(report) => &report.rows,
            Err(nothing) => &nothing.rows,
        };
        let json = Json {
            portwatch: env!("CARGO_PKG_VERSION"),
            facts: &self.facts,
            serves: report.is_some(),
            tier: report.map(|report| report.tier),
            error: (self.probes.as_ref().err()).map(|nothing| nothing.error.as_str()),
            plan: plan(rows),
            missing_members: report.map_or(&[], |report| &report.missing_members),
        };
        // Only maps with keys that are no strings, and failing Serialize impls, can fail.
        let mut text = serde_json::to_string_pretty(&json).unwrap_or_default();
        text.push('\n');
        text
    }

    pub fn text(&self) -> String {
        let mut out = format!("portwatch {}\n\n", env!("CARGO_PKG_VERSION"));
        for fact in &self.facts {
            let state = match fact.state {
                State::Ok => "ok",
                State::Warning => "warning",
                State::Problem => "PROBLEM",
                State::Unknown => "unknown",
            };
            put_line(&mut out, state, fact.name, &fact.value);
            if let Some(fix) = &fact.fix {
                put_note(&mut out, "fix", fix);
            }
        }
        match &self.probes {
            Err(nothing) => {
                if nothing.verdict.is_some() {
                    out.push_str("\nprobes: none\n\n");
                    put_rows(
                        &mut out,
                        nothing.rows.iter().filter(|x| !x.refused.is_empty()),
                    );
                }
                out.push_str("\nNothing can be traced here:\n");
                for line in nothing.verdict.as_ref().unwrap_or(&nothing.error).lines() {
                    out.push_str("  ");
                    sanitize::push(&mut out, line.as_bytes());
                    out.push('\n');
                }
            }
            Ok(report) => put_report(&mut out, report),
        }
        out
    }
}

/// How each thing is observed, as the key `plan` of the report has it.
pub fn plan_json(report: &Report) -> String {
    // See above.
    serde_json::to_string(&plan(&report.rows)).unwrap_or_default()
}

fn plan(rows: &[Row]) -> Vec<JsonRow<'_>> {
    let rows = rows.iter();
    rows.map(|row| JsonRow { row, fix: fix(row) }).collect()
}

fn put_report(out: &mut String, report: &Report) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\nprobes: {}\n", report.tier);
    put_rows(out, &report.rows);
    if !report.missing_members.is_empty() {
        let members = report.missing_members.join(", ");
        let _ = writeln!(out, "\nnot in this kernel's structures: {members}");
    }
    let missing: Vec<&str> = report.degraded().map(|row| row.observe).collect();
    let verdict = match missing.is_empty() {
        true => "Everything in this list is observed.".to_owned(),
        false => format!("Tracing works, without: {}.", missing.join(", ")),
    };
    let tier = report.tier;
    let _ = writeln!(
        out,
        "\n{verdict} What the {tier} tier does not show at all is told by the README, under Limits."
    );
}

fn put_rows<'a>(out: &mut String, rows: impl IntoIterator<Item = &'a Row>) {
    for row in rows {
        match &row.chosen {
            Some(chosen) => put_line(out, "ok", row.observe, chosen),
            None => {
                put_line(out, "MISSING", row.observe, "nothing serves");
                put_note(out, "you miss", row.loses);
            }
        }
        for refusal in &row.refused {
            let label = format!("{} refused", refusal.tier);
            put_note(
                out,
                &label,
                &format!("{}: {}", refusal.alternative, refusal.error),
            );
        }
        if let Some(fix) = fix(row) {
            put_note(out, "fix", fix);
        }
    }
}

/// What to do about a row of which all that was tried was refused.
fn fix(row: &Row) -> Option<&'static str> {
    if row.chosen.is_some() || row.refused.is_empty() {
        return None;
    }
    Some(
        match row.refused.iter().find_map(|refusal| refusal.denial) {
            Some(Denial::Permission) => {
                "the kernel has it but denies it here: run portwatch on the host itself, not in a \
                 container or sandbox, and as root"
            }
            Some(Denial::Room) => {
                "the kernel has no room for it here: allow more open files (ulimit -n) or memory"
            }
            None => "this kernel does not have it: use a newer one, or another tier (--probes)",
        },
    )
}

fn put_line(out: &mut String, state: &str, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "  {state:<8} {name:<26} {}",
        sanitize::text(value.as_bytes())
    );
}

/// Kernel words may be many lines: each is put below the other.
fn put_note(out: &mut String, label: &str, text: &str) {
    for (i, line) in text.lines().enumerate() {
        let label = if i == 0 {
            format!("{label}: ")
        } else {
            "  ".to_owned()
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:37} {label}{}", "", sanitize::text(line.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::probe::Refusal;

    fn facts() -> Vec<Fact> {
        let fact = |name, state, value: &str, fix: Option<&str>| Fact {
            name,
            state,
            value: value.into(),
            fix: fix.map(str::to_owned),
        };
        vec![
            fact("kernel", State::Ok, "6.1.0 x86_64", None),
            fact("cgroup2", State::Warning, "not mounted", Some("mount it")),
        ]
    }

    fn degraded() -> Diagnosis {
        let refusal = |alternative: &str, error: &str| Refusal {
            tier: Tier::Trampoline,
            alternative: alternative.into(),
            error: error.into(),
            denial: None,
        };
        let row = |observe, chosen: Option<&str>, refused| Row {
            observe,
            required: false,
            chosen: chosen.map(str::to_owned),
            refused,
            loses: "resets are not reported",
        };
        let denied = refusal(
            "fexit __inet_bind",
            "Operation not permitted (os error 1)\nlog \x1b[2J",
        );
        let absent = refusal("tp_btf tcp_send_reset", "no such tracepoint");
        Diagnosis {
            facts: facts(),
            probes: Ok(Report {
                tier: Tier::Tracepoint,
                rows: vec![
                    row("bind", Some("sys_exit_bind"), vec![denied]),
                    row("resets", None, vec![absent]),
                ],
                missing_members: vec!["mptcp_sock.first".into()],
            }),
        }
    }

    #[test]
    fn a_degraded_machine_is_told_what_it_misses_and_why() {
        expect![[r#"
            portwatch 0.1.0

              ok       kernel                     6.1.0 x86_64
              warning  cgroup2                    not mounted
                                                  fix: mount it

            probes: tracepoint

              ok       bind                       sys_exit_bind
                                                  trampoline refused: fexit __inet_bind: Operation not permitted (os error 1)
                                                    log \x1b[2J
              MISSING  resets                     nothing serves
                                                  you miss: resets are not reported
                                                  trampoline refused: tp_btf tcp_send_reset: no such tracepoint
                                                  fix: this kernel does not have it: use a newer one, or another tier (--probes)

            not in this kernel's structures: mptcp_sock.first

            Tracing works, without: resets. What the tracepoint tier does not show at all is told by the README, under Limits.
        "#]].assert_eq(&degraded().text());
    }

    #[test]
    fn json_has_the_same_content() {
        expect![[r#"
            {
              "portwatch": "0.1.0",
              "facts": [
                {
                  "name": "kernel",
                  "state": "ok",
                  "value": "6.1.0 x86_64"
                },
                {
                  "name": "cgroup2",
                  "state": "warning",
                  "value": "not mounted",
                  "fix": "mount it"
                }
              ],
              "serves": true,
              "tier": "tracepoint",
              "plan": [
                {
                  "observe": "bind",
                  "required": false,
                  "chosen": "sys_exit_bind",
                  "refused": [
                    {
                      "tier": "trampoline",
                      "alternative": "fexit __inet_bind",
                      "error": "Operation not permitted (os error 1)\nlog \u001b[2J"
                    }
                  ],
                  "loses": "resets are not reported"
                },
                {
                  "observe": "resets",
                  "required": false,
                  "chosen": null,
                  "refused": [
                    {
                      "tier": "trampoline",
                      "alternative": "tp_btf tcp_send_reset",
                      "error": "no such tracepoint"
                    }
                  ],
                  "loses": "resets are not reported",
                  "fix": "this kernel does not have it: use a newer one, or another tier (--probes)"
                }
              ],
              "missing_members": [
                "mptcp_sock.first"
              ]
            }
        "#]]
        .assert_eq(&degraded().json());
    }

    #[test]
    fn when_nothing_serves_it_is_told_what_was_refused_and_why() {
        let Ok(Report { mut rows, .. }) = degraded().probes else {
            unreachable!()
        };
        rows[0].chosen = None;
        let nothing = Diagnosis {
            facts: facts(),
            probes: Err(Nothing::of(&anyhow::Error::new(Unserved {
                verdict: "the trampoline tier cannot serve on this kernel".into(),
                rows,
            }))),
        };
        expect![[r#"
            portwatch 0.1.0

              ok       kernel                     6.1.0 x86_64
              warning  cgroup2                    not mounted
                                                  fix: mount it

            probes: none

              MISSING  bind                       nothing serves
                                                  you miss: resets are not reported
                                                  trampoline refused: fexit __inet_bind: Operation not permitted (os error 1)
                                                    log \x1b[2J
                                                  fix: this kernel does not have it: use a newer one, or another tier (--probes)
              MISSING  resets                     nothing serves
                                                  you miss: resets are not reported
                                                  trampoline refused: tp_btf tcp_send_reset: no such tracepoint
                                                  fix: this kernel does not have it: use a newer one, or another tier (--probes)

            Nothing can be traced here:
              the trampoline tier cannot serve on this kernel. Try another tier (--probes), a newer kernel, or check lockdown and the container's privileges.
        "#]].assert_eq(&nothing.text());
        let json: serde_json::Value = serde_json::from_str(&nothing.json()).unwrap();
        assert_eq!(json["serves"], false);
        let error = json["error"].as_str().unwrap();
        assert!(error.contains("  trampoline (tp_btf tcp_send_reset): no such tracepoint\n"));
        assert_eq!(json["plan"][1]["chosen"], serde_json::Value::Null);
        assert_eq!(json["plan"][1]["refused"][0]["error"], "no such tracepoint");
    }

    #[test]
    fn when_nothing_was_tried_the_facts_and_the_reason_are_still_told() {
        let nothing = Diagnosis {
            facts: facts(),
            probes: Err(Nothing::of(&anyhow::anyhow!("no permission"))),
        };
        expect![[r#"
            portwatch 0.1.0

              ok       kernel                     6.1.0 x86_64
              warning  cgroup2                    not mounted
                                                  fix: mount it

            Nothing can be traced here:
              no permission
        "#]]
        .assert_eq(&nothing.text());
        let json: serde_json::Value = serde_json::from_str(&nothing.json()).unwrap();
        assert_eq!(json["serves"], false);
        assert_eq!(json["error"], "no permission");
        assert_eq!(json["facts"][1]["fix"], "mount it");
        let row = &json["plan"][0];
        assert_eq!(
            (&row["observe"], &row["fix"]),
            (&"bind".into(), &serde_json::Value::Null)
        );
    }
}
