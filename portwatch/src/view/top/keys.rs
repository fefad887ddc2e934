//! What the keys do.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::details::Details;
use super::{Control, Mode, Pane, Scene, Screen, play};

/// What has to be done outside of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Quit,
    /// Someone looks closely: holders and queues should be those of now.
    Refresh,
    /// As Ctrl-Z does in a shell.
    Suspend,
    /// Something about a session that is played.
    Play(Control),
}

/// Longest filter that can be typed.
const TYPED: usize = 200;

impl Screen {
    /// A key at `now`, in nanoseconds since the Unix epoch.
    pub fn key(&mut self, key: KeyEvent, scene: &Scene, now: u64) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Some(Action::Quit);
        }
        if control && key.code == KeyCode::Char('z') {
            return Some(Action::Suspend);
        }
        if scene.status.play.is_some()
            && matches!(self.mode, Mode::Panes)
            && let Some(control) = play::control(key)
        {
            return Some(Action::Play(control));
        }
        if self.moves(key.code) {
            return None;
        }
        match &mut self.mode {
            Mode::Typing(before) => {
                let before = std::mem::take(before);
                self.typing(key.code, control, before);
                None
            }
            Mode::Details(_) | Mode::Help => {
                self.mode = Mode::Panes;
                None
            }
            Mode::Panes if control => None,
            Mode::Panes => self.command(key.code, scene, now),
        }
    }

    fn command(&mut self, code: KeyCode, scene: &Scene, now: u64) -> Option<Action> {
        match code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Typing(self.wanted.typed.clone()),
            KeyCode::Esc => self.wanted.typed.clear(),
            KeyCode::Char(' ' | 'p') => {
                self.frozen = match self.frozen.take() {
                    Some(_) => None,
                    None => Some(Box::new((scene.clone(), now))),
                }
            }
            KeyCode::Char('z') => self.zoom = !self.zoom,
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(Pane::ALL.len() - 1),
            KeyCode::Char('s') => self.sort_by_next(1),
            KeyCode::Char('S') => self.sort_by_next(usize::MAX),
            KeyCode::Char('r') => {
                if let Some(list) = self.list() {
                    list.sort.falls = !list.sort.falls;
                }
            }
            KeyCode::Enter => {
                let list = self.list()?;
                let key = list.selected.or(list.order.keys.first().copied())?;
                let table = self.frozen.as_ref().map_or(&scene.table, |x| &x.0.table);
                let groups = &self.lists[0].order.groups;
                let details = Details::new(table.get(key)?, table, groups);
                self.mode = Mode::Details(Box::new(details));
                return Some(Action::Refresh);
            }
            _ => {}
        }
        None
    }

    fn typing(&mut self, code: KeyCode, control: bool, before: String) {
        let typed = &mut self.wanted.typed;
        match code {
            KeyCode::Enter => return self.mode = Mode::Panes,
            KeyCode::Esc => {
                *typed = before;
                return self.mode = Mode::Panes;
            }
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Char('u') if control => typed.clear(),
            KeyCode::Char(c) if !control && typed.chars().count() < TYPED => typed.push(c),
            _ => {}
        }
        self.mode = Mode::Typing(before);
    }

    /// Keys that move, wherever the focus is; whether this was one.
    fn moves(&mut self, code: KeyCode) -> bool {
        let letters = !matches!(self.mode, Mode::Typing(_));
        let page = self.page.max(1);
        let end = usize::MAX;
        let (forward, steps) = match code {
            KeyCode::Up => (false, 1),
            KeyCode::Down => (true, 1),
            KeyCode::Char('k') if letters => (false, 1),
            KeyCode::Char('j') if letters => (true, 1),
            KeyCode::PageUp => (false, page),
            KeyCode::PageDown => (true, page),
            KeyCode::Home => (false, end),
            KeyCode::End => (true, end),
            KeyCode::Char('g') if letters => (false, end),
            KeyCode::Char('G') if letters => (true, end),
            _ => return false,
        };
        let go = |at: usize, forward: bool| match forward {
            true => at.saturating_add(steps),
            false => at.saturating_sub(steps),
        };
        match &mut self.mode {
            Mode::Help => self.mode = Mode::Panes,
            Mode::Details(details) => details.top = go(details.top, forward),
            Mode::Panes | Mode::Typing(_) => match self.list() {
                // The latest event is at the bottom.
                None => self.back = go(self.back, !forward),
                Some(list) => {
                    let last = list.order.keys.len().saturating_sub(1);
                    list.at = go(list.at, forward).min(last);
                    let first = list.at == 0;
                    list.selected = list.order.keys.get(list.at).copied().filter(|_| !first);
                }
            },
        }
        true
    }

    fn turn(&mut self, steps: usize) {
        let at = Pane::ALL.iter().position(|&pane| pane == self.pane);
        self.pane = Pane::ALL[(at.unwrap_or(0) + steps) % Pane::ALL.len()];
    }

    fn sort_by_next(&mut self, steps: usize) {
        let Some(list) = self.list() else { return };
        let columns = list.columns;
        let at = columns.iter().position(|&x| x == list.sort.column);
        let next = at
            .unwrap_or(0)
            .wrapping_add(steps)
            .wrapping_add(columns.len())
            % columns.len();
        list.sort.column = columns[next];
        list.sort.falls = columns[next].falls();
    }
}
