//! The life of a cluster on a simulated board, verb by verb.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Board, HOST, ONE, Place, Ran, texts};

const DOCUMENT: &str = "sim/cluster.yaml";

#[test]
fn a_cluster_lives_from_an_empty_slot_to_nothing_left() {
    let board = Board::start(ONE);
    let mut said = Vec::new();
    let mut run = |args: &[&str]| -> Ran {
        let ran = board.run(args);
        said.push((args.join(" "), format!("{}{}", ran.out, ran.err)));
        ran
    };
    before(&board, &mut run);
    let digest = plans(&mut run);
    approvals(&mut run, &digest);

    let applied =
        run(&["apply", DOCUMENT, "--output", "json", "--approve", &digest, "--report", "run.html"]).ends(0);
    stream(&applied.lines());
    // With the join token in it, which is gone at the end.
    let state = fs::read_to_string(board.place.path("sim/.turingpi/lab/state.json")).unwrap();
    assert!(fs::read_to_string(board.place.path("run.html")).unwrap().ends_with("</html>\n"));

    run(&["plan", DOCUMENT]).ends(0).says(&["nothing to change"]);
    run(&["apply", DOCUMENT]).ends(0).says(&["nothing to change", "kubectl --kubeconfig"]);
    ready(&mut run);
    kubeconfigs(&board, &mut run);
    let drifted =
        board.changed("drift.yaml", |t| t.replace("sysctl: {}", "sysctl: { vm.swappiness: \"7\" }"));
    run(&["plan", &drifted]).ends(2).says(&["vm.swappiness: 60 -> 7"]);
    run(&["status", &drifted]).ends(0).says(&["is ready", "takes 1 step", "vm.swappiness"]);
    let more = board.changed("more.yaml", |t| {
        t.replace("\nhost:", "\n- { name: node2, role: worker, address: 127.0.0.9, ssh: { port: 9 } }\nhost:")
    });
    run(&["status", &more]).ends(11).says(&["is degraded", "node2"]);
    run(&["doctor", DOCUMENT]).ends(0).says(&["looked at node node1", "nothing stands in the way"]);

    run(&["destroy", DOCUMENT]).ends(3).says(&["--confirm lab"]);
    run(&["destroy", DOCUMENT, "--confirm", "bal"]).ends(3).says(&["`bal` is not the name"]);
    let gone = run(&["destroy", DOCUMENT, "--confirm", "lab", "--output", "json"]).ends(0);
    let last = gone.lines().pop().unwrap();
    assert_eq!((&last["event"], &last["outcome"]), (&json!("result"), &json!("done")), "{last}");
    run(&["destroy", DOCUMENT, "--confirm", "lab"]).ends(0).says(&["nothing of the cluster is left"]);
    run(&["kubeconfig", DOCUMENT]).ends(4);

    let runs = fs::read_dir(board.place.path("sim/.turingpi/lab/runs")).unwrap().count();
    assert!((2..=10).contains(&runs), "{runs} logs");
    secrets(&board, &state, &said);
}

/// What is said while there is nothing yet.
fn before(board: &Board, run: &mut dyn FnMut(&[&str]) -> Ran) {
    run(&["status", DOCUMENT]).ends(10).says(&["lab is bootstrapping", "board1:", "off"]);
    run(&["kubeconfig", DOCUMENT]).ends(4).says(&["there is no kubeconfig of `lab` yet"]);
    run(&["destroy", DOCUMENT, "--confirm", "lab"]).ends(5).says(&["node1", "--skip-unreachable"]);
    let away = board.changed("away.yaml", |t| {
        t.replace(
            &board.told["endpoints"]["boards"]["board1"]["url"].as_str().unwrap().to_owned(),
            "https://127.0.0.1:9",
        )
    });
    run(&["doctor", &away]).ends(12).says(&["problem board1", "next:"]);
    run(&["plan", &away]).ends(5).says(&["board1"]);
    let pinned = board.told["endpoints"]["boards"]["board1"]["fingerprint"].as_str().unwrap();
    let other = board.changed("other.yaml", |t| t.replace(pinned, &"ab".repeat(32)));
    run(&["plan", &other]).ends(6).says(&["board1"]);
}

fn plans(run: &mut dyn FnMut(&[&str]) -> Ran) -> String {
    let text = run(&["plan", DOCUMENT])
        .ends(2)
        .says(&["! Flash armbian to slot board1/1 [destructive]", "Data loss"]);
    assert!(
        text.out.lines().count() < 48 && text.out.lines().all(|l| l.chars().count() <= 80),
        "{}",
        text.out
    );
    let plan = run(&["plan", DOCUMENT, "--output", "json"]).ends(2).json();
    assert_eq!((&plan["changes"], &plan["risk"]), (&json!(true), &json!("destructive")));
    let digest = plan["digest"].as_str().unwrap();
    assert!(text.out.contains(&digest[..16]));
    let whole = run(&["plan", DOCUMENT, "-v"]).ends(2);
    assert!(whole.out.lines().count() > text.out.lines().count());
    digest[..16].to_owned()
}

fn approvals(run: &mut dyn FnMut(&[&str]) -> Ran, digest: &str) {
    let approve = format!("--approve {digest}");
    run(&["apply", DOCUMENT]).ends(3).says(&[
        "all data on node1 would be lost",
        "--yes --approve node1",
        &approve,
    ]);
    run(&["apply", DOCUMENT, "--yes"]).ends(3);
    let told = run(&["apply", DOCUMENT, "--yes", "--output", "json"]).ends(3).json();
    assert_eq!((&told["exit_code"], &told["error"]["class"]), (&json!(3), &json!("unapproved")));
    run(&["apply", DOCUMENT, "--approve", "0123456789abcdef"]).ends(3).says(&["its digest is", digest]);
    run(&["apply", DOCUMENT, "--approve", "node9"]).ends(64).says(&["no node `node9`", "node1"]);
    run(&["plan", DOCUMENT, "--reflash", "node9"]).ends(64);
}

/// Every line of the stream has a name, numbers count up, and the last line says how it ended.
fn stream(lines: &[Value]) {
    let (last, events) = lines.split_last().unwrap();
    for (i, event) in events.iter().enumerate() {
        assert!(event["event"].is_string() && event["run"].is_string() && event["at"].is_string(), "{event}");
        assert_eq!(event["seq"].as_u64().unwrap(), i as u64 + 1, "{event}");
    }
    assert_eq!(events.first().unwrap()["event"], "run-started");
    assert_eq!(events.last().unwrap()["event"], "run-finished");
    let parts: Vec<&str> =
        events.iter().filter(|e| e["event"] == "progress").filter_map(|e| e["part"].as_str()).collect();
    assert!(parts.contains(&"uploading"), "{parts:?}");
    let mut keys: Vec<&String> = last.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        ["error", "event", "exit_code", "kubeconfig", "millis", "outcome", "simulated", "steps"],
        "{last}"
    );
    assert_eq!(
        (&last["event"], &last["outcome"], &last["exit_code"]),
        (&json!("result"), &json!("done"), &json!(0))
    );
    assert_eq!(last["steps"], events.last().unwrap()["summary"]["steps_done"]);
}

fn ready(run: &mut dyn FnMut(&[&str]) -> Ran) {
    let text =
        run(&["status", DOCUMENT]).ends(0).says(&["lab is ready", "Nothing differs", "Last run: apply"]);
    assert!(text.out.lines().all(|l| l.chars().count() <= 80), "{}", text.out);
    let status = run(&["status", DOCUMENT, "--output", "json"]).ends(0).json();
    assert_eq!((&status["state"], &status["cluster"]), (&json!("ready"), &json!("lab")));
    assert_eq!(status["nodes"][0]["ready"]["state"], "ready");
    assert_eq!(status["drift"], json!({ "stages": [] }));
    for key in ["at", "boards", "in_doubt", "kubeconfig_days_left", "last_run", "reasons", "versions"] {
        assert!(!status[key].is_null(), "{key} is missing in {status:#}");
    }
}

fn kubeconfigs(board: &Board, run: &mut dyn FnMut(&[&str]) -> Ran) {
    let printed = run(&["kubeconfig", DOCUMENT]).ends(0);
    assert!(printed.out.contains("current-context: lab"), "{}", printed.out);
    run(&["kubeconfig", DOCUMENT, "--refresh"]).ends(0);
    run(&["kubeconfig", DOCUMENT, "--merge"])
        .ends(0)
        .says(&["merged context `lab`", "kubectl --context lab"]);
    run(&["kubeconfig", DOCUMENT, "--merge"]).ends(0).says(&["is in", "already"]);
    assert!(fs::read_to_string(board.place.path("home/.kube/config")).unwrap().contains("name: lab"));
    board.place.write(
        "theirs",
        "apiVersion: v1\nkind: Config\ncurrent-context: work\ncontexts: []\nclusters: []\nusers: []\n",
    );
    let told =
        run(&["kubeconfig", DOCUMENT, "--merge", "--into", "theirs", "--output", "json"]).ends(0).json();
    assert_eq!((&told["changed"], &told["context"]), (&json!(true), &json!("lab")));
    assert!(told["backup"].is_string(), "{told}");
    let theirs = || fs::read_to_string(board.place.path("theirs")).unwrap();
    assert!(theirs().contains("current-context: work"));
    run(&["kubeconfig", DOCUMENT, "--merge", "--into", "theirs", "--use"]).ends(0);
    assert!(theirs().contains("current-context: lab"));
}

/// No secret stands in anything that was said, logged or reported.
fn secrets(board: &Board, state: &str, said: &[(String, String)]) {
    let read = |name: &str| fs::read_to_string(board.place.path(name)).unwrap();
    let mut secrets = vec![read("sim/bmc-password")];
    secrets.extend(read("sim/id_ed25519").lines().filter(|l| !l.starts_with('-')).map(str::to_owned));
    let state: Value = serde_json::from_str(state).unwrap();
    secrets.extend(state["secrets"].as_object().unwrap().values().map(|v| v.as_str().unwrap().to_owned()));
    secrets.retain(|s| s.len() > 8);
    assert!(secrets.len() >= 5, "too few secrets to look for");
    let report = ("the report".to_owned(), read("run.html"));
    let logs = texts(&board.place.path("sim/.turingpi/lab/runs"));
    let logs = logs.into_iter().map(|(path, text)| (path.display().to_string(), text));
    for (place, text) in said.iter().cloned().chain([report]).chain(logs) {
        for secret in &secrets {
            assert!(!text.contains(secret.trim()), "a secret stands in {place}");
        }
        // `turingpi kubeconfig` prints the key of the admin because it was asked for.
        assert!(
            !text.contains("client-key-data") || place.starts_with("kubeconfig "),
            "a key stands in {place}"
        );
    }
}

#[test]
fn a_simulated_run_needs_nothing_and_leaves_nothing() {
    let place = Place::new();
    place.write("cluster.yaml", HOST);
    place.run(&["plan", "--simulate"]).ends(2).says(&["Start k3s"]);
    let ran = place.run(&["apply", "--simulate", "--pace", "0.001"]).ends(0);
    assert!(ran.err.lines().all(|l| l.starts_with("SIMULATED ")), "{}", ran.err);
    assert!(!format!("{}{}", ran.out, ran.err).contains('\x1b'), "colours in a pipe");
    ran.says(&["cluster `lab` is ready", "`--keep` keeps it for `kubectl`"]);
    assert!(!place.path(".turingpi").exists());
}

#[test]
fn a_refused_login_at_the_bmc_ends_with_6_and_is_not_tried_again_and_again() {
    let board = Board::start(ONE);
    let password = board.place.path("sim/bmc-password");
    fs::write(&password, "wrong-password").unwrap();
    let ran = board.run(&["plan", DOCUMENT]).ends(6).says(&["board1", "next:"]);
    assert!(!ran.err.contains("wrong-password"), "{}", ran.err);
    let told = board.run(&["doctor", DOCUMENT, "--output", "json"]).ends(12).json();
    assert_eq!(
        (&told["findings"][0]["weight"], &told["findings"][0]["id"]),
        (&json!("problem"), &json!("login"))
    );
}
