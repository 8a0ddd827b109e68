//! Memory that two processes share, as two rings of bytes: unsafe code behind a face that is safe.
//!
//! ```text
//! file:     │ words │ ring 0 │ ring 1 │
//! mapping:  │ words │ ring 0 │ ring 0 │ ring 1 │ ring 1 │
//! ```
//!
//! Each ring is mapped twice in a row, so any run of its bytes up to its capacity is one slice,
//! wherever it begins: messages are encoded and decoded in place. Main writes ring 0 and the child
//! ring 1.
//!
//! The file has no name (memfd) and is sealed against shrinking, so no process can cut it short,
//! which would end a process that touches it with SIGBUS. Seals do not keep a process that has the
//! file from punching holes into it: the pages then read as zeros.
//!
//! A ring gets its pages as it is filled for the first time: making all of them would take a good
//! part of a child's start. The writer asks the system for them before it writes, so a lack of
//! memory is an error, and never SIGBUS. A system that cannot be asked (Linux before 5.14) makes
//! all at once.
//!
//! # What is safe against what
//!
//! All that a peer can store into the words is checked or harmless: an index that cannot be is an
//! error, any other keeps us within our mapping. The bytes of a message are lent as a slice while
//! they belong to us, and a peer that keeps to the protocol does not touch them then. Peers are the
//! same program from the same build; one whose memory is corrupt may write anywhere, also there,
//! and then a message may change while it is decoded. No process can keep another from that which
//! shares memory with it; who does not want to share any takes the channel.

use std::fmt;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};
use rustix::thread::futex;

use super::protocol::{FalseIndex, Reader, Word, Writer};

/// A word with its cache lines to itself; two of them, since processors fetch lines in pairs.
#[derive(Debug)]
#[repr(C, align(128))]
struct Line(AtomicU32);

/// The indices of a ring.
#[derive(Debug)]
#[repr(C)]
struct Indices {
    tail: Line,
    head: Line,
}

/// What a process tells the other of how it waits.
#[derive(Debug)]
#[repr(C, align(128))]
struct WaitState {
    bell: AtomicU32,
    /// The processor it was last on, plus one; zero if it has not said.
    processor: AtomicU32,
}

/// What a process tells the other about itself.
#[derive(Debug)]
#[repr(C)]
struct Presence {
    wait_state: WaitState,
    /// Not zero once it has closed its end.
    closed: Line,
}

/// All words of a link.
#[derive(Debug)]
#[repr(C)]
struct Words {
    rings: [Indices; 2],
    sides: [Presence; 2],
}

impl Word for AtomicU32 {
    #[inline]
    fn load(&self) -> u32 {
        self.load(Ordering::Acquire)
    }

    #[inline]
    fn store(&self, value: u32) {
        self.store(value, Ordering::Release);
    }

    #[inline]
    fn swap(&self, value: u32) -> u32 {
        self.swap(value, Ordering::AcqRel)
    }

    #[inline]
    fn fence() {
        fence(Ordering::SeqCst);
    }

    fn sleep_at(&self, value: u32) {
        // Not private to this process. Whatever it returns, the caller looks for itself.
        let _ = futex::wait(self, futex::Flags::empty(), value, None);
    }

    fn wake(&self) {
        let _ = futex::wake(self, futex::Flags::empty(), u32::MAX >> 1);
    }
}

/// Which of the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Main = 0,
    Child = 1,
}

impl Side {
    fn peer(self) -> Self {
        match self {
            Self::Main => Self::Child,
            Self::Child => Self::Main,
        }
    }
}

/// The mapping.
struct Region {
    base: NonNull<u8>,
    page: usize,
    capacity: usize,
    /// The rings get their pages little by little.
    grows: bool,
    /// What it lies in, under Miri; held only so that it is there.
    #[cfg(miri)]
    _heap: Arc<heap::Heap>,
}

/// Bytes of a ring that get their pages at a time.
const STEP: usize = 64 * 1024;

// SAFETY: the mapping belongs to no thread. What `Region` itself gives out by shared reference are
// atomics; bytes are reached through `Producer` and `Consumer` alone, of which there is one each
// for a mapping.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl Region {
    fn file_length(page: usize, capacity: usize) -> usize {
        page + 2 * capacity
    }

    fn mapped_length(&self) -> usize {
        self.page + 4 * self.capacity
    }

    /// Maps a file that is sealed against shrinking. Its length tells the capacity.
    fn map(file: &impl AsFd) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let status = rustix::fs::fstat(file)?;
        let length = usize::try_from(status.st_size).unwrap_or(0);
        let capacity = length.saturating_sub(page) / 2;
        let fits = capacity.is_power_of_two()
            && capacity.is_multiple_of(page)
            && capacity <= 1 << 30
            && size_of::<Words>() <= page;
        let sealed = rustix::fs::fcntl_get_seals(file)?.contains(SealFlags::SHRINK);
        if !fits || !sealed || length != Self::file_length(page, capacity) {
            return Err(io::Error::other("the shared memory is not as it should be"));
        }
        let length = page + 4 * capacity;
        // SAFETY: a new mapping at a place that the system chooses; nothing can be there.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let base = NonNull::new(base.cast::<u8>())
            .ok_or_else(|| io::Error::other("mapped to address zero"))?;
        // From here on dropping it unmaps all.
        let mut region = Self {
            base,
            page,
            capacity,
            grows: true,
            #[cfg(miri)]
            _heap: Arc::new(heap::Heap::new(page, 1)),
        };
        let parts = [
            (0, page, 0),
            (page, capacity, page),
            (page + capacity, capacity, page),
            (page + 2 * capacity, capacity, page + capacity),
            (page + 3 * capacity, capacity, page + capacity),
        ];
        for (place, length, offset) in parts {
            // SAFETY: `place + length` is within the mapping just made, which no other code has
            // seen and which this replaces piece by piece. The file is long enough and stays so,
            // since it is sealed.
            unsafe {
                rustix::mm::mmap(
                    base.as_ptr().add(place).cast(),
                    length,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED | MapFlags::FIXED,
                    file,
                    offset as u64,
                )?;
            }
        }
        match region.populate(0, page) {
            Err(Errno::INVAL) => region.grows = false,
            done => done?,
        }
        Ok(region)
    }

    /// Makes the pages of a part of the mapping, if they are not there.
    fn populate(&self, place: usize, length: usize) -> rustix::io::Result<()> {
        assert!(place + length <= self.mapped_length(), "within the mapping");
        // SAFETY: within our mapping, of which it changes no byte.
        unsafe {
            let place = self.base.as_ptr().add(place).cast();
            rustix::mm::madvise(place, length, Advice::LinuxPopulateWrite)
        }
    }

    fn words(&self) -> &Words {
        // SAFETY: the mapping begins with a page that is at least as long as `Words`, aligned to
        // it, filled with zeros or what was stored since, and never reached in another way. All of
        // `Words` is atomics, for which every bit pattern is valid and which others may store to at
        // any time.
        unsafe { self.base.cast::<Words>().as_ref() }
    }

    /// Where in the mapping a ring begins.
    fn place_of(&self, ring: Side) -> usize {
        self.page + 2 * (ring as usize) * self.capacity
    }

    /// Where a ring's first byte is mapped, and `capacity` further on again.
    fn ring(&self, ring: Side) -> *mut u8 {
        // SAFETY: within the mapping, by its layout.
        unsafe { self.base.as_ptr().add(self.place_of(ring)) }
    }
}

#[cfg(not(miri))]
impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the last owner of the region is dropped, and slices of it are
        // bound to its owners.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped_length()) };
    }
}

/// The writing end of the ring to the peer.
#[derive(Debug)]
pub(crate) struct Producer {
    region: Arc<Region>,
    side: Side,
    writer: Writer,
    /// How many of the ring's bytes have their pages. As long as not all have, what is written next
    /// is among those that have.
    backed: usize,
}

impl Producer {
    /// Looks how many bytes may be written.
    #[inline]
    pub(crate) fn look(&mut self) -> Result<usize, FalseIndex> {
        let indices = &self.region.words().rings[self.side as usize];
        self.writer.look(&indices.head.0)
    }

    /// How many bytes could be written when last looked.
    #[inline]
    pub(crate) fn free(&self) -> usize {
        self.writer.free()
    }

    /// Sees to it that the next `bytes` bytes have their pages, whether they are free or not.
    ///
    /// # Errors
    /// When there is no memory.
    #[inline]
    pub(crate) fn back(&mut self, bytes: usize) -> io::Result<()> {
        let capacity = self.region.capacity;
        let needed = (self.writer.place() + bytes).min(capacity);
        if self.backed >= needed {
            return Ok(());
        }
        let backed = needed.next_multiple_of(STEP).min(capacity);
        let place = self.region.place_of(self.side) + self.backed;
        self.region.populate(place, backed - self.backed)?;
        self.backed = backed;
        Ok(())
    }

    /// The bytes that could be written when last looked and have their pages, all of them in one
    /// slice.
    #[inline]
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let mut free = self.writer.free();
        if self.backed < self.region.capacity {
            free = free.min(self.backed - self.writer.place());
        }
        // SAFETY: `place` is below the capacity and `free` not above it, so the slice lies within
        // the two mappings of the ring and holds no byte of it twice. The bytes are ours until
        // published: the reader believes only `tail`, which this producer alone stores. There is
        // one producer for this ring in this mapping, and it is borrowed mutably.
        unsafe {
            let place = self.region.ring(self.side).add(self.writer.place());
            slice::from_raw_parts_mut(place, free)
        }
    }

    /// Publishes the first bytes of the space.
    ///
    /// # Panics
    /// If they are more than that.
    #[inline]
    pub(crate) fn publish(&mut self, bytes: usize) {
        let indices = &self.region.words().rings[self.side as usize];
        self.writer.publish(bytes, &indices.tail.0);
    }
}

/// The reading end of the ring from the peer.
#[derive(Debug)]
pub(crate) struct Consumer {
    region: Arc<Region>,
    /// Who writes.
    peer: Side,
    reader: Reader,
}

impl Consumer {
    /// Looks how many bytes there are.
    #[inline]
    pub(crate) fn look(&mut self) -> Result<usize, FalseIndex> {
        let indices = &self.region.words().rings[self.peer as usize];
        self.reader.look(&indices.tail.0)
    }

    /// The bytes there were when last looked, all of them in one slice.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: bounds as in `Producer::space`. The bytes are ours until released, which needs
        // this consumer mutably; a peer that keeps to the protocol writes only to others (the
        // module's documentation says what follows if it does not).
        unsafe {
            let place = self.region.ring(self.peer).add(self.reader.place());
            slice::from_raw_parts(place, self.reader.there())
        }
    }

    /// Gives the first bytes back to the writer.
    ///
    /// # Panics
    /// If they are more than there are.
    #[inline]
    pub(crate) fn release(&mut self, bytes: usize) {
        let indices = &self.region.words().rings[self.peer as usize];
        self.reader.release(bytes, &indices.head.0);
    }
}

/// The processor we are on, plus one; zero where it cannot be told.
fn processor() -> u32 {
    if cfg!(miri) {
        return 0;
    }
    u32::try_from(rustix::thread::sched_getcpu()).map_or(0, |processor| processor.wrapping_add(1))
}

/// The words by which the two processes wake each other.
#[derive(Clone, Debug)]
pub(crate) struct Bells {
    region: Arc<Region>,
    side: Side,
}

impl Bells {
    /// At which we sleep.
    #[inline]
    pub(crate) fn own(&self) -> &AtomicU32 {
        &self.wait_state_of(self.side).bell
    }

    /// At which the peer sleeps.
    #[inline]
    pub(crate) fn peers(&self) -> &AtomicU32 {
        &self.wait_state_of(self.side.peer()).bell
    }

    /// Tells the peer on which processor we are, and whether it was on another one when it last
    /// said so.
    pub(crate) fn compare_processors(&self) -> bool {
        let processor = processor();
        let (own, peer) = (
            self.wait_state_of(self.side),
            self.wait_state_of(self.side.peer()),
        );
        own.processor.store(processor, Ordering::Relaxed);
        let peers = peer.processor.load(Ordering::Relaxed);
        peers != 0 && peers != processor
    }

    #[inline]
    fn wait_state_of(&self, side: Side) -> &WaitState {
        &self.region.words().sides[side as usize].wait_state
    }

    /// Whether the peer has closed its end.
    #[inline]
    pub(crate) fn is_closed_by_peer(&self) -> bool {
        Word::load(
            &self.region.words().sides[self.side.peer() as usize]
                .closed
                .0,
        ) != 0
    }

    /// Closes our end.
    pub(crate) fn close(&self) {
        Word::store(&self.region.words().sides[self.side as usize].closed.0, 1);
    }
}

/// All that one process has of a link.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) producer: Producer,
    pub(crate) consumer: Consumer,
    pub(crate) bells: Bells,
}

impl Ends {
    /// Bytes of each of the two rings.
    pub(crate) fn capacity(&self) -> usize {
        self.bells.region.capacity
    }

    fn new(region: Region, side: Side) -> io::Result<Self> {
        let capacity = u32::try_from(region.capacity).map_err(io::Error::other)?;
        let backed = if region.grows { 0 } else { region.capacity };
        let region = Arc::new(region);
        Ok(Self {
            producer: Producer {
                region: Arc::clone(&region),
                side,
                writer: Writer::new(capacity, 0),
                backed,
            },
            consumer: Consumer {
                region: Arc::clone(&region),
                peer: side.peer(),
                reader: Reader::new(capacity, 0),
            },
            bells: Bells { region, side },
        })
    }
}

/// Makes the memory of a link, with rings of this number of bytes: a power of two and a multiple of
/// the page. Returns main's ends and the file for the child, which is closed when this process
/// executes another program.
///
/// # Errors
/// What the system says: no memfd, no memory, no descriptor, no address space.
pub(crate) fn create(capacity: usize) -> io::Result<(Ends, OwnedFd)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("maslite-link", flags)?;
    let length = Region::file_length(rustix::param::page_size(), capacity) as u64;
    check_file_limit(length)?;
    rustix::fs::ftruncate(&file, length)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let region = Region::map(&file)?;
    if !region.grows {
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length)?;
    }
    Ok((Ends::new(region, Side::Main)?, file))
}

/// Refuses a file that is longer than files may be: the system would end this process with a signal
/// (SIGXFSZ).
fn check_file_limit(length: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < length => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "files may have {limit} bytes here (RLIMIT_FSIZE), and a ring needs {length}: raise the limit (ulimit -f), or use channels"
            ),
        )),
        _ => Ok(()),
    }
}

/// Maps the memory that main has made, once for each file. Returns the child's ends.
///
/// # Errors
/// What the system says; or it is another file than [`create`] makes.
pub(crate) fn open(file: &OwnedFd) -> io::Result<Ends> {
    Ends::new(Region::map(file)?, Side::Child)
}

/// Both ends of a link in this process.
#[cfg(all(test, not(miri)))]
pub(super) fn pair(capacity: usize) -> (Ends, Ends) {
    let (main, file) = create(capacity).expect("memory can be shared");
    let child = open(&file).expect("it can be mapped");
    (main, child)
}

#[cfg(all(test, miri))]
pub(super) use heap::pair;

/// Memory from the heap in place of a mapping, which Miri does not know. A ring and its second
/// mapping are different memory, so no message may cross the end of the ring.
#[cfg(miri)]
mod heap {
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    use super::*;

    #[derive(Debug)]
    pub(super) struct Heap(NonNull<u8>, Layout);

    // SAFETY: it owns the memory and never touches it.
    unsafe impl Send for Heap {}
    // SAFETY: as above.
    unsafe impl Sync for Heap {}

    impl Heap {
        pub(super) fn new(page: usize, length: usize) -> Self {
            let layout = Layout::from_size_align(length, page).expect("a page is a power of two");
            // SAFETY: the length is not zero.
            let base = unsafe { alloc_zeroed(layout) };
            Self(NonNull::new(base).expect("there is memory"), layout)
        }
    }

    impl Drop for Heap {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout, and its users hold it.
            unsafe { dealloc(self.0.as_ptr(), self.1) }
        }
    }

    /// Both ends of a link in this process.
    pub(in super::super) fn pair(capacity: usize) -> (Ends, Ends) {
        let page = 4096;
        let heap = Arc::new(Heap::new(page, page + 4 * capacity));
        let [main, child] = [Side::Main, Side::Child].map(|side| {
            let region = Region {
                base: heap.0,
                page,
                capacity,
                grows: false,
                _heap: Arc::clone(&heap),
            };
            Ends::new(region, side).expect("it is no longer than 2³¹ bytes")
        });
        (main, child)
    }
}

#[cfg(all(test, not(miri)))]
mod tests;
