//! What a reload cannot change, because something was built with it at the start.

use super::settings::Settings;

impl Settings {
    /// The settings that differ from those in force and stay as they are until a restart, by the names that the file has
    /// for them. What a reload takes over (`playbooks`, `tokens`, the certificates of `tls`) is never among them.
    pub fn standing(&self, in_force: &Settings) -> Vec<&'static str> {
        // In full, so that a new setting has to say on which side it is.
        let Settings {
            listen,
            external_url,
            state_dir,
            playbooks: _,
            prometheus,
            alertmanager,
            docker,
            haproxy,
            tokens: _,
            tls,
            limits,
            pages,
            retention,
            heartbeat,
            watchdog,
            start_paused,
            log,
        } = self;
        let differs = [
            ("listen", *listen != in_force.listen),
            ("external_url", *external_url != in_force.external_url),
            ("state_dir", *state_dir != in_force.state_dir),
            ("prometheus", *prometheus != in_force.prometheus),
            ("alertmanager", *alertmanager != in_force.alertmanager),
            ("docker", *docker != in_force.docker),
            ("haproxy", *haproxy != in_force.haproxy),
            // Certificates are exchanged in place; that there are any, or none any more, is the listener's own.
            ("tls", tls.is_some() != in_force.tls.is_some()),
            ("limits", *limits != in_force.limits),
            ("pages", *pages != in_force.pages),
            ("retention", *retention != in_force.retention),
            ("heartbeat", *heartbeat != in_force.heartbeat),
            ("watchdog", *watchdog != in_force.watchdog),
            ("start_paused", *start_paused != in_force.start_paused),
            ("log", *log != in_force.log),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}
