//! The benchmark's load: connect, accept and close over loopback as fast as two threads can.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::Serialize;
use socket2::SockRef;

/// What it did, and how long that took.
#[derive(Debug, Serialize)]
pub struct Churn {
    pub connections: u64,
    pub seconds: f64,
}

/// How far the client may run ahead, less than std's backlog of 128: a SYN that finds the queue full
/// is sent again after a whole second.
const AHEAD: u64 = 100;

/// Makes `connections`, each ended by a reset from the client, so that no port stays in TIME-WAIT, and
/// not before it was accepted: a reset that overtakes the handshake leaves nothing to accept.
/// Half of the `threads` accept, half connect.
pub fn churn(connections: u64, threads: u64) -> Result<Churn> {
    let pairs = (threads / 2).max(1);
    let start = Instant::now();
    let pair = |number: u64| -> Result<()> {
        let share = connections / pairs + u64::from(number < connections % pairs);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let accepted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&accepted);
        let server = thread::spawn(move || -> std::io::Result<()> {
            for _ in 0..share {
                listener.accept()?;
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let mut open = VecDeque::new();
        for made in 1..=share {
            let stream = TcpStream::connect(address)?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            open.push_back(stream);
            loop {
                let waiting = made - accepted.load(Ordering::Relaxed);
                while open.len() as u64 > waiting {
                    open.pop_front();
                }
                if waiting <= AHEAD || server.is_finished() {
                    break;
                }
                thread::yield_now();
            }
        }
        server
            .join()
            .map_err(|_| anyhow!("the server panicked"))??;
        Ok(())
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..pairs)
            .map(|number| scope.spawn(move || pair(number)))
            .collect();
        running
            .into_iter()
            .try_for_each(|one| one.join().map_err(|_| anyhow!("the client panicked"))?)
    })?;
    Ok(Churn {
        connections,
        seconds: start.elapsed().as_secs_f64(),
    })
}
