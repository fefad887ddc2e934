//! How the screen is drawn.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use unicode_width::UnicodeWidthStr as _;

use crate::errno;
use crate::event::{Event, Kind};
use crate::sanitize;

use super::columns::{Column, cut, fit};
use super::help::help;
use super::order::order;
use super::{Look, Mode, Pane, Scene, Screen};

/// Below this height only the pane with the focus is shown.
const LOW: u16 = 12;

impl Screen {
    /// Draws all of it. `now`: nanoseconds since the Unix epoch.
    pub fn draw(&mut self, frame: &mut Frame, scene: &Scene, now: u64) {
        let frozen = self.frozen.take();
        let (shown, at) = frozen.as_deref().map_or((scene, now), |(x, at)| (x, *at));
        let [head, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let buffer = frame.buffer_mut();
        for (list, listeners) in self.lists.iter_mut().zip([true, false]) {
            list.order = order(&shown.table, listeners, &self.wanted, list.sort, &self.look);
        }
        self.head(buffer, head, shown, frozen.is_some(), at);
        let playing = shown.status.play.is_some();
        match std::mem::replace(&mut self.mode, Mode::Panes) {
            Mode::Help => {
                text(buffer, body, &help(playing), 0);
                self.mode = Mode::Help;
            }
            Mode::Details(mut details) => {
                details.update(shown, &self.lists[0].order.groups);
                let lines = details.lines(shown, &self.look, at, body.width.into());
                let last = lines.len().saturating_sub(body.height.into());
                details.top = details.top.min(last);
                text(buffer, body, &lines, details.top);
                self.page = body.height.into();
                self.mode = Mode::Details(details);
            }
            mode => {
                self.panes(buffer, body, shown, at);
                self.mode = mode;
            }
        }
        self.foot(buffer, foot, playing);
        self.frozen = frozen;
    }

    fn head(&self, buffer: &mut Buffer, area: Rect, scene: &Scene, frozen: bool, now: u64) {
        let status = &scene.status;
        let plain = Style::new();
        let source = sanitize::text(status.source.as_bytes());
        let mut parts = vec![match status.play {
            None => (format!("portwatch, {source}"), plain),
            // The moment matters more.
            Some(_) => ("portwatch".to_owned(), plain),
        }];
        if frozen {
            let style = Style::new().add_modifier(Modifier::REVERSED);
            parts.push((" FROZEN ".to_owned(), style));
        }
        if let Some(play) = &status.play {
            if play.paused {
                let style = Style::new().add_modifier(Modifier::REVERSED);
                parts.push((" STOPPED ".to_owned(), style));
            }
            parts.push((play.position(now, &self.look.zone), plain));
        }
        if !status.seeded {
            parts.push(("reading open sockets".to_owned(), plain));
        }
        match scene.table.lost() {
            // Where something is not seen at all, that is told instead.
            0 if status.missing.is_some() => {}
            0 => parts.push(("nothing lost".to_owned(), plain)),
            lost => parts.push((format!("{lost} events lost"), self.look.alarm())),
        }
        match status.differences {
            0 => {}
            1 => parts.push(("1 difference repaired".to_owned(), self.look.alarm())),
            many => parts.push((format!("{many} differences repaired"), self.look.alarm())),
        }
        if status.play.is_some() {
            parts.push((source, plain));
        }
        for limit in status.missing.iter().chain(&status.limits) {
            parts.push((sanitize::text(limit.as_bytes()), plain));
        }
        let mut x = area.x;
        for (i, (part, style)) in parts.iter().enumerate() {
            if i > 0 {
                x = put(buffer, area, x, " · ", Style::new());
            }
            x = put(buffer, area, x, part, style.add_modifier(Modifier::BOLD));
        }
    }

    fn foot(&self, buffer: &mut Buffer, area: Rect, playing: bool) {
        let typed = sanitize::text(self.wanted.typed.as_bytes());
        let line = match &self.mode {
            Mode::Typing(_) => format!("/{typed}_"),
            Mode::Details(_) => "Up Down scroll · any other key goes back".to_owned(),
            Mode::Help => "any key goes back".to_owned(),
            Mode::Panes => {
                let keys = match playing {
                    false => "? help · Tab pane · / filter · s sort · Space freeze · Enter details",
                    true => "? help · Space stop · + - speed · . step · Left Right 10 s · / filter",
                };
                match typed.is_empty() {
                    true => format!("{keys} · q quit"),
                    false => format!("filter: {typed} (Esc: all) · {keys}"),
                }
            }
        };
        let style = match self.mode {
            Mode::Typing(_) => Style::new(),
            _ => Style::new().add_modifier(Modifier::DIM),
        };
        put(buffer, area, area.x, &line, style);
    }

    fn panes(&mut self, buffer: &mut Buffer, area: Rect, scene: &Scene, now: u64) {
        if self.zoom || area.height < LOW {
            return self.pane(buffer, area, self.pane, scene, now);
        }
        let areas: [Rect; 3] = Layout::vertical([Constraint::Fill(1); 3]).areas(area);
        // The one with the focus last: pages are of its size.
        let mut panes: Vec<(Pane, Rect)> = Pane::ALL.into_iter().zip(areas).collect();
        panes.sort_by_key(|(pane, _)| *pane == self.pane);
        for (pane, area) in panes {
            self.pane(buffer, area, pane, scene, now);
        }
    }

    fn pane(&mut self, buffer: &mut Buffer, area: Rect, pane: Pane, scene: &Scene, now: u64) {
        let [bar, rows] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        let focus = pane == self.pane;
        let title = match pane {
            Pane::Events => self.events(buffer, rows, scene),
            Pane::Listeners => self.rows(buffer, rows, 0, focus, scene, now),
            Pane::Connections => self.rows(buffer, rows, 1, focus, scene, now),
        };
        let style = match focus {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new().add_modifier(Modifier::UNDERLINED),
        };
        buffer.set_style(bar, style);
        put(
            buffer,
            bar,
            bar.x,
            &title,
            style.add_modifier(Modifier::BOLD),
        );
    }

    /// Draws a table of sockets and returns its title.
    fn rows(
        &mut self,
        buffer: &mut Buffer,
        area: Rect,
        which: usize,
        focus: bool,
        scene: &Scene,
        now: u64,
    ) -> String {
        let list = &mut self.lists[which];
        let columns = fit(list.columns, area.width.into());
        let height = usize::from(area.height.saturating_sub(1));
        if focus {
            self.page = height;
        }
        // Where the selected one is now; when it is gone, the one that took its place.
        let last = list.order.keys.len().saturating_sub(1);
        match list.selected {
            None => list.at = 0,
            Some(key) => {
                let found = list.order.position(key);
                list.at = found.unwrap_or(list.at.min(last));
                list.selected = list.order.keys.get(list.at).copied();
            }
        }
        let least = (list.at + 1).saturating_sub(height);
        list.top = list.top.clamp(least, list.at.max(least));
        list.top = list.top.min(list.order.keys.len().saturating_sub(height));

        let dim = Style::new().add_modifier(Modifier::DIM);
        let mut lines = area.rows();
        if let Some(line) = lines.next() {
            let titles = columns.iter().map(|(x, _)| x.title().to_owned());
            cells(buffer, line, &columns, titles, dim);
        }
        for ((at, key), line) in (list.order.keys.iter().enumerate().skip(list.top)).zip(lines) {
            let Some(sight) = scene.table.get(*key) else {
                continue;
            };
            let shown = list.order.groups.line(sight, &scene.table);
            let mut style = if sight.end.is_some() {
                dim
            } else {
                Style::new()
            };
            if focus && at == list.at {
                style = style.add_modifier(Modifier::REVERSED);
                buffer.set_style(line, style);
            }
            let texts = columns.iter().map(|(x, _)| x.text(&shown, &self.look, now));
            cells(buffer, line, &columns, texts, style);
        }
        if list.order.keys.is_empty() && area.height > 1 {
            let text = match (scene.status.seeded, list.order.all) {
                (false, _) => "reading open sockets",
                (true, 0) => "none",
                (true, _) => "nothing matches the filter",
            };
            buffer.set_stringn(area.x, area.y + 1, text, area.width.into(), dim);
        }
        let name = if which == 0 {
            "LISTENING AND BOUND"
        } else {
            "CONNECTIONS"
        };
        let count = match list.order.open == list.order.all {
            true => list.order.all.to_string(),
            false => format!("{} of {}", list.order.open, list.order.all),
        };
        let way = if list.sort.falls { "falling" } else { "rising" };
        let by = list.sort.column.title();
        format!("{name} {count} · by {by}, {way}")
    }

    /// Draws the latest events, the last one at the bottom, and returns the title.
    fn events(&mut self, buffer: &mut Buffer, area: Rect, scene: &Scene) -> String {
        let height = usize::from(area.height);
        if self.pane == Pane::Events {
            self.page = height;
        }
        let mut found: Vec<(String, &Event)> = Vec::new();
        let mut scratch = Vec::new();
        let end = self.back.saturating_add(height);
        for event in scene.events.iter().rev() {
            if found.len() >= end {
                break;
            }
            scratch.clear();
            self.lines.event(&mut scratch, event);
            let line = String::from_utf8_lossy(&scratch).trim_end().to_owned();
            if self.wanted.text(|| line.clone()) {
                found.push((line, event));
            }
        }
        // No further back than to the first one at the top.
        self.back = self.back.min(found.len().saturating_sub(height));
        let shown = found.iter().skip(self.back).take(height).rev();
        for ((line, event), row) in shown.zip(area.rows()) {
            let style = self.look.event(event);
            put(buffer, row, row.x, line, style);
            // What failed says why, even where there is no room for details.
            if let Some(error) = event.error.map(errno::name)
                && !cut(Column::Comm, line, row.width.into()).contains(&*error)
            {
                let width = u16::try_from(error.width() + 1).unwrap_or(u16::MAX);
                let start = row.right().saturating_sub(width).max(row.x);
                put(buffer, row, start, &format!(" {error}"), style);
            }
        }
        match self.back {
            0 => "EVENTS".to_owned(),
            back => format!("EVENTS · {back} back"),
        }
    }
}

impl Look {
    fn alarm(&self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colour {
            style.fg(Color::Red)
        } else {
            style
        }
    }

    fn event(&self, event: &Event) -> Style {
        match (event.kind, event.error) {
            (Kind::Lost, _) => self.alarm(),
            (_, Some(_)) if self.colour => Style::new().fg(Color::Red),
            _ => Style::new(),
        }
    }
}

/// Lines from the one with this number on.
fn text(buffer: &mut Buffer, area: Rect, lines: &[impl AsRef<str>], top: usize) {
    for (line, row) in lines.iter().skip(top).zip(area.rows()) {
        put(buffer, row, row.x, line.as_ref(), Style::new());
    }
}

/// One row of a table.
fn cells(
    buffer: &mut Buffer,
    area: Rect,
    columns: &[(Column, usize)],
    texts: impl Iterator<Item = String>,
    style: Style,
) {
    let mut x = area.x;
    for (&(column, width), text) in columns.iter().zip(texts) {
        let text = cut(column, &text, width);
        let pad = if column.is_right() {
            width.saturating_sub(text.width())
        } else {
            0
        };
        let start = x.saturating_add(u16::try_from(pad).unwrap_or(u16::MAX));
        put(buffer, area, start, &text, style);
        x = x.saturating_add(u16::try_from(width + 1).unwrap_or(u16::MAX));
    }
}

/// Puts text into the first line of an area, cut at its end; returns where it ended.
fn put(buffer: &mut Buffer, area: Rect, x: u16, text: &str, style: Style) -> u16 {
    if area.is_empty() || x >= area.right() {
        return x;
    }
    let room = usize::from(area.right() - x);
    buffer.set_stringn(x, area.y, text, room, style).0
}
