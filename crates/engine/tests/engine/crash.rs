use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use turingpi_engine::{Approval, Executor, MemoryStateStore, Outcome, StateStore, Timing};

use crate::toy::{CutAt, NODES, PoweredStore, World};

/// Runs the tool on `world` until it is done or its power goes at event `at`; returns how many events there were.
async fn run_until<S: StateStore + 'static>(world: &World, store: S, at: usize) -> usize {
    let seen = Arc::new(AtomicUsize::new(0));
    let power = world.power.clone();
    let sink = Arc::new(CutAt { at, seen: Arc::clone(&seen), power: power.clone() });
    let store = Arc::new(PoweredStore { store, power: power.clone() });
    let executor = Executor::builder(store, sink).timing(Timing::fast()).build();
    let approval = Approval::everything();
    tokio::select! {
        biased;
        () = power.gone() => {}
        result = executor.converge(world, &approval) => assert_eq!(result.unwrap().outcome, Outcome::Done),
    }
    seen.load(Ordering::SeqCst)
}

async fn assert_converges_from_here<S: StateStore + Clone + 'static>(world: &World, store: S, what: &str) {
    let (state, _) = store.load().await.unwrap();
    let marked = |node: &str| state.in_doubt.contains_key(&format!("{node}/flash"));
    let before = world.slots().clone();
    let again = world.restarted();
    run_until(&again, store.clone(), usize::MAX).await;
    for node in NODES {
        let slot = world.slot(node);
        assert!(slot.whole && slot.up && slot.joined, "{what}: {node} is {slot:?}");
        let expected = usize::from(before[node].image.is_none() || marked(node));
        let flashed = slot.flashes - before[node].flashes;
        assert_eq!(flashed, expected, "{what}: {node} was {:?}, marked: {}", before[node], marked(node));
        if before[node].image.is_some() && !before[node].whole {
            assert!(marked(node), "{what}: {node} is half written and nobody knows");
        }
    }
    let (state, _) = store.load().await.unwrap();
    assert!(state.in_doubt.is_empty(), "{what}: {state:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_at_any_event_the_next_run_converges_and_flashes_only_what_is_missing_or_in_doubt() {
    let events = run_until(&World::new(), MemoryStateStore::new(), usize::MAX).await;
    assert!(events > 30, "only {events} events: the world is too small for this test");
    let mut half_written = 0;
    for at in 1..=events {
        let (world, store) = (World::new(), MemoryStateStore::new());
        run_until(&world, store.clone(), at).await;
        half_written += world.slots().values().filter(|s| s.image.is_some() && !s.whole).count();
        assert_converges_from_here(&world, store, &format!("cut at event {at}")).await;
    }
    assert!(half_written > 3, "no cut fell into a flash");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_crashes_again_and_again_gets_there_in_the_end() {
    for at in [2, 9, 14, 23] {
        let (world, store) = (World::new(), MemoryStateStore::new());
        for extra in 0..4 {
            run_until(&world.restarted(), store.clone(), at + extra).await;
        }
        assert_converges_from_here(&world, store, &format!("cut at events from {at} on")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_state_in_a_file_serves_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    for at in [1, 3, 8, 20] {
        let store = SharedFile(Arc::new(turingpi_engine::FileStateStore::new(
            folder.path().join(format!("{at}.json")),
        )));
        let world = World::new();
        run_until(&world, store.clone(), at).await;
        assert_converges_from_here(&world, store, &format!("cut at event {at}")).await;
    }
}

#[derive(Clone)]
struct SharedFile(Arc<turingpi_engine::FileStateStore>);

#[async_trait::async_trait]
impl StateStore for SharedFile {
    async fn load(
        &self,
    ) -> Result<(turingpi_engine::State, turingpi_engine::Generation), turingpi_engine::Failure> {
        self.0.load().await
    }
    async fn save(
        &self,
        state: &turingpi_engine::State,
        seen: turingpi_engine::Generation,
    ) -> Result<turingpi_engine::Generation, turingpi_engine::Failure> {
        self.0.save(state, seen).await
    }
}
