//! Turns the end of a simulation by unwinding into words.
//!
//! Owns the panic hook of simulating threads: a violation carries its own text, any other panic is a failed assertion of
//! the engine or of the simulated disks, reported with its place. Other threads keep the usual hook.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::oracle::Violation;

thread_local! {
    /// Present while this thread simulates: where the last panic was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `simulation`; a panic becomes its description.
pub fn caught<T>(simulation: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            let ours = PLACE.with_borrow_mut(|place| {
                let ours = place.is_some();
                if ours {
                    *place = Some(info.location().map(ToString::to_string).unwrap_or_default());
                }
                ours
            });
            if !ours {
                usual(info);
            }
        }));
    });
    PLACE.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(simulation));
    let place = PLACE.take().unwrap_or_default();
    result.map_err(|payload| {
        if let Some(violation) = payload.downcast_ref::<Violation>() {
            return violation.to_string();
        }
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        format!("{text} (at {place})")
    })
}
