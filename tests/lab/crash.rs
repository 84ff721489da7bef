//! remediator stopped, killed and started again in the middle of things: a pause survives, nobody is left drained, a run
//! has one outcome, a container is restarted at most once.

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::FLOOD;
use crate::lab::{Lab, eventually};
use crate::remediator::{steps, text};

const N: usize = 2;

#[tokio::test]
async fn a_crash_leaves_nobody_drained_and_repeats_nothing() {
    let lab = Lab::up("crash").await;
    paused_across_a_restart(&lab).await;
    killed_while_draining(&lab).await;
    killed_while_restarting(&lab).await;
    stopped_while_restarting(&lab).await;
    lab.assert_sound().await;
    lab.stop().await;
}

/// The story `reddit_16s`: somebody else restarts the paused program, and it stays paused.
async fn paused_across_a_restart(lab: &Lab) {
    let begun = Timestamp::now();
    lab.order("/pause", json!({ "reason": "a migration of the database", "actor": "ana" })).await;
    lab.docker_ok(&["restart", "--time", "60", &lab.container("remediator")]);
    lab.ready().await;
    lab.leak(N, FLOOD).await;
    let record = lab.outcome(N, begun, "refused", "paused").await;
    assert_eq!(
        record["reason"].as_str().map(|said| said.contains("paused by ana: a migration of the database")),
        Some(true),
        "{record:#}"
    );
    lab.called(N, "paused").await;
    lab.assert_restarts(begun, [0, 0, 0]).await;
    assert_eq!(lab.balancer_logged(N, "enters drain state", begun), []);
}

/// Resumed, the run begins at once; it is killed as soon as its drain is on disk. Wherever exactly that hits, one restart comes
/// of it in the end: by this run, or by the one that follows when the interrupted one has cooled down.
async fn killed_while_draining(lab: &Lab) {
    let begun = Timestamp::now();
    lab.order("/resume", json!({ "reason": "the migration is over", "actor": "ana" })).await;
    let record = lab.began(N, begun, "drain").await;
    lab.kill();
    lab.start().await;
    lab.assert_none_drained().await;
    let outcome = closed(lab, &record).await;
    println!("killed while draining: {outcome}");
    assert!(["recovered", "interrupted"].contains(&outcome.as_str()), "{outcome}");
    if outcome == "interrupted" {
        lab.assert_restarts(begun, [0, 0, 0]).await;
    }
    lab.recovered(N, begun).await;
    lab.assert_restarts(begun, [0, 1, 0]).await;
}

/// Killed during the call to the Engine, and HAProxy is restarted before remediator comes back: the balancer has forgotten
/// the drain, the Engine has finished the restart, and the run goes on from there.
async fn killed_while_restarting(lab: &Lab) {
    let begun = Timestamp::now();
    lab.leak(N, FLOOD).await;
    let lingering = linger(lab, N).await;
    let record = lab.began(N, begun, "restart").await;
    lab.kill();
    drop(lingering);
    lab.docker_ok(&["restart", "--time", "2", &lab.container("haproxy")]);
    lab.start().await;
    let outcome = closed(lab, &record).await;
    assert_eq!(outcome, "recovered", "the restart was begun, so it is seen through");
    lab.assert_none_drained().await;
    lab.assert_restarts(begun, [0, 1, 0]).await;
    // remediator was dead before the replica was up again.
    let killed =
        lab.events.all().into_iter().filter(|event| event.service == "remediator" && event.action == "die").map(|event| event.at);
    let (killed, (_, started)) = (killed.max().expect("remediator was killed"), lab.restarts(N, begun).await[0]);
    assert!(killed < started, "killed at {killed}, in the middle of the restart that ended at {started}");
    // That one, and no second one for the same trouble.
    let records = lab.records(N, begun).await.expect("records");
    assert_eq!(records.len(), 1, "{records:#?}");
}

/// SIGTERM in the same place, and somebody pauses everything a moment before: the step is finished, the server is readmitted
/// in spite of the pause (`nvsentinel_1852`), the exit code is 0, and the next process gives the verdict. Two cures in a row did
/// not last by now, and the interrupted run may be a third: an operator resets the breaker.
async fn stopped_while_restarting(lab: &Lab) {
    let begun = Timestamp::now();
    let reset = json!({ "breaker": "inventory-fd-leak/inventory", "reason": "the leaks were mine", "actor": "ana" });
    lab.order("/breaker/reset", reset).await;
    lab.leak(N, FLOOD).await;
    let lingering = linger(lab, N).await;
    let record = lab.began(N, begun, "restart").await;
    lab.order("/pause", json!({ "reason": "something looks wrong", "actor": "ana" })).await;
    lab.stop().await;
    drop(lingering);
    lab.start().await;
    let outcome = closed(lab, &record).await;
    assert_eq!(outcome, "recovered", "the next process looks whether it helped");
    lab.assert_restarts(begun, [0, 1, 0]).await;
}

/// A request whose end does not come keeps replica `n` from stopping for 1.5 s: time to do something during the restart.
/// Straight to the replica, so that the drain does not wait for it.
pub async fn linger(lab: &Lab, n: usize) -> TcpStream {
    let address = lab.base(&format!("INVENTORY_{n}")).trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("the replica listens");
    stream.write_all(b"POST /leak HTTP/1.1\r\nhost: lingering\r\n").await.expect("half a request can be sent");
    stream
}

/// Waits for this very record's outcome; its steps are each there once.
pub async fn closed(lab: &Lab, record: &Value) -> String {
    let id = text(&record["id"]);
    let record = eventually(&format!("record {id} to be closed"), 90, async || {
        let story = lab.read(&format!("/audit/{id}")).await?;
        let record = story["record"].clone();
        if record["outcome"].is_string() { Ok(record) } else { Err(format!("{:?}", steps(&record))) }
    })
    .await;
    let restarts = steps(&record).iter().filter(|(step, _)| step == "restart").count();
    assert!(restarts <= 1, "{record:#}");
    text(&record["outcome"])
}
