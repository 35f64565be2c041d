//! What a file may say, and where it is told what it may not.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::mirror::MirrorSpec;
use crate::port::spec::{Attachment, PortSpec, Role};

const SAMPLE: &str = include_str!("../../weft.sample.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("weft.toml"), text)
}

/// The sample with its examples switched on: lines that begin with `#` and no blank.
fn sample_with_examples() -> String {
    let is_example = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && *line != "#";
    let uncomment = |line: &str| if is_example(&line) { line.replacen('#', "", 1) } else { line.to_owned() };
    SAMPLE.lines().map(|line| uncomment(line) + "\n").collect()
}

#[test]
fn the_sample_is_the_defaults() {
    assert_eq!(parse(SAMPLE).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_samples_examples_are_right() {
    let config = parse(&sample_with_examples()).unwrap();
    let kinds: Vec<_> = config.ports.iter().map(|port| port.attachment.kind()).collect();
    assert_eq!(kinds, ["netdev", "tap", "netns", "host", "netdev"]);
    let roles: Vec<_> = config.ports.iter().map(|port| port.role).collect();
    assert_eq!(roles, [Role::Guest, Role::Guest, Role::Guest, Role::Guest, Role::Uplink]);
}

#[test]
fn an_interface_made_for_a_port_gets_the_first_allowed_address() {
    let text = "[[port]]\nname = \"a\"\nnetns = \"blue\"\nmacs = [\"52:54:00:00:00:01\", \"52:54:00:00:00:02\"]\n";
    let config = parse(text).unwrap();
    let Some(Attachment::Netns { ifname, mac: Some(mac), .. }) = config.ports.first().map(|port| &port.attachment)
    else {
        panic!("{:?}", config.ports);
    };
    assert_eq!((ifname.as_str(), mac.to_string().as_str()), ("eth0", "52:54:00:00:00:01"));
}

fn runtime() -> Runtime {
    Runtime {
        name: NAME.parse().unwrap(),
        socket: socket_path(&NAME.parse().unwrap()),
        datapath: Datapath::Userspace,
        hook: Hook::Auto,
        metrics: None,
        state_dir: PathBuf::from(STATE_DIR),
        on_stop: OnStop::Remove,
        ports: Vec::new(),
        mirrors: Vec::new(),
        aging: Duration::from_secs(7),
        stations_max: 99,
        flows: Flows { max: 1000, per_port: 77, ..Flows::default() },
        flow_log: Some(LogConfig { path: PathBuf::from("/var/log/f"), max_bytes: 3 << 20, files: 2 }),
        names: Names { hearing: None, ..Names::default() },
        history: Some(HistoryConfig {
            path: PathBuf::from("/var/lib/h.sqlite"),
            max_age: Duration::from_secs(90),
            max_bytes: 16 << 20,
        }),
        recorder: Recorder::default(),
        config_path: None,
    }
}

/// Two mirrors, with everything and with little.
const MIRRORS: &str = "[[mirror]]\nname = \"m\"\nfrom = [\"a\", \"b:ingress\"]\nfilter = \"tcp port 80\"\nsnaplen = 128\nto = \"look\"\n\
    [[mirror]]\nname = \"n\"\nfrom = [\"a:egress\"]\nto = \"look\"\n";

fn mirrors() -> Vec<MirrorSpec> {
    parse(MIRRORS).unwrap().mirrors
}

#[test]
fn what_is_exported_can_be_applied_and_is_the_same() {
    let with_own_mac = "[[port]]\nname = \"own\"\nhost = true\nmac = \"52:54:00:00:00:09\"\nflood_per_sec = 5\n";
    let ports: Vec<PortSpec> = parse(&(sample_with_examples() + with_own_mac)).unwrap().ports;
    let file = File::describe(&runtime(), &ports, &mirrors()).unwrap();
    let text = file.to_toml().unwrap();
    let again = parse(&text).unwrap();
    assert_eq!(again.ports, ports, "{text}");
    assert_eq!((again.mirrors.len(), &again.mirrors), (2, &mirrors()), "{text}");
    assert_eq!(again.file, file, "{text}");
    assert_eq!(again.file.switch.datapath, DatapathChoice::Userspace);
    assert_eq!(again.file.switch.aging_secs.get(), 7);
    assert_eq!(again.file.metrics.listen, Metrics(None));
    assert_eq!(again.file.flows.flows(), runtime().flows);
    assert_eq!(again.file.flows.log(), runtime().flow_log);
    assert_eq!(Names::of(&again.file.names, &again.file.events), runtime().names);
    assert_eq!(again.file.history.history(Path::new("/elsewhere")), runtime().history);
    let none = File::describe(&Runtime { history: None, ..runtime() }, &[], &[]).unwrap();
    assert_eq!(none.history.history(Path::new("/s")), None);
}

/// Refused texts: what is wrong, where, and words of the message.
const WRONG: &[(&str, usize, usize, &str)] = &[
    ("[switch]\ndatapth = \"auto\"\n", 2, 1, "unknown field `datapth`"),
    ("[swich]\n", 1, 2, "unknown field `swich`"),
    ("[switch]\naging_secs = \"long\"\n", 2, 14, "invalid type: string \"long\""),
    ("[switch]\naging_secs = 0\n", 2, 14, "0 is out of range; take a number from 1 to 1000000"),
    ("[switch]\nstations_max = -1\n", 2, 16, "out of range"),
    (
        "[switch]\ndatapath = \"magic\"\n",
        2,
        12,
        "unknown variant `magic`, expected one of `auto`, `kernel`, `userspace`",
    ),
    ("[switch\n", 1, 8, "unclosed table"),
    ("[metrics]\nlisten = \"here\"\n", 2, 10, "'here' is not an address and port"),
    ("[flows.log]\n", 1, 1, "missing field `path`"),
    ("[flows.log]\npath = \"flows\"\n", 2, 8, "'flows' is not the absolute path of a file"),
    ("[flows.log]\npath = \"/var/log/\"\n", 2, 8, "write it as /var/log/weft/flows.jsonl"),
    ("[flows.log]\npath = \"/f\"\nmax_mib = 0\n", 3, 11, "take a number from 1 to 1048576"),
    ("[flows.log]\npath = \"/f\"\nfiles = 1000\n", 3, 9, "take a number from 1 to 999"),
    ("[flows.log]\npath = \"/f\"\nsize = 1\n", 3, 1, "unknown field `size`"),
    (
        "[history]\nmax_age = \"soon\"\n",
        2,
        11,
        "'soon' is not a length of time from 1s to 36500d; write it as 12h or 30d",
    ),
    ("[history]\nmax_mib = 1\n", 2, 11, "1 is out of range; take a number from 16 to 1048576"),
    ("[history]\npath = \"h.sqlite\"\n", 2, 8, "'h.sqlite' is not the absolute path of a file"),
    ("[flows]\nenabled = false\n[flows.log]\npath = \"/f\"\n", 4, 8, "there is nothing to log"),
    ("[names]\nbindings_max = 5\n", 2, 16, "take a number from 16 to 262144"),
    ("[names]\nduplicate_secs = 0\n", 2, 18, "take a number from 1 to 86400"),
    ("[events]\ndormant_days = 7\n", 2, 1, "unknown field `dormant_days`"),
    ("[[mirror]]\nname = \"m\"\nto = \"a\"\n", 1, 1, "missing field `from`"),
    ("[[mirror]]\nname = \"m\"\nfrom = []\nto = \"a\"\n", 3, 8, "has no source"),
    ("[[mirror]]\nname = \"m\"\nfrom = [\"a\"]\nto = \"a\"\nfilter = \"tcp prot 80\"\n", 5, 10, "(at character 5)"),
    ("[[mirror]]\nname = \"m\"\nfrom = [\"a\"]\nto = \"a\"\nsnaplen = 5\n", 5, 11, "62 to 65535"),
    ("[[port]]\nnetdev = \"a\"\n", 1, 1, "missing field `name`"),
    ("[[port]]\nname = \"\"\nnetdev = \"a\"\n", 2, 8, "must not be empty"),
    ("[[port]]\nname = \"a/b\"\nnetdev = \"a\"\n", 2, 8, "contains '/'"),
    ("[[port]]\nname = \"a\"\nnetdev = \"abcdefghijklmnop\"\n", 3, 10, "at most 15"),
    ("[[port]]\nname = \"a\"\nnetdv = \"a\"\n", 3, 1, "unknown field `netdv`"),
    ("[[port]]\nname = 5\n", 2, 8, "invalid type: integer `5`"),
    ("[[port]]\nname = \"a\"\n", 2, 8, "says not what to attach"),
    ("[[port]]\nname = \"a\"\nhost = false\n", 2, 8, "says not what to attach"),
    ("[[port]]\nname = \"a\"\nnetdev = \"x\"\ntap = \"y\"\n", 4, 7, "'tap' beside 'netdev'"),
    ("[[port]]\nname = \"a\"\ntap = \"x\"\nforce = true\n", 4, 9, "'force' belongs to a port with netdev, not tap"),
    ("[[port]]\nname = \"a\"\nnetdev = \"x\"\nuser = \"u\"\n", 4, 8, "'user' belongs to a port with tap"),
    ("[[port]]\nname = \"a\"\ntap = \"x\"\nifname = \"y\"\n", 4, 10, "'ifname' belongs to a port with netns or host"),
    ("[[port]]\nname = \"a\"\nnetns = \"x/y\"\n", 3, 9, "is no network namespace"),
    ("[[port]]\nname = \"a\"\nhost = true\naddresses = [\"198.18.0.1\"]\n", 4, 14, "lacks a prefix length"),
    (
        "[[port]]\nname = \"a\"\nhost = true\naddresses = [\"198.18.0.1/24\", \"198.18.0.1/33\"]\n",
        4,
        31,
        "from 0 to 32",
    ),
    ("[[port]]\nname = \"a-name-too-long-for-an-interface\"\nhost = true\n", 2, 8, "give ifname"),
    ("[[port]]\nname = \"a\"\ntap = \"x\"\nrole = \"boss\"\n", 4, 8, "expected `guest` or `uplink`"),
    ("[[port]]\nname = \"a\"\ntap = \"x\"\nmacs = [\"01:00:5e:00:00:01\"]\n", 4, 9, "group (multicast) address"),
    ("[[port]]\nname = \"a\"\ntap = \"x\"\nmacs = [\"00:00:00:00:00:00\"]\n", 4, 9, "is no station's address"),
    ("[[port]]\nname = \"a\"\ntap = \"x\"\nmacs = [\"52:54:00:00:00:01\", \"52:54\"]\n", 4, 30, "not a MAC address"),
    ("[[port]]\nname = \"a\"\ntap = \"x\"\nmtu = 67\n", 4, 7, "from 68 to 65535"),
    ("[[port]]\nname = \"a\"\ntap = \"x\"\nlabels = { \"a b\" = \"c\" }\n", 2, 8, "'a b' is no label"),
    (
        "[[port]]\nname = \"a\"\ntap = \"x\"\n[[port]]\nname = \"a\"\ntap = \"y\"\n",
        5,
        8,
        "a second port 'a'; the first is in line 2",
    ),
    (
        "[[port]]\nname = \"a\"\ntap = \"x\"\n[[port]]\nname = \"b\"\nnetdev = \"x\"\n",
        6,
        10,
        "a port already in line 3",
    ),
    ("# é\n[[port]]\nname = \"é\" \n", 3, 8, "contains 'é'"),
];

#[test]
fn a_refusal_names_line_and_column_and_says_what_is_wrong() {
    let mut failures = Vec::new();
    for (text, line, column, words) in WRONG {
        let told = parse(text).map_or_else(|e| e.to_string(), |_| "taken".to_owned());
        if !(told.starts_with(&format!("weft.toml:{line}:{column}: ")) && told.contains(words)) {
            failures.push(format!("{text}expected {line}:{column} {words}\ngot {told}\n"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn one_namespace_may_have_two_interfaces_but_not_twice_the_same() {
    let port =
        |name: &str, ifname: &str| format!("[[port]]\nname = \"{name}\"\nnetns = \"n\"\nifname = \"{ifname}\"\n");
    assert_eq!(parse(&(port("a", "eth0") + &port("b", "eth1"))).unwrap().ports.len(), 2);
    assert!(parse(&(port("a", "eth0") + &port("b", "eth0"))).is_err());
}
