//! One thread at a time with software drivers.
//!
//! A software rasteriser translates shaders with a compiler of its own and runs them on threads of
//! this process. Mesa's (22.3, llvmpipe) was seen to crash a process in which several threads
//! compiled and ran shaders at once. Why is not known, and threads gain nothing there: one shader
//! takes all cores. So with such drivers a thread waits for its turn before it calls them, and what
//! it sends off is done before the turn ends. Looking for devices and opening them takes a turn with
//! any driver, as all are asked then.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// Whose turn it is.
static TAKEN: Mutex<Option<ThreadId>> = Mutex::new(None);
static FREE: Condvar = Condvar::new();

fn taken() -> MutexGuard<'static, Option<ThreadId>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread's turn, over when this is dropped. Whoever has one may not ask for another.
pub(super) struct Turn(());

impl Turn {
    /// Waits for a turn.
    pub fn take() -> Turn {
        let me = thread::current().id();
        let mut holder = taken();
        debug_assert_ne!(*holder, Some(me), "a turn within a turn never comes");
        while holder.is_some() {
            holder = FREE.wait(holder).unwrap_or_else(PoisonError::into_inner);
        }
        *holder = Some(me);
        Turn(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *taken() = None;
        FREE.notify_one();
    }
}

/// Where a field of this type is dropped a turn begins, if it says so: the fields of a struct are
/// dropped in their order, and those between this and [`End`] within the turn.
pub(super) struct Begin(pub bool);

/// Where a field of this type is dropped the turn of [`Begin`] ends.
pub(super) struct End(pub bool);

impl Drop for Begin {
    fn drop(&mut self) {
        if self.0 {
            mem::forget(Turn::take());
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.0 {
            drop(Turn(()));
        }
    }
}
