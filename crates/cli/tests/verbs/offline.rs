//! Verbs that need nothing but a document.

use serde_json::json;

use crate::support::{HOST, ONE, Place};

#[test]
fn init_writes_a_document_that_validates_and_never_writes_over_one() {
    let place = Place::new();
    place.run(&["init", "--demo"]).ends(0).says(&[
        "wrote cluster.yaml",
        "turingpi apply --simulate",
        "turingpi doctor",
    ]);
    place.run(&["validate"]).ends(0).says(&["valid", "`homelab`, 4 nodes, 1 board"]);
    place.run(&["init", "--demo"]).ends(8).says(&["exists already", "--force"]);
    place.run(&["init", "--demo", "--force", "--name", "other"]).ends(0);
    place.run(&["validate"]).ends(0).says(&["`other`"]);
    let told = place.run(&["init", "--demo", "two.yaml", "--output", "json"]).ends(0).json();
    assert_eq!(told, json!({ "document": "two.yaml" }));
    let hosts = place.run(&["init", "-", "--hosts", "10.0.0.3,10.0.0.9", "--user", "admin"]).ends(0);
    assert!(hosts.out.contains("user: admin") && !hosts.out.contains("boards:"), "{}", hosts.out);
}

#[test]
fn init_says_which_answer_is_wrong() {
    let place = Place::new();
    place
        .run(&["init", "--demo", "--nodes", "10.0.0.5-3"])
        .ends(64)
        .says(&["`10.0.0.5-3` is not an address or a range"]);
    place.run(&["init", "--demo", "--nodes", "10.0.0.1-9"]).ends(64).says(&["four slots"]);
    place.run(&["init", "--demo", "--servers", "2"]).ends(64).says(&["1, 3 or 5"]);
    assert!(!place.path("cluster.yaml").exists());
}

#[test]
fn validate_shows_every_mistake_with_its_place_in_text_and_in_json() {
    let place = Place::new();
    let text = ONE.replace("role: control-plane", "rolle: control-plane").replace("10.0.0.3", "10.0.0.300");
    place.write("wrong.yaml", &text);
    place.run(&["validate", "wrong.yaml"]).ends(4).says(&["wrong.yaml:9:", "rolle", "role", "mistake"]);
    let told = place.run(&["validate", "wrong.yaml", "--output", "json"]).ends(4).json();
    assert_eq!((&told["valid"], &told["document"]), (&json!(false), &json!("wrong.yaml")));
    let first = &told["findings"][0];
    assert_eq!((&first["severity"], &first["line"]), (&json!("error"), &json!(9)), "{told:#}");
    // Other verbs carry the same findings in their error.
    let plan = place.run(&["plan", "wrong.yaml", "--output", "json"]).ends(4).json();
    assert_eq!(plan["error"]["findings"], told["findings"]);
    let apply = place.run(&["apply", "wrong.yaml", "--output", "json"]).ends(4).json();
    assert_eq!((&apply["event"], &apply["exit_code"]), (&json!("result"), &json!(4)));
    assert_eq!(apply["error"]["findings"], told["findings"]);
}

#[test]
fn a_document_that_is_not_there_or_not_yaml_is_said_with_a_next_step() {
    let place = Place::new();
    place.run(&["plan"]).ends(4).says(&["cannot read the document `cluster.yaml`", "turingpi init"]);
    place.write("cluster.yaml", "nodes: [\n");
    place.run(&["validate"]).ends(4).says(&["cluster.yaml:"]);
    let told = place.run(&["status", "--output", "json", "nope.yaml"]).ends(4).json();
    assert_eq!((&told["exit_code"], &told["error"]["class"]), (&json!(4), &json!("config")));
}

#[test]
fn missing_secrets_keys_and_folders_are_named_before_anything_is_touched() {
    let place = Place::new();
    place.write("cluster.yaml", ONE);
    place.run(&["plan"]).ends(4).says(&["`TPI_PASSWORD` is not set", "export TPI_PASSWORD"]);
    let output = place.command(&["plan"]).env("TPI_PASSWORD", "secret-in-env").output().unwrap();
    let ran = crate::support::Ran::of(&["plan"], output).ends(4).says(&["id_ed25519", "ssh-keygen"]);
    assert!(!ran.err.contains("secret-in-env"));
    place.write("host.yaml", HOST);
    place.write("a-file", "");
    place
        .run(&["plan", "host.yaml", "--state-dir", "a-file/below"])
        .ends(4)
        .says(&["cannot make the state folder"]);
}

#[test]
fn the_schema_is_a_json_schema_that_knows_the_keys_of_the_document() {
    let schema = Place::new().run(&["schema"]).ends(0).json();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"), "{}", schema["$schema"]);
    assert_eq!(schema["type"], "object");
    for key in ["name", "nodes", "boards", "images", "ssh"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    let required: Vec<&str> =
        schema["required"].as_array().unwrap().iter().filter_map(|v| v.as_str()).collect();
    assert!(required.contains(&"name") && required.contains(&"nodes"), "{required:?}");
    assert_eq!(schema["additionalProperties"], false);
    // Every reference leads somewhere.
    let text = schema.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(schema.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
}

#[test]
fn every_shell_gets_completions_with_every_verb() {
    let place = Place::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.run(&["completions", shell]).ends(0).out;
        for verb in ["apply", "kubeconfig", "destroy", "simulate"] {
            assert!(script.contains(verb), "{shell} does not know {verb}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_64_and_help_with_0() {
    let place = Place::new();
    place.write("cluster.yaml", HOST);
    for args in [
        &["frobnicate"][..],
        &["apply", "--keep"],
        &["kubeconfig", "--into", "x"],
        &["destroy", "--keep-data", "--wipe-data"],
        &["completions", "tcsh"],
        &["status", "--interval", "3"],
    ] {
        let ran = place.run(args).ends(64);
        assert!(ran.err.contains("--help") && ran.out.is_empty(), "{}", ran.err);
    }
    place.run(&["--version"]).ends(0).says(&["turingpi 0."]);
}

#[test]
fn a_reader_that_goes_away_is_not_an_error() {
    let place = Place::new();
    // The pipe is closed before the first byte is written.
    let mut child = place.command(&["schema"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
