//! What a human would have been paged with: an Alertmanager webhook sink that keeps everything and prints it.
//!
//! `POST /` takes a notification, `GET /pages` lists them, oldest first, `DELETE /pages` forgets them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;

use crate::metrics::Page as MetricsPage;
use crate::serve::{self, Connections};

/// The oldest pages are forgotten beyond this.
const KEPT: usize = 1000;
/// As large as Alertmanager's largest group in the lab (max_alerts 1000 at about 800 bytes).
const BODY: usize = 8 << 20;

#[derive(Clone, Serialize)]
struct Page {
    /// Unix seconds.
    received: f64,
    status: String,
    receiver: String,
    alerts: Vec<Value>,
}

#[derive(Default)]
struct Pager {
    pages: Mutex<VecDeque<Page>>,
    total: Mutex<u64>,
}

pub async fn run(listen: SocketAddr) -> anyhow::Result<()> {
    let app = Router::new()
        .route("/", post(page))
        .route("/pages", get(list).delete(forget))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(expose))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(Arc::new(Pager::default()));
    serve::until_signal(listen, Connections::default(), app).await
}

async fn page(State(pager): State<Arc<Pager>>, Json(body): Json<Value>) -> StatusCode {
    let page = Page {
        received: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
        status: text(&body, "status").to_owned(),
        receiver: text(&body, "receiver").to_owned(),
        alerts: body["alerts"].as_array().cloned().unwrap_or_default(),
    };
    for alert in &page.alerts {
        println!("{}", line(alert));
    }
    *pager.total.lock().expect("no panic while paging") += 1;
    let mut pages = pager.pages.lock().expect("no panic while paging");
    if pages.len() == KEPT {
        pages.pop_front();
    }
    pages.push_back(page);
    StatusCode::OK
}

/// `PAGE firing RemediationEscalated inventory/inventory-2:8080: the summary`
fn line(alert: &Value) -> String {
    let labels = &alert["labels"];
    let about = [text(labels, "service"), text(labels, "instance")];
    let about = about.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    let summary = match text(&alert["annotations"], "summary") {
        "" => text(&alert["annotations"], "description"),
        summary => summary,
    };
    format!("PAGE {} {} {about}: {summary}", text(alert, "status"), text(labels, "alertname"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

async fn list(State(pager): State<Arc<Pager>>) -> Json<Vec<Page>> {
    Json(pager.pages.lock().expect("no panic while paging").iter().cloned().collect())
}

async fn forget(State(pager): State<Arc<Pager>>) -> StatusCode {
    pager.pages.lock().expect("no panic while paging").clear();
    StatusCode::NO_CONTENT
}

async fn expose(State(pager): State<Arc<Pager>>) -> MetricsPage {
    let mut page = MetricsPage::default();
    page.process();
    let total = *pager.total.lock().expect("no panic while paging");
    page.single("pager_pages_total", "counter", "Notifications received.", total);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_aloud() {
        let alert = serde_json::json!({
            "status": "firing",
            "labels": { "alertname": "RemediationEscalated", "service": "inventory", "instance": "inventory-2:8080" },
            "annotations": { "summary": "restart did not help" },
        });
        assert_eq!(line(&alert), "PAGE firing RemediationEscalated inventory/inventory-2:8080: restart did not help");
        assert_eq!(line(&serde_json::json!({})), "PAGE   : ");
    }
}
