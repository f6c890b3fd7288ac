//! Restarts of the BMC: never over a transfer; then wait for it, log in anew.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::Instant;
use turingpi_bmc::{BmcClient as _, BmcError, Transfer};
use turingpi_engine::{Failure, FailureClass, Probe, StepContext};

use super::{BoardDesk, OpenBoard};

/// How long a BMC may take to come back: 48 to 60 s are usual.
const BACK: Duration = Duration::from_secs(240);
/// A network that is reset is down by then.
const BOUNCE: Duration = Duration::from_secs(3);
/// Whoever answers for this long after being asked to restart has done it unseen, or will not.
const UNSEEN: Duration = Duration::from_secs(20);

impl OpenBoard {
    /// Looks whether a transfer moves on the BMC now. A restart in the middle of one leaves a slot half
    /// written, and another module that is switched on beside it may be taken for the one to be flashed.
    ///
    /// # Errors
    /// `Locked` while one moves, naming its process; what the BMC says when it cannot be asked.
    pub async fn no_transfer(&self) -> Result<(), Failure> {
        match self.http().transfer().await {
            Ok(Transfer::Moving { process, .. }) => Err(Failure::new(
                FailureClass::Locked,
                format!("the BMC of {} is busy with a transfer: `{process}`", self.name()),
            )
            .hint(format!(
                "Nothing was done. Wait until it has ended; `turingpi board transfer --board {}` shows it, `--cancel` \
                 ends it.",
                self.name()
            ))),
            Ok(_) | Err(BmcError::Unsupported { .. }) => Ok(()),
            Err(error) => Err(self.failure(error)),
        }
    }
}

impl BoardDesk {
    /// Restarts the BMC, and forgets the login that is worth nothing from then on. Whether a transfer moves is looked at
    /// here, however long ago anybody has looked: a person may have been asked meanwhile.
    /// [`wait_until_back`](BoardDesk::wait_until_back) goes on.
    ///
    /// # Errors
    /// `Locked` while a transfer moves: nothing was restarted then.
    pub async fn reboot(&self, board: &OpenBoard) -> Result<(), Failure> {
        board.no_transfer().await?;
        board.http().reboot().await.map_err(|e| board.failure(e))?;
        self.keep_login(board)
    }

    /// Restarts the BMC's daemon only; otherwise as [`BoardDesk::reboot`].
    ///
    /// # Errors
    /// `Locked` while a transfer moves: nothing was restarted then.
    pub async fn reload(&self, board: &OpenBoard) -> Result<(), Failure> {
        board.no_transfer().await?;
        board.http().reload().await.map_err(|e| board.failure(e))?;
        self.keep_login(board)
    }

    /// Waits until a BMC that was asked to restart has gone and come back, and logs in anew.
    ///
    /// # Errors
    /// `Timeout` when it does not come back, saying what may be the matter.
    pub async fn wait_until_back(&self, board: &OpenBoard, cx: &StepContext) -> Result<OpenBoard, Failure> {
        let began = Instant::now();
        let gone = AtomicBool::new(false);
        let unseen = cx.timing().limit(UNSEEN);
        let condition = format!("the BMC of {} to come back", board.name());
        cx.wait(&condition, BACK, || async {
            Ok(match board.http().ping().await {
                Err(_) => {
                    gone.store(true, Ordering::Relaxed);
                    Probe::NotYet("it does not answer yet".to_owned())
                }
                Ok(()) if gone.load(Ordering::Relaxed) || began.elapsed() >= unseen => Probe::Ready(()),
                Ok(()) => Probe::NotYet("it has not gone down yet".to_owned()),
            })
        })
        .await
        .map_err(|failure| not_back(board, failure))?;
        let back = self.connect(board.name()).await?;
        cx.note(format!("the BMC of {} is back ({})", back.name(), back.about().firmware_name()));
        Ok(back)
    }
}

impl BoardDesk {
    /// Waits until a BMC whose network was reset answers again. Firmware 2.1 takes it down a second after its answer.
    ///
    /// # Errors
    /// `Timeout` when it does not come back: its address may have changed.
    pub async fn wait_until_on_the_network(
        &self,
        board: &OpenBoard,
        cx: &StepContext,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let gone = AtomicBool::new(false);
        let condition = format!("the BMC of {} to be on the network", board.name());
        let waited = cx.wait(&condition, BACK, || async {
            Ok(match board.http().ping().await {
                Err(error) => {
                    gone.store(true, Ordering::Relaxed);
                    Probe::NotYet(error.to_string())
                }
                Ok(()) if gone.load(Ordering::Relaxed) || began.elapsed() >= BOUNCE => Probe::Ready(()),
                Ok(()) => Probe::NotYet("it has not gone down yet".to_owned()),
            })
        });
        waited.await.map_err(|failure| match failure.class() {
            FailureClass::Timeout => Failure::new(
                FailureClass::Timeout,
                format!("the BMC of {} did not come back on the network", board.name()),
            )
            .hint("It may have another address now: `turingpi board discover`.")
            .source(failure),
            _ => failure,
        })
    }
}

fn not_back(board: &OpenBoard, failure: Failure) -> Failure {
    if failure.class() != FailureClass::Timeout {
        return failure;
    }
    Failure::new(FailureClass::Timeout, format!("the BMC of {} did not come back", board.name()))
        .hint(
            "Give it two more minutes. It may have another address now: look with `turingpi board discover`. If it stays \
             dark, cut the board's power for ten seconds: settings and images are kept.",
        )
        .source(failure)
}
