//! `turingpi image` and the verbs below it, against a small web server.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::support::Place;

/// A web server of a few files.
#[derive(Clone, Default)]
struct Shop(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Shop {
    /// Serves until the test ends; its address.
    fn open(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shop = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else { continue };
                let head = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).count();
                let path = first.split(' ').nth(1).unwrap_or_default();
                let found = shop.0.lock().unwrap().get(path).cloned();
                let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
                let body = found.filter(|_| head > 0).unwrap_or_default();
                let mut stream = stream;
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(&body);
            }
        });
        format!("http://{address}")
    }
    fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.0.lock().unwrap().insert(path.to_owned(), bytes.into());
    }
}

/// A disk with one partition and nothing in it.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 100_000];
    disk[446 + 4] = 0x83;
    disk[446 + 8] = 8;
    disk[446 + 12] = 100;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn catalogue(place: &Place, base: &str) {
    place.write(
        "mine.yaml",
        &format!(
            "images:\n  - {{ name: lab, aliases: [mine], title: A disk of the lab, modules: [rk1], \
             family: other, version: \"1\", urls: [\"{base}/disk.img\"], digest: first-use, packing: raw }}\n"
        ),
    );
}

fn listed<'a>(told: &'a Value, name: &str) -> &'a Value {
    told["images"].as_array().unwrap().iter().find(|image| image["name"] == name).unwrap()
}

#[test]
fn an_image_is_listed_pulled_verified_inspected_and_pruned() {
    let (place, shop) = (Place::new(), Shop::default());
    let base = shop.open();
    shop.put("/disk.img", disk());
    catalogue(&place, &base);
    let run = |args: &[&str]| {
        let mut all = vec!["image", "--catalogue", "mine.yaml"];
        all.extend(args);
        place.run(&all)
    };
    run(&["list"]).ends(0).says(&["lab", "A disk of the lab", "raspios"]);
    assert_eq!(listed(&run(&["list", "--output", "json"]).ends(0).json(), "lab")["cached"], Value::Null);
    run(&["verify", "lab"]).ends(4).says(&["not in the cache", "turingpi image pull lab"]);

    run(&["pull", "lab"]).ends(0).says(&["pulled", "97.7 KiB", "first use", "warning: nobody publishes"]);
    let again = run(&["pull", "mine", "--output", "json"]).ends(0).json();
    assert_eq!((&again["downloaded"], &again["trust"]["by"]), (&json!(false), &json!("remembered")));
    assert_eq!(std::fs::read(again["path"].as_str().unwrap()).unwrap(), disk());
    let list = run(&["list", "--output", "json"]).ends(0).json();
    assert_eq!(listed(&list, "lab")["cached"]["sha256"], again["sha256"]);

    run(&["verify"]).ends(0).says(&["ok lab"]);
    let one = run(&["verify", "lab", "--output", "json"]).ends(0).json();
    assert_eq!((&one["sound"], &one["raw_bytes"]), (&json!(true), &json!(100_000)));
    run(&["inspect", "lab"]).ends(0).says(&["disk.img", "an eMMC of 8 GB or more", "1: 50.0 KiB, linux"]);
    let found = run(&["inspect", "lab", "--output", "json"]).ends(0).json();
    assert_eq!((&found["content"], &found["table"]), (&json!("disk"), &json!("mbr")));

    run(&["prune", "--unused", "1d"]).ends(0).says(&["97.7 KiB kept"]);
    run(&["prune", "--all", "--dry-run"]).ends(0).says(&["would remove lab", "would be free"]);
    let pruned = run(&["prune", "--all", "--output", "json"]).ends(0).json();
    assert_eq!((&pruned["freed_bytes"], &pruned["dry_run"]), (&json!(100_000), &json!(false)));
    run(&["verify"]).ends(0).says(&["no images in the cache"]);
}

#[test]
fn what_changed_behind_an_address_or_in_the_cache_is_said_and_not_used() {
    let (place, shop) = (Place::new(), Shop::default());
    let base = shop.open();
    shop.put("/disk.img", disk());
    catalogue(&place, &base);
    let pulled = place.run(&["image", "pull", "lab", "--catalogue", "mine.yaml", "--output", "json"]);
    let path = pulled.ends(0).json()["path"].as_str().unwrap().to_owned();
    std::fs::write(&path, b"something else that is no disk").unwrap();
    let told = place.run(&["image", "verify", "--output", "json"]).ends(8).json();
    assert_eq!((&told["damaged"], &told["images"][0]["sound"]), (&json!(1), &json!(false)));
    place.run(&["image", "verify"]).ends(8).says(&["damaged lab", "downloaded again"]);

    let mut other = disk();
    other[50_000] = 1;
    shop.put("/disk.img", other);
    let args = ["image", "pull", "lab", "--catalogue", "mine.yaml"];
    place.run(&args).ends(8).says(&["not what was expected", "--trust-anew"]);
    place.run(&[&args[..], &["--trust-anew"]].concat()).ends(0).says(&["first use"]);
}

#[test]
fn a_file_is_inspected_where_it_is_and_one_that_is_no_image_ends_with_8() {
    let place = Place::new();
    std::fs::write(place.path("disk.img"), disk()).unwrap();
    place.run(&["image", "inspect", "./disk.img"]).ends(0).says(&["for unknown", "not say which module"]);
    place.write("page.img", "<!DOCTYPE html><html>");
    place.run(&["image", "inspect", "page.img"]).ends(8).says(&["no disk image", "an HTML page"]);
    let told = place.run(&["image", "inspect", "page.img", "--output", "json"]).ends(8).json();
    assert_eq!(told["content"]["foreign"], "an HTML page");
    place.run(&["image", "inspect", "disk.img", "--output", "json"]).ends(0).json();
    place.run(&["image", "verify", "disk.img"]).ends(0).says(&["whole", "compare the sha256"]);
    place.run(&["image", "verify", "disk.img", "--sha256", &"ab".repeat(32)]).ends(8).says(&["expected"]);
    place.write("cut.img.xz", "\u{fd}");
    std::fs::write(place.path("cut.img.xz"), b"\xfd7zXZ\0 and no end").unwrap();
    place.run(&["image", "inspect", "cut.img.xz"]).ends(4).says(&["cannot be used", "not whole", "next:"]);
}

#[test]
fn what_cannot_be_meant_is_said_before_anything_is_downloaded() {
    let place = Place::new();
    place.run(&["image", "pull", "armbain"]).ends(64).says(&["neither an image of the catalogue nor a file"]);
    place.run(&["image", "pull", "armbian", "--sha256", "abc"]).ends(64).says(&["not a digest"]);
    place.run(&["image", "prune"]).ends(64);
    place.run(&["image", "prune", "--unused", "soon"]).ends(64).says(&["`12h`, `30d` or `8w`"]);
    place.run(&["image", "list", "--catalogue", "none.yaml"]).ends(4).says(&["cannot use the catalogue"]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}/a.img.xz");
    let told = place.run(&["image", "pull", &url, "--output", "json"]).ends(5).json();
    assert_eq!((&told["exit_code"], &told["error"]["class"]), (&json!(5), &json!("unreachable")));
    let proxy = format!("http://me:hunter2@{nobody}/");
    let ran = place.run(&["image", "pull", "raspios", "--proxy", &proxy]).ends(5);
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
}

#[test]
fn the_help_of_every_verb_below_has_examples_that_are_understood() {
    let place = Place::new();
    for verb in ["list", "pull", "verify", "inspect", "prune"] {
        let help = place.run(&["image", verb, "--help"]).ends(0).out;
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        let examples = help.split("Examples:").nth(1).unwrap_or_else(|| panic!("{verb} has no examples"));
        for line in examples.lines().filter_map(|line| line.strip_prefix("  turingpi ")) {
            let words = line.split_whitespace().take_while(|word| *word != "|").chain(["--help"]);
            place.run(&words.collect::<Vec<_>>()).ends(0);
        }
    }
}
