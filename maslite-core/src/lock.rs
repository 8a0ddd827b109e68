//! Taking locks that a panicked thread may have left behind.
//!
//! What these locks of the kernel guard is whole at every unlock, and while a thread that holds one
//! unwinds. So a poisoned lock is taken like any other.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Takes a mutex, poisoned or not.
pub trait LockEvenPoisoned<T> {
    /// Waits for the mutex, and takes it.
    fn lock_even_poisoned(&self) -> MutexGuard<'_, T>;
}

impl<T> LockEvenPoisoned<T> for Mutex<T> {
    #[inline]
    fn lock_even_poisoned(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a lock for readers and writers, poisoned or not.
pub(crate) trait ReadWriteEvenPoisoned<T> {
    fn read_even_poisoned(&self) -> RwLockReadGuard<'_, T>;

    fn write_even_poisoned(&self) -> RwLockWriteGuard<'_, T>;
}

impl<T> ReadWriteEvenPoisoned<T> for RwLock<T> {
    #[inline]
    fn read_even_poisoned(&self) -> RwLockReadGuard<'_, T> {
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn write_even_poisoned(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
    }
}
