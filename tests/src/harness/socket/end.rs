//! How it ends, and what is told then.

use std::io;
use std::mem::ManuallyDrop;
use std::time::Duration;

use super::{Life, Sock, State, elapsed_us, shown};
use crate::harness::event::{Cause, Kind, Proto};
use crate::harness::truth::{Record, lock, now, tell};

impl Sock {
    /// Sends FIN, but goes on receiving.
    pub fn finish(&self) -> io::Result<()> {
        let before = now();
        self.socket.shutdown(std::net::Shutdown::Write)?;
        let state = &mut lock(&self.state);
        state.ended_by.get_or_insert(Cause::Local);
        state.finished = Some(before);
        Ok(())
    }

    /// Makes the close a reset.
    pub fn reset_on_close(&self) -> io::Result<()> {
        self.socket.set_linger(Some(Duration::ZERO))?;
        lock(&self.state).will_reset = true;
        Ok(())
    }

    /// For a close that resets because of unread bytes, of which there are `count`.
    pub fn resets_with_unread(&self, count: u64) {
        let state = &mut lock(&self.state);
        state.will_reset = true;
        state.received += count;
    }

    /// Gives the fd away: the end of the socket is somebody else's to tell, what was is still told here.
    pub fn disown(&self) {
        lock(&self.state).disowned = true;
    }

    /// For a socket that was there before the trace and will be there after it.
    pub fn unseen(&self) {
        self.disown();
        lock(&self.state).events.clear();
    }

    fn tell(&self) {
        let cookie = self.cookie();
        let state = &mut lock(&self.state);
        for mut expected in std::mem::take(&mut state.events) {
            expected.sock = cookie;
            tell(Record::Expected(expected));
        }
    }

    /// For a process that ends without closing it: tells what happened, and the close to come.
    pub fn abandon(self) {
        self.expect_close(&mut lock(&self.state));
        self.tell();
        std::mem::forget(self);
    }

    pub(super) fn expect_close(&self, state: &mut State) {
        if let Some((called, address)) = state.pending.take() {
            self.note(state, Kind::Connect, |expected| {
                expected.raddr = Some(shown(address.ip()));
                expected.rport = Some(address.port());
                expected.at = Some((called.0, u64::MAX));
                expected.error = Some("ECANCELED".to_owned());
            });
        }
        let (life, since) = (state.life, state.since);
        if matches!(life, Life::Fresh | Life::Over) {
            return;
        }
        let connection = life == Life::Connected;
        let tcp = self.proto == Proto::Tcp;
        let was_reset = connection && tcp && (state.reset_received || state.will_reset);
        if was_reset {
            let cause = if state.reset_received {
                Cause::Received
            } else {
                Cause::Sent
            };
            let optional = state.reset_in_queue;
            self.note(state, Kind::Reset, |expected| {
                expected.cause = Some(cause);
                expected.optional = optional;
            });
        }
        let cause = match was_reset {
            true => Cause::Reset,
            false => state.ended_by.unwrap_or(Cause::Local),
        };
        let over = state.finished.unwrap_or_else(now);
        let local = state.local.or_else(|| self.local());
        let peer = state.peer;
        let (received, sent, accepted) = (state.received, state.sent, state.accepted);
        let uncounted = state.uncounted;
        self.note(state, Kind::Close, |expected| {
            expected.laddr = local.map(|local| shown(local.ip()));
            expected.lport = local.map(|local| local.port());
            expected.raddr = peer.map(|peer| shown(peer.ip()));
            expected.rport = peer.map(|peer| peer.port());
            // a reset ends the socket before its close
            let earliest = if was_reset { since.1 } else { over };
            expected.elapsed_us = Some((elapsed_us(since, (earliest, 0)).0, u64::MAX));
            if tcp {
                expected.cause = Some(cause);
            }
            if connection && tcp {
                expected.rx_bytes = Some(received);
                expected.tx_bytes = Some(sent);
                expected.measured = true;
            }
            expected.unconnected = !connection && peer.is_none();
            if life == Life::Listening && !uncounted {
                expected.accepted = Some(accepted);
            }
            // the acting thread of an end may be anyone's
            expected.tid = None;
        });
        state.life = Life::Over;
    }
}

impl Drop for Sock {
    fn drop(&mut self) {
        {
            let state = &mut lock(&self.state);
            if !state.disowned {
                self.expect_close(state);
            }
        }
        self.tell();
        // SAFETY: nothing uses the socket after this, and it is dropped only here.
        unsafe { ManuallyDrop::drop(&mut self.socket) };
    }
}
