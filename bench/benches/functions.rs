//! The functions that a walk is made of, each by itself.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use remediator::audit::canonical::canonical;
use remediator::audit::state::State;
use remediator::decide::decision::{Decision, decide};
use remediator::detect::payload;
use remediator::event::{Entry, Event};
use remediator_bench::alerts::notification;
use remediator_bench::specimen::Specimen;

/// The entry of an acceptance, as the first of a journal.
fn acceptance(specimen: &Specimen) -> Entry {
    let accepted = specimen.record.accepted.clone();
    Entry { seq: 1, at: specimen.now, record: Some(specimen.record.id), event: Event::Accepted { accepted } }
}

fn functions(c: &mut Criterion) {
    let specimen = Specimen::collect().unwrap_or_else(|error| panic!("{error:#}"));
    let one = notification(0..1);
    let hundred = notification(0..100);
    c.bench_function("parse a notification of one alert", |b| b.iter(|| payload::parse(black_box(one.as_bytes()), 10_000)));
    c.bench_function("parse a notification of 100 alerts", |b| b.iter(|| payload::parse(black_box(hundred.as_bytes()), 10_000)));
    c.bench_function("decide", |b| b.iter(|| decide(black_box(&specimen.playbook), black_box(&specimen.evidence), specimen.now)));
    let Decision::Remediate { plan } = decide(&specimen.playbook, &specimen.evidence, specimen.now).decision else {
        panic!("the specimen is not remediated")
    };
    c.bench_function("admit", |b| b.iter(|| specimen.admitted(black_box(&plan))));
    c.bench_function("decide and admit", |b| b.iter(|| specimen.decide_and_admit()));
    let entry = acceptance(&specimen);
    c.bench_function("fold an acceptance", |b| {
        b.iter_batched(State::default, |mut state| state.apply(black_box(&entry)), BatchSize::SmallInput);
    });
    c.bench_function("forge a link: canonical body and hash", |b| {
        b.iter(|| {
            let body = canonical(black_box(&entry)).unwrap_or_default();
            remediator::audit::chain::hash(remediator::audit::chain::GENESIS, &body)
        });
    });
    c.bench_function("write a whole record as canonical JSON", |b| b.iter(|| canonical(black_box(&specimen.record))));
}

criterion_group!(benches, functions);
criterion_main!(benches);
