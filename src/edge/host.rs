//! This host's name, for the audit.

/// The kernel's host name, or `unknown`. In a container that is the container's, unless `hostname:` is set.
pub fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown".to_owned() } else { name.to_owned() }
}
