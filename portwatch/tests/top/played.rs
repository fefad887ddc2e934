//! A session that is played.

use std::path::Path;

use portwatch::event::{Event, Kind, Origin, Proto};
use portwatch::session;

use super::terminal::Top;

/// 2023-11-14 22:13:20 UTC.
const START: u64 = 1_700_000_000 * SECOND;
const SECOND: u64 = 1_000_000_000;

pub fn played() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    record(&path);
    let file = path.to_str().unwrap();
    let tables = |text: &str| text.split("EVENTS").next().unwrap().to_owned();
    // as it was at a moment, standing still
    let mut top = Top::start(&["--from", file, "--at", "@1700000015"]);
    let text = top.until("the moment", |text| text.contains("15.00s of 1m00s"));
    assert!(
        text.contains("STOPPED") && tables(&text).contains(":7001"),
        "{text}"
    );
    top.press("\x1b[C");
    let text = top.until("10 s later", |text| text.contains("25.00s of"));
    let (table, events) = text.split_once("EVENTS").unwrap();
    assert!(
        !table.contains(":700") && events.contains("close"),
        "{text}"
    );
    top.press(".");
    let text = top.until("the next event", |text| text.contains("30.00s of"));
    assert!(
        tables(&text).contains(":7002") && text.contains("STOPPED"),
        "{text}"
    );
    top.press("\x1b[H");
    top.until("the beginning", |text| {
        text.contains("0us of") && !text.contains(":700")
    });
    top.press("\x1b[F");
    top.until("the end", |text| {
        text.contains("1m00s of") && tables(text).contains(":7002")
    });
    top.press("\x1b[1;2D?");
    top.until("its keys", |text| text.contains("with Shift a minute"));
    top.press("x");
    top.until("a minute before", |text| text.contains("0us of"));
    // it plays by itself, and stops at the end
    top.press("++++++ ");
    top.until("the end once more", |text| {
        text.contains("x64, 1m00s of") && text.contains("STOPPED") && tables(text).contains(":7002")
    });
    top.press("q");
    top.ended();
}

/// A minute in which a listener on port 7001 is there from 10 s to 20 s, and one on port 7002 from 30 s on.
fn record(path: &Path) {
    let db = session::create(path).unwrap();
    let about = Box::new(|_, _: &_| session::About::default());
    let mut writer = session::Writer::new(&db, about).unwrap();
    let run = session::Run {
        began: START,
        source: "tracepoint probes".into(),
        ..session::Run::default()
    };
    writer.begin(&run).unwrap();
    writer.checkpoint(START, []).unwrap();
    for (second, kind, port) in [
        (10, Kind::Listen, 7001),
        (20, Kind::Close, 7001),
        (30, Kind::Listen, 7002),
    ] {
        let mut event = Event::new(kind, Origin::Live, START + second * SECOND);
        event.proto = Some(Proto::Tcp);
        event.laddr = Some("127.0.0.1".parse().unwrap());
        event.lport = Some(port);
        event.sock = Some(u64::from(port));
        event.netns = Some(1);
        event.pid = Some(4242);
        event.comm = Some("server".into());
        writer.event(&event).unwrap();
    }
    let finish = session::Finish {
        ended: START + 60 * SECOND,
        reason: "signal".into(),
        complete: true,
        accounts: "{}".into(),
    };
    writer.finish(&finish).unwrap();
    writer.commit(None).unwrap();
}
