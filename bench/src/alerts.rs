//! The alerts that are sent: as Alertmanager writes them, 790 bytes an alert like the ones that were measured.

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub const SERVICE: &str = "inventory";
pub const JOB: &str = "shop";

/// The replica label of replica `number`.
pub fn instance(number: usize) -> String {
    format!("inventory-{number}:8080")
}

pub fn labels(number: usize) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("alertname", "FdLeakSustained".to_owned()),
        ("instance", instance(number)),
        ("job", JOB.to_owned()),
        ("service", SERVICE.to_owned()),
        ("severity", "warning".to_owned()),
        ("team", "shop".to_owned()),
    ])
}

fn alert(number: usize) -> Value {
    json!({
        "status": "firing", "labels": labels(number),
        "annotations": {
            "summary": format!("{} is leaking file descriptors: open ones grow, connections do not explain it", instance(number)),
            "description": "At this rate the process runs out of descriptors within the hour; it has been up for more than fifteen minutes.",
            "runbook_url": "https://example.com/runbooks/fd-leak",
        },
        "startsAt": "2026-03-01T02:00:05.123Z", "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus.example.com:9090/graph?g0.expr=leaks+%3E+0&g0.tab=1",
        "fingerprint": format!("{number:016x}"),
    })
}

/// A notification with an alert for each of the replicas.
pub fn notification(replicas: std::ops::Range<usize>) -> String {
    let group = format!("{{}}:{{alertname=\"FdLeakSustained\", instance=\"{}\"}}", instance(replicas.start));
    json!({
        "receiver": "remediator", "status": "firing", "alerts": replicas.map(alert).collect::<Vec<_>>(),
        "groupLabels": { "alertname": "FdLeakSustained" }, "commonLabels": { "alertname": "FdLeakSustained", "service": SERVICE },
        "commonAnnotations": {}, "externalURL": "http://alertmanager.example.com:9093", "version": "4", "groupKey": group,
        "truncatedAlerts": 0,
    })
    .to_string()
}
