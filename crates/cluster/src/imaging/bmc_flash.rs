//! A flash whose image the BMC reads itself: a file it has, or one it downloads.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use time::OffsetDateTime;
use turingpi_bmc::RemoteImage;
use turingpi_engine::{Change, Failure, Risk, Step, StepContext, StepDescription, Verdict};
use url::Url;

use super::{
    FlashContext,
    flash::tell,
    guard::{Guard, still_moving},
    record::BmcWrote,
};
use crate::{
    SlotRef,
    fetch::Sha256,
    first_boot::{nonce, root_password_key},
};

/// We never see a byte of it, so what is known afterwards is what the BMC says: a record of its own says no more.
pub(super) struct BmcFlashStep {
    guard: Guard,
    /// As the BMC gets it.
    source: From,
    sha256: Option<Sha256>,
}

enum From {
    File(String),
    Url(Url),
}

impl BmcFlashStep {
    pub(super) fn on_bmc(node: &str, place: &SlotRef, path: &str, cx: FlashContext) -> Self {
        Self { guard: Guard::new(node, place, cx), source: From::File(path.to_owned()), sha256: None }
    }

    pub(super) fn by_bmc(
        node: &str,
        place: &SlotRef,
        url: &Url,
        sha256: Option<&Sha256>,
        cx: FlashContext,
    ) -> Self {
        Self { guard: Guard::new(node, place, cx), source: From::Url(url.clone()), sha256: sha256.cloned() }
    }

    fn image(&self) -> Result<RemoteImage, Failure> {
        let image = match &self.source {
            From::File(path) => RemoteImage::file(path),
            From::Url(url) => RemoteImage::url(url.clone()),
        };
        let image = match &self.sha256 {
            Some(digest) => image.and_then(|image| image.with_sha256(digest.as_str())),
            None => image,
        };
        image.map_err(|e| self.guard.failed(e))
    }

    /// For people: queries of presigned URLs are secrets.
    fn shown(&self) -> String {
        match &self.source {
            From::File(path) => format!("`{path}` on the BMC"),
            From::Url(url) => crate::fetch::Source::Url(url.clone()).to_string(),
        }
    }

    fn is_mine(&self, wrote: &BmcWrote, run: &str) -> bool {
        wrote.run == run && wrote.node == self.guard.node && wrote.source == self.shown()
    }
}

#[async_trait]
impl Step for BmcFlashStep {
    fn describe(&self) -> StepDescription {
        let place = &self.guard.place;
        let checked = match (&self.sha256, &self.source) {
            (Some(digest), _) => digest.to_string(),
            (None, From::File(_)) => "the BMC checks no digest of its own files".to_owned(),
            (None, From::Url(_)) => "no digest to check".to_owned(),
        };
        self.guard.describe(
            StepDescription::new(
                self.guard.step_id(),
                format!("Flash slot {place} from the BMC's side"),
                "flash",
            )
            .risk(Risk::Destructive)
            .change(Change::set(format!("eMMC of slot {place}"), format!("{} ({checked})", self.shown()))),
        )
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let place = &self.guard.place;
        let bmc = Arc::clone(self.guard.cx.boards.client(&place.board)?);
        self.guard.cx.neighbours.queue.begin(place);
        if BmcWrote::read(&cx.state().await?, place)?.is_some_and(|wrote| self.is_mine(&wrote, cx.run())) {
            return self.guard.restore(bmc.as_ref(), cx).await;
        }
        let ready = async {
            let image = self.image()?;
            self.guard.admit(bmc.as_ref(), cx).await?;
            self.guard.clear(bmc.as_ref(), cx).await?;
            Ok(image)
        };
        let image = match ready.await {
            Ok(image) => image,
            Err(failure) => {
                self.guard.nothing_begun(cx).await?;
                let _ = self.guard.restore(bmc.as_ref(), cx).await;
                return Err(failure);
            }
        };
        self.guard.begin(cx).await?;
        let key = BmcWrote::key(place);
        let progress = |now| tell(cx, now);
        if let Err(error) = bmc.flash_remote(place.slot, image, &progress).await {
            return Err(self.guard.give_up(error, bmc.as_ref(), cx).await);
        }
        self.guard.touched().await;
        let wrote = BmcWrote {
            source: self.shown(),
            node: self.guard.node.clone(),
            at: OffsetDateTime::now_utc(),
            run: cx.run().to_owned(),
            flash: nonce(),
        };
        cx.update_state(|state| {
            state.remove_secret(&root_password_key(&self.guard.node));
            state.put_record(key, &wrote)
        })
        .await?;
        self.guard.restore(bmc.as_ref(), cx).await
    }

    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        let wrote = BmcWrote::read(&cx.state().await?, &self.guard.place)?;
        if !wrote.is_some_and(|wrote| self.is_mine(&wrote, cx.run())) {
            return Ok(Verdict::NotYet(format!("slot {} has no verified image", self.guard.place)));
        }
        still_moving(&self.guard).await
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(120)
    }
}
