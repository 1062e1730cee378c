//! Two accounts that nobody has, with what is laid out for one to attack the other; all of it goes again,
//! also what a probe that was killed has left.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use kai_brokerd::{
    accounts::Account,
    assign,
    policy::Kernel,
    sys,
    users::{User, Users, UsersError},
};
use kai_probe::scene::Scene;
use kai_program::config::Config;
use kai_proto::ids::AccountName;
use nix::unistd::{Gid, Uid};

use super::ProbeError;
use crate::unused;

/// Where the places are. Not below /tmp: programs are executed there.
const ABOVE: &str = "/var/lib";
/// How their names begin; the command's process id follows.
const PREFIX: &str = "kai-probe-";
/// A user of whom nothing is said but who it is.
const USUAL: &str = "users: [{telegram_id: 1, name: probe, os_user: kai-probe}]";
/// The worker's key of the agent, which no tool must see.
const KEY: &str = "sk-of-the-probe\n";

/// What is laid out.
#[derive(Debug)]
pub struct Place {
    /// The directory that holds it.
    pub path: PathBuf,
    /// The user whose agent attacks, with the policy that is probed.
    pub user: User,
    /// The worker's state.
    pub state: PathBuf,
    /// The agent's key.
    pub key: PathBuf,
    /// What the attacker is told.
    pub scene: Scene,
    neighbour: Child,
    in_run: PathBuf,
}

impl Place {
    /// Lays it out, with the policy of `user`, on a host where the broker is process `broker`.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub fn lay_out(
        config: &Config,
        user: Option<&User>,
        broker: Option<i32>,
    ) -> Result<Self, ProbeError> {
        sweep();
        let name = format!("{PREFIX}{}", std::process::id());
        let path = Path::new(ABOVE).join(&name);
        let in_run = Path::new("/run").join(&name);
        let mut uids = unused::uids();
        let (own, theirs) = uids.next().zip(uids.next()).ok_or(ProbeError::NoAccount)?;
        directory(&path, 0o755, 0)?;
        directory(&in_run, 0o755, theirs)?;
        directory(&path.join("home"), 0o700, own)?;
        directory(&path.join("state"), 0o700, own)?;
        directory(&path.join("neighbour"), 0o700, theirs)?;
        let key = path.join("key");
        write(&key, KEY, 0o600)?;

        let programs = assign::programs(config);
        let program = programs.join(kai_probe::NAME);
        let copy = path.join("neighbours-program");
        fs::copy(&program, &copy).map_err(ProbeError::place(&program))?;
        chown(&copy, Some(theirs), Some(theirs)).map_err(ProbeError::place(&copy))?;
        // Only now: a change of owner takes the bit away.
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755))
            .map_err(ProbeError::place(&copy))?;
        let (neighbour, laid_out) = move_in(&program, &path, theirs)?;

        let user = attacker(user, own, &path.join("home"))?;
        let scene = Scene {
            walls: String::new(),
            home: path.join("home"),
            state: path.join("state"),
            place: path.clone(),
            neighbour: neighbour.id().try_into().unwrap_or(0),
            neighbour_uid: theirs,
            laid_out,
            root: std::process::id().try_into().unwrap_or(0),
            run: broker.map_or_else(PathBuf::new, |_| config.paths.run.clone()),
            kai_state: config.paths.state.clone(),
            log: config.paths.log.clone(),
            configuration: config.file.parent().unwrap_or(Path::new("/")).to_owned(),
            programs,
            broker: broker.unwrap_or(0),
            agent: 0,
            worker: 0,
        };
        Ok(Self {
            state: path.join("state"),
            path,
            user,
            key,
            scene,
            neighbour,
            in_run,
        })
    }

    /// Makes the attacker's home as it was, for the next round in `walls`.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn begin_round(&self, walls: &str) -> Result<(), ProbeError> {
        let account = &self.user.account;
        for directory_of_theirs in [&self.scene.home, &self.state] {
            // Nobody of that account runs now, so nobody puts a link in the way.
            fs::remove_dir_all(directory_of_theirs)
                .map_err(ProbeError::place(directory_of_theirs))?;
            directory(directory_of_theirs, 0o700, account.uid.as_raw())?;
        }
        // What a worker makes there itself.
        directory(&self.state.join("tools"), 0o700, account.uid.as_raw())?;
        let mut scene = self.scene.clone();
        walls.clone_into(&mut scene.walls);
        scene.write().map_err(ProbeError::place(&self.scene.home))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The end of its input is its end, and it takes away what it made elsewhere.
        drop(self.neighbour.stdin.take());
        let _ = self.neighbour.wait();
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_dir_all(&self.in_run);
    }
}

/// Removes what probes have left that were killed.
fn sweep() {
    for above in [ABOVE, "/run", "/tmp", "/var/tmp", "/dev/shm"] {
        for entry in fs::read_dir(above).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let process = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX))
                .map(|rest| rest.trim_end_matches(".sock").trim_end_matches(".d"))
                .and_then(|rest| rest.parse::<u32>().ok());
            if let Some(process) = process
                && !Path::new(&format!("/proc/{process}")).exists()
            {
                let path = entry.path();
                // Neither follows a link; in /tmp anybody may have made it, and nothing more is lost
                // than what has our name.
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
    }
}

fn directory(path: &Path, mode: u32, owner: u32) -> Result<(), ProbeError> {
    let made = fs::DirBuilder::new().mode(mode).create(path);
    made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .and_then(|()| chown(path, Some(owner), Some(owner)))
        .map_err(ProbeError::place(path))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), ProbeError> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(ProbeError::place(path))
}

/// The neighbour moves in, and says what it has laid out.
fn move_in(
    program: &Path,
    place: &Path,
    uid: u32,
) -> Result<(Child, BTreeMap<String, String>), ProbeError> {
    let mut neighbour = Command::new(program)
        .arg("neighbour")
        .arg(place)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .uid(uid)
        .gid(uid)
        .spawn()
        .map_err(ProbeError::place(program))?;
    let mut laid_out = BTreeMap::new();
    let output = neighbour.stdout.take().into_iter();
    for line in output.flat_map(|output| BufReader::new(output).lines()) {
        match line.map_err(ProbeError::place(program))?.split_once('=') {
            Some((name, value)) => laid_out.insert(name.to_owned(), value.to_owned()),
            None => break,
        };
    }
    if laid_out.contains_key("tcp") {
        Ok((neighbour, laid_out))
    } else {
        let _ = neighbour.kill();
        let _ = neighbour.wait();
        Err(ProbeError::Unfinished("its neighbour ended".to_owned()))
    }
}

/// A user with the policy of `like`, or with the usual one, and the throw-away account.
fn attacker(like: Option<&User>, uid: u32, home: &Path) -> Result<User, ProbeError> {
    let account = |name: &AccountName| Account {
        name: name.clone(),
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(uid),
        groups: vec![Gid::from_raw(uid)],
        home: home.to_owned(),
        shell: "/bin/sh".into(),
        login: like.is_some_and(|user| user.account.login),
    };
    let kernel = Kernel {
        landlock_abi: sys::landlock_abi(),
    };
    let users = Users::parse(Path::new("the probe's user"), USUAL, kernel, |name| {
        Ok(account(name))
    })
    .map_err(UsersError::from)?;
    let usual = users.iter().next().cloned();
    let usual = usual.ok_or(ProbeError::NoAccount)?;
    Ok(match like {
        Some(user) => User {
            account: usual.account,
            ..user.clone()
        },
        None => usual,
    })
}
