//! remediator killed in each step of a real remediation, from the evidence to the verdict. Each step is made long first, so that
//! the kill falls into it: the door to Docker takes 2 s for the logs, sessions hold the drain, a request holds the stop, the
//! replica starts slowly, the balancer stands still. The journal says afterwards that the step was under way.

use jiff::Timestamp;
use serde_json::Value;

use crate::FLOOD;
use crate::crash::{closed, linger};
use crate::lab::{Lab, eventually};
use crate::remediator::{steps, text};

const N: usize = 2;

#[tokio::test]
async fn killed_in_each_step_it_repeats_nothing_and_leaves_nobody_drained() {
    let lab = Lab::under_faults("killed").await;
    // What is interrupted is taken up again at once, and is no reason to stop: each run is the next step's victim.
    lab.rewrite_playbook(&[
        ("cooldown: 40s", "cooldown: 2s"),
        ("start_grace: 16s", "start_grace: 4s"),
        ("failures: 3", "failures: 20"),
        ("burst: 3", "burst: 20"),
        ("[6 per 8m, 12 per 192m]", "[100 per 1h]"),
    ])
    .await;
    let begun = Timestamp::now();
    lab.leak(N, FLOOD).await;
    before_the_restart(&lab, begun, "capture_evidence").await;
    before_the_restart(&lab, begun, "drain").await;
    lab.assert_restarts(begun, [0, 0, 0]).await;
    while_it_restarts(&lab, begun).await;
    while_it_starts(&lab).await;
    while_it_is_readmitted(&lab).await;
    before_the_verdict(&lab).await;
    lab.assert_restarts(begun, [0, 4, 0]).await;
    lab.assert_sound().await;
    lab.stop().await;
}

/// Nothing is restarted, the server takes traffic again; the alert is still true, so a new run follows.
async fn before_the_restart(lab: &Lab, begun: Timestamp, step: &str) {
    let sessions = lab.hold_sessions().await;
    let (record, _) = killed_in(lab, begun, step).await;
    drop(sessions);
    lab.start().await;
    assert_eq!(closed(lab, &record).await, "interrupted", "killed in {step}");
    let record = story(lab, &record).await;
    assert_eq!(record["reason"], "crashed", "{record:#}");
    cut_off(&record, step);
    assert!(!steps(&record).iter().any(|(step, _)| step == "restart"), "{record:#}");
}

/// The Engine goes on with it. The next process looks, and sees it through.
async fn while_it_restarts(lab: &Lab, begun: Timestamp) {
    let lingering = linger(lab, N).await;
    let (record, killed) = killed_in(lab, begun, "restart").await;
    drop(lingering);
    lab.start().await;
    seen_through(lab, &record, killed).await;
}

async fn while_it_starts(lab: &Lab) {
    let begun = sick_again(lab).await;
    let (record, killed) = killed_in(lab, begun, "await_healthy").await;
    lab.start().await;
    cut_off(&seen_through(lab, &record, killed).await, "await_healthy");
}

/// The balancer stands still when the server is to be readmitted, and the call has no answer when the kill comes.
async fn while_it_is_readmitted(lab: &Lab) {
    let begun = sick_again(lab).await;
    lab.began(N, begun, "await_healthy").await;
    let balancer = lab.container("haproxy");
    lab.docker_ok(&["pause", &balancer]);
    let (record, killed) = killed_in(lab, begun, "readmit").await;
    lab.docker_ok(&["unpause", &balancer]);
    lab.start().await;
    cut_off(&seen_through(lab, &record, killed).await, "readmit");
}

/// Everything is done but the looks: the next process takes them.
async fn before_the_verdict(lab: &Lab) {
    let begun = sick_again(lab).await;
    let record = eventually("a run that waits for its verdict", 90, async || {
        let records = lab.records(N, begun).await?;
        let waits = |record: &&Value| {
            record["outcome"].is_null() && steps(record).last() == Some(&("readmit".to_owned(), "done".to_owned()))
        };
        records.iter().find(waits).cloned().ok_or_else(|| format!("{records:#?}"))
    })
    .await;
    lab.kill();
    lab.start().await;
    seen_through(lab, &record, Timestamp::now()).await;
}

async fn sick_again(lab: &Lab) -> Timestamp {
    let begun = Timestamp::now();
    lab.leak(N, FLOOD).await;
    begun
}

/// Waits until an open run has begun this step, and kills. That the step was under way is what the journal must say then.
async fn killed_in(lab: &Lab, since: Timestamp, step: &str) -> (Value, Timestamp) {
    let remediator = lab.container("remediator");
    let record = eventually(&format!("a run that is at {step}"), 120, async || {
        let records = lab.records(N, since).await?;
        let at = |record: &&Value| steps(record).last().is_some_and(|(last, call)| last == step && call == "under way");
        records.iter().find(at).cloned().ok_or_else(|| format!("{:?}", records.iter().map(steps).collect::<Vec<_>>()))
    })
    .await;
    lab.docker_ok(&["kill", "--signal", "KILL", &remediator]);
    println!("killed in {step}: record {}", text(&record["id"]));
    (record, Timestamp::now())
}

/// The journal says that the step was cut off. Of the restart it says what became of it, which was looked up.
fn cut_off(record: &Value, step: &str) {
    let cut = (step.to_owned(), "unknown".to_owned());
    assert!(steps(record).contains(&cut), "the kill came when {step} was over: {record:#}");
}

/// The restart was begun, so it is seen through: recovered, by this record, after one restart.
async fn seen_through(lab: &Lab, record: &Value, killed: Timestamp) -> Value {
    assert_eq!(closed(lab, record).await, "recovered");
    let story = story(lab, record).await;
    let after = crate::remediator::moment(&story["closed_at"]);
    assert!(after > killed, "closed at {after}, by the process after the one that was killed at {killed}");
    lab.assert_none_drained().await;
    story
}

async fn story(lab: &Lab, record: &Value) -> Value {
    let story = lab.read(&format!("/audit/{}", text(&record["id"]))).await.expect("the story");
    story["record"].clone()
}
