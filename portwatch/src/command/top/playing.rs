//! `top --from FILE`: a session on the screen.

use std::collections::HashMap;
use std::ops::ControlFlow::{self, Break, Continue};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossterm::event::{Event as Input, EventStream};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::MissedTickBehavior;

use super::player::Player;
use super::terminal::Terminal;
use crate::cli::{FilterArgs, TopArgs};
use crate::command::recorded::{Recording, home};
use crate::command::signals::{Asked, ScreenSignals};
use crate::command::trace::summary;
use crate::command::{filter, say, wrong_usage};
use crate::exit::Exit;
use crate::row::Row;
use crate::source::replay::accounts;
use crate::table::Limits;
use crate::view::time;
use crate::view::top::{Action, Look, Play, Screen};

/// Time between two drawings while it plays.
const REDRAW: Duration = Duration::from_millis(200);
/// What happens in that time may take this long to take in; what does not fit is seen later.
const WORK: Duration = Duration::from_millis(150);

/// Shows the screen until someone quits it.
///
/// # Errors
/// When the arguments make no sense, or the session cannot be read.
pub async fn run(args: &TopArgs, path: &Path) -> Result<Exit> {
    let (rows, events) = filter::of_both(&args.filter).map_err(wrong_usage)?;
    let recording = Recording::open(path, args.moment.run)?;
    let (since, until) = recording.between(args.span.since.as_ref(), args.span.until.as_ref())?;
    let from = args.moment.at.as_ref().or(args.span.since.as_ref());
    let (part, at) = match (from, recording.latest_in(since, until)) {
        (None, Some(part)) => {
            let at = recording.beginning(&part)?;
            (part, at)
        }
        _ => recording.moment(from)?,
    };
    let first = recording.beginning(&part)?;
    let play = Play {
        began: part.began,
        ended: part.ended.min(until).max(first),
        first,
        paused: args.moment.at.is_some(),
        speed: Default::default(),
    };
    let description = recording.describe(&part);
    let cut_off = recording.cut_off(&part);
    let limits = Limits {
        closed_ns: u64::try_from(args.keep.as_nanos()).unwrap_or(u64::MAX),
        ..Limits::default()
    };
    let mut player = Player::new(recording.session, part.clone(), limits, events, play, at)?;
    let open: Vec<Row> = player.scene.table.iter().map(|sight| sight.row()).collect();
    let look = Look {
        colour: std::env::var_os("NO_COLOR").is_none_or(|x| x.is_empty()),
        numeric: args.numeric,
        netns: home(part.run.run.netns, &open),
        // It may be of another machine.
        netns_names: HashMap::new(),
        zone: time::local(),
    };
    let asks = args.filter != FilterArgs::default();
    let mut screen = Screen::new(look, asks.then_some(rows));
    let mut signals = ScreenSignals::new().context("waiting for signals")?;
    let mut terminal = Terminal::enter()?;
    let ended = follow(&mut player, &mut screen, &mut signals, &mut terminal).await;
    drop(terminal);
    ended?;
    say(&description);
    let accounts = accounts(&player.finish(), &part.run)?;
    let observed = part.run.run.not_observed.as_deref();
    say(&summary::verdict_of_recorded(
        &accounts,
        cut_off.as_deref(),
        observed,
    ));
    Ok(Exit::Fine)
}

async fn follow(
    player: &mut Player,
    screen: &mut Screen,
    signals: &mut ScreenSignals,
    terminal: &mut Terminal,
) -> Result<()> {
    let mut keys = EventStream::new();
    let mut redraw = tokio::time::interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    draw(player, screen, terminal)?;
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Asked::End => return Ok(()),
                Asked::Stop => {
                    terminal.suspend()?;
                    draw(player, screen, terminal)?;
                }
            },
            key = keys.next() => {
                let mut key = Some(key);
                // More may have come: one drawing for all.
                while let Some(one) = key {
                    if input(one, player, screen, terminal)?.is_break() {
                        return Ok(());
                    }
                    key = keys.next().now_or_never();
                }
                draw(player, screen, terminal)?;
            }
            _ = redraw.tick() => {
                let now = Instant::now();
                let passed = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
                last = now;
                if !player.is_paused() {
                    player.advance(passed, || now.elapsed() > WORK)?;
                    draw(player, screen, terminal)?;
                }
            }
        }
    }
}

/// Something from the terminal; breaks when that is the end.
fn input(
    input: Option<std::io::Result<Input>>,
    player: &mut Player,
    screen: &mut Screen,
    terminal: &mut Terminal,
) -> Result<ControlFlow<()>> {
    let input = input
        .context("the terminal is gone")?
        .context("reading keys")?;
    let Input::Key(key) = input else {
        return Ok(Continue(()));
    };
    match screen.key(key, &player.scene, player.at()) {
        Some(Action::Quit) => return Ok(Break(())),
        Some(Action::Suspend) => terminal.suspend()?,
        Some(Action::Play(control)) => player.control(control)?,
        // There is nothing to look at anew.
        Some(Action::Refresh) | None => {}
    }
    Ok(Continue(()))
}

fn draw(player: &Player, screen: &mut Screen, terminal: &mut Terminal) -> Result<()> {
    let draw = |frame: &mut ratatui::Frame<'_>| screen.draw(frame, &player.scene, player.at());
    terminal.draw(draw).context("drawing")?;
    Ok(())
}
