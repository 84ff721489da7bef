//! One look at the outside for everybody who asks at the same time: Prometheus' rules and targets, Docker's containers, the
//! balancer's servers, and what a rule's own expression says.
//!
//! These answers are about all replicas at once, and in a storm of thousands each of them is megabytes. Asked for by every
//! walk by itself they would cost the square of the storm.
//!
//! Promise: a look was begun after whoever gets it asked for it, and everything in it is pinned to one instant. Who comes
//! while a look is under way waits for the next one; there is never more than one under way and one that waits.
//!
//! Accepted: a part of the outside that does not answer holds up the next look until its own time limit, hence whoever
//! asks at the worst moment waits twice as long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::detect::shelf::{Rules, Shelf};
use crate::moment::Moment;
use crate::world::{Answer, ContainerSummary, Metrics, Sample, ScrapeTarget, Server, World};

/// What was seen at one instant.
pub struct Look {
    /// When it began.
    pub moment: Moment,
    pub rules: Answer<Rules>,
    pub scrapes: Answer<Shelf<ScrapeTarget>>,
    pub containers: Answer<Shelf<ContainerSummary>>,
    pub servers: Answer<Shelf<Server>>,
    metrics: Arc<dyn Metrics>,
    /// By query.
    series: Mutex<HashMap<String, Series>>,
}

type Series = Arc<OnceCell<Answer<Shelf<Sample>>>>;
type Flight = Shared<BoxFuture<'static, Arc<Look>>>;

/// Whoever looks through the same one shares its looks. Cheap to clone; each process has one.
#[derive(Clone, Default)]
pub struct Looks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The look that has not begun.
    next: Mutex<Option<Flight>>,
    /// Held by the one that is under way.
    turn: tokio::sync::Mutex<()>,
}

impl Looks {
    /// A look that begins after this call.
    pub async fn look(&self, world: &World) -> Arc<Look> {
        let flight = {
            let mut next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner);
            next.get_or_insert_with(|| fly(self.0.clone(), world.clone()).boxed().shared()).clone()
        };
        flight.await
    }
}

async fn fly(looks: Arc<Inner>, world: World) -> Arc<Look> {
    let _turn = looks.turn.lock().await;
    // It begins: nobody may join any more.
    looks.next.lock().unwrap_or_else(PoisonError::into_inner).take();
    Arc::new(Look::take(&world).await)
}

impl Look {
    /// The instant that everything is pinned to.
    pub fn at(&self) -> Timestamp {
        self.moment.at()
    }

    async fn take(world: &World) -> Look {
        let moment = Moment::now(&*world.clock);
        let (rules, scrapes, containers, servers) = tokio::join!(
            world.metrics.alerting_rules(),
            world.metrics.scrape_targets(),
            world.engine.containers(),
            world.balancer.servers(),
        );
        Look {
            moment,
            rules: rules.map(Rules::new),
            scrapes: scrapes.map(Shelf::new),
            containers: containers.map(Shelf::new),
            servers: servers.map(Shelf::new),
            metrics: world.metrics.clone(),
            series: Mutex::default(),
        }
    }

    /// The series of a rule's own expression at the instant of the look that have this value in this label, asked for once.
    ///
    /// # Errors
    /// As [`Metrics::instant`].
    pub async fn series(&self, query: &str, label: &str, value: &str) -> Answer<Vec<Sample>> {
        let cell = self.series.lock().unwrap_or_else(PoisonError::into_inner).entry(query.to_owned()).or_default().clone();
        let asked = || async { self.metrics.instant(query, self.at()).await.map(Shelf::new) };
        let answer = cell.get_or_init(asked).await;
        answer.as_ref().map(|series| series.find(label, value).into_iter().cloned().collect()).map_err(Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::sim::shop::inventory;
    use crate::world::AlertingRule;

    /// Answers every question after a second, and counts.
    struct Slow(Arc<dyn Metrics>, Arc<AtomicUsize>, Arc<AtomicUsize>);

    #[async_trait::async_trait]
    impl Metrics for Slow {
        async fn instant(&self, query: &str, at: Timestamp) -> Answer<Vec<Sample>> {
            self.2.fetch_add(1, Ordering::Relaxed);
            self.0.instant(query, at).await
        }
        async fn alerting_rules(&self) -> Answer<Vec<AlertingRule>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.0.alerting_rules().await
        }
        async fn scrape_targets(&self) -> Answer<Vec<ScrapeTarget>> {
            self.0.scrape_targets().await
        }
    }

    fn slow() -> (World, Arc<AtomicUsize>, Arc<AtomicUsize>) {
        let world = inventory().world();
        let (rules, queries) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let metrics = Arc::new(Slow(world.metrics.clone(), rules.clone(), queries.clone()));
        (World { metrics, ..world }, rules, queries)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_while_a_look_is_under_way_gets_the_next_one_and_all_of_them_the_same() {
        let ((world, rules, queries), looks) = (slow(), Looks::default());
        let at = |looks: &Looks| {
            let (looks, world) = (looks.clone(), world.clone());
            tokio::spawn(async move {
                let asked = world.clock.now();
                let look = looks.look(&world).await;
                assert!(look.at() >= asked, "it saw what was before the question");
                drop(look.series("vector(1)", "instance", "a").await);
                look.at()
            })
        };
        let first = at(&looks);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let others: Vec<_> = (0..50).map(|_| at(&looks)).collect();
        let first = first.await.expect("no panic");
        let mut seen = Vec::new();
        for other in others {
            seen.push(other.await.expect("no panic"));
        }
        assert!(seen.iter().all(|at| *at == seen[0] && *at > first));
        assert_eq!((rules.load(Ordering::Relaxed), queries.load(Ordering::Relaxed)), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_holds_up_nobody() {
        let ((world, ..), looks) = (slow(), Looks::default());
        for wait in [100, 100, 1500] {
            // The first is broken off under way, the second before it began.
            let _ = tokio::time::timeout(Duration::from_millis(wait), looks.look(&world)).await;
        }
        let begun = tokio::time::timeout(Duration::from_secs(5), looks.look(&world)).await;
        assert!(begun.is_ok(), "a look that nobody waits for stands in the way");
    }
}
