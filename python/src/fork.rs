//! Threads after a fork.
//!
//! A forked child has none of its parent's threads, and would wait for them forever. The process that
//! first runs something here uses the threads that the library shares; in a child of it, work runs on
//! threads of the child's own.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pyo3::PyResult;
use pyo3::exceptions::PyRuntimeError;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The process that used the library first.
static FIRST: OnceLock<u32> = OnceLock::new();

/// The threads of a child, with its process number.
static CHILD: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// Whether this process was forked from one that had used the library.
pub fn is_child() -> bool {
    let here = std::process::id();
    *FIRST.get_or_init(|| here) != here
}

/// Runs `work` where parallel code finds threads of this process.
pub fn install<R: Send>(work: impl FnOnce() -> R + Send) -> PyResult<R> {
    if !is_child() {
        return Ok(work());
    }
    let here = std::process::id();
    let mut child = CHILD.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = match child.as_ref() {
        Some((process, pool)) if *process == here => Arc::clone(pool),
        _ => {
            let pool =
                ThreadPoolBuilder::new()
                    .thread_name(|i| format!("nneinfact-{i}"))
                    .build()
                    .map_err(|e| PyRuntimeError::new_err(format!("cannot start threads: {e}")))?;
            let pool = Arc::new(pool);
            // Threads of a parent that was a child itself are not there: nothing is to be joined.
            if let Some(gone) = child.replace((here, Arc::clone(&pool))) {
                std::mem::forget(gone);
            }
            pool
        }
    };
    drop(child);
    Ok(pool.install(work))
}
