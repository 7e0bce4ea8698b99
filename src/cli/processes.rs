//! Several processes or devices that fit together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;

use super::summary::peak_memory;
use super::{complain, mute, print};
use nneinfact_core::data::{Observations, Part};
use nneinfact_core::engine::{Reducer, collectives};
use nneinfact_core::error::{Error, Result, bytes};
use nneinfact_fit::transport::{Metered, Threads, Traffic};
use nneinfact_fit::{
    Device, DeviceInfo, Fit, NNEinFact, slab_ranges, slabs_of_processes, split_mode,
};

/// The arguments about processes and devices that fit together.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ProcessArgs {
    /// Fit together with the other processes that mpirun or srun has started, each on a part of the data;
    /// process 0 writes and speaks. Data may be files by a quoted pattern, as 'part-*.tns'. The result has
    /// the same bits for any number of processes
    #[arg(long, conflicts_with = "devices")]
    mpi: bool,

    /// How long a process waits for another one, as in 600, before all are ended [default: as long as it
    /// is there]
    #[arg(long, value_name = "SECONDS", requires = "mpi", value_parser = seconds)]
    patience: Option<Duration>,

    /// Fit on several devices of this machine, each with a part of the data: names as of --device, or gpus
    /// for all there are. The result has the same bits for any number of devices of one kind
    #[arg(long, value_name = "NAME,NAME,…", value_delimiter = ',', conflicts_with = "device")]
    devices: Vec<String>,

    /// Cut the data into so many slabs, whose sums are added in a fixed order: the result depends on
    /// their number in its last digits, and not on the number of processes. More processes than slabs
    /// have nothing to do [default: 8 with --mpi or --devices, else the data are not cut]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    slabs: Option<u32>,
}

/// The process of a fit that this one is.
pub struct Process {
    /// Which one.
    pub rank: usize,
    /// Of how many.
    pub size: usize,
    /// What connects it with the others.
    pub reducer: Box<dyn Reducer>,
}

impl ProcessArgs {
    /// Runs the work of a process: alone, or as one of those that `mpirun` has started. Where one of these
    /// fails all are ended, with the exit status that it would have alone.
    pub fn run(&self, quiet: bool, work: impl FnOnce(Option<Process>) -> Result<()>) -> Result<()> {
        if !self.mpi {
            return work(None);
        }
        let (session, process) = nneinfact_mpi::start()?;
        let process = match self.patience {
            Some(patience) => process.patience(patience),
            None => process,
        };
        let (rank, size) = (process.rank(), process.size());
        if rank != 0 {
            mute();
        }
        let (process, traffic) = Metered::new(process);
        let done = work(Some(Process { rank, size, reducer: Box::new(process) }));
        let done = done.and_then(|()| tell_traffic(&mut session.process(), &traffic, quiet));
        let Err(error) = done else {
            let _ = session.end(0);
            return Ok(());
        };
        if size == 1 {
            let _ = session.end(0);
            return Err(error);
        }
        // Process 0 has the same error or knows of it, and speaks for all; where it is not there any more,
        // this one does.
        if rank != 0 {
            std::thread::sleep(Duration::from_secs(4));
        }
        let by =
            if matches!(error, Error::Process { .. }) { "" } else { &format!("process {rank}: ") };
        complain("error", &format!("{by}{error}"));
        let _ = session.end(if error.is_input() { 2 } else { 1 });
        Err(error)
    }

    /// The devices that are to fit together; none where nothing is said of them.
    pub fn devices(&self, threads: Option<usize>) -> Result<Vec<Device>> {
        if self.devices.is_empty() {
            return Ok(Vec::new());
        }
        let names = chosen(&self.devices, &Device::list())?;
        // Threads of this machine prepare the data of all of them.
        let all =
            threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
        let each = (all / names.len()).max(1);
        names.iter().map(|name| Device::named(name)?.threads(each)).collect()
    }

    /// The settings of a fit with the number of slabs that was asked for.
    pub fn apply(&self, settings: NNEinFact) -> NNEinFact {
        match self.slabs {
            Some(slabs) => settings.slabs(slabs as usize),
            None => settings,
        }
    }

    /// How many slabs the data are cut into at most, where they are cut.
    pub fn slabs(&self) -> usize {
        self.slabs.map_or(NNEinFact::SLABS, |slabs| slabs as usize)
    }
}

/// Says of all processes what each sent, how long it waited, and how much memory it took.
fn tell_traffic(process: &mut dyn Reducer, traffic: &Traffic, quiet: bool) -> Result<()> {
    let [messages, sent] = [traffic.messages(), traffic.bytes()];
    let row = format!(
        "{:<9}{:>10}{messages:>11}{:>10}{:>14}\n",
        process.rank(),
        bytes(sent),
        format!("{:.2} s", traffic.waited().as_secs_f64()),
        peak_memory().map_or_else(|| "not told".into(), bytes)
    );
    let rows = collectives::all_gather(process, row.as_bytes())?;
    if quiet || rows.len() == 1 {
        return Ok(());
    }
    let rows: String = rows.iter().map(|row| String::from_utf8_lossy(row)).collect();
    print(&format!("\nprocess        sent   messages    waited   peak memory\n{rows}"))
}

/// Of data of a shape the part of every process: the mode that they are cut along, where it is not said,
/// and the indices of each. Processes without slabs come last and have an empty range.
pub fn parts(
    shape: &[usize],
    mode: Option<usize>,
    slabs: usize,
    processes: usize,
) -> (usize, Vec<std::ops::Range<usize>>) {
    let mode = mode.unwrap_or_else(|| split_mode(shape, slabs));
    let whole = shape.get(mode).copied().unwrap_or(0);
    let ranges = slab_ranges(whole, slabs);
    let indices = |slabs: std::ops::Range<usize>| match slabs.is_empty() {
        true => whole..whole,
        false => ranges[slabs.start].start..ranges[slabs.end - 1].end,
    };
    (mode, slabs_of_processes(ranges.len(), processes).into_iter().map(indices).collect())
}

/// The part of one process.
pub fn part(shape: &[usize], mode: Option<usize>, slabs: usize, process: &Process) -> Part {
    let (mode, mut ranges) = parts(shape, mode, slabs, process.size);
    Part { mode, range: ranges.swap_remove(process.rank), whole: shape[mode] }
}

/// Fits with other processes, on several devices, or neither.
pub fn fit(
    settings: NNEinFact,
    others: Vec<NNEinFact>,
    process: Option<Process>,
    observations: &Observations,
    part: Option<&Part>,
) -> Result<Fit> {
    match (process, part) {
        (None, _) if others.is_empty() => settings.fit(observations),
        (None, _) => on_devices(std::iter::once(settings).chain(others).collect(), observations),
        (Some(process), None) => settings.shared_by(process.reducer).fit(observations),
        (Some(process), Some(part)) => {
            settings.shared_by(process.reducer).fit_part(observations, part.clone())
        }
    }
}

/// Goes on where all processes can.
pub fn together<T>(process: &mut Option<Process>, own: Result<T>) -> Result<T> {
    match process {
        Some(process) => collectives::together(process.reducer.as_mut(), own),
        None => own,
    }
}

/// Fits on several devices, each in a thread of its own. The settings are those of the devices; the first
/// of them has the observers.
fn on_devices(settings: Vec<NNEinFact>, data: &Observations) -> Result<Fit> {
    let size = settings.len();
    let settings: Vec<_> = settings.into_iter().map(Some).collect();
    let settings = Mutex::new(settings);
    let fits = Threads::run(size, |process| {
        let own = |all: &mut Vec<Option<NNEinFact>>| all.get_mut(process.rank())?.take();
        let own = own(&mut settings.lock().unwrap_or_else(PoisonError::into_inner));
        let own = own.ok_or_else(|| Error::Internal("a device has no settings".into()))?;
        own.shared_by(process).fit(data)
    })?;
    fits.into_iter().next().ok_or_else(|| Error::Internal("no device has fitted".into()))
}

/// The names of the devices that are meant: where several are called alike, the first, the second and so
/// on, each by its place on the bus.
fn chosen(asked: &[String], all: &[DeviceInfo]) -> Result<Vec<String>> {
    if let [name] = asked
        && name.trim().eq_ignore_ascii_case("gpus")
    {
        let real = all.iter().filter(|d| d.adapter.as_ref().is_some_and(|a| !a.is_software()));
        let names: Vec<String> = real.map(precise).collect();
        return match names.is_empty() {
            true => Err(Error::Device(
                "--devices gpus: there is no GPU here other than software rasterisers, which are \
                 slower than the CPU (and can be named one by one)"
                    .into(),
            )),
            false => Ok(names),
        };
    }
    let mut names = Vec::with_capacity(asked.len());
    for (i, name) in asked.iter().enumerate() {
        let lower = name.trim().to_lowercase();
        if lower.is_empty() || lower == "gpus" {
            return Err(Error::Setting(format!(
                "--devices {}: gpus by itself, or names of devices with commas between them, are expected",
                asked.join(",")
            )));
        }
        let alike: Vec<&DeviceInfo> = all
            .iter()
            .filter(|device| {
                device.adapter.is_some() && device.name.to_lowercase().contains(&lower)
            })
            .collect();
        let before = asked[..i].iter().filter(|other| other.trim().to_lowercase() == lower).count();
        names.push(match alike.as_slice() {
            // Also cpu, gpu, a backend or a place on the bus; one device may be named twice.
            [] | [_] => name.trim().to_string(),
            alike if before < alike.len() => precise(alike[before]),
            alike => {
                return Err(Error::Device(format!(
                    "--devices names {} {} times, and there are {} of them",
                    name.trim(),
                    before + 1,
                    alike.len()
                )));
            }
        });
    }
    Ok(names)
}

/// A name that one device alone has, as far as there is one.
fn precise(device: &DeviceInfo) -> String {
    match &device.adapter {
        Some(adapter) if !adapter.bus.is_empty() => adapter.bus.clone(),
        _ => device.name.clone(),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.trim().parse::<f64>().ok().filter(|&seconds| seconds > 0.0);
    let found = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    found.ok_or_else(|| "a number of seconds above 0 is expected".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_are_whole_slabs() {
        for (shape, slabs) in [(vec![10, 3], 4), (vec![2, 100], 8), (vec![3], 8), (vec![64, 5], 64)]
        {
            let (mode, one) = parts(&shape, None, slabs, 1);
            assert_eq!((one.len(), one[0].clone()), (1, 0..shape[mode]));
            let bounds: Vec<usize> =
                slab_ranges(shape[mode], slabs).iter().map(|range| range.start).collect();
            for processes in 1..12 {
                let (same, ranges) = parts(&shape, None, slabs, processes);
                assert_eq!((same, ranges.len()), (mode, processes));
                assert_eq!((ranges[0].start, ranges[processes - 1].end), (0, shape[mode]));
                assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
                for range in ranges.iter().filter(|range| !range.is_empty()) {
                    assert!(bounds.contains(&range.start));
                }
            }
        }
        assert_eq!(parts(&[10, 3], Some(1), 8, 2), (1, vec![0..1, 1..3]));
    }

    #[test]
    fn devices_by_their_names() {
        let cpu = || Device::list().into_iter().filter(|device| device.adapter.is_none());
        let all: Vec<DeviceInfo> = cpu().collect();
        let names = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_string()).collect();
            chosen(&asked, &all).map_err(|error| error.to_string())
        };
        assert_eq!(names(&["cpu", " cpu"]), Ok(vec!["cpu".into(), "cpu".into()]));
        assert!(names(&["gpus"]).unwrap_err().contains("no GPU here"));
        assert!(names(&["cpu", "gpus"]).unwrap_err().contains("gpus by itself"));
        assert!(names(&["cpu", ""]).unwrap_err().contains("gpus by itself"));
    }

    #[test]
    fn patience_is_a_number_of_seconds() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "0", "-1", "x", "inf", "nan"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
