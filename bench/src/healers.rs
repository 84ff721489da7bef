//! References (c) and (d): Debian's `webhook`, by itself, with `curl` behind it, and with the bash healer behind it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use crate::outside::Outside;
use crate::program::{Process, folder, nobody};

const HEALER: &str = include_str!("healer.sh");
/// The naive one: restart whatever the alert names.
const NAIVE: &str = r#"#!/bin/sh
number=$(printf '%s' "$4" | sed -n 's/.*"instance":"inventory-\([0-9]*\):.*/\1/p')
exec curl -sf -X POST "http://$3/containers/$(printf '%064x' $((number + 1)))/restart?t=1"
"#;

/// `webhook` with its hooks: `/hooks/nothing`, `/hooks/naive` and `/hooks/healer`.
#[derive(Debug)]
pub struct Webhook {
    pub process: Process,
    _dir: TempDir,
}

fn script(dir: &Path, name: &str, text: &str) -> Result<String> {
    let path = dir.join(name);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

impl Webhook {
    /// # Errors
    /// Debian's package `webhook` is not installed.
    pub async fn start(outside: &Outside) -> Result<Webhook> {
        let dir = folder()?;
        let at = dir.path();
        let arguments = json!([
            { "source": "string", "name": at.join("state").display().to_string() },
            { "source": "string", "name": outside.prometheus.to_string() },
            { "source": "string", "name": outside.restart_door.to_string() },
            { "source": "entire-payload" },
        ]);
        let hooks = json!([
            { "id": "nothing", "execute-command": "/bin/true" },
            { "id": "naive", "execute-command": script(at, "naive", NAIVE)?, "pass-arguments-to-command": arguments },
            { "id": "healer", "execute-command": script(at, "healer", HEALER)?, "pass-arguments-to-command": arguments },
        ]);
        let file = at.join("hooks.json");
        std::fs::write(&file, hooks.to_string())?;
        let addr = nobody()?;
        let mut command = Command::new("webhook");
        command
            .args(["-ip", "127.0.0.1", "-port", &addr.port().to_string(), "-hooks"])
            .arg(&file)
            .stderr(std::process::Stdio::null());
        let process = Process::start(&mut command, addr, "/").await.context("apt-get install webhook jq gawk curl")?;
        Ok(Webhook { process, _dir: dir })
    }
}

/// How long the bash healer takes from start to its decision: nothing is asked and nothing is restarted, as in the function that
/// it is compared with.
///
/// # Errors
/// bash, jq or awk is missing.
pub fn decide(payloads: &[String]) -> Result<Vec<Duration>> {
    let dir = folder()?;
    let healer = script(dir.path(), "healer", HEALER)?;
    let mut took = Vec::new();
    for payload in payloads {
        let begun = Instant::now();
        let status = Command::new(&healer).arg(dir.path().join("state")).args(["none", "none", payload]).status()?;
        ensure!(status.success(), "the bash healer failed: {status}; apt-get install jq mawk");
        took.push(begun.elapsed());
    }
    Ok(took)
}

impl Webhook {
    /// What its healers wrote down.
    pub fn audited(&self) -> usize {
        std::fs::read_to_string(self._dir.path().join("state/audit.jsonl")).map_or(0, |text| text.lines().count())
    }

    /// As a reboot would: the healers go with the program that started them.
    pub fn kill_healers(&self) {
        let healer = self._dir.path().join("healer").display().to_string();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let of_ours =
                std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&healer));
            if of_ours && let Some(pid) = entry.file_name().to_str() {
                let _ = Command::new("kill").args(["-9", pid]).status();
            }
        }
    }
}
