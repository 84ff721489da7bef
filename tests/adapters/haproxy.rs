//! HAProxy's runtime API: a sentence is never taken for data, and "maybe" never for "no".

use std::time::Duration;

use proptest::prelude::*;
use remediator::edge::haproxy::{HaProxy, read_servers};
use remediator::reason::Reason;
use remediator::target::ServerPath;
use remediator::world::{Balancer, Call, Server, ServerStatus};

use crate::wire::{Act, Fake, Framing, LONG, SHORT, nobody};

/// As HAProxy 2.6 and 3.0 write them, with the columns cut to those that matter here and a few that do not.
const STAT: &str = "# pxname,svname,qcur,qmax,scur,status,weight,chkfail,type,check_status,last_chk,\n\
    web,FRONTEND,,,3,OPEN,,,0,,,\n\
    web,sock-1,,,3,OPEN,,,3,,,\n\
    inventory,inv-1,0,0,2,UP,1,0,2,L7OK,,\n\
    inventory,inv-2,1,4,7,UP 1/3,1,2,2,L7STS,\"HTTP status: 500, \"\"no\nfd\"\"\",\n\
    inventory,inv-3,0,0,0,DRAIN,0,0,2,L7OK,,\n\
    inventory,inv-4,0,0,0,DOWN,0,9,2,L4CON,Connection refused,\n\
    inventory,inv-5,0,0,0,MAINT,1,0,2,,,\n\
    inventory,inv-6,0,0,0,no check,1,0,2,,,\n\
    inventory,inv-7,0,0,0,DOWN 1/2,1,0,2,L7OK,,\n\
    inventory,inv-8,0,0,0,NOLB,1,0,2,L7OKC,,\n\
    inventory,bad:name,0,0,0,UP,1,0,2,L7OK,,\n\
    inventory,BACKEND,1,4,9,UP,1,,1,,,\n\n";

const STATE: &str = "1\n\
    # be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_check_state srv_port srvrecord\n\
    3 inventory 1 inv-1 172.30.0.11 2 0 1 6 8080 -\n\
    3 inventory 2 inv-2 fd00::12 2 4 1 7 8080 -\n\
    3 inventory 3 inv-3 172.30.0.13 2 8 1 6 8080 -\n\
    3 inventory 4 inv-4 172.30.0.14 0 8 1 6 8080 -\n\
    3 inventory 5 inv-5 172.30.0.15 0 5 1 14 8080 -\n\
    3 inventory 6 inv-6 - 2 64 1 0 8080 -\n\
    3 inventory 7 inv-7 /run/app.sock 0 16 1 6 0 -\n\
    3 inventory 8 inv-8 172.30.0.18 1 32 1 2 0 -\n\
    3 inventory 9 bad:name 172.30.0.19 2 0 1 6 8080 -\n\n";

fn path(text: &str) -> ServerPath {
    text.parse().expect("a path")
}

fn script(stat: &'static str, state: &'static str) -> impl Fn(&str) -> Act + Send + Sync + 'static {
    move |command| {
        Act::Say(
            match command {
                "show stat\n" => stat,
                "show servers state\n" => state,
                _ => "Unknown command.\n\n",
            }
            .as_bytes()
            .to_vec(),
        )
    }
}

/// The same fake on TCP and on a Unix socket, with a client for each.
async fn both(timeout: Duration, act: Act) -> [(Fake, HaProxy); 2] {
    let again = act.clone();
    let tcp = Fake::tcp(Framing::Line, move |_| act.clone()).await;
    let unix = Fake::unix(Framing::Line, move |_| again.clone()).await;
    let tcp_client = HaProxy::new(&format!("tcp://{}", tcp.place), timeout).expect("address");
    let unix_client = HaProxy::new(&format!("unix://{}", unix.place), timeout).expect("address");
    [(tcp, tcp_client), (unix, unix_client)]
}

async fn cannot_say(timeout: Duration, act: Act, words: &str) {
    for (fake, client) in both(timeout, act).await {
        let error = client.servers().await.expect_err("an answer was made up");
        assert_eq!(error.reason, Reason::BalancerUnavailable);
        assert!(error.detail.contains(&fake.place) && error.detail.contains(words), "no `{words}` in: {}", error.detail);
    }
}

/// Both commands that change something must end as `want` judges.
async fn commands_end(timeout: Duration, act: Act, want: fn(&Call) -> Option<&str>, words: &str) {
    for (fake, client) in both(timeout, act).await {
        for call in [client.drain(&path("inventory/inv-1")).await, client.ready(&path("inventory/inv-1")).await] {
            let detail = want(&call).unwrap_or_else(|| panic!("{call:?} for `{words}`"));
            assert!(detail.contains(&fake.place) && detail.contains("inventory/inv-1"), "{detail}");
            assert!(detail.contains(words), "no `{words}` in: {detail}");
        }
    }
}

fn failed(call: &Call) -> Option<&str> {
    if let Call::Failed(detail) = call { Some(detail) } else { None }
}

fn unknown(call: &Call) -> Option<&str> {
    if let Call::Unknown(detail) = call { Some(detail) } else { None }
}

#[tokio::test]
async fn servers_are_merged_from_both_tables() {
    let fake = Fake::unix(Framing::Line, script(STAT, STATE)).await;
    let client = HaProxy::new(&format!("unix://{}", fake.place), LONG).expect("address");
    let servers = client.servers().await.expect("servers");
    let shown: Vec<_> = servers
        .iter()
        .map(|s| (s.path.server(), s.status, s.drained, s.maintenance, s.checked, s.address.map(|a| a.to_string())))
        .collect();
    let at = |text: &str| Some(text.to_owned());
    assert_eq!(
        shown,
        [
            ("inv-1", ServerStatus::Up, false, false, true, at("172.30.0.11:8080")),
            // 4 only says that the configuration once had it disabled.
            ("inv-2", ServerStatus::Up, false, false, true, at("[fd00::12]:8080")),
            ("inv-3", ServerStatus::Drain, true, false, true, at("172.30.0.13:8080")),
            ("inv-4", ServerStatus::Down, true, false, true, at("172.30.0.14:8080")),
            // Its check is paused, which is not the same as not having one.
            ("inv-5", ServerStatus::Maintenance, false, true, true, at("172.30.0.15:8080")),
            // 64 only says that the host name was set at run time.
            ("inv-6", ServerStatus::NoCheck, false, false, false, None),
            ("inv-7", ServerStatus::Down, true, false, true, None),
            // `disable health` was said to it.
            ("inv-8", ServerStatus::Other, false, true, false, None),
        ]
    );
    assert_eq!((servers[1].sessions, servers[1].queued), (7, 1));
    assert_eq!(fake.requests(), ["show stat\n", "show servers state\n"], "one connection per command");
    assert_eq!(servers.iter().filter(|server| server.serving()).count(), 2);
}

#[test]
fn a_server_of_weight_zero_is_drained_too() {
    let state = STATE.replacen("2 8 1 6 8080", "2 0 0 6 8080", 1);
    let servers = read_servers(STAT, &state).expect("servers");
    assert!(servers[2].drained && servers[2].status == ServerStatus::Drain);
}

#[test]
fn columns_are_found_by_name() {
    let stat = "# status,type,pxname,new,svname,qcur,scur\nUP,2,b,x,s,1,2\n\n";
    let state = "1\n# srv_check_state srv_name be_name srv_port srv_admin_state srv_addr\n6 s b 80 0 10.0.0.1\n\n";
    let want = Server {
        path: path("b/s"),
        address: Some("10.0.0.1:80".parse().expect("address")),
        status: ServerStatus::Up,
        drained: false,
        maintenance: false,
        checked: true,
        sessions: 2,
        queued: 1,
    };
    assert_eq!(read_servers(stat, state), Ok(vec![want]));
}

#[test]
fn what_is_not_the_table_expected_is_an_error_that_says_what_came() {
    let other = |from: &str, to: &str| STAT.replacen(from, to, 1);
    let state = |from: &str, to: &str| STATE.replacen(from, to, 1);
    for (stat, state, words) in [
        ("Permission denied\n\n".to_owned(), STATE.to_owned(), "show stat: not a table: `Permission denied`"),
        (STAT.to_owned(), "Unknown command: \u{1b}[2Jx\n\n".to_owned(), "not a table: `Unknown command: \\u{1b}[2Jx`"),
        ("\n".to_owned(), STATE.to_owned(), "show stat: the reply is cut"),
        ("\n\n".to_owned(), STATE.to_owned(), "show stat: not a table"),
        (STAT.to_owned(), "2\n# be_id\n\n".to_owned(), "show servers state: not a table"),
        (STAT.to_owned(), "1\n\n".to_owned(), "show servers state: not a table"),
        (other("scur,", "s,"), STATE.to_owned(), "no column scur"),
        (STAT.to_owned(), state("srv_admin_state", "x"), "no column srv_admin_state"),
        (other(",2,UP,", ",many,UP,"), STATE.to_owned(), "inventory/inv-1: scur `many` is not a number"),
        (STAT.to_owned(), state("2 0 1 6 8080", "2 ? 1 6 8080"), "inventory/inv-1: srv_admin_state `?` is not a number"),
        (STAT.to_owned(), state("inv-1", "inv-9"), "inventory/inv-1 is in `show stat` but not in"),
        (STAT.to_owned(), state("inv-2", "inv-1"), "inventory/inv-1 is listed twice"),
        (other("inventory,inv-4", "inventory,inv-3"), STATE.to_owned(), "inventory/inv-3 is in `show stat` but not in"),
        (other("inventory,inv-8", "inventory,b:ad"), STATE.to_owned(), "inventory/inv-8 is in `show servers state` but not in"),
    ] {
        let error = read_servers(&stat, &state).expect_err(words);
        assert!(error.contains(words), "no `{words}` in: {error}");
    }
}

#[tokio::test]
async fn no_answer_is_not_an_empty_list() {
    cannot_say(LONG, Act::Say(vec![]), "closed without an answer").await;
    cannot_say(LONG, Act::Say(b"\n".to_vec()), "the reply is cut").await;
    cannot_say(LONG, Act::Say(STAT.as_bytes()[..STAT.len() - 1].to_vec()), "the reply is cut").await;
    cannot_say(LONG, Act::Say(b"Permission denied\n\n".to_vec()), "Permission denied").await;
    cannot_say(LONG, Act::Say(vec![0xff; 300]), "the reply is cut").await;
    cannot_say(LONG, Act::Endless(b"# pxname,".to_vec(), vec![b'x'; 65_536]), "larger than 4194304 bytes").await;
    cannot_say(SHORT, Act::SayThenHang(vec![]), "`show stat`: no answer within 200ms").await;
    cannot_say(SHORT, Act::SayThenHang(STAT.as_bytes().to_vec()), "no answer within 200ms").await;
    cannot_say(SHORT, Act::Late(Duration::from_secs(60), STAT.as_bytes().to_vec()), "no answer within 200ms").await;
}

#[tokio::test]
async fn the_second_question_may_fail_too() {
    let fake = Fake::tcp(Framing::Line, script(STAT, "Permission denied\n\n")).await;
    let client = HaProxy::new(&format!("tcp://{}", fake.place), LONG).expect("address");
    let error = client.servers().await.expect_err("half an answer");
    assert!(error.detail.contains("show servers state: not a table: `Permission denied`"), "{}", error.detail);
}

#[tokio::test]
async fn a_blank_line_is_done() {
    for (fake, client) in both(LONG, Act::Say(b"\n".to_vec())).await {
        assert_eq!(client.drain(&path("inventory/inv-1")).await, Call::Done);
        assert_eq!(client.ready(&path("inventory/inv-1")).await, Call::Done);
        let want = ["set server inventory/inv-1 state drain\n", "set server inventory/inv-1 state ready\n"];
        assert_eq!(fake.requests(), want);
    }
}

#[tokio::test]
async fn a_sentence_is_a_refusal() {
    for sentence in ["No such server.\n\n", "Permission denied\n\n", "Unknown command, but maybe one of the following\n"] {
        commands_end(LONG, Act::Say(sentence.as_bytes().to_vec()), failed, sentence.trim()).await;
    }
}

#[tokio::test]
async fn silence_after_the_command_was_sent_is_unknown() {
    commands_end(LONG, Act::Say(vec![]), unknown, "closed without an answer").await;
    commands_end(SHORT, Act::SayThenHang(vec![]), unknown, "no answer within 200ms").await;
    commands_end(SHORT, Act::SayThenHang(b"\n".to_vec()), unknown, "no answer within 200ms").await;
    commands_end(SHORT, Act::Late(Duration::from_secs(60), b"\n".to_vec()), unknown, "no answer within 200ms").await;
    commands_end(LONG, Act::Endless(vec![], vec![b' '; 65_536]), unknown, "larger than 4194304 bytes").await;
}

#[tokio::test]
async fn a_command_that_was_never_sent_has_failed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dead = dir.path().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket"));
    for (address, words) in [
        (format!("tcp://{}", nobody().await), "refused"),
        (format!("unix://{}", dead.display()), "refused"),
        (format!("unix://{}/absent", dir.path().display()), "No such file"),
    ] {
        let client = HaProxy::new(&address, LONG).expect("address");
        let call = client.drain(&path("inventory/inv-1")).await;
        let detail = failed(&call).unwrap_or_else(|| panic!("{call:?}"));
        assert!(detail.contains(&address) && detail.contains(words), "{detail}");
        let error = client.servers().await.expect_err("nobody there");
        assert!(error.detail.contains(&address) && error.detail.contains(words), "{}", error.detail);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        stat in prop::collection::vec(any::<u8>(), 0..300),
        state in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let (stat, state) = (String::from_utf8_lossy(&stat), String::from_utf8_lossy(&state));
        let _ = read_servers(&stat, &state);
        let _ = read_servers(&format!("# {stat}"), &format!("1\n# {state}"));
    }

    /// Nearly right tables get further into the reader than random bytes.
    #[test]
    fn no_damage_makes_the_reader_panic(at in any::<prop::sample::Index>(), with in "[ -~\n]{1,4}", stat_or_state in any::<bool>()) {
        let (mut stat, mut state) = (STAT.to_owned(), STATE.to_owned());
        let text = if stat_or_state { &mut stat } else { &mut state };
        text.insert_str(at.index(text.len()), &with);
        let _ = read_servers(&stat, &state);
    }

    /// A reply that was cut anywhere is never read as a shorter list, or as half a number.
    #[test]
    fn a_cut_reply_is_an_error(at in any::<prop::sample::Index>()) {
        prop_assert!(read_servers(&STAT[..at.index(STAT.len())], STATE).is_err());
        prop_assert!(read_servers(STAT, &STATE[..at.index(STATE.len())]).is_err());
    }
}
