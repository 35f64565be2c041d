//! What people see: help, tables, JSON.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::output::{Format, render};
use super::*;
use crate::api::fake::info;
use crate::api::schema::{Applied, Change, Diff, PortInfo};
use crate::config::{Datapath, Hook, LogConfig, OnStop};

/// The help of a command and of all below it.
fn help(command: &mut clap::Command, path: &str, texts: &mut Vec<String>) {
    texts.push(format!("$ {path} --help\n{}", command.render_help()));
    for below in command.get_subcommands_mut() {
        let path = format!("{path} {}", below.get_name());
        help(below, &path, texts);
    }
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn help_says_what_there_is() {
    let mut weft = Cli::command().term_width(100);
    weft.build();
    let mut texts = Vec::new();
    help(&mut weft, "weft", &mut texts);
    insta::assert_snapshot!(texts.join("\n"));
}

fn ports() -> Vec<PortInfo> {
    let text = "[[port]]\nname = \"web1\"\nnetdev = \"vnet3\"\nmacs = [\"52:54:00:12:34:56\"]\n\
                labels = { app = \"web\", tenant = \"acme\" }\n[[port]]\nname = \"uplink\"\nnetdev = \"eno2\"\nrole = \"uplink\"\n";
    let specs = Config::parse(Path::new("test"), text).unwrap().ports;
    let mut ports: Vec<_> = specs.iter().map(info).collect();
    if let Some(missing) = ports.last_mut() {
        missing.id = 4094;
        missing.ifindex = None;
        missing.mtu = None;
        missing.state = crate::port::PortState::Absent;
        missing.problem = Some("there is no interface 'eno2'".to_owned());
        missing.drops.clear();
    }
    ports
}

#[test]
fn ports_are_listed_for_people_and_for_programs() {
    for (name, format) in
        [("table", Format::Table), ("wide", Format::Wide), ("json", Format::Json), ("jsonl", Format::Jsonl)]
    {
        insta::assert_snapshot!(format!("port_list_{name}"), render(format, &ports(), port::COLUMNS).unwrap());
    }
    assert_eq!(render::<PortInfo>(Format::Json, &[], port::COLUMNS).unwrap(), "[]\n");
}

#[test]
fn one_port_is_shown_with_everything() {
    insta::assert_snapshot!(port::everything(ports().first().unwrap()));
}

#[test]
fn a_difference_is_told_in_signs() {
    let change = Change { name: "b".parse().unwrap(), what: vec!["mtu: 1500 → 9000".to_owned()] };
    let diff = Diff {
        add: vec!["a".parse().unwrap()],
        change: vec![change],
        remove: vec!["c".parse().unwrap()],
        applied: true,
    };
    let ports = "+ a\n~ b  mtu: 1500 → 9000\n- c\napplied\n";
    let applied = |ports, mirrors| apply::differences(&Applied { ports, mirrors });
    assert_eq!(applied(diff.clone(), Diff::default()), ports);
    assert_eq!(applied(Diff::default(), Diff::default()), "nothing to do\n");
    let mirror = Diff { remove: vec!["m".parse().unwrap()], ..Diff::default() };
    assert_eq!(applied(diff, mirror), format!("{ports}mirrors:\n- m\nnot applied\n"));
}

fn runtime(arguments: &[&str], text: &str) -> crate::config::Runtime {
    let typed = ["weft", "run"].iter().chain(arguments);
    let cli = Cli::try_parse_from(typed).unwrap();
    let Command::Run(options) = cli.command else { panic!("not run") };
    run::runtime(&cli.global, options, Config::parse(Path::new("test"), text).unwrap())
}

#[test]
fn the_command_line_is_above_the_file_and_the_file_above_the_defaults() {
    let defaults = runtime(&[], "");
    assert_eq!(defaults.name.as_str(), "weft0");
    assert_eq!(defaults.datapath, Datapath::Kernel);
    assert_eq!(defaults.metrics, Some("127.0.0.1:9798".parse().unwrap()));
    assert_eq!(defaults.state_dir, Path::new("/var/lib/weft/weft0"));
    assert_eq!((defaults.on_stop, defaults.hook), (OnStop::Remove, Hook::Auto));
    assert_eq!(defaults.flow_log, None);
    let history = defaults.history.unwrap();
    assert_eq!(history.path, Path::new("/var/lib/weft/weft0/history.sqlite"));
    assert_eq!((history.max_age, history.max_bytes), (Duration::from_hours(720), 1 << 30));
    assert_eq!((defaults.aging, defaults.stations_max), (Duration::from_mins(5), 65_536));

    let file = "[switch]\ndatapath = \"userspace\"\naging_secs = 9\n[metrics]\nlisten = \"[::1]:1\"\n\
        [flows.log]\npath = \"/f\"\nfiles = 3\n";
    let of_file = runtime(&["--name", "other", "--on-stop", "keep"], file);
    assert_eq!((of_file.datapath, of_file.aging), (Datapath::Userspace, Duration::from_secs(9)));
    assert_eq!(of_file.metrics, Some("[::1]:1".parse().unwrap()));
    assert_eq!(of_file.state_dir, Path::new("/var/lib/weft/other"));
    assert_eq!(of_file.on_stop, OnStop::Keep);
    assert_eq!(of_file.flow_log, Some(LogConfig { files: 3, ..LogConfig::at("/f".into()) }));

    let arguments = ["--datapath", "kernel", "--metrics", "off", "--state-dir", "/tmp/s", "--hook", "clsact"];
    let of_line = runtime(&arguments, file);
    assert_eq!((of_line.datapath, of_line.metrics, of_line.hook), (Datapath::Kernel, None, Hook::Clsact));
    assert_eq!(of_line.state_dir, Path::new("/tmp/s/weft0"));
    let place = |arguments: &[&str]| runtime(arguments, file).flow_log;
    assert_eq!(place(&["--flow-log", "/g"]), Some(LogConfig { files: 3, ..LogConfig::at("/g".into()) }));
    let here = std::env::current_dir().unwrap();
    assert_eq!(place(&["--flow-log", "g"]).unwrap().path, here.join("g"));
    assert_eq!(runtime(&["--flow-log", "/g"], "").flow_log, Some(LogConfig::at("/g".into())));
}

#[test]
fn what_cannot_be_asked_for_is_refused_before_anybody_is_asked() {
    for wrong in [
        "drops --since soon",
        "drops --follow --since 2h",
        "port add a",
        "port add a --netdev x --tap y",
        "port add a --tap x --wait",
        "port add a --tap x --force",
        "port add a --host --user x",
        "port add a --netdev x --address 198.18.0.1/24",
        "port add a/b --host",
        "port add a --host --mac 00:00:00:00:00:00",
        "port add a --host --address 198.18.0.1",
        "port add a --host --label x",
        "port add a --host --role boss",
        "port add a --netdev abcdefghijklmnop",
        "fdb add a ff:ff:ff:ff:ff:ff",
        "--name abcdefghijklmnop port list",
        "-o yaml port list",
        "nonsense",
    ] {
        let outcome = Cli::try_parse_from(["weft"].into_iter().chain(wrong.split(' ')));
        assert!(outcome.is_err(), "'{wrong}' was taken");
    }
    for right in
        ["port add a --netdev x --wait --force", "port add a --host --address 198.18.0.1/24", "fdb", "ledger --settle"]
    {
        let outcome = Cli::try_parse_from(["weft"].into_iter().chain(right.split(' ')));
        assert!(outcome.is_ok(), "'{right}': {outcome:?}");
    }
}

#[test]
fn only_conversations_have_hubbles_format() {
    let sensible = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap().is_sensible();
    assert!(sensible("weft -o hubble flows --last 3").is_ok());
    let refusal = sensible("weft -o hubble port list").unwrap_err();
    assert!(refusal.use_stderr() && refusal.to_string().contains("only flows has the format hubble"), "{refusal}");
}

#[test]
fn exit_codes_tell_why() {
    let refused = |status| anyhow::Error::from(ClientError::Refused { status, message: String::new() });
    let unreachable = ClientError::Unreachable { path: "x".into(), source: io::ErrorKind::NotFound.into() };
    assert_eq!(exit_code(&unreachable.into()), 3);
    assert_eq!([refused(404), refused(409), refused(422), refused(500)].map(|e| exit_code(&e)), [4, 5, 1, 1]);
    assert_eq!(exit_code(&anyhow::anyhow!("else")), 1);
}

#[test]
fn a_cause_is_told_once() {
    let path = Path::new("/none");
    let told = message(&read_config(path).unwrap_err().into());
    assert_eq!(told.matches("No such file").count(), 1, "{told}");
    let with_context = anyhow::Error::msg("inner").context("outer");
    assert_eq!(message(&with_context), "outer: inner");
}

#[test]
fn manual_pages_and_completions_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man");
    generate::run(Cli::command(), &generate::Command::Man { dir: man.clone() }).unwrap();
    assert!(fs::read_to_string(man.join("weft-port-add.1")).unwrap().contains("\\-\\-netns"));
    let completions = dir.path().join("completions");
    generate::run(Cli::command(), &generate::Command::Completions { dir: completions.clone() }).unwrap();
    assert!(fs::read_to_string(completions.join("weft.bash")).unwrap().contains("_weft"));
}
