use hashlink::LinkedHashMap;
use wasmeter_types::Digest;

use crate::artifact::Seen;

struct Artifact {
    size: u64,
    /// The content that was found authentic.
    seen: Option<Seen>,
}

/// What the artifacts on disk take, in the order of their last use.
pub(crate) struct Room {
    artifacts: LinkedHashMap<Digest, Artifact>,
    bytes: u64,
    most: u64,
}

impl Room {
    /// Room for so many bytes.
    pub(crate) fn new(most: u64) -> Self {
        Self { artifacts: LinkedHashMap::new(), bytes: 0, most }
    }

    /// An artifact was used.
    pub(crate) fn touch(&mut self, digest: &Digest) {
        self.artifacts.to_back(digest);
    }

    /// An artifact was written: those that have to go now. It stays itself, however large it is.
    #[must_use]
    pub(crate) fn add(&mut self, digest: Digest, size: u64) -> Vec<Digest> {
        self.remove(&digest);
        self.bytes += size;
        self.artifacts.insert(digest, Artifact { size, seen: None });
        let mut gone = Vec::new();
        while self.bytes > self.most && self.artifacts.len() > 1 {
            let Some((oldest, artifact)) = self.artifacts.pop_front() else { break };
            self.bytes -= artifact.size;
            gone.push(oldest);
        }
        gone
    }

    /// An artifact was deleted.
    pub(crate) fn remove(&mut self, digest: &Digest) {
        self.bytes -= self.artifacts.remove(digest).map_or(0, |artifact| artifact.size);
    }

    /// What was found authentic of an artifact.
    pub(crate) fn seen(&self, digest: &Digest) -> Option<Seen> {
        self.artifacts.get(digest)?.seen
    }

    /// This was found authentic.
    pub(crate) fn see(&mut self, digest: &Digest, seen: Option<Seen>) {
        if let Some(artifact) = self.artifacts.get_mut(digest) {
            artifact.seen = seen;
        }
    }

    /// All that are there.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Digest> {
        self.artifacts.keys()
    }

    /// How many bytes they take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_go_when_the_room_is_full() {
        let digest = |n: u8| Digest::of(&[n]);
        let mut room = Room::new(100);
        assert!(room.add(digest(1), 40).is_empty());
        assert!(room.add(digest(2), 40).is_empty());
        room.touch(&digest(1));
        assert_eq!(room.add(digest(3), 40), [digest(2)]);
        assert_eq!(room.add(digest(3), 30), [], "the same one again takes its place once");
        assert_eq!(room.bytes(), 70);
        room.remove(&digest(1));
        room.remove(&digest(9));
        assert_eq!(room.bytes(), 30);
        assert_eq!(room.add(digest(4), 1000), [digest(3)], "one that is too large stays alone");
        assert_eq!(room.all().copied().collect::<Vec<_>>(), [digest(4)]);
    }
}
