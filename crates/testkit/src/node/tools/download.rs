//! curl and wget: to the mirror, and to the cluster's servers inside the world.

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Call, Table, Tool};
use crate::node::k3s;

pub(super) const TABLE: Table = &[("curl", Tool::Later(curl)), ("wget", Tool::Later(wget))];

/// What a URL answered.
struct Answer {
    status: u16,
    url: String,
    body: Vec<u8>,
}

/// Why there was no answer: curl's exit status and text.
type Failure = (i32, String);

/// One request over plain HTTP.
async fn request(url: &str) -> Result<(u16, Vec<(String, String)>, Vec<u8>), Failure> {
    let rest = url.strip_prefix("http://").ok_or((1, "Protocol not supported".to_owned()))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let failed = |_| (7, format!("Failed to connect to {host} after 1 ms: Could not connect to server"));
    let mut stream = TcpStream::connect(host).await.map_err(failed)?;
    let head = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let at =
        answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or((52, "Empty reply from server".to_owned()))?;
    let head = String::from_utf8_lossy(answer.get(..at).unwrap_or_default()).into_owned();
    let mut body = answer.split_off(at + 4);
    let mut lines = head.lines();
    let status =
        lines.next().and_then(|l| l.split_whitespace().nth(1)).and_then(|s| s.parse().ok()).unwrap_or(0);
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.to_lowercase(), v.trim().to_owned()))
        .collect();
    let header = |name: &str| headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    if header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        let mut plain = Vec::new();
        let mut rest = body.as_slice();
        loop {
            let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else {
                return Err((18, "transfer closed with outstanding read data remaining".into()));
            };
            let size = usize::from_str_radix(
                String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).trim(),
                16,
            )
            .unwrap_or(0);
            if size == 0 {
                break;
            }
            let Some(piece) = rest.get(end + 2..end + 2 + size) else {
                return Err((18, "transfer closed with outstanding read data remaining".into()));
            };
            plain.extend_from_slice(piece);
            rest = rest.get(end + 4 + size..).unwrap_or_default();
        }
        body = plain;
    } else if let Some(length) = header("content-length").and_then(|v| v.parse::<usize>().ok())
        && body.len() < length
    {
        let missing = length - body.len();
        return Err((18, format!("end of response with {missing} bytes missing")));
    }
    Ok((status, headers, body))
}

async fn fetch(call: &Call, url: &str) -> Result<Answer, Failure> {
    let world = call.node().world().ok_or((7, "the world is gone".to_owned()))?;
    if let Some((status, body)) = k3s::local_answer(call.node(), url) {
        return Ok(Answer { status, url: url.to_owned(), body: body.into_bytes() });
    }
    let (releases, channels) = world.mirror_bases();
    drop(world);
    let mut at = url.to_owned();
    for _ in 0..10 {
        let real = at
            .replace("https://github.com/k3s-io/k3s/releases", &releases)
            .replace("https://update.k3s.io/v1-release/channels", &channels)
            .replace("%2B", "+");
        let host =
            real.split("://").nth(1).and_then(|r| r.split(['/', ':']).next()).unwrap_or_default().to_owned();
        if host != "127.0.0.1" {
            if host.parse::<std::net::IpAddr>().is_ok() {
                return Err((
                    7,
                    format!("Failed to connect to {host} port 443 after 1 ms: Could not connect to server"),
                ));
            }
            return Err((6, format!("Could not resolve host: {host}")));
        }
        if call.running(|r| r.net.default_route().is_none()).unwrap_or(true) {
            return Err((7, format!("Failed to connect to {host}: Network is unreachable")));
        }
        let (status, headers, body) = request(&real).await?;
        if !(300..400).contains(&status) {
            return Ok(Answer { status, url: real, body });
        }
        let Some(location) = headers.into_iter().find(|(k, _)| k == "location").map(|(_, v)| v) else {
            return Ok(Answer { status, url: real, body });
        };
        at = if location.starts_with('/') {
            let origin = real.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
            format!("{origin}{location}")
        } else {
            location
        };
        if !call
            .args
            .iter()
            .any(|a| a == "--location" || a.starts_with('-') && !a.starts_with("--") && a.contains('L'))
            && call.name == "curl"
        {
            return Ok(Answer { status, url: real, body });
        }
    }
    Err((47, "Maximum (10) redirects followed".to_owned()))
}

fn curl(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let (mut output, mut write_out, mut urls) = (None, None, Vec::new());
        let (mut fail, mut silent, mut show, mut head, mut remote) = (false, false, false, false, false);
        let mut args = call.args.clone().into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--output" => output = args.next(),
                "--write-out" => write_out = args.next(),
                "--fail" => fail = true,
                "--silent" => silent = true,
                "--show-error" => show = true,
                "--head" => head = true,
                "--remote-name" => remote = true,
                "--retry" | "--max-time" | "--connect-timeout" | "--retry-delay" | "--cacert"
                | "--header" | "--proto" | "--proto-redir" | "--retry-max-time" | "--user-agent"
                | "--resolve" => {
                    args.next();
                }
                _ if arg.starts_with("--output=") => {
                    output = arg.strip_prefix("--output=").map(str::to_owned)
                }
                _ if arg.starts_with("--") => {}
                _ => match arg.strip_prefix('-') {
                    Some(flags) => {
                        for flag in flags.chars() {
                            match flag {
                                'o' => output = args.next(),
                                'w' => write_out = args.next(),
                                'f' => fail = true,
                                's' => silent = true,
                                'S' => show = true,
                                'I' => head = true,
                                'O' => remote = true,
                                'm' | 'H' | 'A' | 'X' | 'd' | 'u' => {
                                    args.next();
                                }
                                _ => {}
                            }
                        }
                    }
                    None => urls.push(arg),
                },
            }
        }
        let Some(url) = urls.into_iter().next() else { return call.fail(2, "no URL specified") };
        if remote {
            output = url.rsplit('/').next().map(str::to_owned);
        }
        match fetch(call, &url).await {
            Err((code, text)) => {
                if !silent || show {
                    call.warn(format!("curl: ({code}) {text}\n"));
                }
                code
            }
            Ok(answer) => {
                if fail && answer.status >= 400 {
                    if !silent || show {
                        call.warn(format!(
                            "curl: (22) The requested URL returned error: {}\n",
                            answer.status
                        ));
                    }
                    return 22;
                }
                if head {
                    call.print(format!("HTTP/1.1 {}\r\n\r\n", answer.status));
                } else if let Some(path) = output.filter(|path| path != "-") {
                    if path != "/dev/null"
                        && let Err(error) = super::streams::write(call, &path, &answer.body, false)
                    {
                        call.warn(format!("curl: (23) client returned ERROR on write, {error}\n"));
                        return 23;
                    }
                } else {
                    call.out.extend(&answer.body);
                }
                if let Some(format) = write_out {
                    call.print(
                        format
                            .replace("%{http_code}", &answer.status.to_string())
                            .replace("%{url_effective}", &answer.url)
                            .replace("\\n", "\n"),
                    );
                }
                0
            }
        }
    })
}

fn wget(call: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let (mut output, mut urls) = (None, Vec::new());
        let mut args = call.args.clone().into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-O" | "--output-document" => output = args.next(),
                "-qO" | "-nvO" => output = args.next(),
                "-T" | "-t" | "--tries" | "--timeout" => {
                    args.next();
                }
                "-qO-" | "-O-" => output = Some("-".into()),
                _ if arg.starts_with("--output-document=") => {
                    output = arg.strip_prefix("--output-document=").map(str::to_owned)
                }
                _ if arg.starts_with('-') => {}
                _ => urls.push(arg),
            }
        }
        let Some(url) = urls.into_iter().next() else { return call.fail(1, "missing URL") };
        match fetch(call, &url).await {
            Err((_, text)) => call.fail(4, text),
            Ok(answer) if answer.status >= 400 => {
                call.warn(format!("ERROR {}.\n", answer.status));
                8
            }
            Ok(answer) => {
                let path =
                    output.unwrap_or_else(|| url.rsplit('/').next().unwrap_or("index.html").to_owned());
                if path == "-" {
                    call.out.extend(&answer.body);
                } else if let Err(error) = super::streams::write(call, &path, &answer.body, false) {
                    return call.fail(3, format!("{path}: {error}"));
                }
                0
            }
        }
    })
}
