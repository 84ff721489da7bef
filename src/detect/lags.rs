//! A rule that lags: it looks back over a window, and so goes on about a process that is gone.

use jiff::Timestamp;

use crate::alert::Overlaid;
use crate::decide::playbook::Confirm;
use crate::detect::confirm::{Question, one_value, target_labels, unbindable};
use crate::detect::shelf::Rules;
use crate::edge::promql::Template;
use crate::reason::Reason;
use crate::target;
use crate::world::{Answer, Metrics, RuleAlert, RuleAlertState, Unanswered};

/// Every alert that fires for the target began before its container started, and the recovery query calls it well: a rule
/// that looks back over a window goes on about the process before. Whoever restarted the container has cured it, or nobody
/// can say yet.
pub(super) async fn lags(
    metrics: &dyn Metrics,
    question: Question<'_>,
    rules: &Answer<Rules>,
    replica: &target::Replica,
    at: Timestamp,
) -> Option<Unanswered> {
    let Question { accepted, target, playbook, .. } = question;
    let (Confirm::Rule { .. }, Ok(rules), Some(started)) = (&playbook.confirm, rules, replica.container.started_at) else {
        return None;
    };
    let ours = |alert: &&RuleAlert| {
        let delivered = Overlaid { over: &alert.labels, under: &accepted.alert.labels };
        alert.state == RuleAlertState::Firing && playbook.claims(&delivered)
    };
    let named = rules.alerts(&playbook.replica_label, target.instance.as_str()).map(|(_, alert)| alert);
    let began = named.filter(ours).filter_map(|alert| alert.active_at).max()?;
    if began >= started {
        return None;
    }
    let spec = &playbook.recovered;
    let named = target_labels(&playbook.replica_label, target, &accepted.alert.labels);
    let query = match Template::parse(&spec.query).and_then(|template| template.bind(&named)) {
        Ok(query) => query,
        Err(error) => return Some(unbindable(error)),
    };
    let value = match one_value(metrics, "the recovery query", &query, at).await {
        Ok(value) if value < spec.below => value,
        Ok(_) => return None,
        // That nobody can say how the new process does is no leave to restart it for what the old one did.
        Err(why) => return Some(why),
    };
    let detail = format!(
        "the alert began {} before the container started, and the recovery query is {}, below {}",
        crate::words::roughly(started.duration_since(began)),
        crate::words::number(value),
        crate::words::number(spec.below),
    );
    Some(Unanswered::new(Reason::RuleLags, detail))
}
