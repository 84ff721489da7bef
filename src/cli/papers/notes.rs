//! What the arguments do not say by themselves: examples and exit codes, for `--help` and for the man pages alike.
//!
//! A command that has no entry here gets the exit codes that hold for all. Every example is parsed by a test, so that
//! none outlives the option it shows.

/// What is said at the end of a command's help.
#[derive(Clone, Copy, Debug)]
pub struct Notes {
    /// What it does, and the line to type. Files and ids in it are made up.
    pub examples: &'static [(&'static str, &'static str)],
    /// What exit codes 0, 1 and 2 mean here.
    pub codes: [&'static str; 3],
}

const FINE: &str = "fine";
const FAILED: &str = "it could not be asked: wrong usage, an unreadable file, nobody answers";

/// What holds for every command.
const FOR_ALL: Notes = Notes { examples: &[], codes: [FINE, "it was asked, and the answer is no", FAILED] };

/// Where every command looks, for the top of the help.
pub const WHERE: &str = "\
Configuration:
  --config FILE, else the file that REMEDIATOR_CONFIG names, else /etc/remediator/remediator.yml.
  Relative names in it start at its own folder; playbooks are /etc/remediator/playbooks/*.yml unless it says otherwise.";

/// Files that a person may want to find: name, and what it is.
pub const FILES: &[(&str, &str)] = &[
    ("/etc/remediator/remediator.yml", "the configuration"),
    (
        "/etc/remediator/playbooks/*.yml",
        "what may be done about which alert; a new one is in shadow mode and changes nothing outside",
    ),
    ("/etc/remediator/tokens/", "one token in each file, for whoever may send alerts, read, or give orders"),
    ("/var/lib/remediator/journal.db", "the journal: everything that was seen, decided and done, as a chain of hashes"),
    ("/var/lib/remediator/audit.jsonl", "each closed record as one line of JSON, made from the journal"),
    ("/usr/share/doc/remediator/RUNBOOK.md", "for whoever is on call: how to stop it, and a section for every reason code"),
];

/// What the environment is asked for beyond the variables of options.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("NO_COLOR", "when set to anything, no colours, on a terminal either"),
    ("RUST_LOG", "what serve logs, such as debug or remediator::act=debug; wins over log.level in the configuration"),
];

/// What `serve` does with signals.
pub const SIGNALS: &[(&str, &str)] = &[
    ("SIGTERM, SIGINT", "stop at a safe point: nothing new begins, and no server is left drained"),
    (
        "SIGHUP",
        "take over playbooks, tokens and certificates, all or nothing (the log says what is wrong), and open audit.jsonl by its name again; other settings need a restart",
    ),
];

/// By a command's words; the program itself is the empty text.
pub const NOTES: &[(&str, Notes)] = &[
    (
        "",
        Notes {
            examples: &[
                ("Hold /etc/remediator/remediator.yml against the running world", "remediator check"),
                ("Receive alerts; a playbook in shadow mode does everything but the side effects", "remediator serve"),
                ("What would be decided about an alert, and why", "remediator explain --alert webhook.json"),
                ("What is it doing, and why not more?", "remediator status"),
                ("Keep it from acting, at once and across restarts", "remediator pause --reason release"),
                ("Has anybody changed the audit?", "remediator audit verify --state-dir /var/lib/remediator"),
            ],
            codes: FOR_ALL.codes,
        },
    ),
    (
        "serve",
        Notes {
            examples: &[
                ("Run with the configuration in /etc/remediator", "remediator serve"),
                ("Run with another one", "remediator serve --config shop/remediator.yml"),
            ],
            codes: ["it was told to stop, and stopped at a safe point", "another remediator has the state directory", FAILED],
        },
    ),
    (
        "check",
        Notes {
            examples: &[
                ("Everything, against Prometheus, Docker, HAProxy and Alertmanager as they are now", "remediator check"),
                ("Only the files, before they are installed", "remediator check --offline --config remediator.yml"),
            ],
            codes: [
                "nothing is wrong; there may be warnings",
                "something is wrong, with file, line and column where a line is to blame",
                FAILED,
            ],
        },
    ),
    (
        "explain",
        Notes {
            examples: &[
                ("Ask the world about the first firing alert of a webhook body", "remediator explain --alert webhook.json"),
                (
                    "Decide again on the evidence of a record, asking nobody",
                    "remediator explain --alert webhook.json --evidence evidence.json",
                ),
            ],
            codes: ["it would act", "it would not, and says what would have had to differ", FAILED],
        },
    ),
    (
        "probe",
        Notes {
            examples: &[("Is it alive?", "remediator probe"), ("Can it act?", "remediator probe http://127.0.0.1:8090/readyz")],
            codes: ["yes", "no", FAILED],
        },
    ),
    (
        "status",
        Notes {
            examples: &[],
            codes: ["it is ready, and not paused as a whole", "it is paused, or something that it needs is missing", FAILED],
        },
    ),
    (
        "pause",
        Notes { examples: &[], codes: ["it is paused, and that is on disk", "the pause was refused; why is said", FAILED] },
    ),
    ("resume", Notes { examples: &[], codes: ["the pause is over; others may still hold", "there is no such pause", FAILED] }),
    (
        "abort",
        Notes {
            examples: &[],
            codes: ["it is ordered: no restart follows", "nothing is under way there, or it is too late", FAILED],
        },
    ),
    ("breaker reset", Notes { examples: &[], codes: ["it is closed", "there is no such breaker", FAILED] }),
    (
        "audit show",
        Notes {
            examples: &[("Why did it do that?", "remediator audit show 01a2009e-dbb0-713e-8c86-441b2d311fa3")],
            codes: [FINE, "there is no such record", FAILED],
        },
    ),
    (
        "audit verify",
        Notes {
            examples: &[("Walk the whole chain", "remediator audit verify --state-dir /var/lib/remediator")],
            codes: [
                "the chain holds, and so does the hash that was given",
                "it is broken, and the first bad entry is named; or nobody can tell about the hash",
                FAILED,
            ],
        },
    ),
    (
        "audit search",
        Notes {
            examples: &[("Why was nothing done last night?", "remediator audit search --since 12h --outcome refused")],
            codes: [FINE, "no record matches", FAILED],
        },
    ),
    ("audit tail", Notes { examples: &[("Watch what it does", "remediator audit tail -f")], codes: FOR_ALL.codes }),
    (
        "audit export",
        Notes {
            examples: &[
                (
                    "Last week's records, to keep elsewhere",
                    "remediator audit export --since 7d --state-dir /var/lib/remediator > audit.jsonl",
                ),
                (
                    "Why things were refused",
                    "remediator audit export --outcome refused --state-dir /var/lib/remediator | jq -r .reason",
                ),
            ],
            codes: FOR_ALL.codes,
        },
    ),
    (
        "completions",
        Notes {
            examples: &[
                ("For bash", "remediator completions bash > ~/.local/share/bash-completion/completions/remediator"),
                ("For fish", "remediator completions fish > ~/.config/fish/completions/remediator.fish"),
            ],
            codes: FOR_ALL.codes,
        },
    ),
];

impl Notes {
    /// The notes of a command by its words, such as `audit verify`.
    pub fn of(command: &str) -> Notes {
        NOTES.iter().find(|(words, _)| *words == command).map_or(FOR_ALL, |(_, notes)| *notes)
    }

    /// As text under a command's help.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.examples.is_empty() {
            text.push_str("Examples:\n");
            for (what, line) in self.examples {
                text.push_str(&format!("  # {what}\n  {line}\n"));
            }
            text.push('\n');
        }
        text.push_str("Exit codes:\n");
        for (code, meaning) in self.codes.iter().enumerate() {
            text.push_str(&format!("  {code}  {meaning}\n"));
        }
        text.truncate(text.trim_end().len());
        text
    }
}
