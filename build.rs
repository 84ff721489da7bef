//! Tells the simulation which commit it is built from, so that a seed can be replayed where it failed.
//!
//! Only for optimised builds: there the commit is asked for anew whenever it or a source may have changed. A build for
//! development says nothing, instead of compiling everything again with each commit. `REMEDIATOR_COMMIT` has the last word,
//! for builds without a repository.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a build script has nothing but the environment and git")]

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=REMEDIATOR_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("REMEDIATOR_COMMIT").is_some() || std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    // Where HEAD and its branch are written, which for a work tree is not here.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    for sources in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={sources}");
    }
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return };
    let changed =
        git(&["status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock", "build.rs"]).is_none_or(|text| !text.is_empty());
    println!("cargo::rustc-env=REMEDIATOR_COMMIT={commit}{}", if changed { " with changes" } else { "" });
}

/// What git says; none when there is no git, or no repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
