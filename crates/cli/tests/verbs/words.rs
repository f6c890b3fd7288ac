//! Help texts: short, within 80 columns, and with examples that the program understands.

use crate::support::{ONE, Place};

const VERBS: [&str; 13] = [
    "board",
    "init",
    "validate",
    "plan",
    "apply",
    "status",
    "destroy",
    "kubeconfig",
    "simulate",
    "doctor",
    "image",
    "completions",
    "schema",
];

#[test]
fn help_fits_a_terminal() {
    let place = Place::new();
    for verb in VERBS {
        let help = place.run(&[verb, "--help"]).ends(0).out;
        let wide: Vec<&str> = help.lines().filter(|l| l.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{verb}: {wide:#?}");
        assert!(help.lines().count() < 70, "{verb} has {} lines of help", help.lines().count());
        assert!(help.contains("Example"), "{verb} shows no example");
    }
    let help = place.run(&["--help"]).ends(0).out;
    for verb in VERBS {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb} is not in the help");
    }
}

#[test]
fn the_examples_in_the_help_are_understood() {
    let place = Place::new();
    let mut tried = 0;
    for verb in VERBS {
        let help = place.run(&[verb, "--help"]).ends(0).out;
        let examples = help.split("Example").nth(1).unwrap();
        for line in examples.lines().filter_map(|l| l.strip_prefix("  turingpi ")) {
            let line = line
                .split([' '].as_ref())
                .take_while(|w| !["#", "|", ">"].contains(w))
                .filter(|w| !w.is_empty());
            // With `--help` behind it an example is parsed and not run.
            let words: Vec<&str> = line.chain(["--help"]).collect();
            place.run(&words).ends(0);
            tried += 1;
        }
    }
    assert!(tried >= 20, "only {tried} examples were found");
}

#[test]
fn what_a_person_reads_stays_within_80_columns() {
    let place = Place::new();
    place.write("cluster.yaml", ONE);
    let ran = place.run(&["plan"]).ends(4);
    assert!(ran.err.lines().all(|l| l.chars().count() <= 80 || !l.contains(' ')), "{}", ran.err);
}
