//! The replicas beside the one in hand: who serves, who is sick, and since when. What nobody can say is an error, because
//! the blast radius is counted with it.

use jiff::Timestamp;

use crate::alert::Overlaid;
use crate::decide::evidence::Sibling;
use crate::decide::playbook::Confirm;
use crate::detect::confirm::{Question, SCRAPE_SLACK, evaluated, seconds};
use crate::detect::look::Look;
use crate::detect::shelf::{Rules, Shelf};
use crate::reason::Reason;
use crate::target::{self, Instance, LABEL_INSTANCE, LABEL_SERVER, LABEL_SERVICE};
use crate::world::{AlertingRule, Answer, ContainerSummary, ScrapeTarget, Server, ServerStatus, Unanswered};

/// Every opted-in replica of the service, with what the balancer and the rules say of it.
pub(super) fn siblings(question: Question<'_>, look: &Look) -> Answer<Vec<Sibling>> {
    let Look { rules, scrapes, containers, servers, .. } = look;
    let at = look.at();
    let containers = containers.as_ref().map_err(Clone::clone)?;
    let servers = servers.as_ref().map_err(Clone::clone)?;
    let rules = rules.as_ref().map_err(Clone::clone)?;
    judged_lately(question, rules, at)?;
    let scrapes = scrapes.as_ref().map_err(Clone::clone)?;
    let sibling = |container: &ContainerSummary| -> Answer<Sibling> {
        let name = container.labels.get(LABEL_INSTANCE).cloned().unwrap_or_else(|| container.name.to_string());
        let instance = Instance::try_from(name).map_err(|error| Unanswered::new(Reason::RadiusUnknown, error.to_string()))?;
        let path = container.labels.get(LABEL_SERVER);
        let server = path.and_then(|path| servers.find(LABEL_SERVER, path).into_iter().next());
        let Sick { mut alerts, mut active_at } = sick(question, rules, &instance);
        let unseen = !seen(question, scrapes, &instance, at);
        let down = server.is_some_and(|server| server.status == ServerStatus::Down && !server.drained && !server.maintenance);
        if unseen {
            alerts.push("not seen by Prometheus".to_owned());
        }
        // No rule says since when a query holds; the alert in hand does.
        if active_at.is_none() && instance == question.target.instance {
            active_at = question.accepted.alert.starts_at.filter(|_| matches!(question.playbook.confirm, Confirm::Query { .. }));
        }
        Ok(Sibling {
            server: server.map(|server| server.path.clone()),
            serving: server.is_some_and(Server::serving),
            state: server.map_or_else(|| "unknown at the balancer".to_owned(), crate::words::server_word),
            // What nobody can see cannot be called healthy.
            sick: !alerts.is_empty() || down || server.is_none(),
            instance,
            alerts,
            active_at,
        })
    };
    let service = &question.target.service;
    let ours = target::of_service(containers.find(LABEL_SERVICE, service.as_str()), service);
    let siblings: Vec<Sibling> = ours.iter().map(|container| sibling(container)).collect::<Answer<_>>()?;
    for label in [LABEL_INSTANCE, LABEL_SERVER] {
        // A leftover twin would be counted as a replica that serves.
        if let Some(twice) = twice(&ours, label) {
            let detail = format!("several containers of {service} are labelled {label}={twice}");
            return Err(Unanswered::new(Reason::RadiusUnknown, detail));
        }
    }
    Ok(siblings)
}

/// Every rule that could call a replica sick is evaluated: what a rule no longer looks at is not well because of that.
fn judged_lately(question: Question<'_>, rules: &Rules, at: Timestamp) -> Answer<()> {
    let ours = |rule: &&AlertingRule| {
        let named = [("alertname", rule.name.as_str())];
        let labels = question.accepted.alert.labels.with(rule.labels.iter().chain(named));
        question.siblings.iter().any(|playbook| playbook.service == question.target.service && playbook.claims(&labels))
    };
    rules.iter().filter(ours).try_for_each(|rule| evaluated(rule, at))
}

/// Prometheus' last scrape of the replica went well, and not long ago.
fn seen(question: Question<'_>, scrapes: &Shelf<ScrapeTarget>, instance: &Instance, at: Timestamp) -> bool {
    scrapes.find(&question.playbook.replica_label, instance.as_str()).into_iter().any(|scrape| {
        let allowed = seconds(2.0 * scrape.interval_seconds) + SCRAPE_SLACK;
        scrape.health == "up" && scrape.last_scrape.is_some_and(|last| at.duration_since(last) <= allowed)
    })
}

/// A value that several containers have in the same label.
fn twice<'a>(containers: &[&'a ContainerSummary], label: &str) -> Option<&'a str> {
    let mut values: Vec<&str> = containers.iter().filter_map(|c| c.labels.get(label)).map(String::as_str).collect();
    values.sort_unstable();
    values.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// What the rules have against one replica.
#[derive(Default)]
pub(super) struct Sick {
    /// Names of the alerts that are pending or firing for it, each once.
    pub alerts: Vec<String>,
    /// Since when the earliest.
    pub active_at: Option<Timestamp>,
}

/// What pends or fires for this replica under any playbook of the service.
pub(super) fn sick(question: Question<'_>, rules: &Rules, instance: &Instance) -> Sick {
    let mut sick = Sick::default();
    for playbook in question.siblings.iter().filter(|playbook| playbook.service == question.target.service) {
        for (_, alert) in rules.alerts(&playbook.replica_label, instance.as_str()) {
            // A matcher may name an external label, which Prometheus does not list: those come from the delivered alert.
            if playbook.claims(&Overlaid { over: &alert.labels, under: &question.accepted.alert.labels }) {
                sick.alerts.push(alert.labels.alertname().to_owned());
                sick.active_at = [sick.active_at, alert.active_at].into_iter().flatten().min();
            }
        }
    }
    sick.alerts.sort();
    sick.alerts.dedup();
    sick
}
