//! The alerts that are sent: as Alertmanager writes them, 790 bytes an alert like the ones that were measured.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The service when there is one; of several, each has a number behind it.
pub const SERVICE: &str = "inventory";
pub const JOB: &str = "shop";

/// The replica label of replica `number`.
pub fn instance(number: usize) -> String {
    format!("inventory-{number}:8080")
}

/// The service that replica `number` belongs to, when there are so many.
pub fn service(number: usize, services: usize) -> String {
    match services {
        1 => SERVICE.to_owned(),
        _ => format!("{SERVICE}-{}", number % services),
    }
}

pub fn labels(number: usize, services: usize) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("alertname", "FdLeakSustained".to_owned()),
        ("instance", instance(number)),
        ("job", JOB.to_owned()),
        ("service", service(number, services)),
        ("severity", "warning".to_owned()),
        ("team", "shop".to_owned()),
    ])
}

fn alert(number: usize, services: usize) -> Value {
    json!({
        "status": "firing", "labels": labels(number, services),
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

/// A notification with an alert for each of the replicas, all of one service.
pub fn notification(replicas: std::ops::Range<usize>) -> String {
    notification_of(replicas, 1)
}

/// As [`notification`], of replicas that are spread over so many services.
pub fn notification_of(replicas: std::ops::Range<usize>, services: usize) -> String {
    let group = format!("{{}}:{{alertname=\"FdLeakSustained\", instance=\"{}\"}}", instance(replicas.start));
    json!({
        "receiver": "remediator", "status": "firing", "alerts": replicas.map(|number| alert(number, services)).collect::<Vec<_>>(),
        "groupLabels": { "alertname": "FdLeakSustained" }, "commonLabels": { "alertname": "FdLeakSustained", "team": "shop" },
        "commonAnnotations": {}, "externalURL": "http://alertmanager.example.com:9093", "version": "4", "groupKey": group,
        "truncatedAlerts": 0,
    })
    .to_string()
}
