//! HTTP: one request a call, resumed by range, hashed while it streams.

use std::{error::Error, fs::File, io::Write, time::Duration};

use futures::StreamExt;
use reqwest::{Client, Proxy, RequestBuilder, Response, StatusCode, header, redirect};
use sha2::Digest as _;
use turingpi_engine::{Failure, FailureClass};
use url::Url;

use super::{
    FetchOptions, FetchProgress, Fetched, Sha256,
    cache::{Cache, Part, PartNotes, trouble},
    digest, mismatch, shown,
};

const TEXT_LIMIT: usize = 4 << 20;

pub(super) struct Http {
    client: Client,
    rewrites: Vec<(String, String)>,
}

impl Http {
    pub(super) fn new(options: FetchOptions) -> Result<Self, Failure> {
        let wrong = |what: &str, e: reqwest::Error| {
            Failure::new(FailureClass::Config, format!("cannot use the {what} for downloads")).source(e)
        };
        let most = options.redirects;
        let policy = redirect::Policy::custom(move |attempt| {
            let was_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
            if attempt.previous().len() > most {
                attempt.error(format!("more than {most} redirects"))
            } else if was_https && attempt.url().scheme() != "https" {
                attempt.error("redirected from https to http")
            } else {
                attempt.follow()
            }
        });
        let mut builder = Client::builder()
            .no_proxy()
            .referer(false)
            .redirect(policy)
            .user_agent(concat!("turingpi/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_limit)
            .read_timeout(options.stall_limit);
        if let Some(proxy) = &options.proxy {
            let proxy = Proxy::all(proxy.as_str()).map_err(|e| wrong("proxy", e))?;
            let direct = format!("{},localhost,127.0.0.0/8,::1", options.no_proxy);
            builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&direct)));
        }
        let mut authorities = Vec::new();
        for pem in &options.authorities {
            authorities.extend(
                reqwest::Certificate::from_pem_bundle(pem).map_err(|e| wrong("certificate authority", e))?,
            );
        }
        if !authorities.is_empty() {
            builder = builder.tls_certs_merge(authorities);
        }
        let client = builder.build().map_err(|e| wrong("options", e))?;
        Ok(Self { client, rewrites: options.rewrites })
    }

    pub(super) async fn text(&self, url: &Url) -> Result<String, Failure> {
        self.text_if_there(url).await?.ok_or_else(|| {
            Failure::new(FailureClass::Refused, format!("there is no {}", shown(url)))
                .hint("Check the address and the version.")
        })
    }

    pub(super) async fn text_if_there(&self, url: &Url) -> Result<Option<String>, Failure> {
        let target = self.rewritten(url)?;
        let response = send(self.client.get(target), url).await?;
        if [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&response.status()) {
            return Ok(None);
        }
        let response = accept(response, url)?;
        let too_much = || Failure::new(FailureClass::Refused, format!("{} is larger than 4 MiB", shown(url)));
        let mut content = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            content.extend_from_slice(&chunk.map_err(|e| cut(url, e))?);
            if content.len() > TEXT_LIMIT {
                return Err(too_much());
            }
        }
        String::from_utf8(content)
            .map(Some)
            .map_err(|_| Failure::new(FailureClass::Refused, format!("{} is not text", shown(url))))
    }

    pub(super) async fn download(
        &self,
        cache: &Cache,
        url: &Url,
        expected: Option<&Sha256>,
        progress: FetchProgress<'_>,
    ) -> Result<Fetched, Failure> {
        let target = self.rewritten(url)?;
        let part = cache.part(&target, expected)?;
        let mut hasher = sha2::Sha256::new();
        let mut done = digest::feed(&part.path, &mut hasher, &|_, _| ())
            .await
            .map_err(|e| trouble("read", &part.path, e))?;
        let mut notes = part.notes();
        // Kept as a digest: the address may be presigned.
        let from = Sha256::of(target.as_str().as_bytes()).to_string();
        if notes.from.as_ref().is_some_and(|other| *other != from) {
            notes.validator = None;
        }
        // Without a digest and without a validator nobody could tell whether the rest belongs to the part.
        let resumable = done > 0 && (expected.is_some() || notes.validator.is_some());
        let mut request = self.client.get(target);
        if resumable {
            request = request.header(header::RANGE, format!("bytes={done}-"));
            if let Some(validator) = &notes.validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let response = send(request, url).await?;
        let whole_already = response.status() == StatusCode::RANGE_NOT_SATISFIABLE && resumable;
        let resumed = whole_already || (resumable && continues_at(&response, done));
        if !resumed {
            if response.status() == StatusCode::PARTIAL_CONTENT {
                part.discard();
                return Err(Failure::new(
                    FailureClass::Unreachable,
                    format!("{} sent another part than was asked for", shown(url)),
                )
                .retryable());
            }
            hasher = sha2::Sha256::new();
            done = 0;
        }
        if !whole_already {
            let response = accept(response, url)?;
            if !resumed {
                part.file.set_len(0).map_err(|e| trouble("empty", &part.path, e))?;
                part.note(&PartNotes { validator: validator(&response), from: Some(from) })?;
            }
            let total = response.content_length().map(|rest| done + rest);
            done = stream(response, &part, url, done, &mut hasher, total, progress).await?;
        }
        let found = Sha256::finish(hasher);
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            part.discard();
            let failure = mismatch(&format!("the download of {}", shown(url)), expected.clone(), found);
            return Err(match resumed {
                // The old part may have been of an earlier file: from the start it may be right.
                true => {
                    failure.hint("The part was dropped; the next attempt downloads everything.").retryable()
                }
                false => {
                    failure.hint("The file changed or was tampered with: check the address and the `sha256`.")
                }
            });
        }
        let path = cache.keep(&part, &found)?;
        Ok(Fetched { path, sha256: found, bytes: done })
    }

    fn rewritten(&self, url: &Url) -> Result<Url, Failure> {
        let text = url.as_str();
        let Some((from, to)) = self.rewrites.iter().find(|(from, _)| text.starts_with(from.as_str())) else {
            return Ok(url.clone());
        };
        let rest = text.get(from.len()..).unwrap_or_default();
        Url::parse(&format!("{to}{rest}")).map_err(|e| {
            Failure::new(FailureClass::Config, format!("the mirror `{to}` for `{from}` does not give a URL"))
                .source(e)
        })
    }
}

async fn stream(
    response: Response,
    part: &Part,
    url: &Url,
    mut done: u64,
    hasher: &mut sha2::Sha256,
    total: Option<u64>,
    progress: FetchProgress<'_>,
) -> Result<u64, Failure> {
    use std::io::{Seek, SeekFrom};
    let mut file: &File = &part.file;
    file.seek(SeekFrom::Start(done)).map_err(|e| trouble("write", &part.path, e))?;
    progress(done, total);
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| cut(url, e))?;
        hasher.update(&chunk);
        // Chunks are small and go to the page cache; a blocking write is cheaper here than a hop to another thread.
        file.write_all(&chunk).map_err(|e| trouble("write", &part.path, e))?;
        done += chunk.len() as u64;
        progress(done, total);
    }
    match total {
        Some(total) if total != done => {
            Err(Failure::new(FailureClass::Unreachable, format!("{} ended early", shown(url))).retryable())
        }
        _ => Ok(done),
    }
}

async fn send(request: RequestBuilder, url: &Url) -> Result<Response, Failure> {
    request.send().await.map_err(|e| {
        let final_one = e.is_redirect() || e.is_builder();
        let failure = Failure::new(
            if final_one { FailureClass::Refused } else { FailureClass::Unreachable },
            format!("cannot download {}", shown(url)),
        )
        .source(Cause::of(&e));
        if final_one {
            failure
        } else {
            failure.hint("Check the network, the address and the mirror settings.").retryable()
        }
    })
}

fn accept(response: Response, url: &Url) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = format!("{} answered {}", shown(url), status.as_u16());
    let wait = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    Err(match status.as_u16() {
        429 | 500..=599 => {
            let failure = Failure::new(FailureClass::Unreachable, text).retryable();
            match wait {
                Some(seconds) => failure.retry_after(Duration::from_secs(seconds)),
                None => failure,
            }
        }
        401 | 403 => Failure::new(FailureClass::Auth, text)
            .hint("Downloading it needs credentials, or the link has expired."),
        404 | 410 => Failure::new(FailureClass::Refused, text).hint("Check the address and the version."),
        _ => Failure::new(FailureClass::Refused, text),
    })
}

fn cut(url: &Url, error: reqwest::Error) -> Failure {
    Failure::new(FailureClass::Unreachable, format!("the download of {} was cut", shown(url)))
        .hint("What has arrived is kept; the next attempt goes on from there.")
        .source(Cause::of(&error))
        .retryable()
}

/// Whether the answer goes on at `done` with bytes of the same file.
fn continues_at(response: &Response, done: u64) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
        && response
            .headers()
            .get(header::CONTENT_RANGE)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok())
            == Some(done)
}

/// What `If-Range` may carry: a strong tag, or else the date (RFC 9110, 13.1.5).
fn validator(response: &Response) -> Option<String> {
    let text = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    text(header::ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(header::LAST_MODIFIED))
}

/// The innermost cause as text: reqwest's own text repeats the URL, query included.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(String);

impl Cause {
    fn of(error: &reqwest::Error) -> Self {
        let mut cause: &dyn Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        match error.source() {
            Some(_) => Self(cause.to_string()),
            None if error.is_timeout() => Self("nothing arrived for too long".to_owned()),
            None => Self("the request failed".to_owned()),
        }
    }
}
