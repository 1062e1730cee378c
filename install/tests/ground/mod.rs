//! A tree to install kai in, and the directory of a package to install it from.

use std::{
    fs,
    hash::{DefaultHasher, Hasher},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::skipped::skipped;

pub const TOKEN: &str = "123456:AAbbCCddEEffGGhhIIjjKKllMMnn";

/// Programs that only have to be there.
const OTHERS: [&str; 8] = [
    "kai-gateway",
    "kai-brokerd",
    "kai-authd",
    "kai-worker",
    "kai-tools",
    "kai-probe",
    "kai-broker",
    "kai-install",
];

/// A tree and a package, removed with the value.
pub struct Ground {
    directory: tempfile::TempDir,
}

impl Ground {
    /// None, with the reason on standard error, if this run cannot make one.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skipped("needs root, to give files away");
            return None;
        }
        let kai_auth = beside("kai-auth");
        if !kai_auth.exists() {
            skipped("needs kai-auth beside kai-install: cargo build -p kai-auth");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let ground = Self { directory };
        ground.make_package("package", "0.1.0");
        ground.make_tree();
        Some(ground)
    }

    /// The tree as it is before kai is.
    pub fn make_tree(&self) {
        let ground = self;
        for (file, text) in [
            (
                "passwd",
                "root:x:0:0:root:/root:/bin/bash\ncarol:x:1500:1500::/home/carol:/bin/bash\ndave:x:1501:1501::/home/dave:/bin/bash\n",
            ),
            (
                "group",
                "root:x:0:\nsudo:x:27:dave\ncarol:x:1500:\ndave:x:1501:\n",
            ),
            (
                "shadow",
                "root:*:20000::::::\ncarol:!:20000::::::\ndave:!:20000::::::\n",
            ),
            ("gshadow", "root:*::\nsudo:!::dave\ncarol:!::\ndave:!::\n"),
        ] {
            ground.write(&format!("etc/{file}"), text, 0o644);
        }
        ground.write("opt/agents/claude", "#!/bin/true\n", 0o755);
        ground.settings(&format!(
            "telegram: {{token: \"{TOKEN}\"}}\n\
             agent: {{command: /opt/agents/claude}}\n\
             users:\n\
             - {{telegram_id: 11, name: Alice, os_user: alice, role: admin, create: true}}\n\
             - {{telegram_id: 12, name: carol, os_user: carol}}\n\
             admins: [dave]\n"
        ));
    }

    /// A package of this version in the directory `name`.
    pub fn make_package(&self, name: &str, version: &str) {
        let package = self.directory.path().join(name);
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for part in ["systemd", "sudoers.d"] {
            fs::create_dir_all(package.join(part)).unwrap();
            for entry in fs::read_dir(repository.join(part)).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), package.join(part).join(entry.file_name())).unwrap();
            }
        }
        let text = format!("version: {version}\nauthd_schema: 1\n");
        fs::write(package.join("version.yaml"), text).unwrap();
        for program in OTHERS {
            fs::write(package.join(program), format!("#!/bin/true {version}\n")).unwrap();
            set_mode(&package.join(program), 0o755);
        }
        fs::copy(beside("kai-auth"), package.join("kai-auth")).unwrap();
    }

    /// The tree.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Something in the tree.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Something beside the tree.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        set_mode(&path, mode);
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn settings(&self, text: &str) {
        self.write("etc/kai/install.yaml", text, 0o600);
    }

    /// The command, to be run in this tree.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kai-install"));
        command.args(arguments).arg("--root").arg(self.root());
        command
    }

    /// Runs `command` with a new tmpfs of these `options` at `place`, in mounts of its own, which end with it.
    pub fn run_with_tmpfs(&self, place: &Path, options: &str, command: &Command) -> Output {
        Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg(format!(
                "mount -t tmpfs -o {options} none \"$0\" && exec \"$@\""
            ))
            .arg(place)
            .arg(command.get_program())
            .args(command.get_args())
            .output()
            .unwrap()
    }

    /// `kai-install apply` and the like, with the package.
    pub fn install(&self, arguments: &[&str]) -> Output {
        self.install_from("package", arguments)
    }

    /// As [`install`](Self::install), from another package.
    pub fn install_from(&self, package: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.arg("--source").arg(self.beside(package));
        command.output().unwrap()
    }

    /// As [`install`](Self::install), which must do what it is told; returns what it said.
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.install(arguments);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        said
    }

    /// All of the tree: each path with its owner, mode, and contents or what it leads to.
    pub fn listing(&self) -> Vec<String> {
        let mut lines = Vec::new();
        list(&self.root(), &self.root(), &mut lines);
        lines.sort();
        lines
    }
}

fn list(root: &Path, directory: &Path, lines: &mut Vec<String>) {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        // The tools of shadow-utils keep these.
        if name.ends_with('-') || name.contains(".lock") {
            continue;
        }
        let holds = if found.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if found.is_file() && !name.contains("kai/authd/") {
            // authd's database counts how often it was opened, and its log says when.
            let mut hasher = DefaultHasher::new();
            hasher.write(&fs::read(&path).unwrap());
            format!("{:x}", hasher.finish())
        } else {
            String::new()
        };
        let (mode, uid, gid) = (found.mode(), found.uid(), found.gid());
        lines.push(format!("{name} {mode:o} {uid}:{gid} {holds}"));
        if found.is_dir() {
            list(root, &path, lines);
        }
    }
}

/// A program that was built with this one.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_kai-install")).with_file_name(name)
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}
