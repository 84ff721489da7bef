//! The demo shop of the lab: one binary, a role per subcommand.
//!
//! * `inventory`: the service that leaks; three replicas of it stand behind HAProxy.
//! * `checkout`: calls inventory through HAProxy and counts what goes wrong.
//! * `load`: a steady stream of customers, who remember every failed request.
//! * `pager`: receives what a human would have been paged with.
//! * `relay`: between Alertmanager and remediator, where a test counts deliveries and slows them down.
//! * `healthcheck`: the image's health check, because an image `FROM scratch` has no curl.
//!
//! Every role answers `/healthz` and `/metrics` on its address and ends within two seconds of SIGTERM.

mod checkout;
mod healthcheck;
mod inventory;
mod load;
mod metrics;
mod outbound;
mod pager;
mod relay;
mod serve;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "shop", version, about = "The demo shop of the remediator lab")]
struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Serves /stock, and leaks descriptors when told to by POST /leak?per_second=N
    Inventory {
        #[arg(long, env = "SHOP_LISTEN", default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
        /// Seconds before it listens, as a service has that loads something first
        #[arg(long, env = "SHOP_STARTS_IN", default_value_t = 0.0)]
        starts_in: f64,
    },
    /// Serves /checkout, which asks inventory for its stock
    Checkout {
        #[arg(long, env = "SHOP_LISTEN", default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
        /// Where inventory is: the load balancer, not a replica
        #[arg(long, env = "SHOP_INVENTORY", default_value = "http://haproxy:8080")]
        inventory: String,
    },
    /// Sends a steady stream of requests and reports the failed ones
    Load {
        #[arg(long, env = "SHOP_LISTEN", default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
        #[arg(long, env = "SHOP_TARGET", default_value = "http://checkout:8080/checkout")]
        target: String,
        /// Requests per second
        #[arg(long, env = "SHOP_RATE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rate: u32,
    },
    /// Takes Alertmanager's webhook and keeps what a human would have been paged with
    Pager {
        #[arg(long, env = "SHOP_LISTEN", default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
    },
    /// Passes deliveries on to remediator, writes down what became of each, and can be slow
    Relay {
        #[arg(long, env = "SHOP_LISTEN", default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
        #[arg(long, env = "SHOP_TARGET", default_value = "http://remediator:8090/remediate")]
        target: String,
    },
    /// Exits 0 if /healthz of this container answers 200 within a second, else 1
    Healthcheck {
        #[arg(long, default_value = "127.0.0.1:8080")]
        address: SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    let role = Args::parse().role;
    // The health check runs every second beside three replicas: no runtime, no threads, no client.
    if let Role::Healthcheck { address } = role {
        std::process::exit(healthcheck::run(address));
    }
    tracing_subscriber::fmt().with_target(false).with_ansi(false).init();
    tokio::runtime::Runtime::new()?.block_on(async {
        match role {
            Role::Inventory { listen, starts_in } => inventory::run(listen, starts_in).await,
            Role::Checkout { listen, inventory } => checkout::run(listen, inventory).await,
            Role::Load { listen, target, rate } => load::run(listen, target, rate).await,
            Role::Pager { listen } => pager::run(listen).await,
            Role::Relay { listen, target } => relay::run(listen, target).await,
            Role::Healthcheck { .. } => unreachable!("answered before the runtime started"),
        }
    })
}
