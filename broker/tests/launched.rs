//! The launch with a program in the worker's place that runs what it is told and confines nothing: what
//! the broker's own walls do, with Landlock and seccomp off. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

mod within;

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::{PermissionsExt, chown, symlink},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kai_brokerd::{
    accounts::Account,
    cgroups::Cgroup,
    launch::{self, LaunchError, LoginFiles, Order, Step, WorkerProgram, World},
    policy::{Limits, Network},
    sys,
};
use kai_proto::worker_broker::{Assignment, Clocks, Walls};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{Gid, Uid},
};

/// An account that nobody has.
const ACCOUNT: u32 = 61_311;
const PATIENCE: Duration = Duration::from_secs(20);

/// False, with the reason, where it cannot run; the CI does not let it pass.
fn can_run() -> bool {
    let can = nix::unistd::geteuid().is_root();
    if !can {
        assert!(
            std::env::var_os("KAI_TESTS_MUST_RUN").is_none(),
            "needs root"
        );
        eprintln!("skipped: needs root");
    }
    can
}

/// One place in the file system with a home, a state directory and the program in it.
struct Place {
    directory: tempfile::TempDir,
    account: Account,
    world: World,
    network: Network,
    limits: Limits,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("kai-launch-test")
            .tempdir_in("/var/lib")
            .unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["home", "state", "others"] {
            fs::create_dir(path(name)).unwrap();
            chown(path(name), Some(ACCOUNT), Some(ACCOUNT)).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        fs::write(path("others/secret"), "blue suitcase").unwrap();
        let built = std::env::current_exe().unwrap();
        fs::copy(built, path("within")).unwrap();
        let account = Account {
            name: "kai-test".to_owned().try_into().unwrap(),
            uid: Uid::from_raw(ACCOUNT),
            gid: Gid::from_raw(ACCOUNT),
            groups: vec![Gid::from_raw(ACCOUNT)],
            home: path("home"),
            shell: "/bin/sh".into(),
            login: false,
        };
        let world = World::new(&path("home"), &path("state"), &[&path("others")], &[], &[]);
        Self {
            directory,
            account,
            world,
            network: Network::Host,
            limits: Limits::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write_home(&self, name: &str, content: &str) {
        let path = self.path("home").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        for path in [path.parent().unwrap(), &path] {
            chown(path, Some(ACCOUNT), Some(ACCOUNT)).unwrap();
        }
    }

    fn launch(&self) -> Result<Launched, LaunchError> {
        self.launch_in(None)
    }

    fn launch_in(&self, cgroup: Option<Cgroup>) -> Result<Launched, LaunchError> {
        let (connection, its_connection) = UnixStream::pair().unwrap();
        let assignment = assignment();
        let launched = launch::start(Order {
            account: &self.account,
            assignment: &assignment,
            program: WorkerProgram::open(&self.path("within")).unwrap(),
            world: &self.world,
            network: self.network,
            limits: &self.limits,
            cgroup,
            connection: its_connection.as_fd(),
            key: None,
        })?;
        drop(its_connection);
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut launched = Launched {
            connection: BufReader::new(connection),
            launched,
        };
        launched.outcome()?;
        assert_eq!(launched.answer(), "ready");
        Ok(launched)
    }
}

struct Launched {
    connection: BufReader<UnixStream>,
    launched: launch::Launched,
}

impl Launched {
    fn outcome(&mut self) -> Result<(), LaunchError> {
        let mut polled = [PollFd::new(self.launched.status.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::from(20_000_u16)).unwrap();
        launch::outcome(&mut self.launched.status).unwrap()
    }

    fn answer(&mut self) -> String {
        let mut said = Vec::new();
        self.connection.read_until(0, &mut said).unwrap();
        assert_eq!(said.pop(), Some(0), "it has ended");
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    fn run(&mut self, command: &str) -> String {
        self.connection
            .get_mut()
            .write_all(format!("{}\n", command.replace('\n', " ")).as_bytes())
            .unwrap();
        self.answer()
    }

    /// Ends it, and gives how long it took until nothing was left of it.
    fn end(&self) -> Duration {
        let begin = Instant::now();
        let _ = sys::kill(&self.launched.pidfd);
        loop {
            match sys::reap(self.launched.pid) {
                Ok(None) if begin.elapsed() < PATIENCE => {
                    let mut polled = [PollFd::new(self.launched.pidfd.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut polled, PollTimeout::from(1000_u16));
                }
                _ => return begin.elapsed(),
            }
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.end();
    }
}

fn assignment() -> Assignment {
    let hour = Duration::from_secs(3600);
    Assignment {
        account: "kai-test".to_owned().try_into().unwrap(),
        home: "/".into(),
        shell: "/bin/sh".into(),
        state: "/".into(),
        agent: Vec::new(),
        base_url: None,
        has_key: false,
        login: false,
        model: None,
        budget_micro_usd: None,
        clocks: Clocks {
            silence: hour,
            turn: hour,
            tool: hour,
        },
        connect_ports: None,
        read_paths: Vec::new(),
        walls: Walls::default(),
    }
}

fn what_the_worker_sees_is_its_own() {
    let place = Place::new();
    let mut worker = place.launch().unwrap();
    let home = place.path("home").display().to_string();
    let others = place.path("others/secret").display().to_string();

    assert_eq!(
        worker.run("id -u; id -G").split_whitespace().next(),
        Some("61311")
    );
    assert_eq!(worker.run("pwd"), home);
    assert!(
        worker
            .run(&format!("cat {others}"))
            .contains("No such file")
    );
    assert_eq!(
        worker.run("ls -A /home /root /tmp /var/tmp /dev/shm | grep -v ':$' | xargs"),
        ""
    );
    // Of /run only what resolv.conf leads to.
    let run = worker.run("find /run -type f");
    let name_service = fs::canonicalize("/etc/resolv.conf").unwrap_or_default();
    assert!(
        run.is_empty() || Path::new(&run) == name_service,
        "{run} is left of /run"
    );
    assert_eq!(worker.run("ls /dev/pts"), "ptmx");
    assert_eq!(worker.run("ls -A /dev/mqueue 2>/dev/null"), "");
    assert_eq!(
        worker.run(
            "cat /proc/[0-9]*/comm | sort -u | grep -v -x -e within -e sh -e cat -e sort -e grep"
        ),
        ""
    );
    let terminal = worker.run("script -qec 'tty; echo typed' /dev/null </dev/null");
    assert!(
        terminal.contains("/dev/pts/0") || terminal.contains("not found"),
        "{terminal}"
    );
    // One size bounds the three places together.
    for directory in ["/tmp", "/var/tmp", "/dev/shm"] {
        assert_eq!(worker.run(&format!("stat -c %a {directory}")), "1777");
        assert!(
            worker
                .run(&format!("stat -f -c %T {directory}"))
                .contains("tmpfs")
        );
        assert_eq!(
            worker.run(&format!("touch {directory}/x && ls {directory}")),
            "x"
        );
    }
    let sizes = worker.run("stat -f -c '%i %b' /tmp /dev/shm | sort -u | wc -l");
    assert_eq!(sizes, "1");
}

fn etc_is_as_the_account_may_see_it_and_nobodys_to_change() {
    let place = Place::new();
    let mut worker = place.launch().unwrap();

    assert_eq!(worker.run("cksum < /etc/passwd"), sh("cksum < /etc/passwd"));
    assert!(worker.run("cat /etc/shadow").contains("denied"));
    // What everybody else may list or read.
    for directory in ["sudoers.d", "security", "cron.d", "apt/auth.conf.d"] {
        if Path::new("/etc").join(directory).is_dir() {
            let said = worker.run(&format!("ls /etc/{directory}"));
            assert!(said.contains("denied"), "{directory}: {said}");
        }
    }
    assert_eq!(worker.run("cat /etc/crontab 2>/dev/null"), "");
    assert!(worker.run("touch /etc/new").contains("Read-only"));
    assert!(worker.run("ls -d /etc/ssl /etc/alternatives 2>&1 | grep -c '^/etc'") != "0");
    let all =
        "cd /etc && find . -maxdepth 1 -perm -004 -type f ! -name 'cron*' | sort | xargs cksum";
    let (theirs, ours) = (worker.run(all), sh(all));
    // find(1) takes what is covered for the files below it, which have no content.
    for line in ours.lines() {
        assert!(
            theirs.lines().any(|other| other == line),
            "{line}: {theirs}"
        );
    }
}

fn files_that_run_at_a_login_are_read_only_and_cannot_be_moved_away() {
    let mut place = Place::new();
    place.world.login_files = LoginFiles::ReadOnly;
    place.write_home(".profile", "echo hello\n");
    place.write_home(".config/other/file", "x");
    chown(place.path("home/.config"), Some(ACCOUNT), Some(ACCOUNT)).unwrap();
    let mut worker = place.launch().unwrap();

    for attack in [
        "echo x >> .profile",
        "echo x > .bashrc",
        "rm .profile",
        "mv .profile elsewhere",
        "echo x > new && mv -f new .bashrc",
        "echo x > .ssh/authorized_keys",
        "mv .ssh .ssh2",
        "mkdir .config/systemd/user",
        "mkdir .config/autostart/x",
        "mv .config .config2",
        "mv .local .local2",
        "mv .local/share .local/share2",
        "rm -rf .config/systemd; mkdir -p .config/systemd/user",
        "ln .profile linked && echo x > linked",
        "chmod 777 .bashrc",
    ] {
        let said = worker.run(&format!("({attack}) && echo REACHED"));
        assert!(!said.contains("REACHED"), "{attack}: {said}");
    }
    assert_eq!(
        worker.run("echo y > .config/other/file && cat .config/other/file"),
        "y"
    );
    assert_eq!(worker.run("touch plain && ls plain"), "plain");
    drop(worker);
    // What is left in the home does what was there before: bash still reads .profile.
    let home = place.path("home");
    let said = std::process::Command::new("bash")
        .args(["--login", "-c", "true"])
        .env_clear()
        .env("HOME", &home)
        .output()
        .unwrap();
    assert_eq!(said.stdout, b"hello\n");
    assert_eq!(
        fs::read_to_string(home.join(".profile")).unwrap(),
        "echo hello\n"
    );

    // A second launch finds them all there.
    drop(place.launch().unwrap());
}

fn planted_links_stop_a_strict_launch_and_lead_root_nowhere() {
    for planted in [".bashrc", ".config", ".ssh"] {
        let mut place = Place::new();
        let target = place.path("target");
        fs::write(&target, "root's").unwrap();
        let home = place.path("home");
        symlink(&target, home.join(planted)).unwrap();
        place.world.login_files = LoginFiles::ReadOnly;
        let refused = place.launch().err().unwrap();
        assert!(
            matches!(&refused, LaunchError::Step(Step::LoginFiles, _)),
            "{planted}: {refused}"
        );
        assert!(refused.to_string().contains("is a link"));
        place.world.login_files = LoginFiles::ReadOnlyIfPossible;
        let mut worker = place.launch().unwrap();
        assert!(worker.run("echo x > .profile").contains("Read-only"));
        drop(worker);
        assert_eq!(fs::read_to_string(target).unwrap(), "root's");
    }
    let mut place = Place::new();
    place.write_home(".zshrc", "");
    fs::hard_link(place.path("home/.zshrc"), place.path("home/second")).unwrap();
    place.world.login_files = LoginFiles::ReadOnly;
    assert!(matches!(
        place.launch().err().unwrap(),
        LaunchError::Step(Step::LoginFiles, _)
    ));
}

fn a_network_of_its_own_has_a_loopback_and_nothing_else() {
    let mut place = Place::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let interfaces = "tail -n +3 /proc/net/dev | cut -d: -f1 | xargs";
    // Of Debian's essential packages only perl-base opens sockets.
    let connect = |port: u16| {
        format!(
            "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr=>q(127.0.0.1:{port}), Timeout=>5) or die qq($!)' \
             && echo CONNECTED"
        )
    };
    assert!(
        place
            .launch()
            .unwrap()
            .run(&connect(port))
            .contains("CONNECTED")
    );

    place.network = Network::None;
    let mut worker = place.launch().unwrap();

    assert_eq!(worker.run(interfaces), "lo");
    assert!(worker.run("cat /proc/net/route | tail -n +2").is_empty());
    assert!(worker.run(&connect(port)).contains("refused"));
    let own = "perl -MIO::Socket::INET -e '$l=IO::Socket::INET->new(Listen=>1,LocalAddr=>q(127.0.0.1)); \
        IO::Socket::INET->new(PeerAddr=>q(127.0.0.1), PeerPort=>$l->sockport) or die; print q(CONNECTED)'";
    assert_eq!(worker.run(own), "CONNECTED", "its own loopback is up");
    assert_eq!(
        worker.run("grep CapEff /proc/self/status | cut -f2"),
        "0000000000000000"
    );
}

fn a_worker_begins_in_its_cgroup_and_the_group_ends_with_it() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let unified = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    let Some(unified) = unified else {
        return eprintln!("skipped: needs cgroup v2, with or without controllers");
    };
    let name = format!("kai-launch-test-{}", std::process::id());
    let group = unified.join(&name);
    fs::create_dir(&group).unwrap();
    let place = Place::new();
    let mut worker = place
        .launch_in(Some(Cgroup::open(group.clone()).unwrap()))
        .unwrap();

    let outside = fs::read_to_string(format!("/proc/{}/cgroup", worker.launched.pid)).unwrap();
    assert!(
        outside.lines().any(|line| line == format!("0::/{name}")),
        "{outside}"
    );
    let inside = worker.run("grep ^0:: /proc/self/cgroup");
    assert_eq!(inside, "0::/", "its group is the root that it sees");
    worker.run("setsid sleep 6004 >/dev/null 2>&1 & true");
    assert!(
        fs::read_to_string(group.join("cgroup.procs"))
            .unwrap()
            .lines()
            .count()
            >= 2
    );
    let written = worker
        .run("echo 1 > /sys/fs/cgroup/unified/cgroup.procs; echo 1 > /sys/fs/cgroup/cgroup.procs");
    assert!(!written.is_empty(), "an account cannot write groups");

    worker.end();
    assert!(
        fs::read_to_string(group.join("cgroup.procs"))
            .unwrap()
            .is_empty()
    );
    drop(worker);
    assert!(!group.exists());
}

fn limits_of_the_policy_hold_for_all_that_a_worker_starts() {
    let mut place = Place::new();
    place.limits = Limits {
        processes: 40,
        files: 300,
        file_size: Some(1 << 20),
        ..Limits::default()
    };
    place.world.temporary = 16 << 20;
    let mut worker = place.launch().unwrap();

    assert_eq!(
        worker
            .run("ulimit -Hn; ulimit -Hc")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["300", "0"]
    );
    let said =
        worker.run("i=0; while [ $i -lt 60 ]; do sleep 30 >/dev/null 2>&1 & i=$((i+1)); done");
    assert!(said.contains("ork"), "a fork is refused: {said}");
    assert_eq!(worker.run("echo still here"), "still here");
    worker.run("kill -9 -1; true");
    worker.run("true");
    worker.run("(trap '' XFSZ; head -c 3000000 /dev/zero > file); true");
    assert_eq!(worker.run("stat -c %s file"), "1048576");
    let said = worker.run("head -c 10000000 /dev/zero | split -b 1000000 - /tmp/; head -c 10000000 /dev/zero | split -b 1000000 - /dev/shm/");
    assert!(said.contains("No space"), "{said}");
}

fn nothing_is_left_after_a_stop() {
    // Each in a way of its own to outlive its starter.
    let command = "setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1; done' >/dev/null 2>&1 & \
        (sh -c 'sleep 6001 & exec sleep 6002' &) >/dev/null 2>&1; \
        setsid setsid sleep 6003 >/dev/null 2>&1 & \
        sh -c 'kill -STOP $$' >/dev/null 2>&1 & true";
    let place = Place::new();
    let namespaces = || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| fs::read_link(entry.path().join("ns/pid")).ok())
            .collect::<Vec<_>>()
    };
    let mut worst = Duration::ZERO;
    for round in 0..200 {
        let mut worker = place.launch().unwrap();
        worker.run(command);
        let theirs = format!("/proc/{}/ns/pid", worker.launched.pid);
        let theirs = fs::read_link(theirs).unwrap();
        assert!(namespaces().iter().filter(|one| **one == theirs).count() > 3);

        let took = worker.end();

        worst = worst.max(took);
        let left = namespaces().iter().filter(|one| **one == theirs).count();
        assert_eq!(left, 0, "round {round}");
        assert!(took < Duration::from_secs(5), "round {round}: {took:?}");
    }
    eprintln!("200 of 200 ended; the slowest took {worst:?}");
}

fn sh(command: &str) -> String {
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", command])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Without the usual harness: it runs tests in threads, and the launch must be the only one.
fn main() {
    if within::am_launched() {
        return within::serve();
    }
    const TESTS: &[(&str, fn())] = &[
        (
            "what_the_worker_sees_is_its_own",
            what_the_worker_sees_is_its_own,
        ),
        (
            "etc_is_as_the_account_may_see_it_and_nobodys_to_change",
            etc_is_as_the_account_may_see_it_and_nobodys_to_change,
        ),
        (
            "files_that_run_at_a_login_are_read_only_and_cannot_be_moved_away",
            files_that_run_at_a_login_are_read_only_and_cannot_be_moved_away,
        ),
        (
            "planted_links_stop_a_strict_launch_and_lead_root_nowhere",
            planted_links_stop_a_strict_launch_and_lead_root_nowhere,
        ),
        (
            "a_network_of_its_own_has_a_loopback_and_nothing_else",
            a_network_of_its_own_has_a_loopback_and_nothing_else,
        ),
        (
            "a_worker_begins_in_its_cgroup_and_the_group_ends_with_it",
            a_worker_begins_in_its_cgroup_and_the_group_ends_with_it,
        ),
        (
            "limits_of_the_policy_hold_for_all_that_a_worker_starts",
            limits_of_the_policy_hold_for_all_that_a_worker_starts,
        ),
        ("nothing_is_left_after_a_stop", nothing_is_left_after_a_stop),
    ];
    let wanted: Vec<_> = std::env::args_os().skip(1).collect();
    if wanted.iter().any(|word| word == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    if !can_run() {
        return;
    }
    let names = wanted
        .iter()
        .filter(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let names: Vec<&OsStr> = names.map(|word| word.as_os_str()).collect();
    for (name, test) in TESTS {
        let asked = names
            .iter()
            .any(|word| word.to_str().is_some_and(|word| name.contains(word)));
        if names.is_empty() || asked {
            test();
            println!("test {name} ... ok");
        }
    }
}
