//! What a fit over several processes needs of whatever connects them.

use crate::error::{Error, Result};

/// Connects the processes of one fit. A transport moves numbers and nothing else: the order in which
/// sums are added is the library's, so that every process gets the same bits, on every transport and
/// for any number of processes.
///
/// All processes make the same calls in the same order.
pub trait Reducer: Send {
    /// Which of the processes this is, from 0.
    fn rank(&self) -> usize;

    /// How many processes there are, at least 1.
    fn size(&self) -> usize;

    /// Exchanges with another process, which makes the same call with this one's rank: sends all of
    /// `send`, and fills `receive` with what the other sends. Either may be empty; the length of
    /// `receive` is that of the other's `send`. Numbers arrive with their bits.
    ///
    /// # Errors
    /// Where the other process cannot be reached any more.
    fn exchange(&mut self, with: usize, send: &[f64], receive: &mut [f64]) -> Result<()>;

    /// The largest of the words of all processes: "go on" is 0, and whoever wants all to stop says
    /// more.
    ///
    /// # Errors
    /// Where another process cannot be reached any more.
    fn agree(&mut self, word: u64) -> Result<u64>;

    /// This process has failed, and the others are about to be told so in their next call. A transport may
    /// end them where they take long to come to that. What happens by default is nothing.
    fn failing(&mut self, error: &Error) {
        let _ = error;
    }
}

impl<R: Reducer + ?Sized> Reducer for Box<R> {
    fn rank(&self) -> usize {
        (**self).rank()
    }

    fn size(&self) -> usize {
        (**self).size()
    }

    fn exchange(&mut self, with: usize, send: &[f64], receive: &mut [f64]) -> Result<()> {
        (**self).exchange(with, send, receive)
    }

    fn agree(&mut self, word: u64) -> Result<u64> {
        (**self).agree(word)
    }

    fn failing(&mut self, error: &Error) {
        (**self).failing(error);
    }
}
