//! A disk that loses what was not flushed, fills up, or fails.
#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests too")]

mod support;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{Billing, Chaos, open, record, ship_all};
use wasmeter_metering::{Disk, Durability, RealDisk, Spool, SpoolError, SpoolOptions};
use wasmeter_usage::InvocationId;

const PAGE: usize = 4096;

/// Remembers what would be on the medium after a power cut.
#[derive(Debug, Default)]
struct Medium {
    maps: bool,
    state: Mutex<Kept>,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    /// Content by inode, as of the last flush.
    files: HashMap<u64, Vec<u8>>,
    names: HashMap<PathBuf, u64>,
}

impl Disk for Medium {
    fn reserve(&self, file: &File, bytes: u64) -> io::Result<bool> {
        Ok(self.maps && RealDisk.reserve(file, bytes)?)
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        RealDisk.write_at(file, bytes, at)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        let meta = file.metadata()?;
        let mut bytes = vec![0; usize::try_from(meta.len()).unwrap()];
        // It may be cut to its records meanwhile.
        let mut read = 0;
        while read < bytes.len() {
            match file.read_at(&mut bytes[read..], read as u64)? {
                0 => break,
                n => read += n,
            }
        }
        bytes.truncate(read);
        // A flush takes its time, and a cut may come in the middle of it: then nothing of it counts.
        std::thread::sleep(Duration::from_micros(300));
        self.state.lock().unwrap().files.insert(meta.ino(), bytes);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let entries = fs::read_dir(dir)?.flatten();
        let names = entries.map(|e| (PathBuf::from(e.file_name()), e.ino())).collect();
        self.state.lock().unwrap().names = names;
        Ok(())
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// The directory as a power cut leaves it: what was flushed, and of the rest any pages that happened to get there.
fn after_the_cut(kept: &Kept, live: &Path, to: &Path, seed: &mut u64) {
    for (name, inode) in &kept.names {
        let is_segment = name.extension().is_some_and(|e| e == "seg");
        if !is_segment {
            // The spool's small files are replaced with flushes of their own.
            let _ = fs::copy(live.join(name), to.join(name));
            continue;
        }
        let mut bytes = kept.files.get(inode).cloned().unwrap_or_default();
        let now = fs::read(live.join(name)).unwrap_or_default();
        for (page, after) in now.chunks(PAGE).enumerate() {
            if random(seed).is_multiple_of(3) && bytes.len() >= page * PAGE {
                let end = (page * PAGE + after.len()).max(bytes.len());
                bytes.resize(end, 0);
                bytes[page * PAGE..page * PAGE + after.len()].copy_from_slice(after);
            }
        }
        fs::write(to.join(name), bytes).unwrap();
    }
}

async fn cut_at_any_instant(maps: bool) {
    let dir = tempfile::tempdir().unwrap();
    let medium = Arc::new(Medium { maps, ..Medium::default() });
    let options = SpoolOptions {
        durability: Durability::Power,
        segment_bytes: 16 << 10,
        disk: medium.clone(),
        ..SpoolOptions::default()
    };
    let spool = Spool::open(dir.path(), options).unwrap();
    let released: Arc<Mutex<Vec<InvocationId>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (spool, released, stop) = (spool.clone(), released.clone(), stop.clone());
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let record = record(1);
                spool.append_durably(&record).await.unwrap();
                released.lock().unwrap().push(record.invocation);
            }
        });
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let mut last = 0;
    for cut in 0..60 {
        let until = Instant::now() + Duration::from_secs(30);
        while released.lock().unwrap().len() <= last {
            assert!(Instant::now() < until, "nothing is released");
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_micros(random(&mut seed) % 3000)).await;
        let after = tempfile::tempdir().unwrap();
        let promised: HashSet<_> = {
            // Whoever is released later waits for this lock, so that the medium is not ahead of the list.
            let released = released.lock().unwrap();
            let kept = medium.state.lock().unwrap().clone();
            after_the_cut(&kept, dir.path(), after.path(), &mut seed);
            last = released.len();
            released.iter().copied().collect()
        };
        let socket = after.path().join("s");
        let billing = Billing::start(&socket, Chaos::default());
        ship_all(&open(after.path()), &socket).await;
        let booked: HashSet<_> = billing.ledger.lock().unwrap().ids().into_iter().collect();
        let missing = promised.difference(&booked).count();
        assert_eq!(missing, 0, "cut {cut}: of {} released answers {missing} are not billed", promised.len());
    }
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    assert!(last > 100, "only {last} were released");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_instant_loses_no_released_answer() {
    cut_at_any_instant(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_where_the_segment_cannot_be_mapped() {
    cut_at_any_instant(false).await;
}

const GOOD: u8 = 0;
const FULL: u8 = 1;
const BAD: u8 = 2;
const SHORT: u8 = 3;
const NO_FLUSH: u8 = 4;

/// Fails on demand.
#[derive(Debug, Default)]
struct Faulty {
    maps: bool,
    fault: AtomicU8,
}

impl Faulty {
    fn error(&self) -> Option<io::Error> {
        match self.fault.load(Ordering::SeqCst) {
            FULL => Some(io::Error::from_raw_os_error(28)),
            BAD => Some(io::Error::from_raw_os_error(5)),
            _ => None,
        }
    }
}

impl Disk for Faulty {
    fn reserve(&self, file: &File, bytes: u64) -> io::Result<bool> {
        match self.error() {
            Some(error) if self.maps => Err(error),
            _ => Ok(self.maps && RealDisk.reserve(file, bytes)?),
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        match self.error() {
            Some(error) => Err(error),
            None if self.fault.load(Ordering::SeqCst) == SHORT => {
                RealDisk.write_at(file, &bytes[..bytes.len() / 2], at)
            }
            None => RealDisk.write_at(file, bytes, at),
        }
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        if self.fault.load(Ordering::SeqCst) == NO_FLUSH {
            return Err(io::Error::from_raw_os_error(5));
        }
        RealDisk.sync_file(file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

fn wait_until_accepting(spool: &Spool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !spool.accepting() {
        assert!(Instant::now() < until, "admission never comes back");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Appends through every fault; each record that was taken is booked once, and none that was not.
async fn faults(maps: bool) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty { maps, ..Faulty::default() });
    let options = SpoolOptions { segment_bytes: 4096, disk: disk.clone(), ..SpoolOptions::default() };
    let spool = Spool::open(dir.path(), options).unwrap();
    let mut taken = Vec::new();
    let append = |taken: &mut Vec<InvocationId>| {
        let record = record(1);
        let result = spool.append(&record);
        if result.is_ok() {
            taken.push(record.invocation);
        }
        result
    };
    for fault in [FULL, SHORT, BAD, FULL, BAD, SHORT] {
        for _ in 0..7 {
            append(&mut taken).unwrap();
        }
        disk.fault.store(fault, Ordering::SeqCst);
        let before = taken.len();
        let mut refused = 0;
        // A segment whose blocks are there goes on until it is full.
        while refused < 3 {
            match append(&mut taken) {
                Ok(_) => {}
                Err(SpoolError::Io { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(maps || taken.len() == before, "a write that failed was taken");
        assert!(!spool.accepting(), "new work is accepted on a disk that takes nothing");
        disk.fault.store(GOOD, Ordering::SeqCst);
        wait_until_accepting(&spool);
    }
    append(&mut taken).unwrap();
    drop(spool);
    let socket = dir.path().join("s");
    let billing = Billing::start(&socket, Chaos::default());
    ship_all(&open(dir.path()), &socket).await;
    assert_eq!(billing.ledger.lock().unwrap().booked, taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_a_failing_and_a_stingy_disk() {
    faults(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_under_a_mapped_segment() {
    faults(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_ends_promises_and_loses_nothing_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty { maps: true, ..Faulty::default() });
    let options =
        SpoolOptions { durability: Durability::Power, disk: disk.clone(), ..SpoolOptions::default() };
    let spool = Spool::open(dir.path(), options).unwrap();
    let (kept, withheld) = (record(1), record(2));
    spool.append_durably(&kept).await.unwrap();
    disk.fault.store(NO_FLUSH, Ordering::SeqCst);
    assert!(matches!(spool.append_durably(&withheld).await, Err(SpoolError::Failed(_))));
    disk.fault.store(GOOD, Ordering::SeqCst);
    // The kernel may have dropped the pages: a later flush that succeeds proves nothing.
    assert!(!spool.accepting());
    assert!(matches!(spool.append(&record(3)), Err(SpoolError::Failed(_))));
    drop(spool);
    let socket = dir.path().join("s");
    let billing = Billing::start(&socket, Chaos::default());
    ship_all(&open(dir.path()), &socket).await;
    assert_eq!(billing.ledger.lock().unwrap().booked, [kept.invocation, withheld.invocation]);
}
