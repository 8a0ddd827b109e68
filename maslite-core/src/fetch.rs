//! Asks the processor to fetch what is needed soon: the one place with unsafe code.

/// Has the first cache line of a value fetched. Nothing else happens, and no result depends on it.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[expect(
    unsafe_code,
    reason = "a hint that the standard library has as an intrinsic only"
)]
pub(crate) fn fetch<T: ?Sized>(value: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 processor has the instruction. It neither reads nor writes memory as the
    // language knows it, and faults for no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
}

/// Does nothing: other processors look ahead on their own.
#[inline(always)]
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) fn fetch<T: ?Sized>(_: &T) {}

#[cfg(test)]
mod tests {
    use super::fetch;

    #[test]
    fn a_fetch_changes_nothing() {
        let values: (u64, [u8; 3], &dyn std::fmt::Debug) = (7, [1, 2, 3], &"text");
        fetch(&values.0);
        fetch(&values.1[..]);
        fetch(values.2);
        fetch(&());
        assert_eq!((values.0, values.1), (7, [1, 2, 3]));
    }
}
