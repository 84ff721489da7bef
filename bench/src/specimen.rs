//! What the functions are measured with: the evidence of a real walk on the simulated shop, under the playbook that this
//! repository ships.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use remediator::decide::decision::{Decision, decide};
use remediator::decide::evidence::Evidence;
use remediator::decide::playbook::{Mode, Playbook, Rate};
use remediator::event::{Record, RecordId};
use remediator::guard::coordinate::{Admission, admit};
use remediator::guard::ledger::Books;
use remediator::guard::rails::{Limits, Request};
use remediator::period::Period;
use remediator::sim::bench::Bench;
use remediator::sim::shop::inventory;
use remediator::world::RuleAlertState;

/// One decision's input.
#[derive(Debug)]
pub struct Specimen {
    pub playbook: Playbook,
    pub evidence: Evidence,
    pub record: Record,
    pub books: Books,
    pub limits: Limits,
    pub now: Timestamp,
}

impl Specimen {
    /// Lets a replica leak in the simulated shop, until its record is closed.
    ///
    /// # Errors
    /// Nothing was remediated there.
    pub fn collect() -> Result<Specimen> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
        runtime.block_on(async {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../playbooks/inventory-fd-leak.yml");
            let (mut playbooks, _) = remediator::config::load_playbooks(&path).ok().context("the shipped playbook")?;
            let (playbook, _) = playbooks.pop().context("a playbook")?;
            let playbook = Playbook { mode: Mode::Live, ..playbook };
            let bench = Bench::start(inventory(), vec![playbook.clone()]).await?;
            bench.run_for(Duration::from_secs(120)).await;
            bench.sim.leak("inventory-2");
            let fires = |bench: &Bench| bench.sim.with(|state| !state.prometheus.listed(RuleAlertState::Firing).is_empty());
            anyhow::ensure!(bench.until(Duration::from_secs(900), fires).await, "no rule fires");
            bench.deliver_firing().await.map_err(|_| anyhow::anyhow!("not durable"))?;
            let closed = |bench: &Bench| bench.records().iter().all(Record::is_closed);
            anyhow::ensure!(bench.until(Duration::from_secs(900), closed).await, "a record stays open");
            let record = bench.records().into_iter().find(|record| record.intent.is_some()).context("nothing was admitted")?;
            let evidence = record.evidence.as_deref().context("no evidence")?.clone();
            let rate = Rate { per: Period::from_secs(60), burst: 5 };
            let limits = Limits { fleet: rate, group: rate };
            Ok(Specimen { now: evidence.at, playbook, evidence, record, books: Books::default(), limits })
        })
    }

    /// From evidence to the permit, as the walk does it.
    pub fn decide_and_admit(&self) -> bool {
        let Decision::Remediate { plan } = decide(&self.playbook, &self.evidence, self.now).decision else { return false };
        self.admitted(&plan)
    }

    /// The rails alone.
    pub fn admitted(&self, plan: &remediator::decide::decision::Plan) -> bool {
        let passed = self.now.duration_since(self.evidence.at);
        let request = Request { playbook: &self.playbook, limits: &self.limits, evidence: &self.evidence, passed, plan };
        let id = RecordId(uuid::Uuid::from_u128(1));
        matches!(admit(&self.books, &request, id, self.now), Admission::Admitted { .. })
    }
}
