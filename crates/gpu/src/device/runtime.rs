//! Carries programs out on a GPU.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::handle::{DeviceFault, Gpu, Pipeline, lock};
use super::sharing::Origin;
use crate::program::check::range;
use crate::program::recording::{BufferId, RecordingId};
use nneinfact_core::error::{Error, Result};

/// Floating-point operations after which a submission is cut.
///
/// Drivers take a GPU that answers nobody for some seconds (two on Windows) for dead and reset it, and
/// a desktop freezes meanwhile. This takes 1 to 10 ms on a real GPU, 0.1 s on a weak one, and seconds
/// on a software rasteriser, which nobody resets. A submission costs some tens of microseconds, so
/// cutting there costs nothing that can be seen.
const SUBMISSION_WORK: f64 = 4e10;

/// Recordings are submitted once they have this many steps or so much work: 0.1 ms of a data-centre
/// GPU, which must not wait while the host goes on.
const TOGETHER: usize = 256;
const TOGETHER_WORK: f64 = 2e9;

/// Uploads go through staging memory in pieces of this size.
const UPLOAD: usize = 32 << 20;

/// After this many pieces an upload waits for the device, so that staging memory stays small.
const UPLOADS_IN_FLIGHT: usize = 4;

/// Reads go through staging memory in pieces of at most this size.
const READ: u64 = 16 << 20;

/// The smallest staging buffer for reads: what a fit reads in a sweep is less.
const SMALL_READ: u64 = 4 << 10;

/// How long a thread stays awake for the end of a read.
const AWAKE: Duration = Duration::from_millis(1);

/// How long a thread may take, each time and how often, to pass on what it was told in our place.
const LATE: Duration = Duration::from_millis(100);
const LATE_TRIES: usize = 300;

/// Timestamps of a query set; wgpu allows 4096.
const TIMESTAMPS: usize = 2048;

/// A program on a device, ready to run.
pub(crate) struct LoadedProgram {
    gpu: Gpu,
    buffers: Vec<PlacedBuffer>,
    recordings: Vec<PlacedRecording>,
    /// What reads are mapped through, kept for the next one.
    staging: Mutex<Option<wgpu::Buffer>>,
    /// What is to run and was not submitted yet.
    pending: Mutex<Vec<RecordingId>>,
    /// What it was made from.
    origin: Option<Arc<Origin>>,
}

/// A buffer on the device.
pub(crate) struct PlacedBuffer {
    pub label: String,
    pub bytes: u64,
    pub buffer: wgpu::Buffer,
}

/// A recording with everything looked up.
pub(crate) struct PlacedRecording {
    pub label: String,
    pub steps: Vec<PlacedCommand>,
}

/// A command with everything looked up.
pub(crate) enum PlacedCommand {
    Dispatch {
        pipeline: Arc<Pipeline>,
        group: wgpu::BindGroup,
        workgroups: [u32; 3],
        /// Where the device has the number of workgroups.
        sizes: Option<(wgpu::Buffer, u64)>,
        work: f64,
    },
    Copy {
        from: wgpu::Buffer,
        from_offset: u64,
        to: wgpu::Buffer,
        to_offset: u64,
        bytes: u64,
    },
    Clear {
        buffer: wgpu::Buffer,
        offset: u64,
        bytes: u64,
    },
}

impl PlacedCommand {
    /// Floating-point operations.
    fn work(&self) -> f64 {
        match self {
            PlacedCommand::Dispatch { work, .. } => *work,
            PlacedCommand::Copy { .. } | PlacedCommand::Clear { .. } => 0.0,
        }
    }
}

impl Drop for LoadedProgram {
    fn drop(&mut self) {
        let _lock = self.gpu.driver_lock();
        self.recordings.clear();
        self.buffers.clear();
        *lock(&self.staging) = None;
    }
}

impl LoadedProgram {
    /// A program whose buffers were made, and whose recordings are to come.
    pub(crate) fn new(gpu: Gpu, buffers: Vec<PlacedBuffer>) -> LoadedProgram {
        LoadedProgram {
            gpu,
            buffers,
            recordings: Vec::new(),
            staging: Mutex::default(),
            pending: Mutex::default(),
            origin: None,
        }
    }

    /// Its buffers.
    pub(crate) fn buffers(&self) -> &[PlacedBuffer] {
        &self.buffers
    }

    /// The program with its recordings.
    pub(crate) fn with(
        mut self,
        recordings: Vec<PlacedRecording>,
        origin: Arc<Origin>,
    ) -> LoadedProgram {
        self.recordings = recordings;
        self.origin = Some(origin);
        self
    }

    /// The device.
    pub(super) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// What it was made from.
    pub(super) fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    /// Writes bytes (a multiple of 4, at a multiple of 4) into a buffer. What was run before sees
    /// the old content, what is run later the new. A large write waits for the device now and then.
    ///
    /// # Errors
    /// Where the range is not in the buffer, or the device fails.
    pub fn write(&self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<()> {
        let place = self.place(buffer, offset, bytes.len() as u64, "writing")?;
        self.gpu.check()?;
        // The queue writes before what is submitted next.
        self.flush()?;
        let queue = self.gpu.queue();
        let large = bytes.len() > UPLOAD;
        for (n, piece) in bytes.chunks(UPLOAD).enumerate() {
            let at = offset + (n * UPLOAD) as u64;
            self.gpu
                .guarded(|| {
                    queue.write_buffer(&place.buffer, at, piece);
                    if large {
                        queue.submit([]);
                    }
                })
                .map_err(|fault| self.gpu.failed(&format!("writing `{}`", place.label), fault))?;
            if large && (n + 1).is_multiple_of(UPLOADS_IN_FLIGHT) {
                self.idle()?;
            }
        }
        Ok(())
    }

    /// Runs a recording after those before it; returns before the device is done. Submissions cost
    /// more than what a small recording does: it waits for others to be submitted with, until there
    /// is enough to do, or something is written, read or waited for.
    ///
    /// # Errors
    /// Where there is no such recording, or the device fails, or failed in what was run before.
    pub fn run(&self, recording: RecordingId) -> Result<()> {
        self.gpu.check()?;
        self.recording(recording)?;
        let enough = {
            let mut pending = lock(&self.pending);
            pending.push(recording);
            let steps =
                pending.iter().filter_map(|r| self.recordings.get(r.0)).flat_map(|r| &r.steps);
            let work = steps.clone().map(PlacedCommand::work).sum::<f64>();
            work > TOGETHER_WORK || steps.count() > TOGETHER
        };
        if enough { self.flush() } else { Ok(()) }
    }

    /// Submits what is to run.
    fn flush(&self) -> Result<()> {
        let recordings = std::mem::take(&mut *lock(&self.pending));
        if recordings.is_empty() {
            return Ok(());
        }
        self.gpu
            .guarded(|| self.submit(&self.steps(&recordings), None))
            .map_err(|fault| self.gpu.failed(&self.running(&recordings), fault))?;
        // So that a device that is lost is known to be now, and what is done is freed.
        self.gpu.poll(wgpu::PollType::Poll)
    }

    fn steps(&self, recordings: &[RecordingId]) -> Vec<&PlacedCommand> {
        recordings
            .iter()
            .filter_map(|r| self.recordings.get(r.0))
            .flat_map(|recording| &recording.steps)
            .collect()
    }

    fn running(&self, recordings: &[RecordingId]) -> String {
        let labels: Vec<String> = recordings
            .iter()
            .filter_map(|r| self.recordings.get(r.0))
            .map(|r| format!("`{}`", r.label))
            .collect();
        format!("running {}", labels.join(", "))
    }

    /// Submits steps, and `after` with the last of them.
    fn submit(&self, steps: &[&PlacedCommand], after: Option<&dyn Fn(&mut wgpu::CommandEncoder)>) {
        let mut rest = steps;
        loop {
            let (now, later) = rest.split_at(submission(rest));
            rest = later;
            let mut encoder = self.encoder();
            encode(&mut encoder, now);
            if let (true, Some(after)) = (rest.is_empty(), after) {
                after(&mut encoder);
            }
            self.gpu.queue().submit([encoder.finish()]);
            if rest.is_empty() {
                break;
            }
        }
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None })
    }

    #[cfg(test)]
    /// Waits until the device has done everything.
    ///
    /// # Errors
    /// Where the device fails, or failed in what was run before.
    pub fn wait(&self) -> Result<()> {
        self.flush()?;
        self.idle()?;
        self.gpu.alive()
    }

    /// Sends off what was written, and tells what to wait for until it and all that was run before
    /// is done.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn milestone(&self) -> Result<wgpu::SubmissionIndex> {
        self.flush()?;
        self.gpu
            .guarded(|| self.gpu.queue().submit([]))
            .map_err(|fault| self.gpu.failed("sending data", fault))
    }

    /// Waits for a [`milestone`](Self::milestone).
    ///
    /// # Errors
    /// Where the device fails.
    pub fn wait_for(&self, milestone: wgpu::SubmissionIndex) -> Result<()> {
        self.gpu.poll(wgpu::PollType::Wait { submission_index: Some(milestone), timeout: None })
    }

    /// Waits for a message of the device, which mostly is a moment away, while a thread that sleeps is
    /// woken late; `None` where it took longer, and the device is idle now.
    fn soon<T>(&self, told: &mpsc::Receiver<T>) -> Result<Option<T>> {
        let began = Instant::now();
        while !self.gpu.info().is_software() && began.elapsed() < AWAKE {
            self.gpu.poll(wgpu::PollType::Poll)?;
            if let Ok(message) = told.try_recv() {
                return Ok(Some(message));
            }
            std::hint::spin_loop();
        }
        self.idle().map(|()| None)
    }

    fn idle(&self) -> Result<()> {
        self.gpu.poll(wgpu::PollType::wait_indefinitely())
    }

    /// Reads bytes (a multiple of 4, at a multiple of 4) from a buffer; waits for everything that
    /// was run before.
    ///
    /// # Errors
    /// Where the range is not in the buffer, or the device fails.
    pub fn read(&self, buffer: BufferId, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let place = self.place(buffer, offset, bytes, "reading")?;
        self.gpu.check()?;
        if bytes == 0 {
            self.flush()?;
        }
        let mut result = Vec::new();
        if result.try_reserve_exact(usize::try_from(bytes).unwrap_or(usize::MAX)).is_err() {
            return Err(Error::DeviceFailed(format!(
                "no memory on this side for the {bytes} bytes of `{}`",
                place.label
            )));
        }
        let mut done = 0;
        while done < bytes {
            let piece = (bytes - done).min(READ);
            self.read_piece(&place.buffer, offset + done, piece, &mut result)
                .map_err(|fault| self.gpu.failed(&format!("reading `{}`", place.label), fault))?;
            done += piece;
        }
        Ok(result)
    }

    fn read_piece(
        &self,
        from: &wgpu::Buffer,
        offset: u64,
        bytes: u64,
        result: &mut Vec<u8>,
    ) -> Result<(), DeviceFault> {
        // Before the staging memory is locked, as it is where a program is dropped.
        let _lock = self.gpu.driver_lock();
        let mut kept = lock(&self.staging);
        let staging = match kept.take() {
            Some(staging) if staging.size() >= bytes => staging,
            _ => self.gpu.guarded(|| self.staging(bytes.next_power_of_two().max(SMALL_READ)))?,
        };
        let (tell, told) = mpsc::channel();
        let recordings = std::mem::take(&mut *lock(&self.pending));
        self.gpu.guarded(|| {
            let copy = |encoder: &mut wgpu::CommandEncoder| {
                encoder.copy_buffer_to_buffer(from, offset, &staging, 0, bytes);
            };
            self.submit(&self.steps(&recordings), Some(&copy));
            staging.map_async(wgpu::MapMode::Read, 0..bytes, move |outcome| {
                // Whoever does not listen any more has failed already.
                let _ = tell.send(outcome);
            });
        })?;
        let soon = self.soon(&told).map_err(DeviceFault::Lost)?;
        // Else the device is idle, so that the outcome is there, or with another thread that waited for
        // the device too and is about to tell. Where nobody is, the channel says so. A buffer that
        // was not mapped is not kept.
        let mut outcome = soon.map_or_else(|| told.recv_timeout(LATE), Ok);
        for _ in 0..LATE_TRIES {
            if outcome != Err(mpsc::RecvTimeoutError::Timeout) {
                break;
            }
            self.idle().map_err(DeviceFault::Lost)?;
            outcome = told.recv_timeout(LATE);
        }
        if !matches!(outcome, Ok(Ok(()))) {
            return Err(DeviceFault::Said("a buffer could not be mapped".into()));
        }
        self.gpu
            .guarded(|| {
                let read = staging.get_mapped_range(0..bytes).map(|view| {
                    result.extend_from_slice(&view);
                });
                staging.unmap();
                read
            })?
            .map_err(|error| DeviceFault::Said(error.to_string()))?;
        *kept = Some(staging);
        Ok(())
    }

    fn staging(&self, bytes: u64) -> wgpu::Buffer {
        self.gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("nneinfact staging"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Runs a recording and returns the seconds that each of its dispatches took, in their order;
    /// nothing where the device has no timestamps. Slower than running it: every dispatch is by
    /// itself.
    ///
    /// # Errors
    /// Where the device fails, or failed in what was run before.
    pub fn profile(&self, recording: RecordingId) -> Result<Option<Vec<f64>>> {
        self.gpu.check()?;
        self.flush()?;
        let steps = &self.recording(recording)?.steps;
        if !self.gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let tick = f64::from(self.gpu.queue().get_timestamp_period()) * 1e-9;
        let mut seconds = Vec::new();
        let mut rest = steps.as_slice();
        while !rest.is_empty() {
            // One submission for as many dispatches as a query set has room for.
            let mut dispatches = 0;
            let count = rest
                .iter()
                .take_while(|step| {
                    dispatches += usize::from(matches!(step, PlacedCommand::Dispatch { .. }));
                    2 * dispatches <= TIMESTAMPS
                })
                .count();
            let (now, later) = rest.split_at(count);
            rest = later;
            let stamps = self
                .timed(now)
                .map_err(|fault| self.gpu.failed(&self.running(&[recording]), fault))?;
            let pairs = stamps.as_chunks::<2>().0.iter();
            seconds.extend(pairs.map(|[from, to]| to.saturating_sub(*from) as f64 * tick));
        }
        Ok(Some(seconds))
    }

    /// Two timestamps for each dispatch.
    fn timed(&self, steps: &[PlacedCommand]) -> Result<Vec<u64>, DeviceFault> {
        let _lock = self.gpu.driver_lock();
        let dispatches =
            steps.iter().filter(|s| matches!(s, PlacedCommand::Dispatch { .. })).count();
        let count = 2 * dispatches as u32;
        let bytes = 8 * u64::from(count.max(1));
        let resolved = self.gpu.guarded(|| {
            let device = self.gpu.device();
            let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: count.max(2),
            });
            let resolved = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("nneinfact timestamps"),
                size: bytes,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            let mut encoder = self.encoder();
            let mut at = 0;
            for step in steps {
                let PlacedCommand::Dispatch { pipeline, group, workgroups: [x, y, z], .. } = step
                else {
                    encode(&mut encoder, &[step]);
                    continue;
                };
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: Some(at),
                        end_of_pass_write_index: Some(at + 1),
                    }),
                });
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(*x, *y, *z);
                at += 2;
            }
            if count > 0 {
                encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
            }
            self.gpu.queue().submit([encoder.finish()]);
            resolved
        })?;
        let mut stamps = Vec::new();
        if count > 0 {
            self.read_piece(&resolved, 0, bytes, &mut stamps)?;
        }
        Ok(stamps.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect())
    }

    fn recording(&self, id: RecordingId) -> Result<&PlacedRecording> {
        let missing = || Error::DeviceFailed(format!("internal: there is no recording {}", id.0));
        self.recordings.get(id.0).ok_or_else(missing)
    }

    /// The buffer, if it has the range.
    fn place(&self, id: BufferId, offset: u64, bytes: u64, doing: &str) -> Result<&PlacedBuffer> {
        let missing =
            || Error::DeviceFailed(format!("internal: {doing}: there is no buffer {}", id.0));
        let place = self.buffers.get(id.0).ok_or_else(missing)?;
        range(&place.label, place.bytes, offset, bytes, &|| doing.to_string())?;
        Ok(place)
    }
}

/// How many of these steps make the next submission: at least one, and no more work than
/// [`SUBMISSION_WORK`] where it can be cut.
fn submission(steps: &[&PlacedCommand]) -> usize {
    let mut sum = 0.0;
    for (n, step) in steps.iter().enumerate() {
        if sum > 0.0 && sum + step.work() > SUBMISSION_WORK {
            return n;
        }
        sum += step.work();
    }
    steps.len()
}

/// Encodes steps, with one compute pass for every run of dispatches.
fn encode(encoder: &mut wgpu::CommandEncoder, steps: &[&PlacedCommand]) {
    let mut steps = steps.iter().peekable();
    while let Some(step) = steps.peek() {
        match step {
            PlacedCommand::Dispatch { .. } => {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                let mut last: Option<&Arc<Pipeline>> = None;
                while let Some(PlacedCommand::Dispatch {
                    pipeline,
                    group,
                    workgroups: [x, y, z],
                    sizes,
                    ..
                }) = steps.peek()
                {
                    if !last.is_some_and(|last| Arc::ptr_eq(last, pipeline)) {
                        pass.set_pipeline(&pipeline.pipeline);
                        last = Some(pipeline);
                    }
                    pass.set_bind_group(0, group, &[]);
                    match sizes {
                        Some((sizes, offset)) => pass.dispatch_workgroups_indirect(sizes, *offset),
                        None => pass.dispatch_workgroups(*x, *y, *z),
                    }
                    steps.next();
                }
            }
            PlacedCommand::Copy { from, from_offset, to, to_offset, bytes } => {
                encoder.copy_buffer_to_buffer(from, *from_offset, to, *to_offset, *bytes);
                steps.next();
            }
            PlacedCommand::Clear { buffer, offset, bytes } => {
                encoder.clear_buffer(buffer, *offset, Some(*bytes));
                steps.next();
            }
        }
    }
}
