//! What the command lays out to be attacked, and tells the attacker of: a file of `key=value` lines in the
//! throw-away account's home.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The file's name in the home.
const FILE: &str = "scene";

/// Everything that attempts are aimed at. An empty path or a 0 stands for what this host does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scene {
    /// The walls that a stand-in for the worker raises: `landlock`, `seccomp`.
    pub walls: String,
    /// The throw-away account's home, the attacker's own.
    pub home: PathBuf,
    /// The worker's state, the account's own but not the agent's.
    pub state: PathBuf,
    /// Where everything of this probe lies.
    pub place: PathBuf,
    /// The neighbour's process, in the numbers of the host.
    pub neighbour: i32,
    /// The neighbour's uid.
    pub neighbour_uid: u32,
    /// What the neighbour has laid out, by name: the names of [`neighbour`](crate::neighbour).
    pub laid_out: BTreeMap<String, String>,
    /// The command's own process, which is root's, in the numbers of the host.
    pub root: i32,
    /// The directory of kai's sockets.
    pub run: PathBuf,
    /// kai's state.
    pub kai_state: PathBuf,
    /// kai's logs.
    pub log: PathBuf,
    /// The configuration's directory.
    pub configuration: PathBuf,
    /// Where kai's programs are.
    pub programs: PathBuf,
    /// The running broker, 0 if it does not run.
    pub broker: i32,
    /// The agent's process as its tools see it; not in the file.
    pub agent: i32,
    /// The worker's, likewise.
    pub worker: i32,
}

impl Scene {
    /// Reads the one in `home`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(home: &Path) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(home.join(FILE))?))
    }

    /// Writes it into its home.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self) -> io::Result<()> {
        fs::write(self.home.join(FILE), self.text())
    }

    fn text(&self) -> String {
        let path = |path: &Path| path.display().to_string();
        let mut lines = vec![
            format!("walls={}", self.walls),
            format!("home={}", path(&self.home)),
            format!("state={}", path(&self.state)),
            format!("place={}", path(&self.place)),
            format!("neighbour={}", self.neighbour),
            format!("neighbour_uid={}", self.neighbour_uid),
            format!("root={}", self.root),
            format!("run={}", path(&self.run)),
            format!("kai_state={}", path(&self.kai_state)),
            format!("log={}", path(&self.log)),
            format!("configuration={}", path(&self.configuration)),
            format!("programs={}", path(&self.programs)),
            format!("broker={}", self.broker),
        ];
        lines.extend(
            self.laid_out
                .iter()
                .map(|(name, value)| format!("laid-out {name}={value}")),
        );
        lines.join("\n")
    }

    fn parse(text: &str) -> Self {
        let mut scene = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let number = || value.parse().unwrap_or(0);
            match key {
                "walls" => value.clone_into(&mut scene.walls),
                "home" => scene.home = value.into(),
                "state" => scene.state = value.into(),
                "place" => scene.place = value.into(),
                "neighbour" => scene.neighbour = number(),
                "neighbour_uid" => scene.neighbour_uid = value.parse().unwrap_or(0),
                "root" => scene.root = number(),
                "run" => scene.run = value.into(),
                "kai_state" => scene.kai_state = value.into(),
                "log" => scene.log = value.into(),
                "configuration" => scene.configuration = value.into(),
                "programs" => scene.programs = value.into(),
                "broker" => scene.broker = number(),
                other => {
                    if let Some(name) = other.strip_prefix("laid-out ") {
                        scene.laid_out.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
        }
        scene
    }

    /// What the neighbour has laid out under this name; empty if nothing.
    #[must_use]
    pub fn of_neighbour(&self, name: &str) -> &str {
        self.laid_out.get(name).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_is_read_as_it_was_written() {
        let home = tempfile::tempdir().unwrap();
        let scene = Scene {
            walls: "landlock".into(),
            home: home.path().into(),
            state: "/s".into(),
            place: "/p".into(),
            neighbour: 7,
            neighbour_uid: 8,
            laid_out: [("tcp".to_owned(), "99".to_owned())].into(),
            root: 9,
            run: "/run/kai".into(),
            kai_state: "/var/lib/kai".into(),
            log: "/var/log/kai".into(),
            configuration: "/etc/kai".into(),
            programs: "/opt/kai".into(),
            broker: 10,
            agent: 0,
            worker: 0,
        };

        scene.write().unwrap();

        assert_eq!(Scene::read(home.path()).unwrap(), scene);
        assert_eq!(scene.of_neighbour("tcp"), "99");
        assert_eq!(scene.of_neighbour("udp"), "");
    }
}
