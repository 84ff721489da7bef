//! A board with one of everything on it, for whoever reads `/guards`.

use remediator::api::board::Board;
use serde_json::json;

/// A target whose alert's labels try to steer the terminal.
pub const EVIL: &str = "inventory/\u{1b}[2Jinventory-9:8080";

pub fn board() -> Board {
    let board = json!({
        "at": "2026-03-01T02:10:00Z", "host": "shop-1", "healer": "remediator/0.1.0", "remediations_allowed": 0,
        "pauses": [
            { "scope": { "scope": "all" }, "actor": "ada@shop-1", "reason": "release in progress", "until": "2026-03-01T02:55:00Z" },
            { "scope": { "scope": "target", "name": "inventory/inventory-3:8080" }, "actor": "ben@shop-1", "reason": "mine", "until": null },
        ],
        "playbooks": [
            {
                "playbook": "inventory-fd-leak", "service": "inventory", "mode": "live", "every": null, "paused": true,
                "remediations_allowed": 0,
                "rate": [
                    { "scope": "fleet", "tokens": 4.25, "burst": 5 },
                    { "scope": "service inventory", "tokens": 2.0, "burst": 3 },
                    { "scope": "playbook inventory-fd-leak", "tokens": 0.5, "burst": 3 },
                ],
                "budget": [
                    { "per": "1h", "spent": 6, "most": 6, "left": 0, "frees_at": "2026-03-01T02:31:00Z" },
                    { "per": "1d", "spent": 6, "most": 12, "left": 6, "frees_at": null },
                ],
                "breaker": {
                    "name": "inventory-fd-leak/inventory", "state": "open", "failures": 3, "opens_at": 3,
                    "since": "2026-03-01T02:05:00Z", "probe_at": "2026-03-01T02:15:00Z", "probe": null,
                },
                "in_flight": ["inventory/inventory-2:8080"],
                "cooling": [{ "target": "inventory/inventory-2:8080", "until": "2026-03-01T02:13:00Z" }],
                "blast_radius": { "min_healthy": 2, "max_unhealthy": "67%", "max_in_flight": 1 },
            },
            {
                "playbook": "search-fd-leak", "service": "search", "mode": "shadow", "every": "1m", "paused": true,
                "remediations_allowed": 0, "rate": [{ "scope": "fleet", "tokens": 5.0, "burst": 5 }],
                "budget": [{ "per": "1h", "spent": 0, "most": 6, "left": 6, "frees_at": null }],
                "breaker": {
                    "name": "search-fd-leak/search", "state": "closed", "failures": 0, "opens_at": 3,
                    "since": null, "probe_at": null, "probe": null,
                },
                "in_flight": [], "cooling": [], "blast_radius": { "min_healthy": 1, "max_unhealthy": "1", "max_in_flight": 1 },
            },
        ],
        "open": [{
            "id": "00000000-0000-0000-0000-000000000001", "alertname": "FdLeakFast", "target": "inventory/inventory-2:8080",
            "playbook": "inventory-fd-leak", "mode": "live", "opened_at": "2026-03-01T02:09:20Z", "phase": "admitted",
            "step": "drain", "running": true, "since": "2026-03-01T02:09:33Z", "abort": null,
        }],
        "in_flight": [{
            "record": "00000000-0000-0000-0000-000000000001", "target": { "service": "inventory", "instance": "inventory-2:8080" },
            "playbook": "inventory-fd-leak", "server": "inventory/inventory-2", "since": "2026-03-01T02:09:30Z",
        }],
        "drained": { "inventory/inventory-2": { "record": "00000000-0000-0000-0000-000000000001", "since": "2026-03-01T02:09:33Z" } },
        "watches": [{
            "key": "0".repeat(64), "alertname": "FdLeakFast", "target": EVIL, "playbook": "inventory-fd-leak",
            "record": "00000000-0000-0000-0000-000000000002", "outcome": "refused", "reason": "min_healthy",
            "detail": "healthy after this restart 1, must be at least 2", "since": "2026-03-01T01:58:00Z",
            "next_look": "2026-03-01T02:10:27Z",
        }],
        "head": { "seq": 1234, "hash": "ab".repeat(32) },
    });
    serde_json::from_value(board).expect("a board")
}
