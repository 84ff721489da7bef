//! One record, told to a person on a terminal: what happened, when (from the start on), and why. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::audit::export::{intent, reason};
use crate::audit::query::{Found, Told};
use crate::decide::decision::{Decision, Explained};
use crate::decide::evidence::{Evidence, Reading};
use crate::edge::redact::steers;
use crate::event::{Event, Intent};
use crate::guard::rails::RailCheck;
use crate::words;
use crate::world::Call;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
/// Room for the longest kind of an entry, `step_started`.
const KIND: usize = 13;
/// Room for `+1h30m12s` and the like.
const WHEN: usize = 9;

/// Text that may be coloured.
struct Page {
    text: String,
    colour: bool,
}

/// The whole story.
pub fn tell(found: &Found, told: &[Told], colour: bool) -> String {
    let mut page = Page { text: String::new(), colour };
    header(&mut page, found);
    let start = found.record.opened_at;
    for one in told {
        let lines = lines(&one.entry.event);
        let when = format!("+{}", words::roughly(one.entry.at.duration_since(start)));
        for (at, (style, text)) in lines.iter().enumerate() {
            let (when, kind) = if at == 0 { (when.as_str(), one.entry.event.kind()) } else { ("", "") };
            let left = page.paint(DIM, &format!("{when:>WHEN$}"));
            let kind = page.paint(BOLD, &format!("{kind:<KIND$}"));
            let text = page.paint(style, text);
            page.line(&format!("{left}  {kind}  {text}"));
        }
    }
    footer(&mut page, found);
    page.text
}

fn header(page: &mut Page, found: &Found) {
    let record = &found.record;
    let accepted = &record.accepted;
    let target = accepted.target.as_ref().map_or_else(|| "no target".to_owned(), ToString::to_string);
    let playbook = accepted.playbook.as_ref().map_or_else(|| "no playbook".to_owned(), ToString::to_string);
    let title = page.paint(BOLD, &format!("record {}", record.id));
    page.line(&title);
    page.fact("alert", &format!("{} ({})", accepted.alert.labels.alertname(), accepted.fingerprint));
    page.fact("target", &target);
    page.fact("playbook", &format!("{playbook}, {}", accepted.mode.word()));
    if let Some(intent) = intent(record) {
        page.fact("intent", &intent);
    }
    page.fact("opened", &record.opened_at.to_string());
    page.fact("where", &format!("{} on {}", accepted.healer, accepted.host));
    page.line("");
}

fn footer(page: &mut Page, found: &Found) {
    let record = &found.record;
    page.line("");
    match record.outcome {
        None => {
            page.styled("outcome", YELLOW, "still open");
        }
        Some(outcome) => {
            let style = if outcome.is_settled() { GREEN } else { RED };
            let took = record.duration().map_or_else(String::new, |took| format!(" after {took}"));
            page.styled("outcome", style, &format!("{outcome}{took}"));
            page.fact("reason", &reason(record).unwrap_or_default());
            page.fact("code", record.reason.map_or("", |reason| reason.code()));
        }
    }
    page.fact("entry", &format!("{} {}", record.seq, found.hash));
}

/// What one entry says, on one line.
pub fn line(event: &Event) -> String {
    lines(event).into_iter().map(|(_, text)| text).take(2).collect::<Vec<_>>().join("; ")
}

/// What one entry says, a line each, with its colour.
fn lines(event: &Event) -> Vec<(&'static str, String)> {
    let plain = |text: String| vec![("", text)];
    match event {
        Event::Accepted { accepted } => {
            let cut = if accepted.truncated > 0 { format!(", {} alerts cut off", accepted.truncated) } else { String::new() };
            plain(format!("{} from {}{cut}", accepted.alert.labels.alertname(), accepted.receiver))
        }
        Event::Folded { alert } => plain(format!("{} joined ({})", alert.labels.alertname(), alert.fingerprint)),
        Event::Confirmed { evidence } => confirmed(evidence),
        Event::Decided { decision } => decided(decision),
        Event::Refused { guards, .. } => rails(guards),
        Event::Intent { intent } => admitted(intent),
        Event::StepStarted { step } => plain(step.word().to_owned()),
        Event::StepEnded { step, call, .. } => match call {
            Call::Done => vec![(GREEN, format!("{} done", step.word()))],
            Call::Failed(why) => vec![(RED, format!("{} failed: {why}", step.word()))],
            Call::Unknown(why) => vec![(YELLOW, format!("{} unknown: {why}", step.word()))],
        },
        Event::Judged { judgement } => {
            let looks = judgement.looks.iter().map(|look| ("", look_line(look.at, look.value, &look.detail)));
            looks.chain([("", judgement.detail.clone())]).collect()
        }
        Event::AbortOrdered { abort } => vec![(YELLOW, words::aborted(abort))],
        Event::Closed { outcome, reason, detail } => {
            let style = if outcome.is_settled() { GREEN } else { RED };
            vec![(style, format!("{outcome}, {reason}")), ("", detail.clone())]
        }
        Event::Joined { accepted, .. } => plain(format!("{} was delivered", accepted.alert.labels.alertname())),
        Event::WatchEnded { detail, .. } => plain(detail.clone()),
        Event::Readmitted { server, detail } => plain(format!("{server}: {detail}")),
        Event::Paused { pause } => plain(words::paused(pause)),
        Event::Resumed { scope, actor, reason } => plain(format!("{scope} resumed by {actor}: {reason}")),
        Event::BreakerReset { breaker, actor, reason } => plain(format!("{breaker} reset by {actor}: {reason}")),
        Event::Started { version, pid } => plain(format!("remediator {version}, pid {pid}")),
        Event::Pruned { pruned } => plain(words::pruned(pruned.through, pruned.before)),
    }
}

fn look_line(at: Timestamp, value: Option<f64>, detail: &str) -> String {
    let value = value.map_or_else(|| "no value".to_owned(), words::number);
    format!("{at:.0}  {value}  {detail}")
}

fn confirmed(evidence: &Evidence) -> Vec<(&'static str, String)> {
    let reading = match &evidence.reading {
        Reading::Firing { value, .. } => ("", words::reading_firing(*value)),
        Reading::Quiet { .. } => (GREEN, words::reading_quiet()),
        Reading::Unknown { why } => (YELLOW, why.detail.clone()),
    };
    let mut lines = vec![reading];
    if let Ok(replica) = &evidence.replica {
        lines.push(("", words::matched(replica)));
    }
    lines
}

fn decided(explained: &Explained) -> Vec<(&'static str, String)> {
    let word = match &explained.decision {
        Decision::Remediate { plan } => ("", format!("remediate: restart {}", plan.target)),
        Decision::Escalate { finding } => (YELLOW, format!("escalate: {}", finding.reason)),
        Decision::Ignore { finding } => ("", format!("ignore: {}", finding.reason)),
    };
    let mut lines = vec![word];
    for check in &explained.checks {
        let (style, mark) = if check.ok { (DIM, "ok") } else { (RED, "no") };
        lines.push((style, format!("{mark}  {}: {}", check.name, check.detail)));
        if !check.would_act_if.is_empty() {
            lines.push((DIM, format!("    would act if {}", check.would_act_if)));
        }
    }
    lines
}

fn admitted(intent: &Intent) -> Vec<(&'static str, String)> {
    let probe = if intent.probe { ", as the breaker's probe" } else { "" };
    let mut lines = vec![("", format!("restart {} until {:.0}{probe}", intent.plan.target, intent.expires_at))];
    lines.extend(rails(&intent.guards));
    lines
}

fn rails(guards: &[RailCheck]) -> Vec<(&'static str, String)> {
    let one = |check: &RailCheck| {
        let (style, mark) = if check.refusal.is_some() { (RED, "no") } else { (DIM, "ok") };
        (style, format!("{mark}  {}: {}", check.rail.word(), check.detail))
    };
    guards.iter().map(one).collect()
}

impl Page {
    fn paint(&self, style: &str, text: &str) -> String {
        // Text of other people must not steer the terminal.
        let text: String = text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect();
        if self.colour && !style.is_empty() { format!("\x1b[{style}m{text}\x1b[0m") } else { text }
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{}", text.trim_end());
    }

    fn fact(&mut self, name: &str, value: &str) {
        self.styled(name, "", value);
    }

    fn styled(&mut self, name: &str, style: &str, value: &str) {
        let name = self.paint(DIM, &format!("{name:>WHEN$}"));
        let value = self.paint(style, value);
        self.line(&format!("{name}  {value}"));
    }
}
