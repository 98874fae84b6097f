use std::collections::HashSet;

use parking_lot::Mutex;

/// So many nodes may say hello to one process: more is no cluster but a mistake.
const MAX_NODES: usize = 4096;

/// The longest name of a node.
const MAX_NAME: usize = 128;

/// The nodes that have said hello since this process started. Together with those of which the ledger holds something
/// they are the known ones; records in another name are refused.
#[derive(Default)]
pub(crate) struct Nodes(Mutex<HashSet<String>>);

impl Nodes {
    /// A node said hello; whether it may go on, and why not.
    pub(crate) fn greet(&self, node: &str) -> Result<(), String> {
        if node.is_empty() || node.len() > MAX_NAME {
            return Err(format!("node name has {} bytes; use 1 to {MAX_NAME}", node.len()));
        }
        let mut known = self.0.lock();
        if known.contains(node) {
            return Ok(());
        }
        if known.len() >= MAX_NODES {
            return Err(format!(
                "{MAX_NODES} nodes have said hello already; does a node change its name at every start?"
            ));
        }
        known.insert(node.to_owned());
        Ok(())
    }

    /// Whether the node has said hello.
    pub(crate) fn knows(&self, node: &str) -> bool {
        self.0.lock().contains(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_length_and_number() {
        let nodes = Nodes::default();
        assert!(!nodes.knows("n"));
        assert!(nodes.greet("").is_err() && nodes.greet(&"n".repeat(129)).is_err());
        for n in 0..MAX_NODES {
            nodes.greet(&format!("n{n}")).unwrap();
        }
        assert!(nodes.greet("n0").is_ok() && nodes.knows("n0"));
        assert!(nodes.greet("one more").unwrap_err().contains("4096 nodes"));
    }
}
