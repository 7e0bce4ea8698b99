//! One thread at a time with software drivers.
//!
//! A software rasteriser translates shaders with a compiler of its own and runs them on threads of
//! this process. Mesa's (22.3, llvmpipe) was seen to crash a process in which several threads
//! compiled and ran shaders at once. Why is not known, and threads gain nothing there: one shader
//! takes all cores. So with such drivers a thread takes a lock of the whole process before it calls
//! them, and what it sends off is done before it lets go. Looking for devices and opening them takes
//! the lock with any driver, as all are asked then.
//!
//! A thread may take the lock again while it has it. Who needs a mutex too takes this lock first.

use std::marker::PhantomData;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// The thread that has the lock, and how often.
struct Holder {
    thread: ThreadId,
    times: usize,
}

static HOLDER: Mutex<Option<Holder>> = Mutex::new(None);
static FREE: Condvar = Condvar::new();

fn holder() -> MutexGuard<'static, Option<Holder>> {
    HOLDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock on software drivers, held by this thread until this is dropped.
///
/// Everything of this crate takes it by itself. It is for programs, and tests, that make calls of
/// their own to wgpu on a software rasteriser while other threads fit on it.
#[must_use = "the lock is given back when this is dropped"]
#[derive(Debug)]
pub struct DriverLock {
    // It belongs to the thread that took it.
    not_send: PhantomData<*const ()>,
}

impl DriverLock {
    /// Waits for the lock. A thread that has it gets it at once.
    pub fn take() -> DriverLock {
        let me = thread::current().id();
        let mut holder = holder();
        loop {
            match holder.as_mut() {
                None => {
                    *holder = Some(Holder { thread: me, times: 1 });
                    break;
                }
                Some(held) if held.thread == me => {
                    held.times += 1;
                    break;
                }
                Some(_) => holder = FREE.wait(holder).unwrap_or_else(PoisonError::into_inner),
            }
        }
        DriverLock { not_send: PhantomData }
    }

    /// Gives the lock back once.
    fn give_back() {
        let mut holder = holder();
        let last = match holder.as_mut() {
            Some(held) => {
                held.times -= 1;
                held.times == 0
            }
            None => false,
        };
        if last {
            *holder = None;
            FREE.notify_one();
        }
    }
}

impl Drop for DriverLock {
    fn drop(&mut self) {
        DriverLock::give_back();
    }
}

/// Where a field of this type is dropped the lock is taken, if it says so: the fields of a struct are
/// dropped in their order, and those between this and [`UnlockOnDrop`] while it is held.
pub(crate) struct LockOnDrop(pub bool);

/// Where a field of this type is dropped the lock of [`LockOnDrop`] is given back.
pub(crate) struct UnlockOnDrop(pub bool);

impl Drop for LockOnDrop {
    fn drop(&mut self) {
        if self.0 {
            mem::forget(DriverLock::take());
        }
    }
}

impl Drop for UnlockOnDrop {
    fn drop(&mut self) {
        if self.0 {
            DriverLock::give_back();
        }
    }
}
