//! When the cure does not last: a replica that is exhausted before anything could warn is repaired, sickens again after
//! every restart, and after the third the breaker opens and a human is called, with the history (`azure_2012`,
//! `ten_minute_cure`).

use jiff::Timestamp;
use serde_json::Value;

use crate::lab::{Lab, replica};
use crate::remediator::{refusal, text};
use crate::{BURST, FLOOD};

const N: usize = 1;
const BREAKER: &str = "inventory-fd-leak/inventory";

#[tokio::test]
async fn a_cure_that_does_not_last_opens_the_breaker() {
    let lab = Lab::up("breaker").await;
    let begun = Timestamp::now();
    let mut cured = vec![exhausted_before_anything_fired(&lab).await];
    for round in 2..=3 {
        let again = Timestamp::now();
        lab.leak(N, FLOOD).await;
        // A new record, once the cooldown is over; it is asked for by itself, Alertmanager need not come back.
        let record = lab.recovered(N, again).await;
        let passed = record["guards"].as_array().into_iter().flatten().find(|check| check["rail"] == "breaker");
        let said = passed.map(|check| text(&check["detail"])).unwrap_or_default();
        assert!(said.starts_with(&format!("{} remediations in a row did not help, opens at 3", round - 1)), "{said}");
        lab.assert_no_calls().await;
        cured.push(record);
    }

    let fourth = Timestamp::now();
    lab.leak(N, FLOOD).await;
    let record = lab.outcome(N, fourth, "refused", "breaker_open").await;
    let said = refusal(&record, "breaker");
    assert!(said.starts_with("3 remediations in a row did not help, opens at 3"), "{said}");
    one_page_with_history(&lab, &cured).await;
    lab.assert_restarts(begun, [3, 0, 0]).await;
    assert_eq!(lab.metric(&format!("remediator_breaker_state{{breaker=\"{BREAKER}\"}}")).await, 2.0, "open, for dashboards too");
    lab.assert_sound().await;
    lab.stop().await;
}

/// Full after 26 s: no rule could warn, the replica neither serves nor tells how many descriptors it has.
async fn exhausted_before_anything_fired(lab: &Lab) -> Value {
    let begun = Timestamp::now();
    lab.leak(N, BURST).await;
    let record = lab.recovered(N, begun).await;
    assert_eq!(record["alert"]["labels"]["alertname"], "FdExhausted");
    lab.assert_restarts(begun, [1, 0, 0]).await;
    let warned = format!(
        "count_over_time(ALERTS{{alertname=~\"FdLeak(Fast|Sustained|Slow)\", alertstate=\"firing\", instance=\"{}\"}}[5m])",
        replica(N)
    );
    let warned = lab.query(&format!("count({warned}) or vector(0)")).await;
    assert_eq!(warned, Ok(0.0), "nothing fired before");
    let down = lab.balancer_logged(N, "is DOWN", begun);
    let drained = lab.balancer_logged(N, "enters drain state", begun);
    assert!(!down.is_empty() && drained.len() == 1 && down[0] < drained[0], "down {down:?} before it was drained {drained:?}");
    record
}

async fn one_page_with_history(lab: &Lab, cured: &[Value]) {
    let page = lab.called(N, "breaker_open").await;
    let history = text(&page["annotations"]["history"]);
    for record in cured {
        assert!(history.contains(&text(&record["id"])), "{} is in the history: {history}", record["id"]);
    }
    assert!(text(&page["annotations"]["commands"]).contains("docker restart"), "{page:#}");
    // Asked again all the time, and the answer is no news.
    lab.for_a_while(8, async || {
        let calls = lab.calls().await;
        assert_eq!(calls.len(), 1, "one page: {calls:#?}");
    })
    .await;
}
