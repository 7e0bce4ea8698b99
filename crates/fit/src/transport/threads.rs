//! Threads of one program as the processes of a fit.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nneinfact_core::engine::{Reducer, collectives};
use nneinfact_core::error::{Error, Result};

/// One of several threads that fit together, each as a process of its own: for several GPUs of one
/// machine, and for tests.
///
/// A thread that ends while others wait for it does not keep them waiting: they get an error that names it.
///
/// ```
/// use nneinfact::engine::Reducer;
/// use nneinfact::transport::Threads;
///
/// let sums = Threads::run(3, |mut process| {
///     let rank = process.rank() as f64;
///     let mut other = [rank];
///     // The first two meet, the third is by itself.
///     if process.rank() < 2 {
///         process.exchange(1 - process.rank(), &[rank + 1.0], &mut other)?;
///     }
///     Ok((other[0], process.agree(process.rank() as u64)?))
/// })?;
/// assert_eq!(sums, [(2.0, 2), (1.0, 2), (2.0, 2)]);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    group: Arc<Group>,
    patience: Option<Duration>,
}

#[derive(Debug)]
struct Group {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// What was sent and not yet received, by who it is for and who it is from.
    numbers: Vec<Vec<VecDeque<Vec<f64>>>>,
    words: Vec<Vec<VecDeque<u64>>>,
    /// Who will not send any more.
    gone: Vec<bool>,
}

impl Threads {
    /// So many of them (at least one), in the order of their ranks: one for each thread.
    #[must_use]
    pub fn group(size: usize) -> Vec<Threads> {
        let size = size.max(1);
        let state = State {
            numbers: vec![vec![VecDeque::new(); size]; size],
            words: vec![vec![VecDeque::new(); size]; size],
            gone: vec![false; size],
        };
        let group = Arc::new(Group { size, state: Mutex::new(state), changed: Condvar::new() });
        let one = |rank| Threads { rank, group: Arc::clone(&group), patience: None };
        (0..size).map(one).collect()
    }

    /// Starts so many threads with one of these each, and waits for all; gives their results by rank.
    ///
    /// # Errors
    /// That of the thread that failed first; where threads cannot be started, [`Error::Device`].
    pub fn run<T: Send>(size: usize, work: impl Fn(Threads) -> Result<T> + Sync) -> Result<Vec<T>> {
        let work = &work;
        // Whoever is told by another that it failed comes after it.
        let (failures, first) = std::sync::mpsc::channel();
        let done: Result<Vec<Option<T>>> = std::thread::scope(|scope| {
            let mut started = Vec::with_capacity(size);
            for process in Threads::group(size) {
                let (rank, group) = (process.rank, Arc::clone(&process.group));
                let failures = failures.clone();
                let named = std::thread::Builder::new().name(format!("nneinfact-process-{rank}"));
                let run = move || match work(process) {
                    Ok(found) => Some(found),
                    Err(error) => {
                        let _ = failures.send(error);
                        group.leave(rank);
                        None
                    }
                };
                // Those that were started end, as this one's place in the group is dropped.
                started.push(named.spawn_scoped(scope, run).map_err(|e| {
                    Error::Device(format!("cannot start a thread for process {rank}: {e}"))
                })?);
            }
            let end = |(rank, thread): (usize, std::thread::ScopedJoinHandle<'_, _>)| {
                thread.join().map_err(|_| Error::Process {
                    rank,
                    message: "internal error: its thread panicked".into(),
                    input: false,
                })
            };
            // All are waited for before any is judged.
            let ended: Vec<Result<Option<T>>> = started.into_iter().enumerate().map(end).collect();
            ended.into_iter().collect()
        });
        drop(failures);
        let mut failed: Vec<Error> = first.into_iter().collect();
        let cause = failed.iter().position(|error| !is_echo(error));
        match (cause, done, failed.pop()) {
            (Some(cause), _, Some(last)) if cause == failed.len() => Err(last),
            (Some(cause), _, _) => Err(failed.swap_remove(cause)),
            (None, Err(error), _) | (None, Ok(_), Some(error)) => Err(error),
            (None, Ok(all), None) => Ok(all.into_iter().flatten().collect()),
        }
    }

    /// Waits so long for another process at most. Without this as long as it takes, while that process is
    /// there at all.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Threads {
        self.patience = Some(patience);
        self
    }

    fn check(&self, with: usize) -> Result<()> {
        match with < self.group.size && with != self.rank {
            true => Ok(()),
            false => Err(Error::Internal(format!(
                "process {} of {} cannot exchange with process {with}",
                self.rank, self.group.size
            ))),
        }
    }

    /// Waits for something of another process.
    fn wait<T>(&self, from: usize, take: impl Fn(&mut State) -> Option<T>) -> Result<T> {
        let until = self.patience.and_then(|patience| Instant::now().checked_add(patience));
        let mut state = self.group.lock();
        loop {
            if let Some(found) = take(&mut state) {
                return Ok(found);
            }
            if state.gone[from] {
                return Err(ended(from));
            }
            state = match until {
                None => self.group.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(silent(from, self.patience.unwrap_or_default()));
                    }
                    let woken = self.group.changed.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// That a process is not there any more.
fn ended(rank: usize) -> Error {
    Error::Process { rank, message: GONE.into(), input: false }
}

const GONE: &str = "it ended while others were waiting for it";

/// That a process is there and says nothing.
fn silent(rank: usize, patience: Duration) -> Error {
    let message = format!("nothing was heard of it for {} s", patience.as_secs_f64());
    Error::Process { rank, message, input: false }
}

/// Whether an error only says that another process has one.
fn is_echo(error: &Error) -> bool {
    matches!(error, Error::Process { .. })
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What a thread that panicked has left is whole: every change is one push or one pop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, rank: usize) {
        self.lock().gone[rank] = true;
        self.changed.notify_all();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.group.leave(self.rank);
    }
}

impl Reducer for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.group.size
    }

    fn exchange(&mut self, with: usize, send: &[f64], receive: &mut [f64]) -> Result<()> {
        self.check(with)?;
        let rank = self.rank;
        self.group.lock().numbers[with][rank].push_back(send.to_vec());
        self.group.changed.notify_all();
        let found = self.wait(with, |state| state.numbers[rank][with].pop_front())?;
        if found.len() != receive.len() {
            return Err(Error::Internal(format!(
                "process {with} has sent {} numbers to process {rank}, which expected {}",
                found.len(),
                receive.len()
            )));
        }
        receive.copy_from_slice(&found);
        Ok(())
    }

    fn agree(&mut self, word: u64) -> Result<u64> {
        let rank = self.rank;
        {
            let mut state = self.group.lock();
            for (to, words) in state.words.iter_mut().enumerate() {
                if to != rank {
                    words[rank].push_back(word);
                }
            }
        }
        self.group.changed.notify_all();
        let mut largest = word;
        for from in (0..self.group.size).filter(|&from| from != rank) {
            largest = largest.max(self.wait(from, |state| state.words[rank][from].pop_front())?);
        }
        Ok(largest)
    }
}

/// Several threads, of which each fails with what one of them fails with.
impl Threads {
    /// As [`run`](Threads::run), for work that begins with something that each thread does by itself, such
    /// as opening its device: it is told to all whether one of them failed at that.
    ///
    /// # Errors
    /// As [`run`](Threads::run).
    pub fn run_after<S, T: Send>(
        size: usize,
        begin: impl Fn(usize) -> Result<S> + Sync,
        work: impl Fn(Threads, S) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        Threads::run(size, |mut process| {
            let begun = begin(process.rank());
            let begun = collectives::together(&mut process, begun)?;
            work(process, begun)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn numbers_keep_their_bits_and_their_order() {
        let strange = [f64::NAN, -0.0, f64::from_bits(0x7ff0_0000_0000_0001), 5e-324];
        let all = Threads::run(2, |mut process| {
            let with = 1 - process.rank();
            let mut found = [[0.0; 4]; 3];
            for (i, found) in found.iter_mut().enumerate() {
                let mut send = strange;
                send[3] *= (i + 1) as f64;
                process.exchange(with, &send, found)?;
            }
            Ok(found.concat().iter().map(|x| x.to_bits()).collect::<Vec<u64>>())
        });
        let expected: Vec<u64> = (0..3)
            .flat_map(|i| {
                let mut sent = strange;
                sent[3] *= f64::from(i + 1);
                sent.map(f64::to_bits)
            })
            .collect();
        assert_eq!(all.unwrap(), [expected.clone(), expected]);
    }

    #[test]
    fn one_process_is_enough_and_none_is_one() {
        let mut alone = Threads::group(0).remove(0);
        assert_eq!((alone.rank(), alone.size(), alone.agree(7).unwrap()), (0, 1, 7));
        assert!(said(alone.exchange(0, &[], &mut [])).contains("cannot exchange with process 0"));
        assert!(said(alone.exchange(4, &[], &mut [])).contains("internal error"));
    }

    #[test]
    fn whoever_waits_for_a_process_that_ends_is_told_its_name() {
        let mut group = Threads::group(3);
        let (third, second) = (group.pop().unwrap(), group.pop().unwrap());
        let mut first = group.pop().unwrap();
        drop(third);
        assert_eq!(
            said(first.exchange(2, &[1.0], &mut [0.0])),
            format!("process 2 (counted from 0) has failed: {GONE}")
        );
        // What it said before it ended still arrives.
        second.group.lock().numbers[0][1].push_back(vec![4.0]);
        drop(second);
        let mut found = [0.0];
        first.exchange(1, &[1.0], &mut found).unwrap();
        assert_eq!(found, [4.0]);
        assert_eq!(said(first.agree(0)), format!("process 1 (counted from 0) has failed: {GONE}"));
    }

    #[test]
    fn a_panic_ends_the_others_too() {
        let done = Threads::run(4, |mut process| {
            if process.rank() == 2 {
                std::panic::resume_unwind(Box::new("a defect"));
            }
            process.agree(0)
        });
        assert!(said(done).starts_with("process 2 "));
    }

    #[test]
    fn patience_has_an_end() {
        let mut group = Threads::group(2);
        let first = group.remove(0);
        let mut first = first.patience(Duration::from_millis(20));
        assert_eq!(
            said(first.agree(0)),
            "process 1 (counted from 0) has failed: nothing was heard of it for 0.02 s"
        );
    }

    #[test]
    fn lengths_that_differ_are_an_error() {
        let done = Threads::run(2, |mut process| {
            let mut found = vec![0.0; 2 + process.rank()];
            process.exchange(1 - process.rank(), &[1.0, 2.0], &mut found)
        });
        assert!(said(done).contains("has sent 2 numbers to process 1, which expected 3"));
    }

    #[test]
    fn bytes_go_to_all_and_from_all() {
        for size in [1, 2, 3, 5, 8] {
            let all = Threads::run(size, |mut process| {
                let rank = process.rank() as u8;
                let own = vec![rank; 3 * usize::from(rank)];
                let gathered = collectives::all_gather(&mut process, &own)?;
                let parts = (0..size as u8).map(|to| vec![rank, to]).collect();
                Ok((gathered, collectives::all_to_all(&mut process, parts)?))
            });
            for (rank, (gathered, parts)) in all.unwrap().into_iter().enumerate() {
                for from in 0..size {
                    assert_eq!(gathered[from], vec![from as u8; 3 * from]);
                    assert_eq!(parts[from], [from as u8, rank as u8]);
                }
            }
        }
    }

    #[test]
    fn what_one_fails_with_all_fail_with() {
        let failing = |failing: Vec<usize>| {
            let all = Threads::group(4).into_iter().map(|mut process| {
                let failing = failing.clone();
                std::thread::spawn(move || {
                    let own = match failing.contains(&process.rank()) {
                        true => Err(Error::Setting(format!("é {}", process.rank()))),
                        false => Ok(process.rank()),
                    };
                    collectives::together(&mut process, own)
                })
            });
            let all: Vec<_> = all.collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        };
        for (rank, error) in failing(vec![3, 1]).into_iter().enumerate() {
            let error = error.unwrap_err();
            assert!(error.is_input());
            match rank {
                1 | 3 => assert_eq!(error.to_string(), format!("é {rank}")),
                _ => {
                    let expected = "process 1 (counted from 0) has failed: é 1";
                    assert_eq!(error.to_string(), expected);
                }
            }
        }
        let fine: Vec<usize> = failing(Vec::new()).into_iter().map(Result::unwrap).collect();
        assert_eq!(fine, [0, 1, 2, 3]);
        // Through `run` too the first cause is what is said.
        let opened = |rank| match rank {
            1 => Err(Error::Device("no such device".into())),
            rank => Ok(rank),
        };
        let done = Threads::run_after(3, opened, |mut process, _| process.agree(0));
        assert_eq!(said(done), "no such device");
    }
}
