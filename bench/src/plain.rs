//! Reference (b): the least that a durable receiver can be. axum, one writer that commits once per batch, SQLite with
//! `synchronous=FULL`, one row per alert under the same indexes; no chain, no fold, no decision. And the least that any receiver can be:
//! the same body parsed and answered, nothing kept.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Result;
use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use remediator::audit::bulk::{MIGRATIONS, WAL_PAGES};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// The part of Alertmanager's body that a receiver needs; the rest is parsed over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notification {
    group_key: String,
    alerts: Vec<Alert>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Alert {
    labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    fingerprint: String,
    #[serde(rename = "startsAt")]
    starts_at: String,
}

struct Errand {
    group_key: String,
    alerts: Vec<(String, Alert)>,
    reply: oneshot::Sender<Vec<String>>,
}

/// Serves `POST /store` and `POST /parse` until it is killed.
///
/// # Errors
/// The address or the file cannot be had.
pub fn serve(addr: SocketAddr, database: &Path) -> Result<()> {
    let conn = Connection::open(database)?;
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", WAL_PAGES, |_| Ok(()))?;
    // The tables themselves, so that their keys and indexes are the same whatever becomes of them; most stay empty.
    for migration in MIGRATIONS {
        conn.execute_batch(migration)?;
    }
    let (queue, work) = sync_channel(4096);
    std::thread::spawn(move || write(conn, &work));
    let router = Router::new()
        .route("/store", post(store))
        .route("/parse", post(parse))
        .layer(DefaultBodyLimit::max(64 << 20))
        .with_state(queue);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async move {
        let listener = tokio::net::TcpListener::bind(addr).await?;
        axum::serve(listener, router).await?;
        Ok(())
    })
}

fn read(body: &str) -> Option<(String, Vec<(String, Alert)>)> {
    let notification: Notification = serde_json::from_str(body).ok()?;
    let alerts = notification.alerts.into_iter().map(|alert| Some((serde_json::to_string(&alert).ok()?, alert)));
    Some((notification.group_key, alerts.collect::<Option<_>>()?))
}

async fn parse(body: String) -> (StatusCode, Json<Value>) {
    let Ok(Notification { alerts, .. }) = serde_json::from_str(&body) else {
        return (StatusCode::BAD_REQUEST, Json(Value::Null));
    };
    let results = alerts
        .iter()
        .map(|alert| json!({ "fingerprint": alert.fingerprint, "startsAt": alert.starts_at, "n": alert.annotations.len() }));
    (StatusCode::ACCEPTED, Json(json!({ "results": results.collect::<Vec<_>>() })))
}

async fn store(State(queue): State<SyncSender<Errand>>, body: String) -> (StatusCode, Json<Value>) {
    let Some((group_key, alerts)) = read(&body) else { return (StatusCode::BAD_REQUEST, Json(Value::Null)) };
    let (reply, answer) = oneshot::channel();
    if queue.try_send(Errand { group_key, alerts, reply }).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(Value::Null));
    }
    match answer.await {
        Ok(ids) => (StatusCode::ACCEPTED, Json(json!({ "results": ids }))),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Json(Value::Null)),
    }
}

fn write(mut conn: Connection, work: &Receiver<Errand>) {
    let mut seq = 0_i64;
    while let Ok(first) = work.recv() {
        let mut batch = vec![first];
        batch.extend(work.try_iter().take(511));
        match commit(&mut conn, &batch, &mut seq) {
            Ok(ids) => batch.into_iter().zip(ids).for_each(|(errand, ids)| drop(errand.reply.send(ids))),
            Err(error) => eprintln!("{error}"),
        }
    }
}

fn commit(conn: &mut Connection, batch: &[Errand], seq: &mut i64) -> rusqlite::Result<Vec<Vec<String>>> {
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut all = Vec::new();
    for errand in batch {
        let mut ids = Vec::new();
        for (raw, alert) in &errand.alerts {
            *seq += 1;
            let id = uuid::Uuid::now_v7().to_string();
            let label = |name: &str| alert.labels.get(name).map_or("", String::as_str);
            // As scattered over its index as a SHA-256 is.
            let key = format!("{:064x}", seq.unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15)).replace("000", "9e3");
            transaction
                .prepare_cached(
                    "INSERT INTO records(opened_seq, id, seq, key, opened_at, tide, playbook, service, instance, fingerprint, group_key, body)
                     VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                )?
                .execute(params![
                    *seq, id, *seq, key, *seq, *seq, "inventory", label("service"), label("instance"), alert.fingerprint, errand.group_key, raw
                ])?;
            transaction
                .prepare_cached("INSERT INTO record_alerts(fingerprint, record, group_key) VALUES (?,?,?)")?
                .execute(params![alert.fingerprint, *seq, errand.group_key])?;
            ids.push(id);
        }
        all.push(ids);
    }
    transaction.commit()?;
    Ok(all)
}
