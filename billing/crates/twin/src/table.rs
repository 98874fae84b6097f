use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// Objects of one kind in the order in which they came to be.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<u64, Value>,
    places: HashMap<String, u64>,
    next: u64,
}

impl Table {
    pub(crate) fn get(&self, id: &str) -> Option<&Value> {
        self.rows.get(self.places.get(id)?)
    }

    /// Puts or removes an object; what was there before. An object that is put again keeps its place.
    pub(crate) fn set(&mut self, id: &str, value: Option<Value>) -> Option<Value> {
        match value {
            Some(value) => {
                let place = *self.places.entry(id.to_owned()).or_insert_with(|| {
                    self.next += 1;
                    self.next
                });
                self.rows.insert(place, value)
            }
            None => self.rows.remove(&self.places.remove(id)?),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.rows.values()
    }
}
