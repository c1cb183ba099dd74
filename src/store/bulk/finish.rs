//! The end of a bulk load: partitions are sorted, written as files, ingested.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;

use hashpact_priority::let_others_at_times;
use rocksdb::{Options, SstFileWriter};

use super::file::{ingest, new_path, write_file};
use super::spill::{Partition, Slot, Spill, record_at, records};
use crate::error::{Result, StoreError};
use crate::families::{FILE_BYTES, Family};
use crate::store::{Inner, hold};

/// Neighbouring partitions of one family that become one file.
struct Group {
    family: Family,
    partitions: Vec<Partition>,
    bytes: usize,
}

/// A file that was written.
struct Written {
    family: Family,
    path: PathBuf,
}

/// Sorts, writes and ingests all records of a spill. References come before
/// signals, so that nothing is found whose reference is missing.
pub(crate) fn load(inner: &Inner, spill: Spill) -> Result<()> {
    let (partitions, file, path) = spill.into_parts();
    let groups = Mutex::new(group(partitions, inner.options.bulk_threads));
    let outcome = write_all(inner, &groups, file.as_ref());
    drop(file);
    // At the latest the next open removes it.
    let _ = std::fs::remove_file(path);
    let written = outcome?;
    for family in [Family::Refs, Family::Signals] {
        let of_family = written.iter().filter(|w| w.family == family);
        ingest(inner, family, of_family.map(|w| w.path.clone()).collect())?;
    }
    Ok(())
}

fn write_all(
    inner: &Inner,
    groups: &Mutex<VecDeque<Group>>,
    file: Option<&File>,
) -> Result<Vec<Written>> {
    let work = || -> Result<Vec<Written>> {
        let signals = Family::Signals.options(&inner.cache);
        let refs = Family::Refs.options(&inner.cache);
        let mut written = Vec::new();
        loop {
            let Some(group) = hold(groups).pop_front() else {
                return Ok(written);
            };
            let options = if group.family == Family::Signals {
                &signals
            } else {
                &refs
            };
            written.push(write_group(inner, options, group, file)?);
        }
    };
    std::thread::scope(|scope| {
        let threads = inner.options.bulk_threads.max(1);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut written = Vec::new();
        for worker in workers {
            let lost = StoreError::WorkerLost {
                what: "a bulk load",
            };
            written.append(&mut worker.join().map_err(|_| lost)??);
        }
        Ok(written)
    })
}

/// Puts neighbours together until they make a file; a few more files than threads
/// at least, so that all threads have work to the end.
fn group(partitions: Vec<(Slot, Partition)>, threads: usize) -> VecDeque<Group> {
    let total = partitions
        .iter()
        .map(|(_, p)| p.bytes())
        .fold(0, usize::saturating_add);
    let full = usize::try_from(FILE_BYTES).unwrap_or(usize::MAX);
    let target = (total / threads.max(1).saturating_mul(4)).clamp(4 << 20, full);
    let mut groups: VecDeque<Group> = VecDeque::new();
    for (slot, partition) in partitions {
        let bytes = partition.bytes();
        match groups.back_mut() {
            Some(group) if group.family == slot.family() && group.bytes < target => {
                group.bytes = group.bytes.saturating_add(bytes);
                group.partitions.push(partition);
            }
            Some(_) | None => groups.push_back(Group {
                family: slot.family(),
                partitions: vec![partition],
                bytes,
            }),
        }
    }
    groups
}

fn write_group(
    inner: &Inner,
    options: &Options,
    group: Group,
    file: Option<&File>,
) -> Result<Written> {
    let path = new_path(inner, group.family);
    write_file(options, &path, |writer| {
        for partition in group.partitions {
            let bytes = partition.read(file)?;
            write_sorted(writer, &bytes)?;
        }
        Ok(())
    })?;
    Ok(Written {
        family: group.family,
        path,
    })
}

/// Writes one partition in key order. Of records with one key the last one that
/// was put counts.
fn write_sorted(writer: &mut SstFileWriter<'_>, bytes: &[u8]) -> Result<()> {
    let damaged = || StoreError::corrupt("a spill cannot be read back");
    // The eight bytes after what the partition has in common decide nearly always.
    let skip = common_front(bytes);
    let mut order: Vec<(u64, u32)> = Vec::with_capacity(bytes.len() / 48);
    for (offset, key, _) in records(bytes) {
        let_others_at_times();
        let offset = u32::try_from(offset).map_err(|_| damaged())?;
        order.push((eight(key, skip), offset));
    }
    let key_of = |offset: u32| {
        usize::try_from(offset)
            .ok()
            .and_then(|offset| record_at(bytes, offset))
            .map(|(key, _)| key)
    };
    order.sort_unstable_by(|a, b| {
        let_others_at_times();
        a.0.cmp(&b.0)
            .then_with(|| key_of(a.1).cmp(&key_of(b.1)))
            .then_with(|| b.1.cmp(&a.1))
    });
    let mut last: Option<&[u8]> = None;
    for (_, offset) in order {
        let_others_at_times();
        let offset = usize::try_from(offset).map_err(|_| damaged())?;
        let (key, value) = record_at(bytes, offset).ok_or_else(damaged)?;
        if last == Some(key) {
            continue;
        }
        writer
            .put(key, value)
            .map_err(StoreError::engine("writing a file to ingest"))?;
        last = Some(key);
    }
    Ok(())
}

/// Bytes at the front of the first key that all keys share: kind or feed.
fn common_front(bytes: &[u8]) -> usize {
    let mut keys = records(bytes).map(|(_, key, _)| key);
    let Some(first) = keys.next() else {
        return 0;
    };
    keys.fold(first.len(), |common, key| {
        let same = first.iter().zip(key).take(common);
        same.take_while(|(a, b)| a == b).count()
    })
}

fn eight(key: &[u8], skip: usize) -> u64 {
    let mut front = [0; 8];
    for (to, from) in front.iter_mut().zip(key.iter().skip(skip)) {
        *to = *from;
    }
    u64::from_be_bytes(front)
}
