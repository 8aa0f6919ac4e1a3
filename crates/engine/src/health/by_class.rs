//! Figures of each class of errors, told by the names of the classes.
//!
//! Owns how the list in T3's order becomes an object and back. Invariant: an object that lacks a class is refused.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ErrorClass;

pub(super) fn serialize<S: Serializer>(figures: &[u32; 8], to: S) -> Result<S::Ok, S::Error> {
    let named = ErrorClass::ALL.map(|class| (class, figures[class as usize]));
    BTreeMap::from(named).serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u32; 8], D::Error> {
    let named = BTreeMap::<ErrorClass, u32>::deserialize(from)?;
    let mut figures = [0; 8];
    for class in ErrorClass::ALL {
        let figure = named.get(&class).ok_or_else(|| D::Error::custom(format!("no {class}")))?;
        figures[class as usize] = *figure;
    }
    Ok(figures)
}
