//! The search of small models: every history, breadth first.
//!
//! Owns the walk; what a state is, what may follow it and what a crash makes of it is each model's matter. Invariant: a state is looked at once, and so
//! is what a crash of it depends on. Only tests use it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What tells a state, or what matters of it, from others.
pub(crate) fn digest(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A state of a model.
pub(crate) trait State: Hash + Sized {
    /// A digest of all that the outcome of a crash depends on.
    fn crash_digest(&self) -> u64;

    /// The starts that may follow a crash of this state, none if no crash is left to be had; or what is wrong after one.
    fn crashed(&self) -> Result<Vec<Self>, String>;

    /// The states that may follow.
    fn following(&self) -> Vec<Self>;
}

/// Goes through every history that begins with `first`; answers how many states there were, and the first fault.
pub(crate) fn search<S: State>(first: S) -> (usize, Option<String>) {
    let (mut seen, mut crashed) = (BTreeSet::new(), BTreeSet::new());
    let mut found = vec![first];
    while !found.is_empty() {
        let mut next = Vec::new();
        for state in found {
            if !seen.insert(digest(&state)) {
                continue;
            }
            if crashed.insert(state.crash_digest()) {
                match state.crashed() {
                    Err(fault) => return (seen.len(), Some(fault)),
                    Ok(starts) => next.extend(starts),
                }
            }
            next.extend(state.following());
        }
        found = next;
    }
    (seen.len(), None)
}
