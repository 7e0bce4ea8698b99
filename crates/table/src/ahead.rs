//! Rows that a thread of its own unpacks and tells apart, while those before are used.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::records::Records;

/// So many batches wait at most.
const WAITING: usize = 4;
/// How often the switch that cancels is looked at while nothing comes.
const PATIENCE: Duration = Duration::from_millis(20);

/// A switch that ends the reading.
pub(crate) type Switch = Option<Arc<AtomicBool>>;

/// That the reading was cancelled, where it was.
pub(crate) fn cancelled(switch: &Switch, path: &Path) -> Result<()> {
    match switch {
        Some(switch) if switch.load(Ordering::Relaxed) => {
            Err(Error::Cancelled(format!("reading {}", path.display())))
        }
        _ => Ok(()),
    }
}

/// What the thread sends: rows, and whether there was a fault after them. No rows and no fault are the end.
type Filled = (Batch, Result<()>);

/// Rows that come from a thread.
///
/// The thread ends with the rows, or when it finds nobody who waits for them. It is not waited for: it may be
/// in the middle of a read of a pipe to which nobody writes.
pub(crate) struct RowsAhead {
    filled: Receiver<Filled>,
    /// Batches whose rows were used, to be filled again.
    used: Sender<Batch>,
    path: PathBuf,
    cancel: Switch,
}

impl RowsAhead {
    /// Has the rows told apart on a thread; gives them back where there can be no thread.
    #[allow(
        clippy::result_large_err,
        reason = "once for a file, and what comes back is what was given"
    )]
    pub fn start<R: Read + Send + 'static>(
        records: Records<R>,
        path: &Path,
        cancel: &Switch,
    ) -> Result<RowsAhead, Records<R>> {
        let (send, filled) = sync_channel(WAITING);
        let (used, again) = channel();
        let (give, take) = channel::<Records<R>>();
        let work = move || {
            if let Ok(records) = take.recv() {
                read(records, &send, &again);
            }
        };
        let started = thread::Builder::new().name("nneinfact-table".into()).spawn(work);
        if started.is_err() {
            return Err(records);
        }
        match give.send(records) {
            Ok(()) => Ok(RowsAhead { filled, used, path: path.into(), cancel: cancel.clone() }),
            Err(unsent) => Err(unsent.0),
        }
    }

    /// As [`Records::fill`].
    pub fn fill(&mut self, batch: &mut Batch) -> Result<()> {
        let (next, result) = loop {
            match self.filled.recv_timeout(PATIENCE) {
                Ok(filled) => break filled,
                Err(RecvTimeoutError::Timeout) => cancelled(&self.cancel, &self.path)?,
                Err(RecvTimeoutError::Disconnected) => {
                    batch.clear();
                    let thread = "the thread that reads the rows ended before the table";
                    return Err(Error::Internal(thread.into()));
                }
            }
        };
        // Where the thread has ended, nobody needs it.
        let _ = self.used.send(std::mem::replace(batch, next));
        result
    }
}

/// Reads all rows, as far as somebody waits for them.
fn read<R: Read>(mut records: Records<R>, send: &SyncSender<Filled>, again: &Receiver<Batch>) {
    loop {
        let mut batch = again.try_recv().unwrap_or_default();
        let result = records.fill(&mut batch);
        let ends = result.is_err() || batch.len() == 0;
        if send.send((batch, result)).is_err() || ends {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::records::Dialect;

    const DIALECT: Dialect = Dialect { separator: b',', quote: Some(b'"') };

    fn ahead(from: impl Read + Send + 'static, cancel: &Switch) -> RowsAhead {
        let path = Path::new("t.csv");
        let records = Records::new(from, path, DIALECT).unwrap();
        RowsAhead::start(records, path, cancel).map_err(|_| "no thread").unwrap()
    }

    /// The first cells of all rows, and the fault at the end.
    fn rows(ahead: &mut RowsAhead) -> (Vec<String>, Option<String>) {
        let (mut batch, mut cells) = (Batch::default(), Vec::new());
        loop {
            let result = ahead.fill(&mut batch);
            let first = |i| String::from_utf8_lossy(batch.row(i).cell(0)).into_owned();
            cells.extend((0..batch.len()).map(first));
            match result {
                Err(e) => return (cells, Some(e.to_string())),
                Ok(()) if batch.len() == 0 => return (cells, None),
                Ok(()) => {}
            }
        }
    }

    /// Rows, and then a fault.
    struct Failing(io::Cursor<Vec<u8>>);

    impl Read for Failing {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            match self.0.read(to)? {
                0 => Err(io::ErrorKind::InvalidData.into()),
                n => Ok(n),
            }
        }
    }

    /// A pipe to which nobody writes for a long time.
    struct Silent;

    impl Read for Silent {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            loop {
                thread::park();
            }
        }
    }

    #[test]
    fn all_rows_come_and_then_the_fault() {
        let text: String = (0..100_000).map(|i| format!("{i},x\n")).collect();
        let expected: Vec<String> = (0..100_000).map(|i| i.to_string()).collect();
        let whole = io::Cursor::new(text.clone().into_bytes());
        assert_eq!(rows(&mut ahead(whole, &None)), (expected.clone(), None));
        let failing = Failing(io::Cursor::new(text.into_bytes()));
        let (found, fault) = rows(&mut ahead(failing, &None));
        assert_eq!(found, expected);
        assert!(
            fault.as_ref().is_some_and(|e| e.starts_with("t.csv: the file is damaged")),
            "{fault:?}"
        );
    }

    #[test]
    fn a_switch_ends_the_wait_for_rows_that_do_not_come() {
        let switch = Arc::new(AtomicBool::new(false));
        let text = io::Cursor::new(b"a,b\n1,2\n".to_vec());
        let mut rows = ahead(text.chain(Silent), &Some(Arc::clone(&switch)));
        let mut batch = Batch::default();
        rows.fill(&mut batch).unwrap();
        assert_eq!(batch.len(), 2);
        switch.store(true, Ordering::Relaxed);
        let fault = rows.fill(&mut batch).unwrap_err();
        assert_eq!(fault.to_string(), "reading t.csv was cancelled");
    }

    #[test]
    fn a_thread_that_is_gone_is_no_end() {
        struct Panics;
        impl Read for Panics {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("on purpose")
            }
        }
        let text = io::Cursor::new(b"a,b\n1,2\n".to_vec());
        let (found, fault) = rows(&mut ahead(text.chain(Panics), &None));
        assert_eq!(found, ["a", "1"]);
        assert!(fault.is_some_and(|e| e.contains("ended before the table")));
    }
}
