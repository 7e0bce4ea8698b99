//! Several processes fit together, each to a part of the data that it makes itself: nobody ever has all.
//!
//!     cargo run --release --example processes -- [--processes 3] [--rows 4000] [--columns 300]
//!                                                [--rank 8] [--sweeps 10] [--slabs 8]
//!                                                [--delay 1000]
//!     mpirun -n 8 target/release/examples/processes --mpi …      (built with --features mpi)
//!
//! The processes are threads of this program, or what `mpirun` has started. Prints what each of them had
//! to do, and a number that says which bits came out: it is the same for any number of processes. With
//! --delay every message takes so many microseconds longer, as on a network.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use nneinfact::data::{DenseBuilder, Order, Part, uniform_u32};
use nneinfact::engine::Reducer;
use nneinfact::fit::{slab_ranges, slabs_of_processes};
use nneinfact::transport::{Metered, Threads, start_mpi};
use nneinfact::{Device, NNEinFact, Observations, Result};

/// A transport whose messages take longer.
struct Delayed<R> {
    inner: R,
    delay: Duration,
}

impl<R: Reducer> Reducer for Delayed<R> {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn exchange(&mut self, with: usize, send: &[f64], receive: &mut [f64]) -> Result<()> {
        std::thread::sleep(self.delay);
        self.inner.exchange(with, send, receive)
    }

    fn agree(&mut self, word: u64) -> Result<u64> {
        // As a tree of messages would take.
        std::thread::sleep(self.delay * self.size().next_power_of_two().ilog2());
        self.inner.agree(word)
    }
}

struct Problem {
    rows: usize,
    columns: usize,
    rank: usize,
    sweeps: usize,
    slabs: usize,
    /// In microseconds.
    delay: usize,
}

/// What one process has to tell.
struct Told {
    rank: usize,
    rows: usize,
    seconds: f64,
    waited: f64,
    messages: u64,
    agreements: u64,
    bytes: u64,
    bits: u64,
}

impl Problem {
    /// Counts that a handful of patterns are behind; any entry can be made by itself.
    fn count(&self, i: usize, j: usize) -> u16 {
        let weight = |stream: u32, at: usize| f64::from(uniform_u32(7, stream, at as u64)) / 4.3e9;
        let rate: f64 = (0..4).map(|r| 6.0 * weight(r, i) * weight(100 + r, j)).sum();
        let chance = weight(999, i * self.columns + j);
        (rate + chance) as u16
    }

    /// The part of a process, made where it is needed.
    fn part(&self, process: &impl Reducer) -> Result<(Observations, Part)> {
        let slabs = slab_ranges(self.rows, self.slabs);
        let own = slabs_of_processes(slabs.len(), process.size())[process.rank()].clone();
        let range = match own.is_empty() {
            true => self.rows..self.rows,
            false => slabs[own.start].start..slabs[own.end - 1].end,
        };
        let mut builder = DenseBuilder::new(range.len() * self.columns);
        for i in range.clone() {
            let row: Vec<u16> = (0..self.columns).map(|j| self.count(i, j)).collect();
            builder.push(&row);
        }
        let values = builder.finish(&[range.len(), self.columns], Order::C)?;
        Ok((Observations::new(values), Part { mode: 0, range, whole: self.rows }))
    }

    fn fit(&self, process: impl Reducer + 'static, threads: usize) -> Result<Told> {
        let (rank, (data, part)) = (process.rank(), self.part(&process)?);
        let rows = part.range.len();
        let delay = Duration::from_micros(self.delay as u64);
        let (process, traffic) = Metered::new(Delayed { inner: process, delay });
        let began = Instant::now();
        let fit = NNEinFact::new("ir,jr->ij")?
            .ranks([('r', self.rank)])
            .device(Device::cpu().threads(threads)?)
            .slabs(self.slabs)
            .max_iter(self.sweeps)
            .tolerance(0.0)
            .shared_by(process)
            .fit_part(&data, part)?;
        let mixed = |hash: u64, x: &f64| (hash ^ x.to_bits()).wrapping_mul(0x0100_0000_01b3);
        Ok(Told {
            rank,
            rows,
            seconds: began.elapsed().as_secs_f64(),
            waited: traffic.waited().as_secs_f64(),
            messages: traffic.messages(),
            agreements: traffic.agreements(),
            bytes: traffic.bytes(),
            bits: fit.factors().iter().flatten().fold(0xcbf2_9ce4_8422_2325, mixed),
        })
    }
}

fn main() -> std::result::Result<(), Box<dyn StdError>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: usize| -> std::result::Result<usize, Box<dyn StdError>> {
        match arguments.iter().position(|argument| argument == name) {
            Some(at) => Ok(arguments.get(at + 1).ok_or("a number is missing")?.parse()?),
            None => Ok(default),
        }
    };
    let problem = Problem {
        rows: number("--rows", 4000)?,
        columns: number("--columns", 300)?,
        rank: number("--rank", 8)?,
        sweeps: number("--sweeps", 10)?,
        slabs: number("--slabs", 8)?,
        delay: number("--delay", 0)?,
    };
    if arguments.iter().any(|argument| argument == "--mpi") {
        let (session, process) = start_mpi()?;
        let told = problem.fit(process, 1)?;
        print(&told);
        let _ = session.end(0);
        return Ok(());
    }
    let all = Threads::run(number("--processes", 3)?, |process| problem.fit(process, 1))?;
    all.iter().for_each(print);
    assert!(all.iter().all(|told| told.bits == all[0].bits));
    Ok(())
}

fn print(told: &Told) {
    println!(
        "process {} with {} rows: {:.3} s, of which {:.3} s in the transport; {} messages, {} agreements, \
         {} bytes; bits {:016x}",
        told.rank,
        told.rows,
        told.seconds,
        told.waited,
        told.messages,
        told.agreements,
        told.bytes,
        told.bits
    );
}
