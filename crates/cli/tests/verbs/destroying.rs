//! Taking a cluster away: the typed confirmation, kept data, power, half of a cluster. And whose kubeconfig knows of it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use serde_json::Value;

use crate::{
    pty::Pty,
    support::{Board, ONE, interrupt},
};

const DOCUMENT: &str = "sim/cluster.yaml";
const APPLY: [&str; 5] = ["apply", DOCUMENT, "--yes", "--approve", "node1"];

/// The cluster's certificate authority, as the kubeconfig has it.
fn authority(board: &Board) -> String {
    let printed = board.run(&["kubeconfig", DOCUMENT]).ends(0).out;
    let line = printed.lines().find(|l| l.contains("certificate-authority-data")).unwrap();
    line.trim().to_owned()
}

#[test]
fn a_cluster_is_destroyed_by_typing_its_name_and_its_data_or_power_goes_or_stays() {
    let board = Board::start(ONE);
    board.run(&APPLY).ends(0);
    let before = authority(&board);

    let mut wrong = Pty::start(board.place.command(&["destroy", DOCUMENT]), 80, 24);
    let asked = wrong.shows(0, "Type the name of the cluster");
    wrong.shows(asked, "Cluster");
    wrong.press("bal\r");
    assert_eq!(wrong.ends().code(), Some(3), "{}", wrong.shown());
    wrong.shows(asked, "nothing was changed");
    let mut stopped = Pty::start(board.place.command(&["destroy", DOCUMENT]), 80, 24);
    stopped.shows(0, "Cluster");
    interrupt(&stopped.child);
    assert_eq!(stopped.ends().code(), Some(130), "{}", stopped.shown());
    board.run(&["status", DOCUMENT]).ends(0).says(&["lab is ready"]);

    let mut right = Pty::start(board.place.command(&["destroy", DOCUMENT, "--keep-data"]), 80, 24);
    right.shows(0, "Cluster");
    right.press("lab\r");
    assert_eq!(right.ends().code(), Some(0), "{}", right.shown());
    right.shows(0, "Its data is kept");
    board.run(&["plan", DOCUMENT]).ends(2);
    board.run(&["apply", DOCUMENT, "--yes"]).ends(0);
    assert_eq!(authority(&board), before, "the same cluster again");

    // Without a terminal nobody can type: nothing is asked, and nothing is done.
    board.run(&["destroy", DOCUMENT, "--power-off"]).ends(3).says(&["--confirm lab"]);
    let ended =
        board.run(&["destroy", DOCUMENT, "--power-off", "--confirm", "lab", "--output", "json"]).ends(0);
    assert_eq!(ended.lines().pop().unwrap()["outcome"], "done");
    let plan = board.run(&["plan", DOCUMENT, "--output", "json"]).ends(2).out;
    assert!(plan.contains("node1/power-on") && !plan.contains("node1/flash"), "{plan}");
    board
        .run(&["destroy", DOCUMENT, "--power-off", "--confirm", "lab"])
        .ends(0)
        .says(&["nothing of the cluster is left"]);
    board.run(&["apply", DOCUMENT, "--yes"]).ends(0);
    assert_ne!(authority(&board), before, "a new cluster, without a flash");
}

#[test]
fn half_a_cluster_is_destroyed_and_built_again() {
    let board = Board::start(ONE);
    for step in ["node1/k3s-config", "node1/k3s-start"] {
        let mut args = APPLY.to_vec();
        args.extend(["--output", "json"]);
        let mut child = board.place.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let begun = lines.map(|l| serde_json::from_str::<Value>(&l.unwrap()).unwrap());
        let mut begun = begun.filter(|e| e["event"] == "step-started" && e["step"] == step);
        assert!(begun.next().is_some(), "{step} never began");
        child.kill().unwrap();
        child.wait().unwrap();
        board.run(&["destroy", DOCUMENT, "--confirm", "lab"]).ends(0);
        board
            .run(&["destroy", DOCUMENT, "--confirm", "lab"])
            .ends(0)
            .says(&["nothing of the cluster is left"]);
    }
    board.run(&APPLY).ends(0);
    board.run(&["plan", DOCUMENT]).ends(0);
}

#[test]
fn apply_merges_the_kubeconfig_into_the_persons_own_and_keeps_the_old_one() {
    let board = Board::start(ONE);
    let kube = board.place.path("home/.kube");
    fs::create_dir_all(&kube).unwrap();
    let theirs = "apiVersion: v1\nkind: Config\ncurrent-context: work\ncontexts:\n- name: work\n  context: { cluster: \
                  work, user: me }\nclusters:\n- name: work\n  cluster: { server: 'https://work.example.org' }\nusers:\n- \
                  name: me\n  user: { token: theirs }\n";
    fs::write(kube.join("config"), theirs).unwrap();
    let mut args = APPLY.to_vec();
    args.push("--merge-kubeconfig");
    board.run(&args).ends(0);
    let merged = fs::read_to_string(kube.join("config")).unwrap();
    for part in ["current-context: work", "https://work.example.org", "token: theirs", "name: lab"] {
        assert!(merged.contains(part), "{part}: {merged}");
    }
    let others = fs::read_dir(&kube).unwrap().map(|e| e.unwrap().path());
    let kept = others.filter(|p| fs::read_to_string(p).is_ok_and(|text| text == theirs)).count();
    assert_eq!(kept, 1, "the file as it was");
    // Merged once more there is nothing to change, and no backup over the backup.
    board.run(&["kubeconfig", DOCUMENT, "--merge"]).ends(0).says(&["already"]);
}
