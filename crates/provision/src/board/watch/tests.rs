//! Looks at scripted BMCs.

use std::time::Duration;

use turingpi_bmc::Attempt;

use super::*;

fn attempt() -> Attempt {
    Attempt::new("read the power state", "bmc")
}

#[test]
fn a_bmc_that_is_silent_is_asked_ever_more_rarely_and_one_that_refuses_is_not_asked_again() {
    let interval = Duration::from_secs(2);
    let gone = BmcError::Unreachable { attempt: attempt(), source: "no route".into() };
    let waits: Vec<u64> = (1..=8).map(|n| next_look(&gone, n, interval).0.unwrap().as_secs()).collect();
    assert_eq!(waits, [4, 8, 16, 30, 30, 30, 30, 30]);
    let wrong = BmcError::Auth { attempt: attempt(), reason: AuthReason::Wrong };
    assert_eq!(next_look(&wrong, 1, interval), (None, None));
    let block = Duration::from_secs(59);
    let banned = BmcError::Banned { attempt: attempt(), wait: block };
    assert_eq!(next_look(&banned, 1, interval), (Some(Duration::from_secs(60)), Some(block)));
    let slow = Duration::from_secs(120);
    assert_eq!(next_look(&gone, 3, slow).0, Some(slow), "never more often than was asked for");
}

#[test]
fn what_a_slot_did_before_it_got_power_says_nothing_of_it_now() {
    let mut slot = SlotWatch::new(None);
    assert_eq!(slot.power(Power::On), None);
    slot.hear("node1 login: ");
    assert!(slot.settle(false).is_empty(), "the first look has no news");
    assert_eq!(slot.snapshot(Slot::ALL[0]).state, BootState::Boot(BootStage::Login));
    assert_eq!(slot.power(Power::Off), Some("power off"));
    slot.settle(false);
    assert_eq!(slot.snapshot(Slot::ALL[0]).state, BootState::Off);
    assert_eq!(slot.power(Power::On), Some("power on"));
    slot.settle(false);
    assert_eq!(slot.snapshot(Slot::ALL[0]).state, BootState::PoweringOn);
    slot.hear("\nU-Boot 2024.10\n");
    assert_eq!(slot.settle(false), [("loader".to_owned(), false)]);
    slot.hear("[    2.000000] Kernel panic - not syncing: VFS\n");
    assert_eq!(slot.settle(false), [("kernel panic".to_owned(), true)]);
    let seen = slot.snapshot(Slot::ALL[0]);
    assert!(seen.console.starts_with("node1 login: "), "the whole console stays readable");
    assert_eq!(slot.settle(true), [("flashing".to_owned(), false)]);
}

#[test]
fn an_address_is_news_once() {
    let mut slot = SlotWatch::new(None);
    slot.power(Power::Off);
    slot.settle(false);
    slot.power(Power::On);
    slot.hear("    inet 10.10.88.73/24 scope global end0\nnode1 login: ");
    let news = slot.settle(false);
    assert!(news.contains(&("has the address 10.10.88.73".to_owned(), false)), "{news:?}");
    assert!(slot.settle(false).is_empty());
}
