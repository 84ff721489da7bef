//! This host's name, for the audit, and the container that this process runs in, which must never be a target.

/// The kernel's host name, or `unknown`. In a container that is the container's, unless `hostname:` is set.
pub fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown".to_owned() } else { name.to_owned() }
}

/// What may be the id of the container that this process runs in, or the beginning of it: from the files that Docker
/// mounts into every container, from the control group, and the host name, which is the short id unless it is set.
pub fn container_ids() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut ids = ids_in(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    ids.push(name());
    ids
}

/// A host's own list of mounts names every container's folder, so only what is mounted where Docker mounts it counts.
fn ids_in(mountinfo: &str, cgroup: &str) -> Vec<String> {
    const MOUNTED: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
    let mounted = mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let (_, rest) = root.rsplit_once("/containers/").filter(|_| MOUNTED.contains(&point))?;
        rest.split('/').next()
    });
    let groups = cgroup.lines().filter_map(|line| {
        let last = line.rsplit('/').next()?;
        Some(last.strip_prefix("docker-").unwrap_or(last).trim_end_matches(".scope"))
    });
    let full = |id: &&str| id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit());
    let mut ids: Vec<String> = mounted.chain(groups).filter(full).map(str::to_owned).collect();
    ids.sort();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_says_which_container_this_is() {
        let (own, other) = ("0123456789abcdef".repeat(4), "f".repeat(64));
        let mounts = format!(
            "900 880 0:50 / / rw - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/{other}/diff\n\
             910 900 8:1 /var/lib/docker/containers/{own}/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda1 rw\n\
             911 900 8:1 /docker/containers/{own}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n\
             920 900 0:60 /var/lib/docker/containers/{other}/mounts/shm /x/shm rw - tmpfs shm rw\n"
        );
        assert_eq!(ids_in(&mounts, "0::/\n"), std::slice::from_ref(&own));
        for group in [format!("12:pids:/docker/{own}\n"), format!("0::/system.slice/docker-{own}.scope\n")] {
            assert_eq!(ids_in("", &group), std::slice::from_ref(&own));
        }
        assert!(ids_in("garbage\n1 2", "0::/user.slice\n").is_empty());
    }
}
