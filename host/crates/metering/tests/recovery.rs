//! What an opening makes of segments that a crash, a power cut or a bad disk left.
#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests too")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Billing, Chaos, open, record, ship_all};
use wasmeter_metering::{Spool, SpoolError, SpoolOptions};
use wasmeter_usage::InvocationId;

/// A spool with these many records in one segment; its bytes, name, and where each frame ends.
fn one_segment(records: u64) -> (String, Vec<u8>, Vec<usize>, Vec<InvocationId>) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), SpoolOptions::default()).unwrap();
    let mut ids = Vec::new();
    let mut ends = vec![128];
    for n in 0..records {
        let record = record(n);
        ids.push(record.invocation);
        spool.append(&record).unwrap();
        ends.push(usize::try_from(spool.bytes()).unwrap());
    }
    drop(spool);
    let path = segments(dir.path(), "seg").pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), *ends.last().unwrap());
    (path.file_name().unwrap().to_str().unwrap().to_owned(), bytes, ends, ids)
}

fn segments(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == extension));
    paths.sort();
    paths
}

#[test]
fn a_torn_tail_at_every_byte_loses_only_the_torn_record() {
    let (name, bytes, ends, _) = one_segment(3);
    let dir = tempfile::tempdir().unwrap();
    for cut in ends[2]..=ends[3] {
        fs::write(dir.path().join(&name), &bytes[..cut]).unwrap();
        let spool = open(dir.path());
        assert_eq!(spool.unshipped(), if cut == ends[3] { 3 } else { 2 }, "cut at {cut}");
        drop(spool);
        for path in segments(dir.path(), "seg") {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(segments(dir.path(), "damaged").is_empty());
}

#[test]
fn zeros_and_garbage_after_the_last_record_are_a_torn_tail() {
    let (name, bytes, ..) = one_segment(3);
    for tail in [vec![0; 4096], vec![0xff; 100], b"{\"v\":1,".to_vec(), bytes[128..140].to_vec()] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(&name), [bytes.clone(), tail].concat()).unwrap();
        assert_eq!(open(dir.path()).unshipped(), 3);
        assert!(segments(dir.path(), "damaged").is_empty());
    }
}

#[test]
fn a_file_without_a_whole_header_held_no_record() {
    let (name, bytes, ..) = one_segment(1);
    for cut in [0, 1, 127] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(&name), &bytes[..cut]).unwrap();
        assert_eq!(open(dir.path()).unshipped(), 0);
        assert!(!dir.path().join(&name).exists());
    }
}

#[tokio::test]
async fn damage_in_the_middle_ships_what_is_before_it_and_keeps_the_file() {
    let (name, bytes, ends, ids) = one_segment(4);
    // In the length, the checksum and the JSON of the third record.
    for at in [ends[2], ends[2] + 5, ends[2] + 30] {
        let dir = tempfile::tempdir().unwrap();
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        fs::write(dir.path().join(&name), &bad).unwrap();
        let socket = dir.path().join("s");
        let billing = Billing::start(&socket, Chaos::default());
        let spool = open(dir.path());
        let later = record(9);
        spool.append(&later).unwrap();
        ship_all(&spool, &socket).await;
        assert_eq!(billing.ledger.lock().unwrap().booked, [ids[0], ids[1], later.invocation]);
        let kept = dir.path().join(format!("{name}.damaged"));
        assert_eq!(fs::read(kept).unwrap(), bad);
        assert_eq!(spool.unshipped(), 0);
    }
}

#[tokio::test]
async fn a_lost_segment_keeps_those_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let ids: Vec<_> = (0..60).map(record).collect();
    for record in &ids {
        spool.append(record).unwrap();
    }
    drop(spool);
    let paths = segments(dir.path(), "seg");
    assert!(paths.len() > 3);
    fs::remove_file(&paths[1]).unwrap();
    let socket = dir.path().join("s");
    let billing = Billing::start(&socket, Chaos::default());
    let spool = open(dir.path());
    ship_all(&spool, &socket).await;
    let booked = billing.ledger.lock().unwrap().booked.clone();
    assert!(!booked.is_empty() && booked.len() < 60);
    assert!(booked.iter().zip(&ids).all(|(b, r)| *b == r.invocation));
    assert_eq!(segments(dir.path(), "damaged").len(), paths.len() - 2);
}

#[test]
fn a_header_of_another_version_is_kept() {
    let (name, mut bytes, ..) = one_segment(2);
    bytes[8] = 2;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(&name), &bytes).unwrap();
    assert_eq!(open(dir.path()).unshipped(), 0);
    assert_eq!(segments(dir.path(), "damaged").len(), 1);
}

#[test]
fn full_is_said_at_admission_before_it_is_met() {
    let dir = tempfile::tempdir().unwrap();
    let options = SpoolOptions { max_bytes: 64 << 10, segment_bytes: 8 << 10, ..SpoolOptions::default() };
    let spool = Spool::open(dir.path(), options).unwrap();
    let mut refused_at = None;
    let full_at = loop {
        if !spool.accepting() {
            refused_at.get_or_insert(spool.last_seq());
        }
        match spool.append(&record(1)) {
            Ok(_) => {}
            Err(SpoolError::Full { .. }) => break spool.last_seq(),
            Err(e) => panic!("{e}"),
        }
    };
    assert!(refused_at.unwrap() + 10 < full_at, "{refused_at:?} {full_at}");
    assert!(spool.bytes() <= 64 << 10);
}

#[test]
fn a_record_that_no_frame_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let mut large = record(1);
    large.tenant = "x".repeat(2 << 20);
    assert!(matches!(spool.append(&large), Err(SpoolError::TooLarge { .. })));
    assert_eq!(spool.append(&record(1)).unwrap(), 1);
}

#[test]
fn one_opener_at_a_time_and_a_new_epoch_each() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    assert!(matches!(support::try_open(dir.path()), Err(SpoolError::InUse(_))));
    let (node, epoch) = (spool.node().to_owned(), spool.epoch());
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(spool.node(), node);
    assert!(spool.epoch() > epoch);
}
