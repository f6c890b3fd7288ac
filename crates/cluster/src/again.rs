//! Downloads whose content is wrong: once may be a flipped bit, three times is another file.

use turingpi_engine::{Failure, StepContext};

use crate::fetch::{DigestMismatch, FetchProgress, Fetched, Fetcher, Sha256, Source};

/// How often wrong content is downloaded again.
const AGAIN: u32 = 2;

/// As [`Fetcher::fetch`]; what was downloaded with another digest than `expected` is downloaded again, twice at most.
/// Each time is told. A local file is what it is.
///
/// # Errors
/// As [`Fetcher::fetch`].
pub async fn fetch_again(
    fetcher: &Fetcher,
    source: &Source,
    expected: Option<&Sha256>,
    progress: FetchProgress<'_>,
    cx: &StepContext,
) -> Result<Fetched, Failure> {
    for _ in 0..AGAIN {
        match fetcher.fetch(source, expected, progress).await {
            Err(failure) if is_mismatch(&failure) && matches!(source, Source::Url(_)) && !cx.stopping() => {
                cx.note(format!("what arrived from {source} has another digest; it is downloaded again"));
            }
            end => return end,
        }
    }
    fetcher.fetch(source, expected, progress).await
}

fn is_mismatch(failure: &Failure) -> bool {
    std::error::Error::source(failure).is_some_and(|cause| cause.is::<DigestMismatch>())
}
