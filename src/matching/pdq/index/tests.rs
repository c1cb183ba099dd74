//! The index against brute force.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::{DistanceTooLarge, PdqIndex, search, tail};
use crate::pdq::bench::{Data, Reference, queries};
use crate::pdq::value::{Words, to_words};
use crate::pdq::{MAX_DISTANCE, distance};

fn found(index: &PdqIndex, query: &[u8; 32], max: u32) -> Vec<([u8; 32], u32)> {
    let mut found = Vec::new();
    index
        .query(query, max, |value, distance| found.push((*value, distance)))
        .unwrap();
    found.sort_unstable();
    found
}

#[test]
fn every_distance_answers_as_brute_force_on_every_kind_of_data() {
    for data in Data::ALL {
        for len in [0, 1, 500, 5_000, 20_000] {
            let values = data.values(len, 1);
            let index = PdqIndex::build(values.iter().copied(), 2);
            let reference = Reference::new(&values);
            for max in (0..=40).chain([43, 44, 50, MAX_DISTANCE]) {
                let asked = queries(
                    &values,
                    if len > 5_000 { 10 } else { 40 },
                    max,
                    u64::from(max),
                );
                reference.check(&index, &asked, max).unwrap();
            }
        }
    }
}

#[test]
fn layouts_of_large_sets_answer_as_brute_force() {
    for (data, len) in [
        (Data::Random, 200_000),
        (Data::Clustered, 200_000),
        (Data::EqualPrefix, 170_000),
    ] {
        let values = data.values(len, 2);
        let index = PdqIndex::build(values.iter().copied(), 2);
        let reference = Reference::new(&values);
        for max in [0, 1, 10, 11, 21, 22, 30, 31, 32, 36, 40, 43, 44] {
            reference
                .check(&index, &queries(&values, 36, max, 3), max)
                .unwrap();
        }
    }
}

#[test]
fn a_distance_beyond_the_bound_is_refused() {
    let refused = PdqIndex::new().query(&[0; 32], MAX_DISTANCE + 1, |_, _| {});
    assert_eq!(refused, Err(DistanceTooLarge { asked: 65 }));
}

#[test]
fn a_value_held_twice_is_told_once_and_stays_until_removed_twice() {
    let index = PdqIndex::new();
    let value = [7; 32];
    assert_eq!((index.insert(&value), index.insert(&value)), (1, 2));
    assert_eq!(found(&index, &value, 31), [(value, 0)]);
    assert_eq!(index.remove(&value), Some(1));
    assert!(index.contains(&value));
    assert_eq!(index.remove(&value), Some(0));
    assert_eq!(index.remove(&value), None);
    assert!(!index.contains(&value) && index.is_empty());
    assert_eq!(found(&index, &value, 31), []);
}

#[test]
fn counts_beyond_a_byte_are_exact() {
    let index = PdqIndex::new();
    let value = [9; 32];
    for n in 1..=300 {
        assert_eq!(index.insert(&value), n);
    }
    index.extend(Data::Random.values(5_000, 4), 1);
    index.compact(1);
    for left in (0..300).rev() {
        assert_eq!(index.remove(&value), Some(left));
    }
    assert!(!index.contains(&value));
}

#[test]
fn setting_a_count_twice_is_setting_it_once() {
    let index = PdqIndex::new();
    index.set(&[1; 32], 3);
    index.set(&[1; 32], 3);
    assert_eq!((index.len(), index.remove(&[1; 32])), (1, Some(2)));
    index.set(&[1; 32], 0);
    index.set(&[1; 32], 0);
    assert_eq!(index.len(), 0);
}

#[test]
fn a_value_removed_and_inserted_again_is_told_once_wherever_it_lay() {
    let values = Data::Random.values(10_000, 5);
    let index = PdqIndex::build(values.iter().copied(), 1);
    for value in values.iter().take(50) {
        for _ in 0..3 {
            index.remove(value).unwrap();
            assert_eq!(found(&index, value, 10), []);
            index.insert(value);
            assert_eq!(found(&index, value, 10), [(*value, 0)]);
        }
    }
    index.compact(1);
    assert_eq!((index.len(), index.stats().removed), (10_000, 0));
    assert_eq!(
        index.stats().values,
        index.state.load().segments[0].len() + 50
    );
}

#[test]
fn a_flood_of_look_alikes_is_scanned_and_answered() {
    let values = Data::EqualWords.values(30_000, 6);
    let index = PdqIndex::build(values.iter().copied(), 1);
    let asked: Vec<_> = values.iter().step_by(3_000).copied().collect();
    let reference = Reference::new(&values);
    for max in [0, 31, 40] {
        reference.check(&index, &asked, max).unwrap();
    }
    // Looked up they would be slower than a scan; what is spread out is looked up.
    assert_eq!(scanned(&index, &asked, 31), asked.len());
    let spread = Data::Random.values(30_000, 6);
    let index = PdqIndex::build(spread.iter().copied(), 1);
    let asked: Vec<_> = spread.iter().step_by(3_000).copied().collect();
    assert_eq!(scanned(&index, &asked, 31), 0);
}

/// For how many of these queries all values are compared.
fn scanned(index: &PdqIndex, asked: &[[u8; 32]], max: u32) -> usize {
    let state = index.state.load();
    let [segment] = &state.segments[..] else {
        panic!("one segment was built");
    };
    let asked: Vec<_> = asked.iter().map(to_words).collect();
    search::with_buffers(|buffers| {
        let scans =
            |queries: &[Words]| search::search(segment, queries, max, buffers, |_, _, _| ());
        asked.chunks(search::BATCH).map(scans).sum()
    })
}

#[test]
fn segments_stay_few_however_values_arrive() {
    let index = PdqIndex::new();
    let values = Data::Random.values(100_000, 7);
    for value in &values {
        index.insert(value);
        index.merge(1);
    }
    assert!(index.stats().segments <= 10, "{:?}", index.stats());
    assert_eq!(index.len(), values.len());
    Reference::new(&values)
        .check(&index, &queries(&values, 30, 31, 8), 31)
        .unwrap();
}

#[test]
fn removed_values_are_dropped_by_merges() {
    let values = Data::Random.values(6_000, 9);
    let index = PdqIndex::build(values.iter().copied(), 1);
    for value in &values[..3_100] {
        index.remove(value);
    }
    assert!(index.merge(1));
    assert_eq!(index.stats().removed, 0);
    for value in &values[3_100..] {
        index.remove(value);
    }
    index.compact(1);
    assert_eq!((index.stats().segments, index.len()), (0, 0));
}

#[test]
fn changes_while_a_merge_runs_are_carried_over() {
    let values = Data::Random.values(40_000, 10);
    let index = Arc::new(PdqIndex::build(values[..20_000].iter().copied(), 1));
    index.extend(values[20_000..39_000].iter().copied(), 1);
    let merging = std::thread::spawn({
        let index = Arc::clone(&index);
        move || (0..5).for_each(|_| _ = index.compact(1))
    });
    for (at, value) in values.iter().enumerate() {
        if at < 39_000 && at % 3 == 0 {
            assert_eq!(index.remove(value), Some(0));
        }
        if at % 3 == 1 {
            index.insert(value);
        }
        if at % 6 == 0 && at < 39_000 {
            assert_eq!(index.insert(value), 1);
        }
    }
    merging.join().unwrap();
    index.compact(1);
    let live = |at: &usize| match at % 6 {
        3 => *at >= 39_000 && at % 3 == 1,
        0 | 2 | 5 => *at < 39_000,
        _ => true,
    };
    let expected: Vec<_> = (0..40_000).filter(live).map(|at| values[at]).collect();
    assert_eq!(index.len(), expected.len());
    for (at, value) in values.iter().enumerate() {
        assert_eq!(index.contains(value), live(&at), "{at}");
    }
    Reference::new(&expected)
        .check(&index, &queries(&values, 400, 31, 11), 31)
        .unwrap();
}

#[test]
fn changes_while_a_load_runs_are_carried_over_and_told_once() {
    let values = Data::Random.values(40_000, 17);
    let index = Arc::new(PdqIndex::build(values[..20_000].iter().copied(), 1));
    // A third of the load is held before, and what is removed or inserted meanwhile is in it too.
    let loading = std::thread::spawn({
        let (index, load) = (Arc::clone(&index), values[10_000..].to_vec());
        move || index.load(load, 1)
    });
    let mut counts = vec![0_u64; values.len()];
    for (at, value) in values.iter().enumerate() {
        if at % 3 == 0 && at < 10_000 {
            assert_eq!(index.remove(value), Some(0));
            counts[at] = u64::MAX;
        }
        if at % 3 == 1 {
            index.insert(value);
            counts[at] = 1;
        }
        if at % 1_000 == 0 {
            let told = found(&index, &values[at + 1], 0);
            assert!(told.len() <= 1, "{at}");
        }
    }
    loading.join().unwrap();
    for (at, value) in values.iter().enumerate() {
        let before = u64::from(at < 20_000);
        let loaded = u64::from(at >= 10_000);
        let expected = counts[at].wrapping_add(before).wrapping_add(loaded);
        assert_eq!(index.contains(value), expected > 0, "{at}");
        for left in (0..expected).rev() {
            assert_eq!(index.remove(value), Some(left), "{at}");
        }
        assert_eq!(index.remove(value), None);
    }
    assert!(index.is_empty());
}

#[test]
fn a_load_adds_no_segment_to_look_in() {
    let values = Data::Random.values(60_000, 18);
    let index = PdqIndex::build(values[..20_000].iter().copied(), 1);
    for load in values[20_000..].chunks(10_000) {
        index.load(load.iter().copied(), 1);
        assert!(!index.merge(1), "nothing is left to merge");
    }
    Reference::new(&values)
        .check(&index, &queries(&values, 40, 31, 19), 31)
        .unwrap();
    assert_eq!(index.len(), values.len());
    // What is held often is counted, however it came.
    index.load(std::iter::repeat_n(values[0], 299), 1);
    assert_eq!(index.remove(&values[0]), Some(299));
    index.load(std::iter::repeat_n([9; 32], 300), 1);
    assert_eq!(index.remove(&[9; 32]), Some(299));
}

#[test]
fn readers_see_what_stays_while_writers_and_merges_run() {
    let stays = Data::Clustered.values(5_000, 12);
    let comes = Data::Random.values(8_000, 13);
    let index = Arc::new(PdqIndex::build(stays.iter().copied(), 1));
    let reference = Reference::new(&stays);
    let over = Arc::new(AtomicBool::new(false));
    let spawn = |work: Box<dyn Fn(&PdqIndex) + Send>| {
        let (index, over) = (Arc::clone(&index), Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                work(&index);
            }
        })
    };
    let writer = spawn(Box::new(move |index| {
        for value in &comes {
            index.insert(value);
        }
        for value in &comes {
            index.remove(value);
        }
    }));
    let merger = spawn(Box::new(|index| _ = index.merge(1)));
    for round in 0..20 {
        // Values that come and go are random: none is near a family's member.
        reference
            .check(&index, &queries(&stays, 40, 31, round), 31)
            .unwrap();
    }
    over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    merger.join().unwrap();
}

#[test]
fn a_query_within_a_visit_of_a_query_is_answered() {
    let values = Data::Clustered.values(4_000, 14);
    let index = PdqIndex::build(values.iter().copied(), 1);
    let expected = found(&index, &values[1], 20);
    let mut inner = Vec::new();
    index
        .query(&values[0], 0, |_, _| inner = found(&index, &values[1], 20))
        .unwrap();
    assert_eq!(inner, expected);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize),
    Remove(usize),
    Extend(usize, usize),
    Load(usize, usize),
    Merge,
    Compact,
    Query(usize, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = 0..3_000_usize;
    let step = prop_oneof![
        6 => value.clone().prop_map(Step::Insert),
        4 => value.clone().prop_map(Step::Remove),
        2 => (value.clone(), 1..2_500_usize).prop_map(|(at, len)| Step::Extend(at, len)),
        2 => (0..3_000_usize, 1..2_500_usize).prop_map(|(at, len)| Step::Load(at, len)),
        1 => Just(Step::Merge),
        1 => Just(Step::Compact),
        4 => (value, 0..=40_u32).prop_map(|(at, max)| Step::Query(at, max)),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_order_of_changes_answers_as_a_map(kind in 0..4_usize, steps in steps()) {
        let pool = Data::ALL[kind].values(3_000, 15);
        let index = PdqIndex::new();
        let mut model: HashMap<[u8; 32], u64> = HashMap::new();
        for step in steps {
            match step {
                Step::Insert(at) => {
                    let count = model.entry(pool[at]).or_default();
                    *count += 1;
                    prop_assert_eq!(index.insert(&pool[at]), *count);
                }
                Step::Remove(at) => {
                    let left = model.get(&pool[at]).map(|count| count - 1);
                    prop_assert_eq!(index.remove(&pool[at]), left);
                    match left {
                        Some(0) => _ = model.remove(&pool[at]),
                        Some(left) => _ = model.insert(pool[at], left),
                        None => {}
                    }
                }
                Step::Extend(at, len) => {
                    let values = &pool[at..(at + len).min(pool.len())];
                    index.extend(values.iter().copied(), 1);
                    for value in values {
 *model.entry(*value).or_default() += 1;
}
                }
                Step::Load(at, len) => {
                    let values = &pool[at..(at + len).min(pool.len())];
                    index.load(values.iter().chain(&values[..1]).copied(), 1);
                    for value in values.iter().chain(&values[..1]) {
                        *model.entry(*value).or_default() += 1;
                    }
                }
                Step::Merge => _ = index.merge(1),
                Step::Compact => _ = index.compact(2),
                Step::Query(at, max) => {
                    let mut expected: Vec<_> = model.keys().map(|value| (*value, distance(value, &pool[at]))).collect();
                    expected.retain(|(_, distance)| *distance <= max);
                    expected.sort_unstable();
                    prop_assert_eq!(found(&index, &pool[at], max), expected);
                }
            }
            prop_assert_eq!(index.len(), model.len());
        }
    }
}

#[test]
fn a_full_tail_becomes_a_segment() {
    let index = PdqIndex::new();
    let values = Data::Random.values(tail::CAPACITY + 1, 16);
    for value in &values {
        index.insert(value);
    }
    assert_eq!((index.stats().segments, index.stats().tail), (1, 1));
    assert!(values.iter().all(|value| index.contains(value)));
}
