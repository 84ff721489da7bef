//! Calls to other parts of the shop: plain HTTP inside the lab's network.

use std::time::Duration;

/// A client that gives up after `patience`.
///
/// The image is empty, so there are no system certificates, and reqwest refuses to build a client that could not verify anyone.
/// With an explicit empty set of roots it can be built; it speaks plain HTTP here and trusts no HTTPS server at all.
pub fn client(patience: Duration) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(patience).no_proxy().tls_certs_only([]).build()
}

/// What really happened: reqwest's own text names only the URL.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
