//! Admission. The one place that makes a [`Permit`], together with the intent that must be on disk before it is used.

use std::sync::Arc;

use jiff::Timestamp;

use crate::decide::playbook::Mode;
use crate::event::{Intent, RecordId};
use crate::guard::ledger::Books;
use crate::guard::permit::{Granted, Permit};
use crate::guard::rails::{self, Assessment, Request};

/// The answer to "may we, now?".
#[derive(Debug)]
pub enum Admission {
    /// The permit may be used once the intent is durable.
    Admitted {
        granted: Granted,
        intent: Arc<Intent>,
    },
    Refused(Assessment),
}

/// Evaluates every rail against the books and, when all pass, makes the permit. Consumes nothing itself: the intent,
/// once folded into the books, is what is consumed. Must be called by the journal's writer, so that no other admission
/// can come between the evaluation and the intent.
pub fn admit(books: &Books, request: &Request<'_>, record: RecordId, now: Timestamp) -> Admission {
    let assessment = rails::assess(books, request, now);
    if assessment.refused() {
        return Admission::Refused(assessment);
    }
    let plan = request.plan.clone();
    let mode = request.playbook.mode;
    let expires_at = now.saturating_add(plan.deadline.signed()).unwrap_or(Timestamp::MAX);
    let intent = Intent {
        key: request.plan.target.key(),
        playbook: request.playbook.name.clone(),
        mode,
        plan: plan.clone(),
        expires_at,
        guards: assessment.checks,
        buckets: assessment.buckets,
        probe: assessment.probe,
        recurred: assessment.recurred,
    };
    let granted = match mode {
        Mode::Live => Granted::Live(Permit::grant(record, plan, expires_at)),
        Mode::Shadow => Granted::Shadow(Permit::grant(record, plan, expires_at)),
    };
    Admission::Admitted { granted, intent: Arc::new(intent) }
}
