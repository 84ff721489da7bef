//! How much may be out at once: with all three replicas sick nothing is touched and a human is called, once; with two
//! of three sick one is repaired, and the other only when the first is back.

use jiff::Timestamp;
use serde_json::Value;

use crate::FLOOD;
use crate::lab::{Lab, eventually, replica};
use crate::remediator::{refusal, text};

#[tokio::test]
async fn the_blast_radius_holds_for_three_and_for_two_of_three() {
    let lab = Lab::up("radius").await;
    all_three(&lab).await;
    a_human_restarts_all_three(&lab).await;
    two_of_three(&lab).await;
    lab.assert_sound().await;
    lab.stop().await;
}

/// 100 % is more than `max_unhealthy: 67%`: the cause is shared. What "one page" means: one record per replica, because each
/// is answered for by itself, and one call to the human with all three in it.
async fn all_three(lab: &Lab) {
    let begun = Timestamp::now();
    for n in [1, 2, 3] {
        lab.leak(n, FLOOD).await;
    }
    for n in [1, 2, 3] {
        let record = lab.outcome(n, begun, "refused", "max_unhealthy").await;
        let said = refusal(&record, "max_unhealthy");
        assert!(said.contains("sick 3 of 3 (100%") && said.contains("at most 67%"), "{said}");
        lab.called(n, "max_unhealthy").await;
    }
    // It is asked again every 4 s, and stays the same: no restart, no drain, no further record, no further call.
    lab.for_a_while(10, async || {
        for n in [1, 2, 3] {
            let records = lab.records(n, begun).await.expect("records");
            assert_eq!(records.len(), 1, "one record for inventory-{n}: {records:#?}");
        }
        let calls = lab.calls().await;
        assert_eq!(calls.len(), 1, "one call: {calls:#?}");
        assert_eq!(calls[0]["alerts"].as_array().map(Vec::len), Some(3), "with all three: {calls:#?}");
    })
    .await;
    lab.assert_restarts(begun, [0, 0, 0]).await;
    for n in [1, 2, 3] {
        assert_eq!(lab.balancer_logged(n, "enters drain state", begun), []);
    }
}

/// Then there is nothing left to do, and remediator finds that out by itself.
async fn a_human_restarts_all_three(lab: &Lab) {
    let begun = Timestamp::now();
    for n in [1, 2, 3] {
        lab.docker_ok(&["restart", "--time", "2", &lab.container(&format!("inventory-{n}"))]);
        lab.assert_none_drained().await;
    }
    for n in [1, 2, 3] {
        lab.outcome(n, begun, "condition_cleared", "condition_quiet").await;
    }
    lab.resolved("alertname=RemediationEscalated").await;
}

/// The story `karpenter_small`.
async fn two_of_three(lab: &Lab) {
    // A container younger than its start grace is not restarted, which is another story.
    eventually("the youngest replica to be older than start_grace (16 s)", 60, async || {
        let age = lab.query("min(time() - process_start_time_seconds{job=\"inventory\"})").await?;
        (age > 18.0).then_some(()).ok_or_else(|| format!("{age:.0} s"))
    })
    .await;
    let begun = Timestamp::now();
    lab.watch_customers().await;
    lab.leak(1, FLOOD).await;
    lab.leak(2, FLOOD).await;
    lab.recovered(1, begun).await;
    lab.recovered(2, begun).await;
    lab.assert_restarts(begun, [1, 1, 0]).await;

    let (first, second) = if back_at(lab, 1, begun) < back_at(lab, 2, begun) { (1, 2) } else { (2, 1) };
    let (stopped, _) = lab.restarts(second, begun).await[0];
    assert!(
        back_at(lab, first, begun) < stopped,
        "inventory-{second} was restarted at {stopped}, after inventory-{first} was back"
    );

    let records = lab.records(second, begun).await.expect("records");
    let outcomes: Vec<_> = records.iter().map(|record| [text(&record["outcome"]), text(&record["reason_code"])]).collect();
    assert_eq!(outcomes, [["refused", "min_healthy"], ["recovered", "recovery_confirmed"]].map(|two| two.map(str::to_owned)));
    let said = refusal(&records[0], "min_healthy");
    assert!(said.contains("healthy after this restart 1, must be at least 2"), "{said}");
    assert!(said.contains(&replica(first)), "and it says who is out: {said}");
    assert_eq!(records[0]["steps"], Value::Array(Vec::new()));
    assert_eq!(lab.records(first, begun).await.expect("records").len(), 1);
    lab.assert_customers_served().await;
}

/// When HAProxy readmitted replica `n`.
fn back_at(lab: &Lab, n: usize, since: Timestamp) -> Timestamp {
    let readmitted = lab.balancer_logged(n, "leaving forced drain", since);
    assert_eq!(readmitted.len(), 1, "inventory-{n} was readmitted once: {readmitted:?}");
    readmitted[0]
}
