//! The one step that erases, with an image that we send.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use time::OffsetDateTime;
use turingpi_bmc::{BmcClient, Capability, FlashProgress, ImageUpload};
use turingpi_engine::{
    Change, Failure, FailureClass, Risk, Step, StepContext, StepDescription, Unit, Verdict,
};

use super::{
    FirstBootState, FlashContext, ImageSpec, SlotRecord,
    guard::{Guard, still_moving},
};
use crate::{
    SlotRef,
    fetch::{Fetched, Sha256, Source},
    fetch_again,
    first_boot::{nonce, root_password_key},
    images::{ImageFile, Packing, Unpacking},
};

/// What a flash of an RK1 takes, for the progress bar: sheet 4.9, about 2 MB/s and a read-back.
pub(super) const EXPECTED_SECONDS: u64 = 900;

/// The file, what is sent of it, and the digest of that.
type Ready = (Fetched, ImageUpload, Option<String>);

pub(super) struct FlashStep {
    guard: Guard,
    image: ImageSpec,
}

impl FlashStep {
    pub(super) fn new(node: &str, place: &SlotRef, image: &ImageSpec, cx: FlashContext) -> Self {
        Self { guard: Guard::new(node, place, cx), image: image.clone() }
    }

    fn place(&self) -> &SlotRef {
        &self.guard.place
    }

    /// Gets the image and proves its digest before the board is touched.
    async fn image(&self, cx: &StepContext) -> Result<Fetched, Failure> {
        let expected = expected_digest(&self.image, &self.guard.cx).await?;
        tracing::info!(image = self.image.name, source = %self.image.source, "fetching");
        let progress = |done, total| cx.progress_of("fetching the image", done, total, Unit::Bytes);
        fetch_again(&self.guard.cx.fetcher, &self.image.source, expected.as_ref(), &progress, cx).await
    }

    /// Everything that comes before the eMMC is touched.
    async fn ready(&self, bmc: &dyn BmcClient, cx: &StepContext) -> Result<Ready, Failure> {
        self.guard.admit(bmc, cx).await?;
        let image = self.image(cx).await?;
        let (upload, expected) = self.upload(bmc, &image, cx).await?;
        self.guard.clear(bmc, cx).await?;
        Ok((image, upload, expected))
    }

    /// The image as this board's firmware takes it, and the digest of what will be sent, where that is known beforehand:
    /// xz as it is if the firmware unpacks it, everything else unpacked while it is sent.
    async fn upload(
        &self,
        bmc: &dyn BmcClient,
        image: &Fetched,
        cx: &StepContext,
    ) -> Result<(ImageUpload, Option<String>), Failure> {
        let about = bmc.about().await.map_err(|e| self.guard.failed(e))?;
        let file = ImageFile::open(&image.path).await?;
        if let Some(what) = file.foreign().await? {
            return Err(Failure::new(
                FailureClass::Refused,
                format!("image `{}` is no disk image but {what}", self.image.name),
            )
            .hint("A BMC would write it as it is. Name the image itself; `turingpi image inspect FILE` tells what a file holds."));
        }
        self.guard.fits(&self.image.name, file.raw_bytes())?;
        let as_it_is =
            file.packing() == Packing::Raw || (file.packing() == Packing::Xz && about.has(Capability::Xz));
        let progress = |done, total| cx.progress_of("measuring the image", done, total, Unit::Bytes);
        let file = if as_it_is { file } else { file.measured(&progress).await? };
        self.guard.fits(&self.image.name, file.raw_bytes())?;
        let mut upload = file.upload(about.has(Capability::Xz), Unpacking::lean()).await?;
        // In the cache it is named by its digest.
        upload.name.clone_from(&self.image.name);
        if as_it_is {
            upload = upload.with_sha256(image.sha256.as_str()).map_err(|e| self.guard.failed(e))?;
        }
        let expected = upload.sha256.clone();
        Ok((upload, expected))
    }

    async fn write(
        &self,
        bmc: &dyn BmcClient,
        upload: ImageUpload,
        expected: Option<String>,
        cx: &StepContext,
    ) -> Result<(), Failure> {
        let progress = |now: FlashProgress| tell(cx, now);
        let flashed = match bmc.flash(self.place().slot, upload, &progress).await {
            Ok(flashed) => flashed,
            Err(error) => return Err(self.guard.give_up(error, bmc, cx).await),
        };
        self.guard.touched().await;
        // What is unpacked on the way has checks of its own inside; where its digest is known, that is compared, too.
        if expected.is_some_and(|expected| expected != flashed.sha256) {
            let _ = self.guard.restore(bmc, cx).await;
            return Err(Failure::new(
                FailureClass::Refused,
                format!("what was written to slot {} is not image `{}`", self.place(), self.image.name),
            )
            .hint("The file changed while it was sent. Run this again."));
        }
        Ok(())
    }

    fn is_mine(&self, record: &SlotRecord, run: &str) -> bool {
        record.run == run
            && record.node == self.guard.node
            && record.image == self.image.name
            && self.image.sha256.as_ref().is_none_or(|wanted| *wanted == record.sha256)
    }
}

/// A flash's progress in the stream of events.
pub(super) fn tell(cx: &StepContext, now: FlashProgress) {
    let (name, done, total) = match now {
        FlashProgress::Uploading { sent, total } => ("uploading", sent, Some(total)),
        FlashProgress::Writing { done, total } => ("writing", done, total),
        FlashProgress::Verifying { done, total } => ("reading back", done, total),
        _ => return,
    };
    cx.progress_of(name, done, total, Unit::Bytes);
}

#[async_trait]
impl Step for FlashStep {
    fn describe(&self) -> StepDescription {
        let digest = self.image.sha256.as_ref().map_or("digest from the publisher", Sha256::as_str);
        let digest = match (&self.image.sha256, &self.image.source) {
            (None, Source::Path(_)) => "the file as it is",
            _ => digest,
        };
        self.guard.describe(
            StepDescription::new(
                self.guard.step_id(),
                format!("Flash {} to slot {}", self.image.name, self.place()),
                "flash",
            )
            .risk(Risk::Destructive)
            .change(Change::set(
                format!("eMMC of slot {}", self.place()),
                format!("{} ({digest})", self.image.name),
            )),
        )
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let bmc = Arc::clone(self.guard.cx.boards.client(&self.place().board)?);
        let key = SlotRecord::key(self.place());
        self.guard.cx.neighbours.queue.begin(self.place());
        // Written by this very run: a retry after the flash itself had succeeded.
        if SlotRecord::read(&cx.state().await?, self.place())?
            .is_some_and(|record| self.is_mine(&record, cx.run()))
        {
            return self.guard.restore(bmc.as_ref(), cx).await;
        }
        let (image, upload, expected) = match self.ready(bmc.as_ref(), cx).await {
            Ok(ready) => ready,
            Err(failure) => {
                self.guard.nothing_begun(cx).await?;
                let _ = self.guard.restore(bmc.as_ref(), cx).await;
                return Err(failure);
            }
        };
        self.guard.begin(cx).await?;
        self.write(bmc.as_ref(), upload, expected, cx).await?;
        // At once, before anything else may fail: from here on a crash does not lead to a second flash.
        let record = SlotRecord {
            image: self.image.name.clone(),
            sha256: image.sha256,
            node: self.guard.node.clone(),
            at: OffsetDateTime::now_utc(),
            run: cx.run().to_owned(),
            flash: nonce(),
            first_boot: FirstBootState::Pending,
        };
        cx.update_state(|state| {
            // The old system is gone, and its root password with it.
            state.remove_secret(&root_password_key(&self.guard.node));
            state.put_record(key, &record)
        })
        .await?;
        self.guard.restore(bmc.as_ref(), cx).await
    }

    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        let record = SlotRecord::read(&cx.state().await?, self.place())?;
        if !record.is_some_and(|record| self.is_mine(&record, cx.run())) {
            return Ok(Verdict::NotYet(format!("slot {} has no verified image", self.place())));
        }
        still_moving(&self.guard).await
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(120)
    }
}

/// The digest that the image must have. A URL without one in the document needs its publisher's checksum file.
async fn expected_digest(image: &ImageSpec, cx: &FlashContext) -> Result<Option<Sha256>, Failure> {
    let url = match (&image.sha256, &image.source) {
        (Some(digest), _) => return Ok(Some(digest.clone())),
        (None, Source::Path(_)) => return Ok(None),
        (None, Source::Url(url)) => url,
    };
    let file = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
    for suffix in [".sha256", ".sha", ".sha256sum"] {
        let mut beside = url.clone();
        beside.set_path(&format!("{}{suffix}", url.path()));
        if let Some(text) = cx.fetcher.text_if_there(&Source::Url(beside)).await?
            && let Some(digest) = Sha256::beside(&text, file)
        {
            return Ok(Some(digest));
        }
    }
    Err(Failure::new(
        FailureClass::Config,
        format!("nothing says what the digest of image `{}` is", image.name),
    )
    .hint(
        "Give its `sha256` (in the document, or with `--sha256`): an image whose digest is not known is never flashed.",
    ))
}
