//! The sketch held against a small hand-made world, with one thing wrong at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::*;
use crate::config::tests::{SETTINGS, SKETCH, folder, loaded};
use crate::reason::Reason;
use crate::target::{ContainerId, LABEL_SERVER, ServerPath};
use crate::world::{
    Answer, Balancer, Call, Clock, Container, Engine, Health, Metrics, PageAlert, Pager, Sample, ServerStatus, Silence,
    Unanswered,
};

/// Three replicas behind a balancer, scraped every 15 s, with the four rules of the sketch.
#[derive(Clone)]
struct Small {
    rules: Answer<Vec<AlertingRule>>,
    scrapes: Answer<Vec<ScrapeTarget>>,
    containers: Answer<Vec<Container>>,
    servers: Answer<Vec<Server>>,
    forbidden: Answer<bool>,
    silences: Answer<Vec<Silence>>,
}

fn nobody<T>() -> Answer<T> {
    Err(Unanswered::new(Reason::DockerUnavailable, "connection refused"))
}

fn small() -> Small {
    let rule = |name: &str| AlertingRule {
        name: name.to_owned(),
        query: "x > 1 and on (job) count_over_time(x[1m]) >= 4".to_owned(),
        labels: LabelSet::default(),
        for_seconds: 60.0,
        interval_seconds: 15.0,
        last_evaluation: None,
        health: "ok".to_owned(),
        alerts: Vec::new(),
    };
    let instance = |n: usize| format!("inventory-{n}:8080");
    Small {
        rules: Ok(["FdLeakFast", "FdLeakSustained", "FdLeakSlow", "FdExhausted", "Other"].map(rule).to_vec()),
        scrapes: Ok((1..=3)
            .map(|n| ScrapeTarget {
                labels: LabelSet::from([("instance", instance(n).as_str()), ("job", "inventory")]),
                health: "up".to_owned(),
                last_scrape: None,
                last_error: String::new(),
                interval_seconds: 15.0,
            })
            .collect()),
        containers: Ok((1..=3)
            .map(|n| Container {
                id: format!("{n:064}").parse().expect("64 digits"),
                name: format!("inventory-{n}").parse().expect("a name"),
                image: "shop".to_owned(),
                labels: BTreeMap::from(
                    [
                        (LABEL_ENABLE, "true".to_owned()),
                        (LABEL_SERVICE, "inventory".to_owned()),
                        (LABEL_INSTANCE, instance(n)),
                        (LABEL_SERVER, format!("inventory/s{n}")),
                    ]
                    .map(|(name, value)| (name.to_owned(), value)),
                ),
                running: true,
                status: "running".to_owned(),
                started_at: None,
                health: Health::Healthy,
                health_log: Vec::new(),
                network_mode: "lab".to_owned(),
                addresses: vec![[10, 0, 0, n as u8].into()],
                published: Vec::new(),
                restart_count: 0,
                infrastructure: None,
                infrastructure_unknown: None,
            })
            .collect()),
        servers: Ok((1..=3)
            .map(|n| Server {
                path: format!("inventory/s{n}").parse::<ServerPath>().expect("a path"),
                address: Some(([10, 0, 0, n as u8], 8080).into()),
                status: ServerStatus::Up,
                drained: false,
                maintenance: false,
                checked: true,
                sessions: 0,
                queued: 0,
            })
            .collect()),
        forbidden: Ok(true),
        silences: Ok(Vec::new()),
    }
}

#[async_trait]
impl Metrics for Small {
    async fn instant(&self, query: &str, _: Timestamp) -> Answer<Vec<Sample>> {
        panic!("a check asks for no values: {query}")
    }
    async fn alerting_rules(&self) -> Answer<Vec<AlertingRule>> {
        self.rules.clone()
    }
    async fn scrape_targets(&self) -> Answer<Vec<ScrapeTarget>> {
        self.scrapes.clone()
    }
}

#[async_trait]
impl Engine for Small {
    async fn ping(&self) -> Answer<()> {
        Ok(())
    }
    async fn containers(&self) -> Answer<Vec<ContainerSummary>> {
        let short = |c: &Container| ContainerSummary {
            id: c.id.clone(),
            name: c.name.clone(),
            labels: c.labels.clone(),
            network_mode: c.network_mode.clone(),
        };
        self.containers.clone().map(|all| all.iter().map(short).collect())
    }
    async fn inspect(&self, id: &ContainerId) -> Answer<Container> {
        let all = self.containers.clone()?;
        all.into_iter().find(|c| c.id == *id).map_or_else(nobody, Ok)
    }
    async fn logs(&self, _: &ContainerId, _: u32) -> Answer<Vec<String>> {
        panic!("a check reads no logs")
    }
    async fn restart(&self, _: &ContainerId, _: u32, _: Duration) -> Call {
        panic!("a check changes nothing")
    }
    async fn forbidden_call_is_refused(&self) -> Answer<bool> {
        self.forbidden.clone()
    }
}

#[async_trait]
impl Balancer for Small {
    async fn servers(&self) -> Answer<Vec<Server>> {
        self.servers.clone()
    }
    async fn drain(&self, _: &ServerPath) -> Call {
        panic!("a check changes nothing")
    }
    async fn ready(&self, _: &ServerPath) -> Call {
        panic!("a check changes nothing")
    }
}

#[async_trait]
impl Pager for Small {
    async fn raise(&self, _: &[PageAlert]) -> Answer<()> {
        panic!("a check pages nobody")
    }
    async fn silences(&self, _: &LabelSet) -> Answer<Vec<Silence>> {
        self.silences.clone()
    }
}

#[async_trait]
impl Clock for Small {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
    async fn sleep(&self, _: Duration) {}
}

/// The findings, with the folder's name taken out.
async fn findings(playbook: &str, change: impl FnOnce(&mut Small)) -> Vec<String> {
    let mut small = small();
    change(&mut small);
    let small = Arc::new(small);
    let world =
        World { metrics: small.clone(), engine: small.clone(), balancer: small.clone(), pager: small.clone(), clock: small };
    let folder = folder(SETTINGS, &[("x.yml", playbook)]);
    let config = loaded(folder.path()).expect("good files");
    let found = check_against(&world, "remediator.yml", &config).await;
    found.iter().map(|finding| finding.to_string().replace(&format!("{}/", folder.path().display()), "")).collect()
}

fn container(small: &mut Small, n: usize) -> &mut Container {
    &mut small.containers.as_mut().expect("containers")[n - 1]
}

fn server(small: &mut Small, n: usize) -> &mut Server {
    &mut small.servers.as_mut().expect("servers")[n - 1]
}

fn slower(small: &mut Small, n: usize, seconds: f64) {
    small.scrapes.as_mut().expect("scrapes")[n - 1].interval_seconds = seconds;
}

#[tokio::test]
async fn a_good_world_has_no_findings() {
    assert_eq!(findings(SKETCH, |_| {}).await, [""; 0]);
}

#[tokio::test]
async fn each_part_that_does_not_answer_is_named_once() {
    let found = findings(SKETCH, |w| {
        (w.rules, w.scrapes, w.containers) = (nobody(), nobody(), nobody());
        (w.servers, w.forbidden, w.silences) = (nobody(), nobody(), nobody());
    });
    assert_eq!(
        found.await,
        [
            "error: remediator.yml: Prometheus does not list its rules: connection refused.",
            "error: remediator.yml: Prometheus does not list its targets: connection refused.",
            "error: remediator.yml: Docker does not answer at the read door: connection refused.",
            "error: remediator.yml: Docker's restart door could not be tried with a forbidden call: connection refused.",
            "error: remediator.yml: HAProxy does not list its servers: connection refused.",
            "error: remediator.yml: no Alertmanager answers, so nobody could be paged: connection refused.",
        ]
    );
    assert_eq!(
        findings(SKETCH, |w| w.forbidden = Ok(false)).await,
        [
            "error: remediator.yml: Docker's restart door passes a call that it must refuse, so whoever reaches it is root on the host."
        ]
    );
}

#[tokio::test]
async fn a_scrape_that_is_too_slow_is_refused_with_the_one_it_takes() {
    let found = findings(SKETCH, |w| {
        slower(w, 2, 60.0);
        w.rules.as_mut().expect("rules")[0].query = "count_over_time(x[1m]) >= 12 and count_over_time(y[5m]) >= 5".to_owned();
        w.rules.as_mut().expect("rules").truncate(1);
    });
    assert_eq!(
        found.await,
        [
            "error: playbooks/x.yml:2:8: Prometheus scrapes inventory every 1m; rule FdLeakFast needs 12 samples in 1m, i.e. a scrape of 5s or faster.",
            "error: playbooks/x.yml:15:120: recovered.within (2m) is too short: settle 10s and 3 looks, with one scrape to spare, at a scrape of 1m take 4m10s.",
            "warning: playbooks/x.yml:2:8: Prometheus has no alerting rule FdLeakSustained.",
            "warning: playbooks/x.yml:2:8: Prometheus has no alerting rule FdLeakSlow.",
            "warning: playbooks/x.yml:2:8: Prometheus has no alerting rule FdExhausted.",
        ]
    );
    assert_eq!(findings(SKETCH, |w| slower(w, 1, 20.0)).await.len(), 4, "4 samples in 1m need 15s, four rules say so");
    assert_eq!(findings(SKETCH, |w| slower(w, 1, 14.9)).await, [""; 0]);
}

#[tokio::test]
async fn rules_that_prometheus_does_not_have_are_refused() {
    let none = |w: &mut Small| w.rules = Ok(Vec::new());
    let shown = r#"Prometheus has no alerting rule that matches alertname=~"FdLeakFast|FdLeakSustained|FdLeakSlow|FdExhausted"."#;
    assert_eq!(findings(SKETCH, none).await, [format!("error: playbooks/x.yml:2:8: {shown}")]);
    let by_query = SKETCH.replace("inputs: [process_open_fds, process_max_fds, up]", "query: up{$target}\n  below: 1");
    assert_eq!(findings(&by_query, none).await, [format!("warning: playbooks/x.yml:2:8: {shown}")]);
    let unnamed = SKETCH.replace("'alertname=~\"FdLeakFast|FdLeakSustained|FdLeakSlow|FdExhausted\"', ", "");
    assert_eq!(
        findings(&unnamed, |_| {}).await,
        ["warning: playbooks/x.yml:2:8: no matcher names an alert, so the rules behind this playbook cannot be checked."]
    );
    assert_eq!(
        findings(SKETCH, |w| w.rules.as_mut().expect("rules")[1].health = "err".to_owned()).await,
        ["warning: playbooks/x.yml:2:8: Prometheus could not evaluate rule FdLeakSustained last time."]
    );
}

#[tokio::test]
async fn every_replica_must_be_one_container_and_one_checked_server() {
    for (change, want) in [
        (
            (|w| server(w, 2).checked = false) as fn(&mut Small),
            "error: playbooks/x.yml:4:12: the balancer does not check the health of inventory/s2, so readmitting it would be a guess; add `check` to its server line.",
        ),
        (
            |w| drop(w.servers.as_mut().expect("servers").pop()),
            "error: playbooks/x.yml:4:12: the balancer has no server inventory/s3.",
        ),
        (
            |w| server(w, 1).address = Some(([10, 0, 0, 9], 80).into()),
            "error: playbooks/x.yml:4:12: the balancer sends inventory/s1 to 10.0.0.9:80, which is not an address of container inventory-1.",
        ),
        (
            |w| drop(container(w, 1).labels.remove(LABEL_SERVER)),
            "error: playbooks/x.yml:4:12: container inventory-1 has no label remediator.server.",
        ),
        (
            |w| drop(container(w, 1).labels.remove(LABEL_INSTANCE)),
            "error: playbooks/x.yml:4:12: container inventory-1 has no label remediator.instance, so no alert can name it.",
        ),
        (
            |w| container(w, 2).network_mode = "container:x".to_owned(),
            "error: playbooks/x.yml:4:12: container inventory-2 runs in another container's network namespace.",
        ),
        (
            |w| container(w, 3).running = false,
            "warning: playbooks/x.yml:4:12: container inventory-3 is running, so its server could not be checked.",
        ),
        (
            |w| drop(w.scrapes.as_mut().expect("scrapes").pop()),
            "warning: playbooks/x.yml:4:12: Prometheus does not scrape inventory-3:8080 of inventory, so nothing could be confirmed there.",
        ),
        (
            |w| w.scrapes = Ok(Vec::new()),
            "error: playbooks/x.yml:4:12: Prometheus scrapes no target whose label instance is the remediator.instance of a container of inventory.",
        ),
        (
            |w| w.containers = Ok(Vec::new()),
            "error: playbooks/x.yml:4:12: no container is labelled remediator.enable=true and remediator.service=inventory, and an empty selector selects nothing.",
        ),
        (
            |w| {
                let twin = container(w, 1).labels.clone();
                container(w, 2).labels = twin;
                w.scrapes.as_mut().expect("scrapes").remove(1);
            },
            "error: playbooks/x.yml:4:12: 2 containers are labelled remediator.instance=inventory-1:8080: inventory-1, inventory-2; remove those that should not be there, or say with docker.only which are ours.",
        ),
    ] {
        assert_eq!(findings(SKETCH, change).await, [want]);
    }
}

#[tokio::test]
async fn a_radius_that_refuses_every_time_is_told() {
    let one_less = |w: &mut Small| {
        w.containers.as_mut().expect("containers").pop();
    };
    assert_eq!(
        findings(&SKETCH.replace("67%", "20%"), one_less).await,
        [
            "warning: playbooks/x.yml:22:17: inventory has 2 replicas, so at most 1 others can serve while one is out and min_healthy 2 refuses every time.",
            "warning: playbooks/x.yml:22:17: one sick replica of 2 is more than max_unhealthy 20%, so it refuses every time.",
        ]
    );
}

/// Prometheus opted in by mistake: found before an alert finds it, and let through only for a playbook that says the word.
#[tokio::test]
async fn a_part_of_ours_is_refused_unless_the_playbook_says_so() {
    let recognised =
        |w: &mut Small| container(w, 2).infrastructure = Some("prometheus.url (http://p:9090) leads to it".to_owned());
    let labelled = |w: &mut Small| drop(container(w, 2).labels.insert("remediator.role".to_owned(), "\u{1b}proxy".to_owned()));
    let refused = "error: playbooks/x.yml:4:12: container inventory-2 is no target: ";
    assert_eq!(findings(SKETCH, recognised).await, [format!("{refused}prometheus.url (http://p:9090) leads to it.")]);
    assert_eq!(findings(SKETCH, labelled).await, [format!("{refused}it is labelled remediator.role=\"\\u{{1b}}proxy\".")]);
    let meant = SKETCH.replace("  replica: instance\n", "  replica: instance\n  infrastructure: true\n");
    assert_eq!(findings(&meant, recognised).await, [""; 0]);
    assert_eq!(findings(&meant, labelled).await, [""; 0]);
    assert_eq!(findings(&meant.replace("true\n", "false\n"), recognised).await.len(), 1);
    let folder = folder(SETTINGS, &[("x.yml", &meant)]);
    let config = loaded(folder.path()).expect("good files");
    let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    assert!(warning.to_string().contains("x.yml:6:19: infrastructure is true"), "{warning}");
}

/// A finding quotes files and what others answered, and is shown on a terminal.
#[test]
fn a_finding_shows_control_characters_and_does_not_send_them() {
    let finding = Finding {
        severity: Severity::Warning,
        file: "a\n.yml".to_owned(),
        place: None,
        sentence: "Prometheus says \u{1b}[2J".to_owned(),
    };
    assert_eq!(finding.to_string(), "warning: a\\n.yml: Prometheus says \\u{1b}[2J.");
}
