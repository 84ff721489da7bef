//! The service in front: every checkout asks inventory, through the load balancer, whether there is stock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use crate::metrics::{Page, Requests};
use crate::outbound::{self, innermost};
use crate::serve::{self, Connections};

/// Longer than HAProxy may take to give up on one replica and ask the next (see `timeout server` in lab/haproxy).
const PATIENCE: Duration = Duration::from_secs(5);

struct Checkout {
    stock: String,
    client: reqwest::Client,
    requests: Requests,
    inventory_errors: AtomicU64,
    connections: Connections,
}

pub async fn run(listen: SocketAddr, inventory: String) -> anyhow::Result<()> {
    let checkout = Arc::new(Checkout {
        stock: format!("{}/stock", inventory.trim_end_matches('/')),
        client: outbound::client(PATIENCE)?,
        requests: Requests::default(),
        inventory_errors: AtomicU64::new(0),
        connections: Connections::default(),
    });
    let app = Router::new()
        .route("/checkout", get(sell))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(expose))
        .with_state(checkout.clone());
    serve::until_signal(listen, checkout.connections.clone(), app).await
}

async fn sell(State(checkout): State<Arc<Checkout>>) -> (StatusCode, String) {
    let (code, text) = match ask_inventory(&checkout).await {
        Ok(stock) => (StatusCode::OK, stock),
        Err(error) => {
            checkout.inventory_errors.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "inventory failed");
            (StatusCode::BAD_GATEWAY, error)
        }
    };
    checkout.requests.count(code.as_u16());
    (code, text)
}

/// The body of the answer, or one sentence about what went wrong.
async fn ask_inventory(checkout: &Checkout) -> Result<String, String> {
    let answer = checkout.client.get(&checkout.stock).send().await;
    let answer = answer.map_err(|error| format!("inventory does not answer: {}", innermost(&error)))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|error| format!("inventory broke off: {}", innermost(&error)))?;
    match status {
        StatusCode::OK => Ok(body),
        _ => Err(format!("inventory answers {}: {}", status.as_u16(), body.trim())),
    }
}

async fn expose(State(checkout): State<Arc<Checkout>>) -> Page {
    let mut page = Page::default();
    page.process();
    page.single(
        "checkout_inventory_errors_total",
        "counter",
        "Checkouts that failed because inventory did.",
        checkout.inventory_errors.load(Ordering::Relaxed),
    );
    page.single("http_connections_active", "gauge", "Connections open right now.", checkout.connections.open());
    checkout.requests.write(&mut page);
    page
}
