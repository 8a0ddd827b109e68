//! Unit tests.

use super::*;

const PAGE: usize = 64 * 1024;

/// Both sides of a link whose rings have all their pages.
fn both() -> (Ends, Ends) {
    let (mut main, mut child) = pair(PAGE);
    main.producer.back(PAGE).expect("there is memory");
    child.producer.back(PAGE).expect("there is memory");
    (main, child)
}

#[test]
fn both_sides_see_whether_they_share_a_processor() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let stay_on = |processor| {
        let mut one = CpuSet::new();
        one.set(processor);
        sched_setaffinity(None, &one).expect("it is one of ours");
    };
    let allowed = sched_getaffinity(None).expect("of this thread");
    let mut ours = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
    let first = ours.next().expect("we run on one");
    stay_on(first);
    let (main, child) = both();
    assert!(
        !main.bells.compare_processors(),
        "the child has said nothing"
    );
    assert!(!child.bells.compare_processors());
    assert!(!main.bells.compare_processors());
    if let Some(second) = ours.next() {
        stay_on(second);
        assert!(child.bells.compare_processors());
        stay_on(first);
        assert!(main.bells.compare_processors());
    }
}

/// On a system that makes all pages at once there is nothing to see.
#[test]
fn a_ring_gets_its_pages_as_it_is_filled() {
    let capacity = 4 * STEP;
    let (mut main, file) = create(capacity).expect("memory can be shared");
    if !main.bells.region.grows {
        return;
    }
    let mut child = open(&file).expect("it can be mapped");
    let blocks = || rustix::fs::fstat(&file).expect("it is open").st_blocks;
    let before = blocks();
    assert!(main.producer.space().is_empty());
    for (written, expected) in [(1, STEP), (STEP, 2 * STEP), (2 * STEP, 4 * STEP)] {
        main.producer.back(written).expect("there is memory");
        let there = usize::try_from(blocks() - before).expect("more than before") * 512;
        assert_eq!(there, expected);
        main.producer.space()[..written].fill(7);
        main.producer.publish(written);
        assert_eq!(child.consumer.look(), Ok(written));
        assert!(child.consumer.bytes().iter().all(|byte| *byte == 7));
        child.consumer.release(written);
        assert_eq!(main.producer.look(), Ok(capacity));
    }
    assert_eq!(main.producer.space().len(), capacity, "past the end");
}

#[test]
fn bytes_cross_the_end_of_the_ring_in_one_slice() {
    let (mut main, mut child) = both();
    let frame: Vec<u8> = (0..=250).cycle().take(PAGE / 3 + 1).collect();
    for round in 0..10 {
        assert_eq!(main.producer.look(), Ok(PAGE));
        main.producer.space()[..frame.len()].copy_from_slice(&frame);
        main.producer.publish(frame.len());
        assert_eq!(child.consumer.look(), Ok(frame.len()), "round {round}");
        assert!(child.consumer.bytes() == frame, "round {round}");
        child.consumer.release(frame.len());
        std::mem::swap(&mut main, &mut child);
    }
}

#[test]
fn a_full_ring_has_no_space_and_an_empty_one_no_bytes() {
    let (mut main, mut child) = both();
    assert_eq!(child.consumer.look(), Ok(0));
    main.producer.space().fill(7);
    main.producer.publish(PAGE);
    assert_eq!(main.producer.look(), Ok(0));
    assert!(main.producer.space().is_empty());
    assert_eq!(child.consumer.look(), Ok(PAGE));
    child.consumer.release(PAGE);
    assert_eq!(main.producer.look(), Ok(PAGE));
}

#[test]
fn the_memory_cannot_be_taken_away() {
    let (_main, file) = create(PAGE).expect("memory can be shared");
    let error = rustix::fs::ftruncate(&file, 0).expect_err("it is sealed");
    assert_eq!(error, rustix::io::Errno::PERM);
}

#[test]
fn what_is_not_of_our_making_is_not_mapped() {
    let page = rustix::param::page_size();
    let right = Region::file_length(page, PAGE);
    let file = |length: usize, seals| {
        let file = rustix::fs::memfd_create("some", MemfdFlags::ALLOW_SEALING);
        let file = file.expect("memory can be shared");
        rustix::fs::ftruncate(&file, length as u64).expect("not sealed");
        rustix::fs::fcntl_add_seals(&file, seals).expect("it can be sealed");
        file
    };
    let seals = SealFlags::SHRINK;
    assert!(
        open(&file(right, SealFlags::empty())).is_err(),
        "it could shrink"
    );
    for length in [
        0,
        1,
        page,
        page + 1,
        page + 2,
        right - 1,
        right + 1,
        right + 2 * page,
    ] {
        assert!(open(&file(length, seals)).is_err(), "{length} bytes");
    }
    open(&file(right, seals)).expect("it is as it should be");
}
