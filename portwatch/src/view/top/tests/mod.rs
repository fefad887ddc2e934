//! The screen as it is drawn, and as keys change it.

mod keys;
mod looks;
mod play;

use std::collections::HashMap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use expect_test::Expect;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::event::{Event, Kind};
use crate::table::Limits;
use crate::view::lines::samples;

/// A second after the last of the sample events.
const NOW: u64 = 1_700_000_001_132_456_789;

/// Milliseconds of the sample events, and then cookies: each socket has one.
fn scene(events: &[Event]) -> Scene {
    let mut scene = Scene::new("tracepoint probes".into(), Limits::default());
    for event in events {
        scene.table.apply(event);
        scene.show(event.clone());
    }
    scene.status.seeded = true;
    scene
}

/// A server with a client, an attempt to bind that failed, something hostile, and a loss.
fn typical() -> Scene {
    let mut events = samples::typical();
    for (event, cookie) in events.iter_mut().zip([1, 2, 3, 4, 5, 5, 6, 7, 8]) {
        event.sock = Some(cookie);
        event.netns = Some(1);
    }
    let [
        listen,
        taken,
        connect,
        refused,
        accept,
        close,
        _,
        reset,
        lost,
    ] = events.try_into().unwrap();
    let mut evil = taken.clone();
    evil.error = None;
    evil.holders = None;
    evil.sock = Some(20);
    evil.lport = Some(8080);
    let mut wide = evil.clone();
    wide.kind = Kind::Listen;
    wide.comm = Some(crate::event::Comm(
        *b"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe6\x97\xa5\xe6\x9c\xac\0",
    ));
    wide.sock = Some(21);
    wide.lport = Some(8081);
    wide.laddr = Some("2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap());
    wide.backlog = Some(128);
    let mut contained = connect.clone();
    contained.sock = Some(22);
    contained.netns = Some(4026532177);
    contained.raddr = Some("192.0.2.77".parse().unwrap());
    contained.laddr = Some("192.0.2.100".parse().unwrap());
    scene(&[
        listen, taken, evil, wide, connect, refused, accept, close, contained, reset, lost,
    ])
}

fn screen() -> Screen {
    let look = Look {
        colour: true,
        numeric: false,
        netns: Some(1),
        netns_names: HashMap::new(),
        zone: TimeZone::UTC,
    };
    Screen::new(look, None)
}

fn draw(screen: &mut Screen, scene: &Scene, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| screen.draw(frame, scene, NOW))
        .unwrap();
    terminal.backend().clone()
}

/// Lines of the screen, without what is empty at their ends.
fn lines(backend: &TestBackend) -> String {
    let buffer = backend.buffer();
    let width = usize::from(buffer.area.width);
    let mut out = String::new();
    for row in buffer.content().chunks(width) {
        let mut line = String::new();
        let mut skip = 0;
        for cell in row {
            if skip == 0 {
                line.push_str(cell.symbol());
                skip = unicode_width::UnicodeWidthStr::width(cell.symbol());
            }
            skip = skip.saturating_sub(1);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn press(screen: &mut Screen, scene: &Scene, keys: &[KeyCode]) -> Option<Action> {
    let mut action = None;
    for &code in keys {
        // Keys go by what is on the screen.
        draw(screen, scene, 80, 24);
        action = screen.key(KeyEvent::new(code, KeyModifiers::NONE), scene, NOW);
    }
    action
}

fn type_text(screen: &mut Screen, scene: &Scene, text: &str) {
    let keys: Vec<KeyCode> = text.chars().map(KeyCode::Char).collect();
    press(screen, scene, &keys);
}

fn check(keys: &[KeyCode], (width, height): (u16, u16), expected: Expect) {
    let (mut screen, scene) = (screen(), typical());
    press(&mut screen, &scene, keys);
    expected.assert_eq(&lines(&draw(&mut screen, &scene, width, height)));
}
