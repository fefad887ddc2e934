//! Work that other threads share. Where there are no more to be had, as with a limit of processes, it is done
//! all the same, on this one.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, scope};

/// Runs one beside the other, or else after it.
pub fn both<A: Send, B>(beside: impl FnOnce() -> A + Send, here: impl FnOnce() -> B) -> (A, B) {
    let work = Mutex::new(Some(beside));
    let begin = || {
        let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.map(|work| work())
    };
    scope(|scope| {
        let thread = Builder::new().spawn_scoped(scope, begin);
        let here = here();
        let beside = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => begin(),
        };
        (beside.expect("it is taken once"), here)
    })
}

/// What each of at most so many threads makes of the same work; this one is among them.
pub fn all<T: Send>(most: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    scope(|scope| {
        let others = (1..most).map_while(|_| Builder::new().spawn_scoped(scope, &work).ok());
        let others: Vec<_> = others.collect();
        let mut made = vec![work()];
        made.extend(
            (others.into_iter())
                .map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic))),
        );
        made
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done_and_told_apart() {
        assert_eq!(both(|| 1, || 2), (1, 2));
    }

    #[test]
    fn each_thread_tells_what_it_made() {
        assert_eq!(all(3, || 7), [7, 7, 7]);
    }
}
