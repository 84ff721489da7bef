//! Two real Alertmanagers in one cluster, a receiver that answers slowly, and a disk without room: what is delivered twice is one
//! record and one restart, and what could not be made durable is not acknowledged.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::FLOOD;
use crate::faults::Delivery;
use crate::lab::{Lab, eventually, replica};
use crate::remediator::text;

#[tokio::test]
async fn delivered_twice_or_on_a_full_disk_it_is_one_record_and_one_restart() {
    let lab = Lab::under_faults("peers").await;
    // The second replica falls sick after the first was drained, and would wait for a human.
    lab.rewrite_playbook(&[("blame: 80s", "blame: 2s")]).await;
    two_peers_and_a_slow_receiver(&lab).await;
    no_room_on_the_disk(&lab).await;
    lab.assert_sound().await;
    lab.stop().await;
}

/// The answer takes 5 s, and the second peer waits 2 s for the first: it sends the same alert while the first is still being
/// answered, with a `startsAt` of its own, because it heard of the alert earlier.
async fn two_peers_and_a_slow_receiver(lab: &Lab) {
    const N: usize = 1;
    let begun = Timestamp::now();
    eventually("two Alertmanagers in one cluster", 30, async || {
        let status = lab.get("ALERTMANAGER", "/api/v2/status").await?;
        let peers = status["cluster"]["peers"].as_array().map_or(0, Vec::len);
        (peers == 2 && status["cluster"]["status"] == "ready").then_some(()).ok_or_else(|| status["cluster"].to_string())
    })
    .await;
    lab.slow_receiver(Duration::from_secs(5)).await;
    lab.leak(N, FLOOD).await;
    let labels = lab.firing("FdExhausted", N).await;
    heard_earlier(lab, &labels, begun - SignedDuration::from_secs(60)).await;
    let record = lab.recovered(N, begun).await;
    lab.slow_receiver(Duration::ZERO).await;

    let deliveries = lab.deliveries(0).await;
    let about: Vec<&Delivery> = deliveries.iter().filter(|delivery| !delivery.ids(N).is_empty()).collect();
    let told = || about.iter().map(|d| format!("{} {} {:?}", d.at, d.peer, starts(d, N))).collect::<Vec<_>>();
    let peers = |name: &str| about.iter().filter(|delivery| delivery.peer.contains(name)).count();
    assert!(peers("alertmanager-1") > 0 && peers("alertmanager-2") > 0, "both peers delivered: {:#?}", told());
    let starts: std::collections::BTreeSet<_> = about.iter().flat_map(|delivery| starts(delivery, N)).collect();
    assert!(starts.len() > 1, "with different startsAt: {:#?}", told());
    for delivery in &about {
        assert_eq!(delivery.ids(N), [text(&record["id"])], "they fold into one record: {:#?}", told());
    }
    assert_eq!(lab.records(N, begun).await.expect("records").len(), 1);
    lab.assert_restarts(begun, [1, 0, 0]).await;
}

/// The same alert, told to the second peer as having begun at another time; an Alertmanager keeps the earliest.
async fn heard_earlier(lab: &Lab, labels: &Value, starts_at: Timestamp) {
    let ends_at = Timestamp::now() + SignedDuration::from_secs(20);
    let alert = json!([{ "labels": labels, "startsAt": starts_at.to_string(), "endsAt": ends_at.to_string() }]);
    let request = lab.http.post(lab.published("alertmanager-2", 9093) + "/api/v2/alerts").json(&alert);
    let answer = request.send().await.expect("the second Alertmanager answers");
    assert!(answer.status().is_success(), "{answer:?}");
}

fn starts(delivery: &Delivery, n: usize) -> Vec<String> {
    let ours = delivery.alerts.iter().filter(|alert| alert["labels"]["instance"] == replica(n) && alert["status"] == "firing");
    ours.map(|alert| text(&alert["startsAt"])).collect()
}

/// 503 while the journal cannot be written, and a human hears of the disk; Alertmanager sends again, and when there is room the alert
/// is one record.
async fn no_room_on_the_disk(lab: &Lab) {
    const N: usize = 2;
    let begun = Timestamp::now();
    let before = lab.deliveries(0).await.len();
    lab.fill_disk();
    lab.leak(N, FLOOD).await;
    let about = async |status: fn(&Delivery) -> bool| {
        let deliveries = lab.deliveries(before).await;
        let ours = |delivery: &&Delivery| {
            delivery.alerts.iter().any(|alert| alert["labels"]["instance"] == replica(N) && alert["status"] == "firing")
        };
        deliveries.iter().filter(ours).filter(|delivery| status(delivery)).cloned().collect::<Vec<_>>()
    };
    eventually("deliveries to be refused", 60, async || {
        let refused = about(|delivery| delivery.status == 503).await.len();
        (refused > 1).then_some(()).ok_or_else(|| format!("{refused}"))
    })
    .await;
    let page = lab.called_for("store_unavailable").await;
    assert!(text(&page["annotations"]["summary"]).contains("cannot write its journal"), "{page:#}");
    assert_eq!(about(Delivery::answered).await.len(), 0, "nothing is acknowledged that is not durable");
    lab.assert_restarts(begun, [0, 0, 0]).await;
    assert_eq!(lab.balancer_logged(N, "enters drain state", begun), []);

    lab.free_disk();
    let record = lab.recovered(N, begun).await;
    assert_eq!(lab.records(N, begun).await.expect("records").len(), 1, "exactly one record after the retry");
    let answered = about(Delivery::answered).await;
    assert!(!answered.is_empty() && answered.iter().all(|delivery| delivery.ids(N) == [text(&record["id"])]), "{answered:#?}");
    lab.assert_restarts(begun, [0, 1, 0]).await;
    lab.resolved("alertname=RemediationEscalated").await;
}
