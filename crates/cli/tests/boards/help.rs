//! Help of every board verb: within 80 columns, with examples the program understands, and the shape of its JSON.

use crate::support::Place;

const VERBS: [&[&str]; 33] = [
    &["info"],
    &["power"],
    &["power", "status"],
    &["power", "on"],
    &["power", "off"],
    &["power", "cycle"],
    &["power", "reset"],
    &["reset"],
    &["usb"],
    &["usb", "status"],
    &["usb", "host"],
    &["usb", "device"],
    &["usb", "flash"],
    &["uart"],
    &["uart", "get"],
    &["uart", "set"],
    &["node-info"],
    &["advanced"],
    &["advanced", "msd"],
    &["advanced", "normal"],
    &["cooling", "status"],
    &["cooling", "set"],
    &["eth", "reset"],
    &["sdcard"],
    &["reboot"],
    &["reload"],
    &["backup"],
    &["transfer"],
    &["discover"],
    &["login"],
    &["trust"],
    &["flash"],
    &["firmware"],
];

#[test]
fn help_fits_a_terminal_and_its_examples_are_understood() {
    let place = Place::new();
    let mut tried = 0;
    for verb in VERBS {
        let args: Vec<&str> = ["board"].iter().chain(verb).copied().chain(["--help"]).collect();
        let help = place.run(&args).ends(0).out;
        let wide: Vec<&str> = help.lines().filter(|l| l.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{verb:?}: {wide:#?}");
        let group = ["power", "usb", "uart", "advanced"].contains(verb.last().unwrap()) && verb.len() == 1;
        assert!(group || (help.contains("Example") && help.contains("JSON:")), "{verb:?}\n{help}");
        let examples = help.split("Example").nth(1).unwrap_or_default();
        for line in examples.lines().filter_map(|l| l.strip_prefix("  turingpi ")) {
            let line =
                line.split(['#', '|']).next().unwrap().replace('\'', "\"").replace("HEX", &"0".repeat(64));
            let words: Vec<String> = line
                .split('"')
                .enumerate()
                .flat_map(|(i, part)| match i % 2 {
                    1 => vec![part.to_owned()],
                    _ => part.split_whitespace().map(str::to_owned).collect(),
                })
                .chain(["--help".to_owned()])
                .collect();
            place.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).ends(0);
            tried += 1;
        }
    }
    assert!(tried >= 30, "only {tried} examples were found");
    let help = place.run(&["board", "--help"]).ends(0).out;
    for verb in VERBS {
        assert!(help.contains(&format!("\n  {} ", verb[0])), "{verb:?} is not in the help:\n{help}");
    }
}
