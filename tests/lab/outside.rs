//! What remediator stands on, taken away in the middle of a run: the doors to Docker, the balancer, Prometheus, the way to
//! Prometheus, and the processor itself. A run ends as recovered or touches nothing; what is still true is done afterwards.

use std::time::Duration;

use jiff::Timestamp;

use crate::FLOOD;
use crate::crash::closed;
use crate::lab::Lab;
use crate::remediator::{steps, text};

const N: usize = 3;
/// Longer than a drain may take (4 s). `make chaos` has whole minutes, too.
const STANDSTILL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn whatever_it_stands_on_is_taken_away_in_the_middle_of_a_run() {
    let lab = Lab::under_faults("outside").await;
    lab.rewrite_playbook(&[
        ("cooldown: 40s", "cooldown: 2s"),
        ("start_grace: 16s", "start_grace: 4s"),
        ("failures: 3", "failures: 20"),
        ("burst: 3", "burst: 20"),
        ("[6 per 8m, 12 per 192m]", "[100 per 1h]"),
    ])
    .await;
    cut_off_from_prometheus(&lab).await;
    doors_and_prometheus_restarted(&lab).await;
    balancer_restarted(&lab).await;
    stood_still(&lab).await;
    lab.assert_sound().await;
    lab.stop().await;
}

/// The alert is true, is delivered by Alertmanager, and cannot be checked: nobody is touched, a human hears of it. When the way
/// is open again it is done without any delivery, and the page ends.
async fn cut_off_from_prometheus(lab: &Lab) {
    let begun = Timestamp::now();
    lab.cut_questions();
    lab.leak(N, FLOOD).await;
    let record = lab.unknown(N, begun).await;
    assert_eq!(steps(&record), []);
    let reason = text(&record["reason_code"]);
    assert!(["prometheus_unreachable", "prometheus_timeout"].contains(&reason.as_str()), "{record:#}");
    lab.called(N, &reason).await;
    lab.firing("FdExhausted", N).await;
    lab.assert_restarts(begun, [0, 0, 0]).await;
    assert_eq!(lab.balancer_logged(N, "enters drain state", begun), []);
    lab.mend_questions();
    lab.recovered(N, begun).await;
    lab.assert_restarts(begun, [0, 0, 1]).await;
    lab.resolved("alertname=RemediationEscalated").await;
}

/// The doors while it drains, Prometheus while it looks whether that helped.
async fn doors_and_prometheus_restarted(lab: &Lab) {
    let begun = Timestamp::now();
    lab.leak(N, FLOOD).await;
    let sessions = lab.hold_sessions().await;
    let record = lab.began(N, begun, "drain").await;
    lab.restart("doors");
    drop(sessions);
    lab.began(N, begun, "readmit").await;
    lab.restart("prometheus");
    let outcome = closed(lab, &record).await;
    println!("doors and Prometheus restarted: {outcome}");
    lab.recovered(N, begun).await;
    lab.assert_restarts(begun, [0, 0, 1]).await;
    lab.assert_none_drained().await;
}

/// The balancer forgets the drain: what is not drained is not restarted. The next run does it.
async fn balancer_restarted(lab: &Lab) {
    let begun = Timestamp::now();
    lab.leak(N, FLOOD).await;
    let sessions = lab.hold_sessions().await;
    let record = lab.began(N, begun, "drain").await;
    let balancer = lab.container("haproxy");
    lab.docker_ok(&["kill", "--signal", "KILL", &balancer]);
    lab.docker_ok(&["start", &balancer]);
    drop(sessions);
    closed(lab, &record).await;
    let story = lab.read(&format!("/audit/{}", text(&record["id"]))).await.expect("the story");
    let reason = text(&story["record"]["reason"]);
    // The second, should it take longer to be back than a drain may take.
    assert!(["drain_lost", "drain_timeout"].contains(&reason.as_str()), "{story:#}");
    assert!(!steps(&story["record"]).iter().any(|(step, _)| step == "restart"), "{story:#}");
    lab.recovered(N, begun).await;
    lab.assert_restarts(begun, [0, 0, 1]).await;
    lab.assert_none_drained().await;
}

/// The process stands still for a while in the middle of a drain. When it goes on it is too late for this run: it puts the
/// server back, and asks anew.
async fn stood_still(lab: &Lab) {
    let begun = Timestamp::now();
    lab.leak(N, FLOOD).await;
    let sessions = lab.hold_sessions().await;
    let record = lab.began(N, begun, "drain").await;
    let remediator = lab.container("remediator");
    lab.docker_ok(&["pause", &remediator]);
    drop(sessions);
    tokio::time::sleep(STANDSTILL).await;
    lab.assert_restarts(begun, [0, 0, 0]).await;
    lab.docker_ok(&["unpause", &remediator]);
    closed(lab, &record).await;
    let story = lab.read(&format!("/audit/{}", text(&record["id"]))).await.expect("the story");
    let reason = text(&story["record"]["reason"]);
    // Whichever bound it meets first when it goes on: the drain's, or the permit's.
    assert!(["drain_timeout", "permit_expired"].contains(&reason.as_str()), "{story:#}");
    assert!(!steps(&story["record"]).iter().any(|(step, _)| step == "restart"), "{story:#}");
    lab.recovered(N, begun).await;
    lab.assert_restarts(begun, [0, 0, 1]).await;
    lab.assert_none_drained().await;
}
