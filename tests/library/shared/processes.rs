//! Processes as threads, for tests: what one hands to another is taken by it or the test ends.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use nneinfact::engine::Reducer;
use nneinfact::{Error, Fit};

/// A process of several in this one. Messages have no room on their way, so that two processes that wait
/// for each other in different orders are found out.
pub struct Process {
    rank: usize,
    to: Vec<SyncSender<Vec<f64>>>,
    from: Vec<Receiver<Vec<f64>>>,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Process {
    pub fn all(size: usize) -> Vec<Process> {
        let mut to: Vec<Vec<SyncSender<Vec<f64>>>> = (0..size).map(|_| Vec::new()).collect();
        let mut from: Vec<Vec<Receiver<Vec<f64>>>> = (0..size).map(|_| Vec::new()).collect();
        for sender in &mut to {
            for receiver in &mut from {
                let (send, receive) = sync_channel(0);
                sender.push(send);
                receiver.push(receive);
            }
        }
        let both = to.into_iter().zip(from).enumerate();
        both.map(|(rank, (to, from))| Process { rank, to, from }).collect()
    }

    fn gone(&self, with: usize) -> Error {
        Error::DeviceFailed(format!("process {with} is gone, says {}", self.rank))
    }

    fn send(&self, with: usize, numbers: &[f64]) -> Result<(), Error> {
        self.to[with].send(numbers.to_vec()).map_err(|_| self.gone(with))
    }

    fn receive(&self, with: usize, numbers: &mut [f64]) -> Result<(), Error> {
        let got = self.from[with].recv_timeout(PATIENCE).map_err(|_| self.gone(with))?;
        assert_eq!(got.len(), numbers.len(), "from {with} to {}", self.rank);
        numbers.copy_from_slice(&got);
        Ok(())
    }
}

impl Reducer for Process {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(&mut self, with: usize, send: &[f64], receive: &mut [f64]) -> Result<(), Error> {
        assert_ne!(with, self.rank);
        if self.rank < with {
            self.send(with, send)?;
            return self.receive(with, receive);
        }
        self.receive(with, receive)?;
        self.send(with, send)
    }

    fn agree(&mut self, word: u64) -> Result<u64, Error> {
        // By way of process 0.
        let mut words = [f64::from_bits(word)];
        if self.rank > 0 {
            self.exchange(0, &words, &mut [])?;
            self.exchange(0, &[], &mut words)?;
            return Ok(words[0].to_bits());
        }
        let mut most = word;
        for other in 1..self.size() {
            self.exchange(other, &[], &mut words)?;
            most = most.max(words[0].to_bits());
        }
        for other in 1..self.size() {
            self.exchange(other, &[f64::from_bits(most)], &mut [])?;
        }
        Ok(most)
    }
}

/// What so many processes come to, each on a thread.
pub fn on(
    size: usize,
    fit: impl Fn(Process) -> Result<Fit, Error> + Sync,
) -> Vec<Result<Fit, Error>> {
    std::thread::scope(|scope| {
        let fit = &fit;
        let threads: Vec<_> =
            Process::all(size).into_iter().map(|own| scope.spawn(move || fit(own))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a process panicked")).collect()
    })
}

/// All that a fit has computed, as bits and words.
#[derive(Debug, PartialEq)]
pub struct Bits {
    factors: Vec<Vec<u64>>,
    history: Vec<Vec<u64>>,
    words: String,
}

pub fn bits(fit: &Fit) -> Bits {
    let of = |list: &[f64]| list.iter().map(|x| x.to_bits()).collect::<Vec<u64>>();
    let history = fit.history();
    let lists = [&history.loss, &history.penalty, &history.validation_loss, &history.heldout_loss];
    let kkt: Vec<f64> = history.kkt_residual.into_iter().collect();
    Bits {
        factors: fit.factors().iter().map(|f| f.iter().map(|x| x.to_bits()).collect()).collect(),
        history: lists.into_iter().chain([&kkt]).map(|list| of(list)).collect(),
        words: format!(
            "{} after {}, returned {}, seed {}, {:?}",
            history.stopped_by, history.iterations, history.returned, history.seed, history.slabs
        ),
    }
}
