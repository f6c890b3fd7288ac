//! Locks by name inside a stage. Lanes earlier in the stage are served first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// The locks of one stage. A lane has at most one [`Ticket`] at a time.
#[derive(Default)]
pub(crate) struct LaneLocks {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Lock name to the lane that holds it.
    held: BTreeMap<String, usize>,
    /// Lane to what it wants. The order of the keys is the priority.
    waiting: BTreeMap<usize, Waiter>,
}

struct Waiter {
    names: BTreeSet<String>,
    grant: oneshot::Sender<()>,
}

/// A place in the queue for some locks, then the locks themselves. Dropping it gives up either.
pub(crate) struct Ticket {
    locks: Arc<LaneLocks>,
    lane: usize,
    granted: oneshot::Receiver<()>,
    held: bool,
}

impl LaneLocks {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues `lane` for all of `names` at once, so that no two lanes can each hold half of what both need.
    pub(crate) fn request(self: &Arc<Self>, lane: usize, names: &[String]) -> Ticket {
        let (grant, granted) = oneshot::channel();
        let mut table = self.table();
        table.waiting.insert(lane, Waiter { names: names.iter().cloned().collect(), grant });
        table.serve();
        Ticket { locks: Arc::clone(self), lane, granted, held: false }
    }
}

impl Table {
    /// Hands out what is free, in the order of lanes. What an earlier lane waits for is kept for it, even while
    /// another of its locks is busy: otherwise two lanes with one lock each could starve one that needs both.
    fn serve(&mut self) {
        let mut kept = BTreeSet::new();
        let mut ready = Vec::new();
        for (lane, waiter) in &self.waiting {
            if waiter.names.iter().all(|n| !self.held.contains_key(n) && !kept.contains(n)) {
                ready.push(*lane);
            }
            kept.extend(waiter.names.iter().cloned());
        }
        for lane in ready {
            if let Some(waiter) = self.waiting.remove(&lane) {
                self.held.extend(waiter.names.into_iter().map(|n| (n, lane)));
                // A receiver that is gone gives the locks back when its ticket is dropped.
                let _ = waiter.grant.send(());
            }
        }
    }
}

impl Ticket {
    /// Whether the locks are held, without waiting.
    pub(crate) fn is_held(&mut self) -> bool {
        self.held = self.held || self.granted.try_recv().is_ok();
        self.held
    }

    /// Resolves when the locks are held.
    pub(crate) async fn held(&mut self) {
        if !self.held {
            // The sender goes away without sending only if the ticket itself does.
            self.held = (&mut self.granted).await.is_ok();
        }
    }

    /// The locks that others hold or are first in line for.
    pub(crate) fn busy(&self) -> Vec<String> {
        let table = self.locks.table();
        let Some(waiter) = table.waiting.get(&self.lane) else { return Vec::new() };
        let earlier = |name: &String| table.waiting.range(..self.lane).any(|(_, w)| w.names.contains(name));
        waiter.names.iter().filter(|n| table.held.contains_key(*n) || earlier(n)).cloned().collect()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.locks.table();
        if table.waiting.remove(&self.lane).is_none() {
            table.held.retain(|_, holder| *holder != self.lane);
        }
        table.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    #[test]
    fn a_released_lock_goes_to_the_earliest_lane_that_waits() {
        let locks = Arc::new(LaneLocks::default());
        let mut first = locks.request(5, &names("a"));
        let mut late = locks.request(3, &names("a"));
        let mut early = locks.request(1, &names("a"));
        assert!(first.is_held() && !late.is_held() && !early.is_held());
        drop(first);
        assert!(early.is_held() && !late.is_held());
        drop(early);
        assert!(late.is_held());
    }

    #[test]
    fn a_lane_that_needs_two_locks_is_not_starved_by_lanes_that_need_one() {
        let locks = Arc::new(LaneLocks::default());
        let a = locks.request(4, &names("a"));
        let mut both = locks.request(1, &names("ab"));
        let mut b = locks.request(2, &names("b"));
        assert!(!both.is_held());
        assert!(!b.is_held(), "b is kept for the earlier lane");
        assert_eq!(b.busy(), names("b"));
        assert_eq!(both.busy(), names("a"));
        drop(a);
        assert!(both.is_held() && !b.is_held());
        drop(both);
        assert!(b.is_held());
    }

    #[test]
    fn giving_up_a_place_in_the_queue_lets_the_next_one_through() {
        let locks = Arc::new(LaneLocks::default());
        let a = locks.request(4, &names("a"));
        let both = locks.request(1, &names("ab"));
        let mut b = locks.request(2, &names("b"));
        drop(both);
        assert!(b.is_held());
        drop(a);
        assert!(locks.request(0, &names("a")).is_held());
    }
}
