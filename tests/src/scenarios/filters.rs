//! Each filter flag shows exactly the events it is for.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use super::binding::{NOBODY, become_nobody};
use super::connecting::{fails_with, loopback};
use super::families::converse;
use crate::harness::event::{Family, Kind, Proto};
use crate::harness::judge::Truth;
use crate::harness::meeting::Mailbox;
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;
use crate::harness::truth::Expected;

crate::scenarios! {
    filters_by_port_show_exactly_its_events,
    filters_by_process_show_exactly_its_events,
    filters_by_user_show_exactly_its_events,
    filters_by_protocol_and_family_show_exactly_their_events,
    filters_by_event_show_exactly_those,
    filters_by_namespace_and_network_show_exactly_their_events,
    the_filter_for_failures_shows_exactly_those,
    filter_expressions_show_exactly_what_they_say,
    several_filters_are_joined_by_and,
}

/// Everything that filters can ask for, in two processes of two users.
fn various() -> Result<()> {
    let four = Sock::tcp4()?;
    four.bind(loopback(8080))?;
    four.listen(5)?;
    converse(&four, &Sock::tcp4()?, four.address())?;
    fails_with(Sock::tcp4()?.bind(loopback(8080)), "EADDRINUSE")?;
    fails_with(Sock::tcp4()?.connect(loopback(8081)), "ECONNREFUSED")?;
    let six = Sock::tcp6()?;
    six.bind("[::1]:8443".parse()?)?;
    six.listen(5)?;
    converse(&six, &Sock::tcp6()?, six.address())?;
    Sock::udp4()?.bind(loopback(5353))?;
    Sock::udp6()?.bind("[::1]:5354".parse()?)?;
    Ok(())
}

fn of_nobody() -> Result<()> {
    become_nobody()?;
    let listener = Sock::tcp4()?;
    listener.bind("127.0.0.2:9000".parse()?)?;
    listener.listen(5)?;
    fails_with(Sock::tcp4()?.bind("127.0.0.2:80".parse()?), "EACCES")?;
    Sock::udp4()?.connect("127.0.0.2:5353".parse()?)?;
    Ok(())
}

/// The process of [`various`], which is there before the trace starts.
struct Various {
    pid: u32,
    netns: u64,
}

/// Traces it with the flags; what `keep` says has to be shown, and nothing else.
fn shows(
    stage: &mut Stage,
    flags: impl Fn(&Various) -> Vec<String>,
    keep: impl Fn(&Expected, &Truth, &Various) -> bool,
) -> Result<()> {
    // truth of its own, as one scenario asks several times
    let stage = &mut stage.again()?;
    let netns = stage.netns()?;
    let go = Mailbox::new()?;
    let pid = stage.spawn_in(&netns, "web-server", || {
        go.take()?;
        various()
    })?;
    stage.spawn_in(&netns, "other", || {
        go.take()?;
        of_nobody()
    })?;
    let various = Various {
        pid,
        netns: netns.inode(),
    };
    let flags = flags(&various);
    let flags: Vec<&str> = flags.iter().map(|flag| &**flag).collect();
    let mut check = || -> Result<()> {
        let tracer = stage.trace(&flags)?;
        go.put("go")?;
        go.put("go")?;
        stage.join()?;
        let run = tracer.stop()?;
        let all = stage.truth()?;
        let mut truth = stage.truth()?;
        truth.expected.retain(|x| keep(x, &all, &various));
        ensure!(
            truth.expected.len() < all.expected.len(),
            "nothing is to be left out"
        );
        stage.judge_by(&run, &truth)?;
        Ok(())
    };
    check().with_context(|| flags.join(" "))
}

fn flags(text: &str) -> impl Fn(&Various) -> Vec<String> {
    let flags: Vec<String> = text.split(' ').map(str::to_owned).collect();
    move |_| flags.clone()
}

fn has_port(expected: &Expected, ports: std::ops::RangeInclusive<u16>) -> bool {
    [expected.lport, expected.rport]
        .into_iter()
        .flatten()
        .any(|port| ports.contains(&port))
}

fn has_address(expected: &Expected, address: &str) -> bool {
    let address: Option<IpAddr> = address.parse().ok();
    [expected.laddr, expected.raddr].contains(&address)
}

fn filters_by_port_show_exactly_its_events(stage: &mut Stage) -> Result<()> {
    shows(stage, flags("--port 8080"), |x, _, _| {
        has_port(x, 8080..=8080)
    })?;
    shows(stage, flags("-P 9000,5000-5999"), |x, _, _| {
        has_port(x, 9000..=9000) || has_port(x, 5000..=5999)
    })
}

fn filters_by_process_show_exactly_its_events(stage: &mut Stage) -> Result<()> {
    let by_pid = |various: &Various| vec!["--pid".to_owned(), various.pid.to_string()];
    shows(stage, by_pid, |x, _, various| x.pid == various.pid)?;
    shows(stage, flags("--comm web-*"), |x, _, various| {
        x.pid == various.pid
    })?;
    shows(stage, flags("--comm other"), |x, _, various| {
        x.pid != various.pid
    })
}

fn filters_by_user_show_exactly_its_events(stage: &mut Stage) -> Result<()> {
    let of = |uid: u32| {
        move |x: &Expected, truth: &Truth, _: &Various| truth.processes[&x.pid].uid == uid
    };
    shows(stage, flags("--uid 65534"), of(NOBODY))?;
    shows(stage, flags("-u root"), of(0))
}

fn filters_by_protocol_and_family_show_exactly_their_events(stage: &mut Stage) -> Result<()> {
    shows(stage, flags("--tcp"), |x, _, _| x.proto == Some(Proto::Tcp))?;
    shows(stage, flags("-U"), |x, _, _| x.proto == Some(Proto::Udp))?;
    shows(stage, flags("-4"), |x, _, _| x.family == Some(Family::Ipv4))?;
    shows(stage, flags("-6"), |x, _, _| x.family == Some(Family::Ipv6))
}

fn filters_by_event_show_exactly_those(stage: &mut Stage) -> Result<()> {
    shows(stage, flags("--event listen,close"), |x, _, _| {
        [Kind::Listen, Kind::Close].contains(&x.event)
    })?;
    shows(stage, flags("-e accept"), |x, _, _| x.event == Kind::Accept)
}

fn filters_by_namespace_and_network_show_exactly_their_events(stage: &mut Stage) -> Result<()> {
    let netns_and_event = |various: &Various| {
        ["--netns", &various.netns.to_string(), "-e", "connect"]
            .map(str::to_owned)
            .to_vec()
    };
    shows(stage, netns_and_event, |x, _, _| x.event == Kind::Connect)?;
    shows(stage, flags("--net 127.0.0.2/32"), |x, _, _| {
        has_address(x, "127.0.0.2")
    })?;
    shows(stage, flags("--net ::1/128"), |x, _, _| {
        has_address(x, "::1")
    })
}

fn the_filter_for_failures_shows_exactly_those(stage: &mut Stage) -> Result<()> {
    shows(stage, flags("--failed"), |x, _, _| x.error.is_some())
}

fn filter_expressions_show_exactly_what_they_say(stage: &mut Stage) -> Result<()> {
    let expression =
        |text: &'static str| move |_: &Various| vec!["--filter".to_owned(), text.to_owned()];
    let text = r#"lport == 8080 && event in ["bind", "accept"]"#;
    shows(stage, expression(text), |x, _, _| {
        x.lport == Some(8080) && [Kind::Bind, Kind::Accept].contains(&x.event)
    })?;
    let text = r#"error == "EADDRINUSE" || (proto == "udp" && uid == 65534)"#;
    shows(stage, expression(text), |x, truth, _| {
        x.error.as_deref() == Some("EADDRINUSE")
            || (x.proto == Some(Proto::Udp) && truth.processes[&x.pid].uid == NOBODY)
    })?;
    let text = r#"event == "close" && tx_bytes >= 20"#;
    shows(stage, expression(text), |x, _, _| {
        x.event == Kind::Close && x.tx_bytes.is_some_and(|bytes| bytes >= 20)
    })
}

fn several_filters_are_joined_by_and(stage: &mut Stage) -> Result<()> {
    shows(stage, flags("-t -4 --failed -u 0"), |x, truth, _| {
        x.proto == Some(Proto::Tcp)
            && x.family == Some(Family::Ipv4)
            && x.error.is_some()
            && truth.processes[&x.pid].uid == 0
    })
}
