//! The bot's token as an encrypted credential, with the real systemd-creds(1) and a key of the test's own:
//! the host's is neither used nor made.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod skipped;

use std::{fs, path::Path};

use ground::{Ground, TOKEN, said};
use kai_install::{
    apply::{change, look},
    credentials::Keys,
    desired::{self, Desired},
    failure::Failure,
    items::{
        clear,
        token::{self, Kept},
    },
    root::Root,
    settings::Settings,
    source::Source,
};
use skipped::skipped;

const PLAIN: &str = "etc/kai/credentials/telegram-token";
const ENCRYPTED: &str = "etc/kai/credentials/telegram-token.cred";
const INSTALL: &str = "etc/kai/install.yaml";
const UNIT: &str = "etc/systemd/system/kai-gateway.service";
const OTHER: &str = "654321:NNmmLLkkJJiiHHggFFeeDDccBBaa";

fn new_ground() -> Option<Ground> {
    if !Path::new("/usr/bin/systemd-creds").exists() {
        skipped("systemd-creds is not installed");
        return None;
    }
    Ground::new()
}

fn root(ground: &Ground) -> Root {
    Root::open(&ground.root()).unwrap()
}

fn keys(ground: &Ground) -> Keys {
    Keys::File(ground.beside("key"))
}

fn list(ground: &Ground, package: &str) -> Result<Desired, Failure> {
    let root = root(ground);
    let settings = Settings::load(&ground.path(INSTALL))?;
    let source = Source::open(&ground.beside(package))?;
    let kept = Kept::Encrypted(keys(ground));
    desired::all(&root, &settings, &source, &kept)
}

/// `apply` of this package, with the token encrypted.
fn apply_from(ground: &Ground, package: &str) -> Result<usize, Failure> {
    let root = root(ground);
    let list = list(ground, package)?;
    let standings = look(&root, &list)?;
    change(&root, &list, &standings)
}

fn apply(ground: &Ground) -> Result<usize, Failure> {
    apply_from(ground, "package")
}

/// What the gateway is given when its unit, as it is written now, is started.
fn given(ground: &Ground) -> String {
    let unit = ground.read(UNIT);
    let encrypted = unit.contains(
        "\nLoadCredentialEncrypted=telegram-token:/etc/kai/credentials/telegram-token.cred\n",
    );
    let plain =
        unit.contains("\nLoadCredential=telegram-token:/etc/kai/credentials/telegram-token\n");
    assert!(encrypted != plain, "{unit}");
    let text = if encrypted {
        let token = token::decrypted(&root(ground), &keys(ground)).unwrap();
        token.to_string()
    } else {
        ground.read(PLAIN)
    };
    text.trim().to_owned()
}

/// Files of the tree that hold `text`.
fn holders(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            found.extend(holders(&path, text));
        } else if String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(text) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn an_installed_token_is_nowhere_as_it_is_and_a_second_run_changes_nothing() {
    let Some(ground) = new_ground() else { return };

    apply(&ground).unwrap();
    let listing = ground.listing();

    assert_eq!(given(&ground), TOKEN);
    assert_eq!(holders(&ground.root(), TOKEN), [""; 0]);
    let encrypted = fs::metadata(ground.path(ENCRYPTED)).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((encrypted.mode() & 0o7777, encrypted.uid()), (0o600, 0));
    let settings = ground.read(INSTALL);
    assert!(
        settings.contains("telegram-token.cred") && settings.contains("--token-file"),
        "{settings}"
    );
    assert_eq!(
        Settings::load(&ground.path(INSTALL)).unwrap().users.len(),
        2
    );
    assert_eq!(apply(&ground).unwrap(), 0);
    assert_eq!(ground.listing(), listing);
}

#[test]
fn a_new_token_that_was_written_beside_the_encrypted_one_is_taken_and_not_lost() {
    let Some(ground) = new_ground() else { return };
    apply(&ground).unwrap();
    ground.write(PLAIN, &format!("{OTHER}\n"), 0o600);

    let changes = apply(&ground).unwrap();

    assert!(changes > 0);
    assert_eq!(given(&ground), OTHER);
    assert_eq!(holders(&ground.root(), OTHER), [""; 0]);
    assert_eq!(apply(&ground).unwrap(), 0);
}

#[test]
fn wherever_the_move_from_a_plain_file_ends_the_gateway_starts_and_the_token_is_not_lost() {
    let Some(ground) = new_ground() else { return };
    // With the token in install.yaml still, and without it.
    for is_given in [true, false] {
        fs::remove_dir_all(ground.root()).unwrap();
        ground.make_tree();
        ground.done(&["apply"]);
        if !is_given {
            let text = ground.read(INSTALL);
            ground.settings(&text.replace(&format!("token: \"{TOKEN}\""), ""));
        }
        let root = root(&ground);
        let list = list(&ground, "package").unwrap();
        let standings = look(&root, &list).unwrap();
        let running = list
            .iter()
            .position(|item| item.to_string() == "units, running")
            .unwrap();
        let mut changes = 0;
        for end in 0..=list.len() {
            let upto = end.saturating_sub(1)..end;
            for (item, before) in list[upto.clone()].iter().zip(&standings[upto]) {
                if before.difference().is_some() {
                    item.bring_about(&root).unwrap();
                    changes += 1;
                }
            }
            assert_eq!(given(&ground), TOKEN, "{end}");
            // The unit that systemd has in memory until it is told otherwise.
            if end <= running {
                assert_eq!(ground.read(PLAIN).trim(), TOKEN, "{end}");
            }
            // Where no more comes, another run does the rest.
            let left = Settings::load(&ground.path(INSTALL)).unwrap();
            if left.token.is_none() {
                assert!(look(&root, &list).is_ok(), "{end}");
            }
        }
        assert!(changes >= 3, "{changes}");
        assert_eq!(holders(&ground.root(), TOKEN), [""; 0]);
        assert_eq!(apply(&ground).unwrap(), 0);
    }
}

#[test]
fn another_token_takes_its_place_and_is_taken_out_of_the_settings_too() {
    let Some(ground) = new_ground() else { return };
    apply(&ground).unwrap();
    let settings = ground.read(INSTALL);
    ground.settings(&settings.replace("telegram: {", &format!("telegram: {{token: \"{OTHER}\"")));

    assert_eq!(apply(&ground).unwrap(), 2);

    assert_eq!(given(&ground), OTHER);
    assert_eq!(holders(&ground.root(), OTHER), [""; 0]);
}

#[test]
fn a_token_that_this_host_cannot_decrypt_is_told_with_the_mend_and_never_replaced_by_nothing() {
    let Some(ground) = new_ground() else { return };
    apply(&ground).unwrap();
    let listing = ground.listing();
    fs::remove_file(ground.beside("key")).unwrap();

    let absent = apply(&ground).unwrap_err().to_string();
    // The key of another host.
    keys(&ground).encrypt("x", "x").unwrap();
    let other = apply(&ground).unwrap_err().to_string();

    for said in [absent, other] {
        assert!(said.contains("cannot be decrypted on this host"), "{said}");
        assert!(said.contains("config --token-file FILE"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(ground.listing(), listing);

    let settings = ground.read(INSTALL);
    ground.settings(&settings.replace("telegram: {", &format!("telegram: {{token: \"{TOKEN}\"")));
    assert_eq!(apply(&ground).unwrap(), 2);
    assert_eq!(given(&ground), TOKEN);
}

#[test]
fn a_token_that_cannot_be_taken_out_of_the_settings_stays_and_is_told() {
    let Some(ground) = new_ground() else { return };
    let settings = ground.read(INSTALL);
    let unusual = settings.replace(
        &format!("telegram: {{token: \"{TOKEN}\"}}"),
        &format!("telegram:\n  token:\n    {TOKEN}"),
    );
    assert_ne!(settings, unusual);
    ground.settings(&unusual);

    apply(&ground).unwrap();

    assert_eq!(ground.read(INSTALL), unusual);
    let settings = Settings::load(&ground.path(INSTALL)).unwrap();
    let kept = Kept::Encrypted(keys(&ground));
    let note = clear::left(&root(&ground), &settings, &ground.path(INSTALL), &kept);
    let note = note.unwrap().unwrap();
    assert!(
        note.contains("install.yaml still has the bot's token"),
        "{note}"
    );
    assert!(!note.contains(TOKEN), "{note}");
}

#[test]
fn another_version_is_given_the_same_token() {
    let Some(ground) = new_ground() else { return };
    apply(&ground).unwrap();
    ground.make_package("new", "0.2.0");

    apply_from(&ground, "new").unwrap();
    assert_eq!(given(&ground), TOKEN);
    assert!(
        ground
            .read("opt/kai/0.2.0/systemd/kai-gateway.service")
            .contains("LoadCredential=")
    );
    apply(&ground).unwrap();
    assert_eq!(given(&ground), TOKEN);
}

#[test]
fn in_the_tree_of_another_host_its_encrypted_token_stays_until_one_is_given() {
    let Some(ground) = new_ground() else { return };
    apply(&ground).unwrap();
    let listing = ground.listing();

    let said = ground.done(&["apply"]);

    assert!(said.starts_with("nothing changed"), "{said}");
    assert_eq!(ground.listing(), listing);
    let settings = ground.read(INSTALL);
    ground.settings(&settings.replace("telegram: {", &format!("telegram: {{token: \"{OTHER}\"")));
    ground.done(&["apply"]);
    assert_eq!(given(&ground), OTHER);
    assert!(ground.path(PLAIN).exists() && !ground.path(ENCRYPTED).exists());
}

#[test]
fn an_encrypted_token_of_others_is_refused_and_a_purge_takes_it() {
    let Some(ground) = new_ground() else { return };
    apply(&ground).unwrap();
    ground::set_mode(&ground.path(ENCRYPTED), 0o644);

    let refused = ground.install(&["apply"]);
    assert!(said(&refused).contains("chmod 0600"), "{}", said(&refused));

    ground.done(&["uninstall"]);
    assert!(ground.path(ENCRYPTED).exists());
    ground.done(&["uninstall", "--purge"]);
    assert!(!ground.path("etc/kai").exists());
    assert!(ground.beside("key").exists());
}
