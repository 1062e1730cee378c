//! Units that another version brought and this one has not: they would start what is not there, or take its
//! sockets.

use std::{collections::BTreeSet, fmt, path::Path};

use super::{Goes, Item, Standing, units, versions};
use crate::{
    failure::Failure,
    root::Root,
    source::{Source, Unit, is_unit},
    tools,
};

/// No unit of kai's but those of the version that runs.
pub struct NoLeftover {
    /// The names of its units.
    kept: BTreeSet<String>,
}

impl NoLeftover {
    /// None but those of this source.
    #[must_use]
    pub fn but(source: &Source) -> Self {
        let kept = source.units.iter().map(|unit| unit.name.clone()).collect();
        Self { kept }
    }

    /// Those that a version's own copy knows: a unit of the admin's is not kai's, whatever it is called.
    fn leftover(&self, root: &Root) -> Result<BTreeSet<String>, Failure> {
        let mut leftover = BTreeSet::new();
        for version in root.names(versions::PLACE.as_ref())? {
            if !version.starts_with(|c: char| c.is_ascii_digit()) {
                continue;
            }
            for name in root.names(&versions::directory(&version).join("systemd"))? {
                let is_unit = is_unit(&name) && !self.kept.contains(&name);
                if is_unit && root.look(&Path::new(units::PLACE).join(&name))?.is_some() {
                    leftover.insert(name);
                }
            }
        }
        Ok(leftover)
    }
}

impl fmt::Display for NoLeftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no units of other versions")
    }
}

impl Item for NoLeftover {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        let names: Vec<String> = self.leftover(root)?.into_iter().collect();
        Ok(Standing::of(
            (!names.is_empty())
                .then(|| format!("there are {}", names.join(" ")))
                .into_iter()
                .collect(),
        ))
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        for name in self.leftover(root)? {
            let path = Path::new(units::PLACE).join(&name);
            let text = root.read_text(&path)?.unwrap_or_default();
            if root.is_host() {
                // One that was never started cannot be stopped.
                let _ = tools::run("systemctl", &["stop", name.as_str()], None);
            }
            for link in (Unit { name, text }).wanted_by() {
                root.remove(&Path::new(units::PLACE).join(link))?;
            }
            root.remove(&path)?;
        }
        Ok(())
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        let there = !self.leftover(root)?.is_empty();
        self.bring_about(root)?;
        Ok(there)
    }

    fn goes(&self) -> Goes {
        Goes::WithKai
    }
}
