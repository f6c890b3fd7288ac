//! The serial line over a websocket: broken in the official daemons, at work in the fork.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use turingpi_testkit::{BoardPlan, Firmware, Module as _};

use crate::support::{Bench, tls};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Sends a handshake; the head of the answer, and the stream behind it.
async fn handshake(bench: &Bench, headers: &str) -> (String, TlsStream<TcpStream>) {
    let mut stream = tls(&bench.view.url()).await;
    let request = format!(
        "GET /api/bmc/serial/ws?node=0 HTTP/1.1\r\nhost: turingpi.local\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    (String::from_utf8(head).unwrap(), stream)
}

/// The next frame that is no ping: its opcode and payload.
async fn frame(stream: &mut TlsStream<TcpStream>) -> (u8, Vec<u8>) {
    let read = async {
        loop {
            let opcode = stream.read_u8().await.unwrap() & 0x0f;
            let length = match stream.read_u8().await.unwrap() {
                126 => usize::from(stream.read_u16().await.unwrap()),
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            if opcode != 9 {
                return (opcode, payload);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap()
}

/// A masked binary frame, as a client must send it.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap()];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

async fn fork() -> Bench {
    let plan = BoardPlan::new("b").firmware(Firmware::Fork).credentials("root", "correct horse");
    Bench::start(plan).await
}

#[tokio::test]
async fn the_fork_carries_the_serial_line_both_ways() {
    let bench = fork().await;
    bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    let token = bench.login().await;
    let headers = format!("sec-websocket-protocol: bmcd.serial.v1, bmcd.bearer.{token}\r\n");
    let (head, mut stream) = handshake(&bench, &headers).await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    // The key and its answer are the example of RFC 6455, 1.3.
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    assert!(head.contains("sec-websocket-protocol: bmcd.serial.v1\r\n"), "{head}");
    stream.write_all(&masked(9, b"?")).await.unwrap();
    assert_eq!(frame(&mut stream).await, (10, b"?".to_vec()), "the conversation has begun");
    bench.module(1).uart().write(b"turing-rk1 login: ");
    assert_eq!(frame(&mut stream).await, (2, b"turing-rk1 login: ".to_vec()));
    for piece in ["ro", "ot\r", "ls\r\n"] {
        stream.write_all(&masked(2, piece.as_bytes())).await.unwrap();
    }
    bench.until("the lines to be typed", || *bench.module(1).typed.lock().unwrap() == ["root", "ls"]).await;
    // Nobody has to wait for it.
    assert_eq!(bench.get("/api/bmc?opt=get&type=power").await.status, 200);
    stream.write_all(&masked(8, &[3, 232])).await.unwrap();
    assert_eq!(frame(&mut stream).await, (8, vec![3, 232]));
}

#[tokio::test]
async fn the_fork_lets_nobody_in_without_a_token_that_it_knows() {
    let bench = fork().await;
    for headers in [
        "",
        "sec-websocket-protocol: bmcd.serial.v1, bmcd.bearer.stale\r\n",
        "authorization: Bearer stale\r\n",
    ] {
        let (head, _) = handshake(&bench, headers).await;
        assert!(head.starts_with("HTTP/1.1 401 "), "{headers}: {head}");
    }
}

#[tokio::test]
async fn the_official_daemon_keeps_everybody_waiting_and_closes() {
    let bench = Bench::start(BoardPlan::new("b")).await;
    let token = bench.login().await;
    let (head, mut stream) = handshake(&bench, &format!("authorization: Bearer {token}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    let (opcode, payload) = frame(&mut stream).await;
    assert_eq!((opcode, u16::from_be_bytes([payload[0], payload[1]])), (8, 1011));
    assert!(String::from_utf8_lossy(&payload[2..]).contains("has not sent heartbeat"));
}
