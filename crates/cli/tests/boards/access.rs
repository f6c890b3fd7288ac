//! The way in: passwords, tokens, blocks and certificates.

use std::time::Duration;

use turingpi_testkit::{BoardPlan, Pace, Simulation};

use crate::{
    bench::Bench,
    support::{Place, Ran, texts},
};

const TOKENS: &str = "home/.local/state/turingpi/boards/tokens.json";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_one_login_and_stands_nowhere() {
    let bench = Bench::usual().await;
    let mut command = bench.command(&["power", "on", "-n", "1"]);
    command.env("TPI_PASSWORD", "not-the-password");
    let told = bench
        .output(&["power", "on"], command)
        .ends(6)
        .says(&["user name or password is wrong", "five failed"]);
    assert_eq!(bench.requests("authenticate").len(), 1);
    assert!(!format!("{}{}", told.out, told.err).contains("not-the-password"));
    for (path, text) in texts(bench.place.dir.path()) {
        assert!(!text.contains("not-the-password"), "{}", path.display());
    }
    assert_eq!(bench.board().power(), [false; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_says_how_long_to_wait() {
    let bench = Bench::usual().await;
    bench.board().ban([127, 0, 0, 1].into(), Duration::from_secs(600));
    let told = bench.run(&["info"]).ends(6).says(&["blocks this address for", "Wait", "doubles"]);
    let seconds: u64 = told.err.split("Wait ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((1..=600).contains(&seconds), "{seconds}");
    assert_eq!(bench.requests("authenticate").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_kept_in_a_file_of_its_owners_alone_and_needs_no_password_again() {
    let bench = Bench::usual().await;
    bench.run(&["login"]).ends(0).says(&["logged in", "as root", "is pinned from now on"]);
    let file = bench.place.path(TOKENS);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let folder = file.parent().unwrap();
        assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let mut without = bench.command(&["power", "status"]);
    without.env_remove("TPI_PASSWORD");
    bench.output(&["power", "status"], without).ends(0);
    assert_eq!(bench.requests("authenticate").len(), 1, "logged in again");

    // A BMC that restarted knows no token: with a password one more login, without one the next step is told.
    bench.board().restart_daemon();
    bench.until("the daemon to be back", |board| board.is_up()).await;
    bench.run(&["power", "status"]).ends(0);
    assert_eq!(bench.requests("authenticate").len(), 2);
    bench.run(&["logout"]).ends(0).says(&["is forgotten here"]);
    bench.run(&["logout"]).ends(0).says(&["there was no kept login"]);
    let mut without = bench.command(&["power", "status"]);
    without.env_remove("TPI_PASSWORD");
    bench.output(&["power", "status"], without).ends(4).says(&["TPI_PASSWORD", "--password-file"]);
    assert_eq!(bench.requests("authenticate").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_one_board_is_never_sent_to_another() {
    let simulation = Simulation::builder()
        .pace(Pace::scaled(0.002))
        .board(BoardPlan::new("one"))
        .board(BoardPlan::new("two").credentials("root", "another-password"))
        .start()
        .await
        .unwrap();
    let place = Place::new();
    let run = |board: &str, password: &str, args: &[&str]| {
        let mut command = place.command(&[]);
        command
            .arg("board")
            .args(args)
            .env("TPI_PASSWORD", password)
            .env("TPI_HOSTNAME", simulation.board(board).url());
        Ran::of(args, tokio::task::block_in_place(|| command.output().unwrap()))
    };
    run("one", "turing", &["power", "status"]).ends(0);
    run("two", "turing", &["power", "status"]).ends(6);
    run("two", "another-password", &["power", "status"]).ends(0);
    run("one", "turing", &["power", "status"]).ends(0);
    let asked = |board: &str, part: &str| {
        simulation.board(board).requests().into_iter().filter(|r| r.line().contains(part)).collect::<Vec<_>>()
    };
    // A token that a BMC does not know is a 401 to a request with an authorization: there was none.
    let stranger = asked("two", "").into_iter().find(|r| {
        r.status == Some(401) && r.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"))
    });
    assert!(stranger.is_none(), "{stranger:?}");
    assert_eq!((asked("one", "authenticate").len(), asked("two", "authenticate").len()), (1, 2));
    assert_eq!(std::fs::read_to_string(place.path(TOKENS)).unwrap().lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_refused_before_anything_is_sent_until_it_is_pinned() {
    let bench = Bench::usual().await;
    bench.run(&["info"]).ends(0);
    bench.board().replace_certificate().unwrap();
    let before = bench.board().requests().len();
    bench.run(&["power", "on", "-n", "1"]).ends(6).says(&["is not the pinned", "board trust", "--pin"]);
    assert_eq!(bench.board().requests().len(), before, "something was sent to a stranger");
    let told = bench.run(&["trust", "--output", "json"]).ends(6).json();
    assert_eq!(told["matches"], false);
    let shown = told["shown"].as_str().unwrap();
    bench.run(&["trust", "--pin", shown]).ends(0).says(&["They are the same"]);
    bench.run(&["power", "on", "-n", "1"]).ends(0);

    bench.board().replace_certificate().unwrap();
    bench.run(&["trust", "--forget"]).ends(0).says(&["the next one seen is pinned"]);
    bench.run(&["info"]).ends(0).says(&["is pinned from now on"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_file_that_others_can_read_is_refused() {
    let bench = Bench::usual().await;
    let file = bench.place.write("password", "turing\n");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        bench.run(&["info", "--password-file", "password"]).ends(4).says(&["chmod 600"]);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut command = bench.command(&["info", "--password-file", "password"]);
    command.env_remove("TPI_PASSWORD");
    bench.output(&["info"], command).ends(0);
}
