//! Where alarms lie: the entries of all buckets, in chunks that are used again.

/// No place, no chunk, no number.
pub(super) const NONE: u32 = u32::MAX;

/// Entries of a chunk, a power of two.
pub(super) const CHUNK: u32 = 16;

/// An alarm in its bucket.
#[derive(Debug)]
pub(super) struct Entry<P> {
    /// When it is due [ns].
    pub(super) time: u64,
    /// Where its state is.
    pub(super) node: u32,
    /// Where its load is kept, if that does not lie here.
    pub(super) kept: u32,
    pub(super) load: Option<P>,
}

impl<P> Entry<P> {
    const VACANT: Self = Self {
        time: 0,
        node: NONE,
        kept: NONE,
        load: None,
    };

    /// Takes an entry out of its place, which is vacant from then on.
    #[inline]
    pub(super) fn take(&mut self) -> Self {
        Self {
            time: self.time,
            node: self.node,
            kept: std::mem::replace(&mut self.kept, NONE),
            load: self.load.take(),
        }
    }
}

/// The entries of a bucket, in the order in which they came: the place of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket(u32);

impl Bucket {
    pub(super) const EMPTY: Self = Self(NONE);

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self == Self::EMPTY
    }
}

#[derive(Debug)]
pub(super) struct Pool<P> {
    entries: Vec<Entry<P>>,
    /// For each chunk the one that was filled before it.
    before: Vec<u32>,
    free: Vec<u32>,
    scratch: Vec<u32>,
}

impl<P> Default for Pool<P> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            before: Vec::new(),
            free: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

impl<P> Pool<P> {
    #[inline(always)]
    pub(super) fn push(&mut self, bucket: &mut Bucket, entry: Entry<P>) {
        // The last place of a chunk and that of an empty bucket end in the same bits.
        let place = if bucket.0 % CHUNK == CHUNK - 1 {
            self.begin_chunk(*bucket)
        } else {
            bucket.0 + 1
        };
        self.entries[place as usize] = entry;
        bucket.0 = place;
    }

    #[inline(never)]
    fn begin_chunk(&mut self, bucket: Bucket) -> u32 {
        let chunk = self.new_chunk();
        self.before[chunk as usize] = match bucket {
            Bucket::EMPTY => NONE,
            Bucket(last) => last / CHUNK,
        };
        chunk * CHUNK
    }

    pub(super) fn new_chunk(&mut self) -> u32 {
        if let Some(chunk) = self.free.pop() {
            return chunk;
        }
        let chunk = crate::narrow(self.before.len());
        self.before.push(NONE);
        let room = self.entries.len() + CHUNK as usize;
        self.entries.resize_with(room, || Entry::VACANT);
        chunk
    }

    /// Gives chunks back in which every place is vacant.
    pub(super) fn release(&mut self, chunks: &mut Vec<u32>) {
        // What was used last is used first.
        self.free.append(chunks);
    }

    #[inline]
    pub(super) fn at(&self, place: u32) -> &Entry<P> {
        &self.entries[place as usize]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, place: u32) -> &mut Entry<P> {
        &mut self.entries[place as usize]
    }

    /// Every place, vacant ones included.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<P>> {
        self.entries.iter()
    }

    /// Every place, vacant ones included.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry<P>> {
        self.entries.iter_mut()
    }

    /// The chunks of a bucket, oldest first, and how many entries they have.
    pub(super) fn chunks(&self, bucket: Bucket, into: &mut Vec<u32>) -> u32 {
        into.clear();
        if bucket.is_empty() {
            return 0;
        }
        let mut chunk = bucket.0 / CHUNK;
        while chunk != NONE {
            into.push(chunk);
            chunk = self.before[chunk as usize];
        }
        into.reverse();
        (crate::narrow(into.len()) - 1) * CHUNK + bucket.0 % CHUNK + 1
    }

    /// Whether a bucket has more entries than that, which is told to within a chunk.
    pub(super) fn is_more_than(&self, bucket: Bucket, limit: u32) -> bool {
        if bucket.is_empty() {
            return false;
        }
        let (mut count, mut chunk) = (bucket.0 % CHUNK + 1, bucket.0 / CHUNK);
        loop {
            chunk = self.before[chunk as usize];
            if chunk == NONE {
                return count > limit;
            }
            count += CHUNK;
            if count > limit {
                return true;
            }
        }
    }

    /// The first and the last time in a bucket, and how many entries it has.
    pub(super) fn span(&mut self, bucket: Bucket) -> (u64, u64, u32) {
        let mut chunks = std::mem::take(&mut self.scratch);
        let count = self.chunks(bucket, &mut chunks);
        let (mut first, mut last) = (u64::MAX, 0);
        for (chunk, len) in filled(&chunks, count) {
            let start = (chunk * CHUNK) as usize;
            for entry in &self.entries[start..start + len as usize] {
                first = first.min(entry.time);
                last = last.max(entry.time);
            }
        }
        self.scratch = chunks;
        (first, last, count)
    }

    /// Moves the entries of a bucket into others, in order.
    pub(super) fn spread(&mut self, from: Bucket, into: &mut [Bucket], of: impl Fn(u64) -> usize) {
        let mut chunks = std::mem::take(&mut self.scratch);
        let count = self.chunks(from, &mut chunks);
        for (chunk, len) in filled(&chunks, count) {
            for place in chunk * CHUNK..chunk * CHUNK + len {
                let entry = self.entries[place as usize].take();
                let bucket = &mut into[of(entry.time)];
                self.push(bucket, entry);
            }
            self.free.push(chunk);
        }
        self.scratch = chunks;
    }

    /// Drops the entries that are not to be kept; the others stay in order.
    pub(super) fn retain(&mut self, bucket: &mut Bucket, mut keep: impl FnMut(&Entry<P>) -> bool) {
        let mut chunks = std::mem::take(&mut self.scratch);
        let count = self.chunks(*bucket, &mut chunks);
        let mut kept = 0;
        for (nth, (chunk, len)) in (0..).zip(filled(&chunks, count)) {
            for offset in 0..len {
                let place = chunk * CHUNK + offset;
                if !keep(&self.entries[place as usize]) {
                    self.entries[place as usize].take();
                    continue;
                }
                if kept != nth * CHUNK + offset {
                    let to = chunks[(kept / CHUNK) as usize] * CHUNK + kept % CHUNK;
                    self.entries[to as usize] = self.entries[place as usize].take();
                }
                kept += 1;
            }
        }
        let used = kept.div_ceil(CHUNK) as usize;
        self.free.extend(chunks.drain(used..));
        *bucket = match chunks.last() {
            Some(last) => Bucket(last * CHUNK + (kept - 1) % CHUNK),
            None => Bucket::EMPTY,
        };
        self.scratch = chunks;
    }
}

/// The chunks of a bucket with how many entries each has: all are full but the last.
pub(super) fn filled(chunks: &[u32], count: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
    let starts = (0..count).step_by(CHUNK as usize);
    let lens = starts.map(move |start| (count - start).min(CHUNK));
    chunks.iter().copied().zip(lens)
}
