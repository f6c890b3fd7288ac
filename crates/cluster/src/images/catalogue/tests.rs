use super::*;

#[test]
fn the_built_in_catalogue_is_sound_and_every_entry_says_how_it_is_proved() {
    let catalogue = Catalogue::embedded().unwrap();
    for name in ["armbian", "armbian-vendor", "ubuntu", "raspios"] {
        assert!(catalogue.find(name).is_some(), "{name}");
    }
    for entry in catalogue.entries() {
        assert!(
            !entry.modules.is_empty() && entry.urls.iter().all(|url| url.scheme() == "https"),
            "{entry:?}"
        );
        if let DigestSource::Published(at) = &entry.digest {
            // Where a flash looks for it, too.
            assert_eq!(at.as_str(), format!("{}.sha", entry.urls[0]), "{}", entry.name);
        }
        if entry.version == "rolling" {
            assert!(
                matches!(entry.digest, DigestSource::Published(_)),
                "{} moves, and is pinned",
                entry.name
            );
        }
    }
}

fn one(name: &str, rest: &str) -> String {
    format!(
        "images:\n  - {{ name: {name}, title: t, modules: [rk1], family: other, version: \"1\", \
         urls: [\"https://example.org/{name}.img.xz\"], digest: first-use, packing: xz{rest} }}\n"
    )
}

#[test]
fn an_own_catalogue_goes_before_the_built_in_one_and_takes_names_from_it() {
    let own = Catalogue::parse(&one("raspios", ", aliases: [ubuntu]")).unwrap();
    let both = Catalogue::embedded().unwrap().with(own);
    assert_eq!(both.entries()[0].name, "raspios");
    assert_eq!(both.find("ubuntu").unwrap().name, "raspios");
    assert_eq!(both.find("raspios").unwrap().urls[0].host_str(), Some("example.org"));
    assert_eq!(both.find("ubuntu-24.04").unwrap().aliases, ["ubuntu-rockchip"]);
    assert_eq!(both.entries().iter().filter(|e| e.name == "raspios").count(), 1);
}

#[test]
fn a_catalogue_with_a_mistake_is_refused_with_its_reason() {
    let twice = format!("{}{}", one("a", ""), one("a", "").replace("images:\n", ""));
    let cases = [
        (twice, "twice"),
        (one("Armbian", ""), "not the name of an image"),
        (one("a", "").replace("https://example.org/a.img.xz", "file:///etc/passwd"), "addresses"),
        (one("a", ", colour: red"), "cannot be read"),
        ("images: 3".to_owned(), "cannot be read"),
    ];
    for (text, part) in cases {
        let failure = Catalogue::parse(&text).unwrap_err();
        assert!(failure.message().contains(part), "{failure}\n{text}");
        assert_eq!(failure.class(), FailureClass::Config);
    }
}
