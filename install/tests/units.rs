//! The units in `systemd/`: what systemd thinks of them, and the directives that must not get lost.
#![allow(clippy::unwrap_used, clippy::panic)]

mod skipped;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use kai_proto::sockets;
use skipped::skipped;

/// Each unit and the exposure that systemd-analyze(1) may find at most.
const UNITS: [(&str, f64); 3] = [
    ("kai-gateway.service", 1.5),
    ("kai-authd.service", 1.0),
    ("kai-broker.service", 7.0),
];

/// What all of them are part of.
const TARGET: &str = "kai.target";

/// What stands in every unit.
const EVERYWHERE: [(&str, &str); 19] = [
    ("Type", "notify"),
    ("WatchdogSec", "30"),
    ("Restart", "always"),
    ("RestartSec", "500ms"),
    ("RestartPreventExitStatus", "64 78"),
    ("KillMode", "mixed"),
    ("UMask", "0077"),
    ("LimitCORE", "0"),
    ("NoNewPrivileges", "yes"),
    ("AmbientCapabilities", ""),
    ("KeyringMode", "private"),
    ("PrivateTmp", "yes"),
    ("PrivateMounts", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateIPC", "yes"),
    ("ProtectProc", "invisible"),
    ("ProtectKernelTunables", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallErrorNumber", "EPERM"),
];

/// What stands in the units that are no ancestor of an agent.
const TIGHT: [(&str, &str); 10] = [
    ("CapabilityBoundingSet", ""),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("NoExecPaths", "/"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~memfd_create memfd_secret"),
];

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The directives of a unit's `[Service]`, in their order.
fn directives(unit: &str) -> Vec<(String, String)> {
    section(unit, "[Service]")
}

fn section(unit: &str, section: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(tree().join("systemd").join(unit)).unwrap();
    text.lines()
        .skip_while(|line| *line != section)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (key, value) = line.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

fn values(unit: &str, key: &str) -> Vec<String> {
    let all = directives(unit).into_iter();
    all.filter(|(name, _)| name == key)
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn no_unit_has_lost_a_directive() {
    for (unit, _) in UNITS {
        let tight = if unit == "kai-broker.service" {
            &[]
        } else {
            &TIGHT[..]
        };
        for (key, value) in EVERYWHERE.iter().chain(tight) {
            assert!(
                values(unit, key).iter().any(|found| found == value),
                "{unit} lacks {key}={value}"
            );
        }
        let limits = section(unit, "[Unit]");
        for limit in [("StartLimitIntervalSec", "60"), ("StartLimitBurst", "20")] {
            let found = limits
                .iter()
                .any(|(key, value)| (key.as_str(), value.as_str()) == limit);
            assert!(found, "{unit} lacks {limit:?}");
        }
    }
}

#[test]
fn the_gateway_is_an_account_of_its_own_that_is_handed_the_token() {
    let unit = "kai-gateway.service";
    assert_eq!(values(unit, "User"), ["kai-gateway"]);
    assert_eq!(
        values(unit, "LoadCredential"),
        ["telegram-token:/etc/kai/credentials/telegram-token"]
    );
    assert_eq!(values(unit, "ReadWritePaths"), ["/var/lib/kai/gateway"]);
}

#[test]
fn authd_has_no_network() {
    let unit = "kai-authd.service";
    assert_eq!(values(unit, "PrivateNetwork"), ["yes"]);
    assert_eq!(values(unit, "IPAddressDeny"), ["any"]);
    assert_eq!(values(unit, "RestrictAddressFamilies"), ["AF_UNIX"]);
}

#[test]
fn what_agents_inherit_from_the_broker_does_not_break_them() {
    let unit = "kai-broker.service";
    for key in [
        // `allow: [personality]` would open nothing.
        "LockPersonality",
        "MemoryDenyWriteExecute",
        "NoExecPaths",
        "OOMScoreAdjust",
        "PrivateNetwork",
        "PrivateUsers",
        "ProtectHome",
        // Answers clone3(2) by ENOSYS, with which the broker forks.
        "RestrictNamespaces",
        "RestrictSUIDSGID",
    ] {
        assert!(values(unit, key).is_empty(), "{key}");
    }
    // By default the kernel's end of one agent would be systemd's end of everybody's.
    assert_eq!(values(unit, "OOMPolicy"), ["continue"]);
    let filters = values(unit, "SystemCallFilter");
    assert!(filters.iter().all(|filter| filter.starts_with('~')));
    // What `allow:` of users.yaml opens by name.
    for set in ["@debug", "@keyring"] {
        assert!(!filters.iter().any(|filter| filter.contains(set)), "{set}");
    }
}

#[test]
fn the_broker_s_capabilities_are_those_that_it_keeps() {
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !c.is_ascii_uppercase() && c != '_')
            .filter(|word| word.starts_with("CAP_"))
            .map(str::to_owned)
            .collect()
    };
    let source = fs::read_to_string(tree().join("broker/src/capabilities.rs")).unwrap();

    let unit = values("kai-broker.service", "CapabilityBoundingSet");

    assert_eq!(words(&unit.join(" ")), words(&source));
}

/// The units of sockets: for each path its service, group and mode.
fn socket_units() -> BTreeMap<String, [String; 4]> {
    let units = fs::read_dir(tree().join("systemd")).unwrap();
    let names = units.map(|unit| unit.unwrap().file_name().into_string().unwrap());
    let sockets = names.filter(|name| name.ends_with(".socket"));
    let read = |name: String| {
        let all: BTreeMap<_, _> = section(&name, "[Socket]").into_iter().collect();
        let keys = ["ListenStream", "Service", "SocketGroup", "SocketMode"];
        let values = keys.map(|key| all[key].clone());
        assert_eq!(all["SocketUser"], "root", "{name}");
        (name, values)
    };
    sockets.map(read).collect()
}

#[test]
fn each_peer_has_a_socket_of_its_own_where_the_programs_look_for_it() {
    let run = Path::new("/run/kai");
    let expected = [
        (
            "kai-authd-admin.socket",
            sockets::admin_authd(run),
            "root",
            "0600",
        ),
        (
            "kai-authd-broker.socket",
            sockets::broker_authd(run),
            "root",
            "0600",
        ),
        (
            "kai-authd.socket",
            sockets::gateway_authd(run),
            "kai-gateway",
            "0660",
        ),
        (
            "kai-broker-admin.socket",
            sockets::admin_broker(run),
            "root",
            "0600",
        ),
        (
            "kai-broker.socket",
            sockets::gateway_broker(run),
            "kai-gateway",
            "0660",
        ),
    ];
    let expected = expected.map(|(unit, path, group, mode)| {
        let service = if unit.contains("authd") {
            "kai-authd.service"
        } else {
            "kai-broker.service"
        };
        let path = path.display().to_string();
        let values = [&path, service, group, mode].map(str::to_owned);
        (unit.to_owned(), values)
    });
    assert_eq!(socket_units(), expected.into());
    // Each service needs all of its own.
    for (unit, [_, service, ..]) in socket_units() {
        for key in ["Requires", "After"] {
            let all = section(&service, "[Unit]").into_iter();
            let all: String = all
                .filter(|(name, _)| name == key)
                .map(|(_, value)| value + " ")
                .collect();
            let named = all.split(' ').any(|name| name == unit);
            assert!(named, "{service} lacks {key}={unit}");
        }
    }
}

#[test]
fn all_stop_with_the_target_in_one_transaction() {
    let sockets = socket_units();
    for unit in UNITS
        .iter()
        .map(|(unit, _)| *unit)
        .chain(sockets.keys().map(String::as_str))
    {
        let part_of: Vec<String> = section(unit, "[Unit]")
            .into_iter()
            .filter(|(key, _)| key == "PartOf")
            .map(|(_, value)| value)
            .collect();
        assert_eq!(part_of, [TARGET], "{unit}");
    }
    for (unit, _) in UNITS {
        assert_eq!(
            section(unit, "[Install]"),
            [("WantedBy".to_owned(), TARGET.to_owned())]
        );
    }
}

#[test]
fn systemd_finds_no_fault() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    fs::write(&program, "#!/bin/true\n").unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no"]);
    let sockets = socket_units();
    let services = UNITS.map(|(unit, _)| unit.to_owned());
    let target = TARGET.to_owned();
    for unit in services.iter().chain(sockets.keys()).chain([&target]) {
        let text = fs::read_to_string(tree().join("systemd").join(unit)).unwrap();
        // The programs are not installed here; that they can be executed is part of the judgement.
        let text: Vec<String> = text
            .lines()
            .map(|line| match line.split_once("=/opt/kai/current/") {
                Some((key, _)) => format!("{key}={}", program.display()),
                None => line.to_owned(),
            })
            .collect();
        let copy = directory.path().join(unit);
        fs::write(&copy, text.join("\n")).unwrap();
        analyze.arg(copy);
    }

    let Some(output) = run(&mut analyze) else {
        return;
    };

    let said = said(&output);
    assert!(output.status.success() && !said.contains("kai-"), "{said}");
}

#[test]
fn no_unit_is_exposed_more_than_it_may_be() {
    for (unit, most) in UNITS {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=true", "--no-pager"]);
        analyze.arg(tree().join("systemd").join(unit));
        let Some(output) = run(&mut analyze) else {
            return;
        };
        let said = said(&output);
        if said.contains("unrecognized option") {
            return skipped("systemd-analyze is older than 250 and cannot judge a file");
        }
        let exposure: f64 = said
            .lines()
            .find_map(|line| line.split_once("Overall exposure level"))
            .and_then(|(_, rest)| rest.split_once(": "))
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("no exposure in {said}"));
        println!("{unit}: {exposure} of at most {most}");
        assert!(exposure <= most, "{unit}: {exposure}");
    }
}

#[test]
fn the_directories_have_their_owners_and_modes() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("needs root, to give directories away");
    }
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let passwd = "root:x:0:0::/:/bin/sh\nkai-gateway:x:990:980::/:/bin/false\n";
    fs::write(root.path().join("etc/passwd"), passwd).unwrap();
    fs::write(
        root.path().join("etc/group"),
        "root:x:0:\nkai-gateway:x:980:\n",
    )
    .unwrap();
    let mut tmpfiles = Command::new("systemd-tmpfiles");
    tmpfiles.arg("--create").arg("--root").arg(root.path());
    tmpfiles.arg(tree().join("systemd/kai.tmpfiles").canonicalize().unwrap());

    let Some(output) = run(&mut tmpfiles) else {
        return;
    };

    assert!(output.status.success(), "{}", said(&output));
    for (path, mode, uid, gid) in [
        ("etc/kai", 0o755, 0, 0),
        ("etc/kai/credentials", 0o700, 0, 0),
        ("run/kai", 0o755, 0, 0),
        ("run/kai/gateway", 0o750, 0, 980),
        ("run/kai/broker", 0o700, 0, 0),
        ("run/kai/admin", 0o700, 0, 0),
        ("var/lib/kai", 0o711, 0, 0),
        ("var/lib/kai/authd", 0o700, 0, 0),
        ("var/lib/kai/gateway", 0o700, 990, 980),
        ("var/lib/kai/users", 0o711, 0, 0),
        ("var/log/kai", 0o711, 0, 0),
        ("var/log/kai/authd", 0o700, 0, 0),
        ("var/log/kai/broker", 0o700, 0, 0),
    ] {
        let found = fs::symlink_metadata(root.path().join(path)).unwrap();
        assert_eq!(
            (found.mode() & 0o7777, found.uid(), found.gid()),
            (mode, uid, gid),
            "{path}"
        );
    }
}

/// None, with a word on it, if the program is not installed.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            let program = command.get_program().to_string_lossy().into_owned();
            skipped(&format!("{program} cannot be run: {error}"));
            None
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}
