//! What others decide about a download: paused, cancelled, not yet its turn.

use chiral_core::TransferDriver;
use chiral_core::transfer::Stopped;

use crate::downloads::Turn;

/// Whether a download is to work now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Control {
    /// It is paused, or others have their turn.
    pub(super) held: bool,
    pub(super) cancelled: bool,
}

/// What is decided now. While it is paused a download gives its turn to others; one that
/// matters more takes it.
pub(super) fn look(driver: &TransferDriver, turn: &Turn) -> Control {
    decide(driver, turn, driver.is_paused(), driver.is_cancelled())
}

fn decide(driver: &TransferDriver, turn: &Turn, paused: bool, cancelled: bool) -> Control {
    turn.set_aside(paused);
    let held = !turn.is_own();
    driver.set_queued(held && !paused);
    Control { held, cancelled }
}

/// Waits until something else is decided than what is `known`.
///
/// # Cancel safety
/// Dropping the future changes nothing.
pub(super) async fn changed(driver: &TransferDriver, turn: &Turn, known: Control) -> Control {
    loop {
        let (paused, cancelled) = (driver.is_paused(), driver.is_cancelled());
        let control = decide(driver, turn, paused, cancelled);
        if control != known {
            return control;
        }
        tokio::select! {
            _ = driver.changed((paused, cancelled)) => {}
            () = turn.own(), if control.held && !paused => {}
            () = turn.lost(), if !control.held => {}
        }
    }
}

/// Waits until the download may work.
///
/// # Errors
/// [`Stopped`] once it is cancelled.
pub(super) async fn own_turn(driver: &TransferDriver, turn: &Turn) -> Result<(), Stopped> {
    let mut control = look(driver, turn);
    loop {
        match control {
            Control {
                cancelled: true, ..
            } => return Err(Stopped),
            Control { held: false, .. } => return Ok(()),
            Control { held: true, .. } => control = changed(driver, turn, control).await,
        }
    }
}
