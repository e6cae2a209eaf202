//! SIGINT and SIGTERM: the first ends the work cleanly, the second at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::{Exit, Failure};

/// From its making on, no signal is lost.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            let failed =
                |e| Failure::new(Exit::Failed, format!("could not listen to signals: {e}"));
            signal(kind).map_err(failed)
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for either; answers the exit status that tells of it.
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }

    /// From now on, another signal ends the process where it is: for whoever does not want
    /// to wait for a clean end.
    pub(crate) fn then_at_once(mut self) {
        tokio::spawn(async move {
            let exit = self.next().await;
            std::process::exit(exit as i32);
        });
    }
}
