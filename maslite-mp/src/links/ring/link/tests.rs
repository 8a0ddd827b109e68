use std::time::Duration;

use super::*;
use crate::links::ring::sys;

/// A page on every machine. Under Miri no page is needed, but the end of the ring is to be near.
const CAPACITY: usize = if cfg!(miri) { 256 } else { 64 * 1024 };

fn links() -> (RingLink, RingLink) {
    let (main, child) = sys::pair(CAPACITY);
    (
        RingLink::new(main, Wait::default()),
        RingLink::new(child, Wait::default()),
    )
}

/// Bytes that tell which message they are of, and where in it they belong.
fn message(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
#[cfg_attr(miri, ignore = "messages cross the end of the ring")]
fn messages_of_all_lengths_arrive_in_order() {
    let (mut main, mut child) = links();
    let lengths: Vec<usize> = [0, 1, 11, 12, 1000, CAPACITY / 2 - 12, CAPACITY - 12]
        .into_iter()
        .chain([CAPACITY - 11, CAPACITY, 3 * CAPACITY + 5, 10_000_000])
        .chain((0..2000).map(|n| n * 37 % 5000))
        .collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for (seed, length) in (0..).zip(&lengths) {
                main.say(&message(*length, seed))
                    .expect("the child is there");
            }
        });
        for (seed, length) in (0..).zip(&lengths) {
            let got = child.recv().expect("main is there");
            assert!(got == message(*length, seed), "message {seed} of {length}");
        }
    });
}

/// Both have more to say than the rings hold, before either listens.
#[test]
#[cfg_attr(miri, ignore = "messages cross the end of the ring")]
fn both_may_send_at_once() {
    let (mut main, mut child) = links();
    thread::scope(|scope| {
        for (link, mine, theirs) in [(&mut main, 1, 2), (&mut child, 2, 1)] {
            scope.spawn(move || {
                for round in 0..20 {
                    let length = round * 50_000;
                    link.say(&message(length, mine)).expect("the peer is there");
                    link.say(b"and").expect("the peer is there");
                }
                for round in 0..20 {
                    let expected = message(round * 50_000, theirs);
                    assert!(link.recv().expect("the peer is there") == expected);
                    assert_eq!(link.recv().expect("the peer is there"), b"and");
                }
            });
        }
    });
}

const ROUNDS: u32 = if cfg!(miri) { 40 } else { 5000 };

#[test]
fn exchanges_in_every_way_of_waiting() {
    let (micro, none) = (Duration::from_micros(20), Duration::ZERO);
    for (spin, yielding) in [(none, none), (micro, none), (none, micro), (micro, micro)] {
        let (mut main, mut child) = links();
        let wait = Wait {
            spin,
            yielding,
            ..Wait::default()
        };
        main.wait_as(wait);
        child.wait_as(wait);
        thread::scope(|scope| {
            scope.spawn(|| {
                while let Ok(question) = child.recv() {
                    let answer = question.to_vec();
                    child.say(&answer).expect("main is there");
                }
            });
            for number in 0..ROUNDS {
                main.say(&number.to_le_bytes()).expect("the child is there");
                let answer = main.recv().expect("the child is there");
                assert_eq!(answer, number.to_le_bytes());
            }
            drop(main);
        });
    }
}

/// It is written little by little, in its place as long as it fits there, while the ring is used
/// the other way.
#[test]
#[cfg_attr(miri, ignore = "messages cross the end of the ring")]
fn a_draft_is_kept_until_it_is_sent() {
    let (mut main, mut child) = links();
    for length in [10, CAPACITY / 2, CAPACITY, 3 * CAPACITY] {
        let text = message(length, 1);
        main.ends.producer.back(CAPACITY).expect("there is memory");
        for part in text.chunks(length / 4 + 1) {
            main.draft().expect("there is room").extend(part);
            child.say(b"and").expect("main is there");
            let (heard, mut answer) = main.recv_to_answer().expect("the child is there");
            assert_eq!(heard, b"and");
            answer.extend(part);
        }
        let in_place = main.draft_buffer.spilled().is_none();
        assert_eq!(in_place, 2 * length < CAPACITY, "twice {length} bytes");
        thread::scope(|scope| {
            scope.spawn(|| main.send().expect("the child is there"));
            let got = child.recv().expect("main is there");
            let expected = text.chunks(length / 4 + 1).flat_map(|part| [part, part]);
            assert!(got == expected.collect::<Vec<_>>().concat(), "{length}");
        });
    }
}

#[test]
#[cfg_attr(miri, ignore = "messages cross the end of the ring")]
fn a_draft_that_is_given_up_leaves_nothing() {
    let (mut main, mut child) = links();
    for length in [7, 2 * CAPACITY] {
        main.draft().expect("there is room").extend(&[7; 2]);
        let mut draft = main.draft().expect("there is room");
        draft.extend(&message(length, 3));
        draft.clear();
        draft.put("anew").expect("it encodes");
        assert!(main.draft_buffer.spilled().is_none(), "it fits again");
        main.send().expect("the child is there");
        assert_eq!(child.recv().expect("main is there"), b"\x04anew");
        main.draft().expect("there is room").extend(&[7; 2]);
        main.say(b"said").expect("the child is there");
        assert_eq!(child.recv().expect("main is there"), b"said");
    }
}

#[test]
fn last_words_are_heard() {
    let (mut main, mut child) = links();
    child.say(b"last").expect("main is there");
    child.say(b"words").expect("main is there");
    drop(child);
    assert_eq!(main.recv().expect("it was said"), b"last");
    assert_eq!(main.recv().expect("it was said"), b"words");
    assert!(matches!(main.recv(), Err(LinkError::Disconnected)));
    assert!(matches!(main.say(b"x"), Err(LinkError::Disconnected)));
}

#[test]
fn a_sleeping_process_learns_of_a_death() {
    for full in [false, true] {
        // The child's end is never dropped, as with a process that was killed.
        let (mut main, child) = links();
        let notice = main.death_notice();
        thread::scope(|scope| {
            let asleep = scope.spawn(move || {
                if full {
                    return main.say(&[7; 3 * CAPACITY]).err();
                }
                main.recv().err()
            });
            while child.ends.bells.peers().load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            notice.post();
            let error = asleep.join().expect("no panic");
            assert!(matches!(error, Some(LinkError::Disconnected)), "{error:?}");
        });
        drop(child);
    }
}

/// What main makes of bytes that a child with corrupt memory published.
fn refused(bytes: &[u8]) -> FrameFault {
    let (main, mut liar) = sys::pair(CAPACITY);
    let mut main = RingLink::new(main, Wait::default());
    liar.producer.look().expect("good indices");
    liar.producer.back(bytes.len()).expect("there is memory");
    liar.producer.space()[..bytes.len()].copy_from_slice(bytes);
    liar.producer.publish(bytes.len());
    let Err(LinkError::BadFrame {
        reason, received, ..
    }) = main.recv()
    else {
        panic!("not refused");
    };
    assert_eq!(received, 0);
    assert!(matches!(main.recv(), Err(LinkError::Disconnected)));
    assert!(matches!(main.say(b"x"), Err(LinkError::Disconnected)));
    reason
}

fn frame(length: u32, kind: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    for field in [length, kind, sequence] {
        frame.extend(field.to_le_bytes());
    }
    frame.extend(payload);
    frame
}

#[test]
#[cfg_attr(miri, ignore = "messages cross the end of the ring")]
fn malformed_frames_are_refused_by_number() {
    for (bytes, expected) in [
        (vec![1; HEADER - 1], FrameFault::TooShort),
        (frame(2, 0, 0, b"ab"), FrameFault::UnknownKind),
        (frame(2, 3, 0, b"ab"), FrameFault::UnknownKind),
        (frame(2, LAST, 1, b"ab"), FrameFault::OutOfOrder),
        (frame(3, LAST, 0, b"ab"), FrameFault::Torn),
        (frame(u32::MAX, LAST, 0, b"ab"), FrameFault::Torn),
        (frame(0, PART, 0, b""), FrameFault::EmptyPart),
    ] {
        assert_eq!(refused(&bytes), expected, "{bytes:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "messages cross the end of the ring")]
fn a_message_without_an_end_is_refused() {
    let (mut main, mut child) = links();
    main.message_limit = 100_000;
    let outcome = thread::scope(|scope| {
        scope.spawn(move || child.say(&[7; 1_000_000]));
        let outcome = main.recv().map(<[u8]>::len);
        drop(main);
        outcome
    });
    assert!(
        matches!(
            outcome,
            Err(LinkError::BadFrame {
                reason: FrameFault::MessageTooLarge,
                ..
            })
        ),
        "{outcome:?}"
    );
    let (mut main, _child) = links();
    main.message_limit = 10;
    let error = main.say(&[7; 11]).expect_err("over the limit");
    assert!(matches!(error, LinkError::TooLarge { length: 11, .. }));
}

/// A header and its fields at random: an answer each time, never a panic.
#[test]
#[cfg_attr(miri, ignore = "messages cross the end of the ring")]
fn no_header_makes_the_judge_panic() {
    let noise = message(200_000, 0x5EED);
    for bytes in noise.windows(16) {
        let near = frame(
            u32::from(bytes[0] % 8),
            u32::from(bytes[1] % 4),
            u32::from(bytes[2] % 2),
            &bytes[..usize::from(bytes[3] % 8)],
        );
        for bytes in [bytes, &near] {
            if let Ok(frame) = judge(bytes, 1) {
                assert!(frame.length <= bytes.len() - HEADER);
            }
        }
    }
}
