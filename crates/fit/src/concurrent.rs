//! Several small fits at once, the starts of a fit or the runs of a study: each on a thread of its own, where one of
//! them would not keep all busy.
//!
//! Fits have the same bits on any number of threads, so that it makes no difference to them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::device::Device;
use crate::settings::Settings;
use nneinfact_core::engine::Engine;
use nneinfact_core::error::Result;
use nneinfact_core::memory::available_memory;
use nneinfact_core::plan::Plan;

/// A fit whose sweep takes less than so many nominal seconds ([`Plan::cost`]) leaves threads idle: it has few
/// work items, and much of a sweep is not parallel at all.
const SMALL_SWEEP: f64 = 0.1;

/// How many of so many fits with a plan go on at once; 1 where one after the other is as good, or memory does not
/// allow for more.
pub(crate) fn workers(settings: &Settings, device: &Device, plan: &Plan, fits: usize) -> usize {
    if device.kind_name() != "cpu" || plan.data().streamed || plan.cost() > SMALL_SWEEP {
        return 1;
    }
    // What a fit has of its own: products, sums, factors in a few copies.
    let own = plan.memory().saturating_add(plan.shapes().parameters().saturating_mul(8 * 6)).max(1);
    let free = available_memory().unwrap_or(u64::MAX) / 2;
    let limit = settings.memory_limit.unwrap_or(u64::MAX);
    let room = (free / own).min(limit / plan.memory().max(1));
    device.thread_count().min(fits).min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

/// An engine for each of several workers, all like this one; none where one is enough or there can be no other.
pub(crate) fn engines(like: &dyn Engine, workers: usize) -> Result<Vec<Box<dyn Engine>>> {
    let mut engines = Vec::new();
    let count = if workers > 1 { workers } else { 0 };
    for _ in 0..count {
        match like.another()? {
            Some(engine) => engines.push(engine),
            None => return Ok(Vec::new()),
        }
    }
    Ok(engines)
}

/// Does so many jobs, a worker for each of what they need having a thread of its own, in which parallel code
/// stays; the results are in the order of the jobs.
pub(crate) fn run<E: Send, R: Send>(
    each: Vec<E>,
    jobs: usize,
    work: impl Fn(&mut E, usize) -> R + Sync,
) -> Result<Vec<R>> {
    let mut found: Vec<(usize, R)> = work_queue(
        each,
        jobs,
        |own, job, sender| sender.send((job, work(own, job))).is_ok(),
        |receiver| receiver.iter().collect(),
    )?;
    found.sort_by_key(|(job, _)| *job);
    Ok(found.into_iter().map(|(_, result)| result).collect())
}

/// Does so many jobs, one after another as workers are free: there is a worker for each of what they need (an
/// engine, say), with a thread of its own, in which parallel code stays. `work` is given what the worker needs, the
/// number of the job, and where to send what is to be told of it; where it returns `false`, its worker takes no
/// further job. `listen` goes on meanwhile on the calling thread, and hears the end once all workers are done.
///
/// # Errors
/// [`Error::Internal`](nneinfact_core::error::Error::Internal) where there are no threads to be had.
pub fn work_queue<E: Send, T: Send, R>(
    each: Vec<E>,
    jobs: usize,
    work: impl Fn(&mut E, usize, &Sender<T>) -> bool + Sync,
    listen: impl FnOnce(&Receiver<T>) -> R,
) -> Result<R> {
    let pools: Result<Vec<rayon::ThreadPool>> = each.iter().map(|_| Device::one_thread()).collect();
    let next = AtomicUsize::new(0);
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        for (mut own, pool) in each.into_iter().zip(pools?) {
            let (next, work, sender) = (&next, &work, sender.clone());
            scope.spawn(move || {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs || !pool.install(|| work(&mut own, job, &sender)) {
                        break;
                    }
                }
            });
        }
        // What listens hears the end when the last worker lets go of its own.
        drop(sender);
        Ok(listen(&receiver))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_jobs() -> Result<()> {
        for workers in [1, 2, 5] {
            let done = run(vec![0usize; workers], 23, |own, job| {
                *own += 1;
                // Parallel code stays on the worker's thread.
                (job * job, rayon::current_num_threads())
            })?;
            assert_eq!(done, (0..23).map(|n| (n * n, 1)).collect::<Vec<_>>());
        }
        Ok(())
    }
}
