//! A thread beside the rank's own, for one piece of work at a time.

use std::any::Any;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Error, Result, anyhow, ensure};

/// A thread that turns a job into a result, one at a time. Dropping it waits for the job under way.
pub struct Background<J, D> {
    jobs: Option<SyncSender<J>>,
    done: Receiver<D>,
    thread: Option<JoinHandle<()>>,
    busy: bool,
}

impl<J: Send + 'static, D: Send + 'static> Background<J, D> {
    /// Starts the thread under this name, of which the system shows 15 letters.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn start(name: &str, mut work: impl FnMut(J) -> D + Send + 'static) -> Result<Self> {
        let (jobs, next) = sync_channel::<J>(1);
        let (tell, done) = channel();
        let thread = Builder::new().name(name.to_string()).spawn(move || {
            // Its owner ends it by dropping the other ends.
            for job in next {
                if tell.send(work(job)).is_err() {
                    return;
                }
            }
        });
        let thread = thread.with_context(|| format!("starting the thread {name}"))?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread), busy: false })
    }

    /// Whether a job is under way whose result nobody has taken.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Begins a job.
    ///
    /// # Errors
    /// The result of the one before was not taken; the thread has panicked.
    pub fn begin(&mut self, job: J) -> Result<()> {
        ensure!(!self.busy, "the work before is still under way");
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        self.busy = sent;
        if sent { Ok(()) } else { Err(self.panicked()) }
    }

    /// The result of the job under way, if there is one by now.
    ///
    /// # Errors
    /// The job panicked.
    pub fn poll(&mut self) -> Result<Option<D>> {
        if !self.busy {
            return Ok(None);
        }
        match self.done.try_recv() {
            Err(TryRecvError::Empty) => Ok(None),
            Ok(done) => Ok(Some(self.took(done))),
            Err(TryRecvError::Disconnected) => Err(self.panicked()),
        }
    }

    /// Waits for the job under way, if there is one.
    ///
    /// # Errors
    /// The job panicked.
    pub fn wait(&mut self) -> Result<Option<D>> {
        if !self.busy {
            return Ok(None);
        }
        match self.done.recv() {
            Ok(done) => Ok(Some(self.took(done))),
            Err(_) => Err(self.panicked()),
        }
    }

    fn took(&mut self, done: D) -> D {
        self.busy = false;
        done
    }

    /// Why the thread is gone.
    fn panicked(&mut self) -> Error {
        self.busy = false;
        let panic = self.thread.take().and_then(|thread| thread.join().err());
        let text = panic.as_deref().and_then(message).unwrap_or("its thread is gone");
        anyhow!("a bug stopped the work in the background: {text}")
    }
}

fn message(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())
}

impl<J, D> Drop for Background<J, D> {
    fn drop(&mut self) {
        self.jobs = None;
        // A panic was told of by its hook.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn jobs_are_done_in_order_beside_the_owner() {
        let mut seen = vec![];
        let mut background = Background::start("test", move |number: u32| {
            std::thread::sleep(Duration::from_millis(20));
            seen.push(number);
            seen.clone()
        })
        .unwrap();
        assert!(background.poll().unwrap().is_none() && background.wait().unwrap().is_none());
        background.begin(1).unwrap();
        assert!(background.is_busy() && background.begin(2).is_err(), "two jobs at once");
        assert_eq!(background.wait().unwrap(), Some(vec![1]));
        background.begin(3).unwrap();
        let found = loop {
            if let Some(found) = background.poll().unwrap() {
                break found;
            }
        };
        assert_eq!(found, [1, 3]);
        assert!(!background.is_busy());
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let mut background = Background::start("test", |number: u32| 12 / number).unwrap();
        background.begin(0).unwrap();
        let message = background.wait().unwrap_err().to_string();
        assert!(message.contains("divide by zero"), "{message}");
        assert!(background.begin(1).is_err() && !background.is_busy());
    }

    #[test]
    fn dropping_it_waits_for_the_job_under_way() {
        let done = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&done);
        let mut background = Background::start("test", move |()| {
            std::thread::sleep(Duration::from_millis(50));
            count.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
        background.begin(()).unwrap();
        drop(background);
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}
