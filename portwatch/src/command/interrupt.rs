//! Signals during work that goes on without waiting for anything: the first one asks for its end, the
//! second one ends the program.

use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What becomes true when the program is asked to end.
pub fn asked_to_end() -> Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        // The one that acts is registered first, so it sees what earlier signals set.
        flag::register_conditional_default(number, Arc::clone(&asked))?;
        flag::register(number, Arc::clone(&asked))?;
    }
    Ok(asked)
}
