use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use wasmeter_types::Digest;
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use crate::artifact_room::Room;
use crate::engine::{Engines, FUEL_SCHEDULE, Wasi, compile_engine};
use crate::kind::Compiled;

/// Compiled components on disk. A cache: every file can be deleted and is made again from its component. What another
/// engine or fuel schedule made is deleted at the start; beyond the bound, what was used longest ago.
///
/// wasmtime runs what an artifact says, so only our own output may be loaded: each file has a keyed BLAKE3 hash
/// beside it, over its name and its bytes, and the key never leaves the host.
pub struct ArtifactCache {
    dir: PathBuf,
    key: [u8; 32],
    engines: Engines,
    compatibility: String,
    room: Mutex<Room>,
    /// Written since they were last settled.
    fresh: Mutex<Vec<Digest>>,
}

/// A file's content as it was when it was hashed: another change has another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    wasi: Wasi,
}

/// The system's clock of changes ticks this often at least: what changed before then and is the same file now was not
/// changed since.
const TICK: Duration = Duration::from_millis(50);

impl Seen {
    /// None where a change could still come within the tick of the last one.
    fn of(file: &File, wasi: Wasi) -> io::Result<Option<Self>> {
        let found = file.metadata()?;
        let changed = (found.ctime(), found.ctime_nsec());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let long_ago = now.checked_sub(TICK).is_some_and(|then| {
            let nanos = i64::from(then.subsec_nanos());
            i64::try_from(then.as_secs()).is_ok_and(|seconds| changed < (seconds, nanos))
        });
        let seen = Self { device: found.dev(), inode: found.ino(), size: found.size(), changed, wasi };
        Ok(long_ago.then_some(seen))
    }
}

/// What the name of a tag ends in.
const TAG: &str = ".tag";
/// Hexadecimal digits of a hash.
const HEX: usize = 64;
/// Follows the hash in the tag of an artifact for the engine of WASI 0.3, and is hashed too.
const THREE: &str = "+wasi3";

/// An artifact that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is none, or it is not ours: make it again.
    #[error("no authentic artifact of {0}")]
    Missing(Digest),
    /// wasmtime does not take it.
    #[error("artifact: {0}")]
    Engine(String),
    /// The medium failed.
    #[error("artifact cache: {0}")]
    Io(#[from] io::Error),
}

/// Feeds what wasmtime says of its compatibility into a hash that is the same in every process.
struct Stable(blake3::Hasher);

impl Hasher for Stable {
    fn finish(&self) -> u64 {
        u64::from_le_bytes(self.0.finalize().as_bytes()[..8].try_into().unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl ArtifactCache {
    /// The cache in a folder that only the host can read, of at most so many bytes. Whatever lies there and is not an
    /// artifact of this engine is deleted. Blocking.
    ///
    /// # Errors
    /// If the folder cannot be made or read.
    pub fn open(dir: &Path, key: [u8; 32], engines: &Engines, most: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut hash = Stable(blake3::Hasher::new());
        engines.main().precompile_compatibility_hash().hash(&mut hash);
        let three = compile_engine(Wasi::Three).map_err(io::Error::other)?;
        three.precompile_compatibility_hash().hash(&mut hash);
        FUEL_SCHEDULE.hash(&mut hash);
        let compatibility = hash.0.finalize().to_hex()[..16].to_owned();
        let room = Mutex::new(Room::new(most));
        let cache = Self {
            dir: dir.to_owned(),
            key,
            engines: engines.clone(),
            compatibility,
            room,
            fresh: Mutex::default(),
        };
        cache.sweep()?;
        Ok(cache)
    }

    /// Takes stock of what is there, oldest first, and deletes the rest.
    fn sweep(&self) -> io::Result<()> {
        let mut found = Vec::new();
        let mut swept = 0u64;
        for entry in fs::read_dir(&self.dir)? {
            let (entry, name) = entry.map(|e| (e.path(), e.file_name()))?;
            let name = name.to_string_lossy();
            let ours = |digest: &&str| self.name(digest) == name.trim_end_matches(TAG);
            let digest = name.split('-').next().filter(ours).and_then(|d| d.parse::<Digest>().ok());
            let there =
                digest.filter(|_| self.dir.join(name.trim_end_matches(TAG).to_owned() + TAG).exists());
            match there {
                Some(_) if name.ends_with(TAG) => {}
                Some(digest) => {
                    let metadata = fs::symlink_metadata(&entry)?;
                    found.push((metadata.modified()?, digest, metadata.len()));
                }
                None => {
                    fs::remove_file(&entry)?;
                    swept += 1;
                }
            }
        }
        if swept > 0 {
            tracing::info!(
                files = swept,
                "deleted artifacts that another version made, or that were not whole"
            );
        }
        found.sort_unstable_by_key(|(modified, ..)| *modified);
        for (_, digest, size) in found {
            self.keep(digest, size)?;
        }
        Ok(())
    }

    /// Deletes all but these: what uploads that were not deployed have left behind. Blocking.
    ///
    /// # Errors
    /// The medium's.
    pub fn retain(&self, used: impl Fn(&Digest) -> bool) -> io::Result<()> {
        let unused: Vec<Digest> = self.room.lock().all().filter(|d| !used(d)).copied().collect();
        unused.iter().try_for_each(|digest| self.forget(digest))
    }

    /// Counts an artifact that is on disk, and deletes those that have to go for it.
    fn keep(&self, digest: Digest, size: u64) -> io::Result<()> {
        let gone = {
            let mut room = self.room.lock();
            let gone = room.add(digest, size);
            metrics::gauge!("wasmeter_artifact_bytes").set(room.bytes() as f64);
            gone
        };
        gone.iter().try_for_each(|digest| self.delete(digest))
    }

    fn name(&self, digest: impl std::fmt::Display) -> String {
        format!("{digest}-{}.cwasm", self.compatibility)
    }

    fn tag(&self, name: &str, wasi: Wasi, bytes: impl Read) -> io::Result<blake3::Hash> {
        let name = format!("{name}{}", marker(wasi));
        let mut hash = blake3::Hasher::new_keyed(&self.key);
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update_reader(bytes)?;
        Ok(hash.finalize())
    }

    /// Keeps the compile child's output for the engine of this WASI. Blocking.
    ///
    /// # Errors
    /// The medium's.
    pub fn put(&self, digest: &Digest, wasi: Wasi, artifact: &[u8]) -> io::Result<()> {
        let name = self.name(digest);
        let tag = format!("{}{}", self.tag(&name, wasi, artifact)?.to_hex(), marker(wasi));
        // The tag last: a file without one is no artifact.
        self.write(&name, artifact)?;
        self.write(&format!("{name}{TAG}"), tag.as_bytes())?;
        self.fresh.lock().push(*digest);
        self.keep(*digest, artifact.len() as u64)
    }

    /// Hashes what was written since the last time, so that its first load need not. Blocking.
    pub(crate) fn settle(&self) {
        let fresh = std::mem::take(&mut *self.fresh.lock());
        for digest in fresh {
            // Whatever is wrong with it is told to who loads it.
            let _ = self.authentic(&digest);
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(bytes)?;
        file.persist(self.dir.join(name)).map_err(|e| e.error)?;
        Ok(())
    }

    /// Maps an artifact that this host made. Blocking, below a millisecond for a common function.
    ///
    /// # Errors
    /// `Missing` if there is none or it is not authentic.
    pub fn get(&self, digest: &Digest) -> Result<Compiled, ArtifactError> {
        let (file, wasi) = self.authentic(digest)?;
        self.room.lock().touch(digest);
        self.map(wasi, &file)
    }

    /// Its open file, which is hashed unless this process has hashed the very same content before.
    fn authentic(&self, digest: &Digest) -> Result<(File, Wasi), ArtifactError> {
        let name = self.name(digest);
        let missing = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => ArtifactError::Missing(*digest),
            _ => ArtifactError::Io(e),
        };
        let open = |name: &str| {
            let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
            File::options().read(true).custom_flags(flags).open(self.dir.join(name)).map_err(missing)
        };
        let file = open(&name)?;
        let known = self.room.lock().seen(digest);
        if let Some(known) = known
            && Seen::of(&file, known.wasi)? == Some(known)
        {
            return Ok((file, known.wasi));
        }
        let mut tag = String::new();
        let most = u64::try_from(HEX + THREE.len()).unwrap_or(u64::MAX);
        open(&format!("{name}{TAG}"))?.take(most).read_to_string(&mut tag)?;
        let (hex, marked) = tag.split_at_checked(HEX).ok_or(ArtifactError::Missing(*digest))?;
        let wasi = if marked == THREE { Wasi::Three } else { Wasi::Two };
        let expected = blake3::Hash::from_hex(hex).map_err(|_| ArtifactError::Missing(*digest))?;
        let before = Seen::of(&file, wasi)?;
        // Comparing two `blake3::Hash` takes constant time.
        if self.tag(&name, wasi, &file)? != expected {
            tracing::error!(%digest, "an artifact is not authentic and is made again: somebody else writes to the data directory");
            return Err(ArtifactError::Missing(*digest));
        }
        if before.is_some() && before == Seen::of(&file, wasi)? {
            self.room.lock().see(digest, before);
        }
        Ok((file, wasi))
    }

    #[allow(unsafe_code, reason = "wasmtime has no safe way to load an artifact")]
    fn map(&self, wasi: Wasi, file: &File) -> Result<Compiled, ArtifactError> {
        let engine = self.engines.of(wasi).map_err(|e| ArtifactError::Engine(e.to_string()))?;
        // The same open file that was hashed, not the path: the path could name another one by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // SAFETY: the bytes are the output of our own compile child for this engine's configuration (the tag covers
        // name, engine and content, the name the engines' compatibility), and only this user can write to the file.
        // Which of the two it is, the artifact itself says, and wasmtime checks it again.
        let compiled = match Engine::detect_precompiled_file(&path) {
            Ok(Some(Precompiled::Module)) => {
                unsafe { Module::deserialize_file(engine, path) }.map(Compiled::Module)
            }
            _ => unsafe { Component::deserialize_file(engine, path) }.map(Compiled::Component),
        };
        compiled.map_err(|e| ArtifactError::Engine(format!("{e:#}")))
    }

    /// Deletes an artifact; none is not an error.
    ///
    /// # Errors
    /// The medium's.
    pub fn forget(&self, digest: &Digest) -> io::Result<()> {
        self.room.lock().remove(digest);
        self.delete(digest)
    }

    fn delete(&self, digest: &Digest) -> io::Result<()> {
        let name = self.name(digest);
        for name in [format!("{name}{TAG}"), name] {
            match fs::remove_file(self.dir.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

fn marker(wasi: Wasi) -> &'static str {
    match wasi {
        Wasi::Two => "",
        Wasi::Three => THREE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::PoolOptions;

    #[test]
    fn tells_modules_from_components() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engines::new(PoolOptions { instances: 2, max_memory: 1 << 20 }).unwrap();
        let cache = ArtifactCache::open(dir.path(), [7; 32], &engine, u64::MAX).unwrap();
        let (module, digest) = (b"\0asm\x01\0\0\0", Digest::of(b"m"));
        cache
            .put(&digest, Wasi::Two, &compile_engine(Wasi::Two).unwrap().precompile_module(module).unwrap())
            .unwrap();
        assert!(matches!(cache.get(&digest), Ok(Compiled::Module(_))));
    }

    #[test]
    fn loads_its_own_output_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engines::new(PoolOptions { instances: 2, max_memory: 1 << 20 }).unwrap();
        let cache = ArtifactCache::open(dir.path(), [7; 32], &engine, u64::MAX).unwrap();
        let component = b"\0asm\x0d\0\x01\0";
        let digest = Digest::of(component);
        assert!(matches!(cache.get(&digest), Err(ArtifactError::Missing(_))));
        // The child's engine has no pool: what it makes must fit the host's all the same.
        let artifact = compile_engine(Wasi::Two).unwrap().precompile_component(component).unwrap();
        cache.put(&digest, Wasi::Two, &artifact).unwrap();
        cache.get(&digest).unwrap();

        let path = dir.path().join(cache.name(digest));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(cache.get(&digest), Err(ArtifactError::Missing(_))));
        let other = ArtifactCache::open(dir.path(), [8; 32], &engine, u64::MAX).unwrap();
        cache.put(&digest, Wasi::Two, &artifact).unwrap();
        assert!(matches!(other.get(&digest), Err(ArtifactError::Missing(_))));
        cache.forget(&digest).unwrap();
        assert!(matches!(cache.get(&digest), Err(ArtifactError::Missing(_))));
    }

    #[test]
    fn what_was_found_authentic_is_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engines::new(PoolOptions { instances: 2, max_memory: 1 << 20 }).unwrap();
        let cache = ArtifactCache::open(dir.path(), [7; 32], &engine, u64::MAX).unwrap();
        let (module, digest) = (b"\0asm\x01\0\0\0", Digest::of(b"m"));
        let artifact = compile_engine(Wasi::Two).unwrap().precompile_module(module).unwrap();
        cache.put(&digest, Wasi::Two, &artifact).unwrap();
        std::thread::sleep(TICK * 2);
        assert_eq!(cache.room.lock().seen(&digest), None);
        cache.settle();
        let seen = cache.room.lock().seen(&digest);
        assert!(seen.is_some());
        // Its tag is not read again.
        let path = dir.path().join(cache.name(digest));
        fs::remove_file(dir.path().join(cache.name(digest) + TAG)).unwrap();
        cache.get(&digest).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(cache.get(&digest), Err(ArtifactError::Missing(_))));
        cache.put(&digest, Wasi::Two, &artifact).unwrap();
        assert_eq!(cache.room.lock().seen(&digest), None, "another file, which was not looked at");
        cache.get(&digest).unwrap();
    }

    #[test]
    fn each_artifact_meets_the_engine_that_it_was_made_for() {
        let dir = tempfile::tempdir().unwrap();
        let engines = Engines::new(PoolOptions { instances: 2, max_memory: 1 << 20 }).unwrap();
        let cache = ArtifactCache::open(dir.path(), [7; 32], &engines, u64::MAX).unwrap();
        let component = b"\0asm\x0d\0\x01\0";
        let digest = Digest::of(component);
        let artifact = compile_engine(Wasi::Three).unwrap().precompile_component(component).unwrap();
        cache.put(&digest, Wasi::Three, &artifact).unwrap();
        let Ok(Compiled::Component(loaded)) = cache.get(&digest) else { panic!("it is a component") };
        assert!(wasmtime::Engine::same(loaded.engine(), engines.of(Wasi::Three).unwrap()));
        // The engine is what the tag says, and the tag cannot be changed.
        let tag = dir.path().join(cache.name(digest) + TAG);
        let text = fs::read_to_string(&tag).unwrap();
        fs::write(&tag, text.trim_end_matches(THREE)).unwrap();
        let cache = ArtifactCache::open(dir.path(), [7; 32], &engines, u64::MAX).unwrap();
        assert!(matches!(cache.get(&digest), Err(ArtifactError::Missing(_))));
        // A start finds what is there for either.
        fs::write(&tag, &text).unwrap();
        let cache = ArtifactCache::open(dir.path(), [7; 32], &engines, u64::MAX).unwrap();
        assert!(cache.get(&digest).is_ok());
    }

    #[test]
    fn a_start_deletes_what_others_made_and_what_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engines::new(PoolOptions { instances: 2, max_memory: 1 << 20 }).unwrap();
        let cache = ArtifactCache::open(dir.path(), [7; 32], &engine, u64::MAX).unwrap();
        let artifact = compile_engine(Wasi::Two).unwrap().precompile_module(b"\0asm\x01\0\0\0").unwrap();
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        cache.put(&old, Wasi::Two, &artifact).unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        let path = dir.path().join(cache.name(old));
        File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        cache.put(&new, Wasi::Two, &artifact).unwrap();
        let foreign = format!("{old}-0123456789abcdef.cwasm");
        for name in [foreign.as_str(), ".tmpABC", &cache.name(Digest::of(b"no tag"))] {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        let files = || fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files(), 7);
        let cache = ArtifactCache::open(dir.path(), [7; 32], &engine, u64::MAX).unwrap();
        assert_eq!(files(), 4);
        cache.get(&old).unwrap();
        let size = artifact.len() as u64;
        let cache = ArtifactCache::open(dir.path(), [7; 32], &engine, size * 3 / 2).unwrap();
        assert!(matches!(cache.get(&old), Err(ArtifactError::Missing(_))));
        cache.get(&new).unwrap();
        cache.retain(|digest| *digest != new).unwrap();
        assert_eq!(files(), 0);
    }
}
