//! How two processes share a ring of bytes and wake each other: the indices and the bell, without
//! any memory.
//!
//! It is generic over the words it works on, so that loom can try every interleaving of it (`model`
//! below).
//!
//! # The indices
//!
//! A ring has one writer, who alone stores `tail`, and one reader, who alone stores `head`. Both
//! count bytes and wrap modulo 2³². Bytes from `head` to `tail` belong to the reader, the others to
//! the writer; a store with release order hands bytes over, a load with acquire order takes them.
//! Each side keeps its own index to itself and believes the other's only if it can be: never more
//! than the capacity apart.
//!
//! Bytes are written first and published afterwards, by the one store of `tail`. So a writer that
//! dies in between has published nothing, and there is no half of a frame to be seen.
//!
//! # The bell
//!
//! Each process has one for a link. Who is about to sleep puts [`ASLEEP`] there, looks once more,
//! and sleeps as long as it finds that value. Who has published or released bytes looks at the bell
//! of the other, and only if a thread sleeps there it makes a system call. Between the store and
//! the look each side has a fence with sequentially consistent order: so at least one of them sees
//! what the other stored, and no wake-up is lost. Both store to the bell, and they only swap there,
//! which puts all its values in one order that all threads can follow. Source: Dekker's algorithm,
//! in Dijkstra, "Cooperating sequential processes", 1965; the use for sleeping as in Drepper,
//! "Futexes are tricky", 2011.

/// The bell's value while its owner is awake.
const AWAKE: u32 = 0;
/// The bell's value while its owner sleeps or is about to.
const ASLEEP: u32 = 1;

/// A word that two processes share.
pub(crate) trait Word {
    /// Loads with acquire order.
    fn load(&self) -> u32;
    /// Stores with release order.
    fn store(&self, value: u32);
    /// Swaps with acquire and release order.
    fn swap(&self, value: u32) -> u32;
    /// A fence with sequentially consistent order.
    fn fence();
    /// Sleeps if the word has this value, until it is woken. May return at any time.
    fn sleep_at(&self, value: u32);
    /// Wakes the thread that sleeps at this word.
    fn wake(&self);
}

/// The other side's index is one that it cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FalseIndex;

/// The writer's view of a ring.
#[derive(Debug)]
pub(crate) struct Writer {
    tail: u32,
    /// How many bytes were free when last looked.
    free: u32,
    capacity: u32,
}

impl Writer {
    /// Of an empty ring. The capacity is a power of two, of at most 2³¹.
    pub(crate) fn new(capacity: u32, start: u32) -> Self {
        Self {
            tail: start,
            free: capacity,
            capacity,
        }
    }

    /// Where the next byte goes.
    pub(crate) fn place(&self) -> usize {
        (self.tail & (self.capacity - 1)) as usize
    }

    /// How many bytes could be written when last looked.
    pub(crate) fn free(&self) -> usize {
        self.free as usize
    }

    /// How many bytes may be written.
    #[inline]
    pub(crate) fn look(&mut self, head: &impl Word) -> Result<usize, FalseIndex> {
        let used = self.tail.wrapping_sub(head.load());
        self.free = self.capacity.checked_sub(used).ok_or(FalseIndex)?;
        Ok(self.free())
    }

    /// Publishes bytes that have been written.
    ///
    /// # Panics
    /// If they are more than were free.
    #[inline]
    pub(crate) fn publish(&mut self, bytes: usize, tail: &impl Word) {
        let bytes = checked(bytes, self.free);
        self.free -= bytes;
        self.tail = self.tail.wrapping_add(bytes);
        tail.store(self.tail);
    }
}

/// The reader's view of a ring.
#[derive(Debug)]
pub(crate) struct Reader {
    head: u32,
    /// How many bytes were there when last looked.
    there: u32,
    capacity: u32,
}

impl Reader {
    /// Of an empty ring; as [`Writer::new`].
    pub(crate) fn new(capacity: u32, start: u32) -> Self {
        Self {
            head: start,
            there: 0,
            capacity,
        }
    }

    /// Where the next byte is.
    pub(crate) fn place(&self) -> usize {
        (self.head & (self.capacity - 1)) as usize
    }

    /// How many bytes were there when last looked.
    pub(crate) fn there(&self) -> usize {
        self.there as usize
    }

    /// How many bytes may be read.
    #[inline]
    pub(crate) fn look(&mut self, tail: &impl Word) -> Result<usize, FalseIndex> {
        let there = tail.load().wrapping_sub(self.head);
        if there > self.capacity {
            return Err(FalseIndex);
        }
        self.there = there;
        Ok(self.there())
    }

    /// Gives bytes back that have been read.
    ///
    /// # Panics
    /// If they are more than were there.
    #[inline]
    pub(crate) fn release(&mut self, bytes: usize, head: &impl Word) {
        let bytes = checked(bytes, self.there);
        self.there -= bytes;
        self.head = self.head.wrapping_add(bytes);
        head.store(self.head);
    }
}

/// An end that hands over more than it has would hand over what belongs to the other.
#[inline]
fn checked(bytes: usize, limit: u32) -> u32 {
    match u32::try_from(bytes) {
        Ok(bytes) if bytes <= limit => bytes,
        _ => panic!("{bytes} bytes of a ring handed over where {limit} were at hand"),
    }
}

/// Announces that the bell's owner is about to sleep. It looks once more after this, and then calls
/// [`sleep`] or [`stay_awake`].
pub(crate) fn lie_down<W: Word>(bell: &W) {
    bell.swap(ASLEEP);
    W::fence();
}

/// Sleeps until the peer rings.
pub(crate) fn sleep(bell: &impl Word) {
    bell.sleep_at(ASLEEP);
    bell.swap(AWAKE);
}

/// Takes the announcement back.
pub(crate) fn stay_awake(bell: &impl Word) {
    bell.swap(AWAKE);
}

/// Wakes the bell's owner if it sleeps. Whatever it shall see has been stored before.
#[inline]
pub(crate) fn ring<W: Word>(bell: &W) {
    W::fence();
    if bell.load() != AWAKE && bell.swap(AWAKE) != AWAKE {
        bell.wake();
    }
}

/// Wakes the bell's owner in any case: for a third party, on behalf of a peer that died and may
/// have left anything in the word.
pub(crate) fn sound<W: Word>(bell: &W) {
    W::fence();
    bell.swap(AWAKE);
    bell.wake();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const NEAR_THE_END: u32 = u32::MAX - 5;

    #[test]
    fn indices_wrap() {
        let (head, tail) = (AtomicU32::new(NEAR_THE_END), AtomicU32::new(NEAR_THE_END));
        let mut writer = Writer::new(16, NEAR_THE_END);
        let mut reader = Reader::new(16, NEAR_THE_END);
        let mut places = Vec::new();
        for _ in 0..4 {
            assert_eq!(writer.look(&head), Ok(16));
            assert_eq!(reader.look(&tail), Ok(0));
            writer.publish(10, &tail);
            assert_eq!(writer.look(&head), Ok(6));
            assert_eq!(reader.look(&tail), Ok(10));
            assert_eq!(reader.place(), (writer.place() + 6) % 16);
            places.push(reader.place());
            reader.release(10, &head);
        }
        assert_eq!(places, [10, 4, 14, 8]);
    }

    #[test]
    fn false_indices_are_refused() {
        let word = AtomicU32::new(NEAR_THE_END);
        let mut writer = Writer::new(16, NEAR_THE_END);
        let mut reader = Reader::new(16, NEAR_THE_END);
        for lie in [17, 1 << 20, 1 << 31, u32::MAX] {
            word.store(NEAR_THE_END.wrapping_add(lie), Ordering::Relaxed);
            assert_eq!(reader.look(&word), Err(FalseIndex), "{lie}");
            word.store(NEAR_THE_END.wrapping_sub(lie), Ordering::Relaxed);
            assert_eq!(writer.look(&word), Err(FalseIndex), "{lie}");
        }
        // What was known before still holds.
        assert_eq!(reader.there(), 0);
    }

    #[test]
    #[should_panic(expected = "handed over")]
    fn nobody_publishes_what_it_does_not_have() {
        Writer::new(16, 0).publish(17, &AtomicU32::new(0));
    }

    #[test]
    #[should_panic(expected = "handed over")]
    fn nobody_releases_what_is_not_there() {
        Reader::new(16, 0).release(1, &AtomicU32::new(0));
    }
}

/// All interleavings of a short conversation, with loom's words in place of shared memory:
/// `RUSTFLAGS="--cfg loom" cargo test -p maslite-mp --release --lib ring::protocol::model`.
#[cfg(all(test, loom))]
mod model {
    use loom::sync::atomic::{AtomicU32, Ordering, fence};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// A word with a queue of sleepers, as the system keeps one for a futex.
    struct Modelled {
        word: AtomicU32,
        queue: Mutex<()>,
        woken: Condvar,
    }

    impl Modelled {
        fn new(value: u32) -> Self {
            Self {
                word: AtomicU32::new(value),
                queue: Mutex::new(()),
                woken: Condvar::new(),
            }
        }
    }

    impl Word for Modelled {
        fn load(&self) -> u32 {
            self.word.load(Ordering::Acquire)
        }

        fn store(&self, value: u32) {
            self.word.store(value, Ordering::Release);
        }

        fn swap(&self, value: u32) -> u32 {
            self.word.swap(value, Ordering::AcqRel)
        }

        fn fence() {
            fence(Ordering::SeqCst);
        }

        fn sleep_at(&self, value: u32) {
            let queue = self.queue.lock().unwrap();
            if self.word.load(Ordering::Relaxed) == value {
                // It may return for nothing, and it may be the model's last hope: so it is not in a
                // loop.
                drop(self.woken.wait(queue).unwrap());
            }
        }

        fn wake(&self) {
            let _queue = self.queue.lock().unwrap();
            self.woken.notify_all();
        }
    }

    const CAPACITY: u32 = 4;
    const START: u32 = u32::MAX - 1;

    struct Shared {
        head: Modelled,
        tail: Modelled,
        writers_bell: Modelled,
        readers_bell: Modelled,
        bytes: [AtomicU32; CAPACITY as usize],
        died: AtomicU32,
    }

    fn shared() -> Arc<Shared> {
        Arc::new(Shared {
            head: Modelled::new(START),
            tail: Modelled::new(START),
            writers_bell: Modelled::new(AWAKE),
            readers_bell: Modelled::new(AWAKE),
            bytes: std::array::from_fn(|_| AtomicU32::new(0)),
            died: AtomicU32::new(0),
        })
    }

    /// Sleeps until `ready` holds. Loom itself finds a wake-up that is lost: a deadlock.
    fn wait(bell: &Modelled, mut ready: impl FnMut() -> bool) {
        while !ready() {
            lie_down(bell);
            if ready() {
                stay_awake(bell);
                return;
            }
            sleep(bell);
        }
    }

    /// Writes frames of these lengths, whose bytes are counted from 1.
    fn write(shared: &Shared, lengths: &[usize]) {
        let mut writer = Writer::new(CAPACITY, START);
        let mut next = 1;
        for length in lengths {
            wait(&shared.writers_bell, || {
                writer.look(&shared.head).unwrap() >= *length
            });
            for offset in 0..*length {
                let place = (writer.place() + offset) % CAPACITY as usize;
                shared.bytes[place].store(next, Ordering::Relaxed);
                next += 1;
            }
            writer.publish(*length, &shared.tail);
            ring(&shared.readers_bell);
        }
    }

    fn read(shared: &Shared, total: u32) {
        let mut reader = Reader::new(CAPACITY, START);
        let mut next = 1;
        while next <= total {
            wait(&shared.readers_bell, || {
                reader.look(&shared.tail).unwrap() > 0
            });
            let there = reader.there();
            for offset in 0..there {
                let place = (reader.place() + offset) % CAPACITY as usize;
                assert_eq!(shared.bytes[place].load(Ordering::Relaxed), next);
                next += 1;
            }
            reader.release(there, &shared.head);
            ring(&shared.writers_bell);
        }
    }

    fn explore(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        // Every interleaving with at most this number of switches at places where a thread could
        // have gone on.
        builder.preemption_bound = builder.preemption_bound.or(Some(4));
        builder.max_branches = 100_000;
        builder.check(model);
    }

    /// Three frames, of which the second wraps and the third waits for room.
    #[test]
    fn frames_arrive_whole_and_nobody_sleeps_for_ever() {
        explore(|| {
            let shared = shared();
            let theirs = Arc::clone(&shared);
            let writer = thread::spawn(move || write(&theirs, &[1, 3, 2]));
            read(&shared, 6);
            writer.join().unwrap();
        });
    }

    /// A round as main and a cluster have it: two rings, each side sleeps while the other works.
    #[test]
    fn a_question_is_answered() {
        explore(|| {
            let (there, back) = (shared(), shared());
            let (asked, answered) = (Arc::clone(&there), Arc::clone(&back));
            let cluster = thread::spawn(move || {
                read(&asked, 2);
                write(&answered, &[3]);
            });
            write(&there, &[2]);
            read(&back, 3);
            cluster.join().unwrap();
        });
    }

    /// A writer that dies before it publishes; the news of it comes from a third thread.
    #[test]
    fn a_death_is_seen_by_a_sleeper() {
        explore(|| {
            let shared = shared();
            let theirs = Arc::clone(&shared);
            let undertaker = thread::spawn(move || {
                theirs.died.store(1, Ordering::SeqCst);
                sound(&theirs.readers_bell);
            });
            let mut reader = Reader::new(CAPACITY, START);
            wait(&shared.readers_bell, || {
                shared.died.load(Ordering::SeqCst) == 1 || reader.look(&shared.tail).unwrap() > 0
            });
            undertaker.join().unwrap();
        });
    }
}
