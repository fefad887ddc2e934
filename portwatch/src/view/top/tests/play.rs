//! A session that is played.

use crossterm::event::KeyCode;

use super::super::play::Speed;
use super::*;

/// The typical scene as it is played.
pub fn played(paused: bool) -> Scene {
    let mut scene = typical();
    scene.status.play = Some(Play {
        began: NOW - 60_000_000_000,
        first: NOW - 30_000_000_000,
        ended: NOW + 3_600_000_000_000,
        paused,
        speed: Speed::default().faster().faster(),
    });
    scene
}

#[test]
fn a_session_that_is_played_tells_where_it_is() {
    for (paused, head) in [
        (
            false,
            "portwatch · 2023-11-14 22:13:21 x4, 1m00s of 1h01m ·",
        ),
        (
            true,
            "portwatch ·  STOPPED  · 2023-11-14 22:13:21 x4, 1m00s of 1h01m",
        ),
    ] {
        let text = lines(&draw(&mut screen(), &played(paused), 100, 24));
        assert!(text.starts_with(head), "{text}");
        assert!(text.contains("Space stop · + - speed · . step"), "{text}");
    }
}

#[test]
fn keys_play_a_session_and_nothing_else() {
    let scene = played(false);
    let shift = KeyModifiers::SHIFT;
    let none = KeyModifiers::NONE;
    for (code, modifiers, expected) in [
        (KeyCode::Char(' '), none, Control::Pause),
        (KeyCode::Char('+'), shift, Control::Faster),
        (KeyCode::Char('-'), none, Control::Slower),
        (KeyCode::Char('.'), none, Control::Step),
        (KeyCode::Left, none, Control::Seek(-10)),
        (KeyCode::Right, shift, Control::Seek(60)),
        (KeyCode::Home, none, Control::Start),
        (KeyCode::End, none, Control::End),
    ] {
        let mut screen = screen();
        draw(&mut screen, &scene, 80, 24);
        let action = screen.key(KeyEvent::new(code, modifiers), &scene, NOW);
        assert_eq!(action, Some(Action::Play(expected)));
        assert!(!screen.is_frozen());
        // where text is typed they are text, and of what is live nothing
        press(&mut screen, &scene, &[KeyCode::Char('/')]);
        let action = screen.key(KeyEvent::new(code, modifiers), &scene, NOW);
        assert_eq!(action, None);
        let mut live = self::screen();
        let action = live.key(KeyEvent::new(code, modifiers), &typical(), NOW);
        assert_eq!(action, None);
    }
}

#[test]
fn help_is_of_what_there_is() {
    let mut screen = screen();
    press(&mut screen, &typical(), &[KeyCode::Char('?')]);
    let live = lines(&draw(&mut screen, &typical(), 80, 24));
    assert!(live.contains("Space  p         freeze and go on"), "{live}");
    assert!(!live.contains("Left Right"), "{live}");
    let played = lines(&draw(&mut screen, &played(false), 80, 24));
    assert!(
        played.contains("Left Right       10 s back, ahead; with Shift a minute"),
        "{played}"
    );
    assert!(!played.contains("freeze"), "{played}");
    assert!(
        played.contains("address; the line is of all of them."),
        "its last line: {played}"
    );
}

#[test]
fn speeds_are_powers_of_two() {
    let mut speed = Speed::default();
    let faster: Vec<String> = std::iter::repeat_with(|| {
        speed = speed.faster();
        speed.to_string()
    })
    .take(7)
    .collect();
    assert_eq!(faster, ["x2", "x4", "x8", "x16", "x32", "x64", "x64"]);
    assert_eq!(speed.distance(1_000), 64_000);
    let slow = Speed::default().slower();
    assert_eq!((slow, slow.distance(1_000)), (slow.slower(), 500));
    assert_eq!(slow.to_string(), "x1/2");
}
