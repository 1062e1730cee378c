//! What changes in the database, in one transaction each.

use std::{fmt, path::Path};

use kai_proto::{
    gateway_authd::User,
    ids::{TelegramId, UnixSeconds, UserName},
};
use rusqlite::{Params, Transaction, named_params, params};

use super::{
    StoreError,
    rows::{self, Found, Secret, column, milliseconds},
    schema,
};
use crate::{
    attempt::{Counts, Lockout},
    clock::Now,
    codes::RecoveryHash,
};

/// A change that has begun. Dropped without [`commit`](Self::commit), it has never been.
#[must_use]
pub struct Change<'a> {
    transaction: Transaction<'a>,
    path: &'a Path,
}

/// An enrolment that is to take effect.
#[derive(Debug)]
pub struct NewEnrolment<'a> {
    /// For whom.
    pub user: &'a User,
    /// What the authenticator has.
    pub secret: &'a Secret,
    /// Now.
    pub since: UnixSeconds,
    /// The step of the code that confirmed it.
    pub last_step: u64,
    /// Its recovery codes.
    pub recovery: &'a [RecoveryHash],
}

/// A recovery code that has not been used.
#[derive(Debug)]
pub struct RecoveryRow {
    row: i64,
    /// What it is compared with.
    pub hash: RecoveryHash,
}

impl<'a> Change<'a> {
    pub(super) fn new(transaction: Transaction<'a>, path: &'a Path) -> Self {
        Self { transaction, path }
    }

    /// Has the change on disk when this returns.
    ///
    /// # Errors
    /// If the disk takes nothing; the change has then never been.
    pub fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().map_err(schema::failed(self.path))
    }

    /// As [`Store::find`](super::Store::find), in this change.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn find(&self, user: &User) -> Result<Found, StoreError> {
        self.done(rows::find(&self.transaction, user))
    }

    /// Everybody who is enrolled with this name or this id: at most two.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn matching(
        &self,
        name: Option<&UserName>,
        id: Option<TelegramId>,
    ) -> Result<Vec<User>, StoreError> {
        self.done(rows::matching(&self.transaction, name, id))
    }

    /// Counts one more failure of `id`, before its code is looked at in `step`.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn charge(&self, id: TelegramId, step: u64) -> Result<(), StoreError> {
        self.execute(
            "UPDATE enrolment SET failures = failures + 1, seen_step = max(seen_step, ?2)
             WHERE telegram_id = ?1",
            params![i64::from(id), column(step)],
        )
    }

    /// Has codes of `id` judged by the clock as it goes now, also if it was set back.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn believe_the_clock(&self, id: TelegramId) -> Result<(), StoreError> {
        self.execute(
            "UPDATE enrolment SET seen_step = 0 WHERE telegram_id = ?1",
            [i64::from(id)],
        )
    }

    /// The secret of `id`.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn secret(&self, id: TelegramId) -> Result<Secret, StoreError> {
        self.done(rows::secret(&self.transaction, id))
    }

    /// The recovery codes that `id` has left.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn recovery_codes(&self, id: TelegramId) -> Result<Vec<RecoveryRow>, StoreError> {
        let read = || {
            let mut statement = self.transaction.prepare_cached(
                "SELECT code, salt, hash FROM recovery_code WHERE telegram_id = ?1",
            )?;
            let row = |row: &rusqlite::Row| {
                Ok(RecoveryRow {
                    row: row.get(0)?,
                    hash: RecoveryHash {
                        salt: row.get(1)?,
                        hash: row.get(2)?,
                    },
                })
            };
            statement.query_map([i64::from(id)], row)?.collect()
        };
        self.done(read())
    }

    /// Counts nothing against `id` any more.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn forgive(&self, id: TelegramId) -> Result<(), StoreError> {
        self.execute(
            "UPDATE enrolment SET failures = 0, lockouts = 0,
                 locked_until = NULL, locked_for_ms = NULL, locked_boot_ms = NULL
             WHERE telegram_id = ?1",
            [i64::from(id)],
        )
    }

    /// Has no code of `id` accepted any more that is one of `step` or an earlier one.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn accept_step(&self, id: TelegramId, step: u64) -> Result<(), StoreError> {
        self.execute(
            "UPDATE enrolment SET last_step = max(last_step, ?2) WHERE telegram_id = ?1",
            params![i64::from(id), column(step)],
        )
    }

    /// Takes a recovery code away, which was used.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn use_up(&self, code: &RecoveryRow) -> Result<(), StoreError> {
        self.execute("DELETE FROM recovery_code WHERE code = ?1", [code.row])
    }

    /// A code of `id` was wrong: what is counted now, and the lockout that begins with it.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn refuse(
        &self,
        id: TelegramId,
        counts: Counts,
        lockout: Option<Lockout>,
    ) -> Result<(), StoreError> {
        self.execute(
            "UPDATE enrolment SET failures = ?2, lockouts = ?3 WHERE telegram_id = ?1",
            params![i64::from(id), counts.failures, counts.lockouts],
        )?;
        match lockout {
            Some(lockout) => self.lock(id, lockout),
            None => Ok(()),
        }
    }

    fn lock(&self, id: TelegramId, lockout: Lockout) -> Result<(), StoreError> {
        self.execute(
            "UPDATE enrolment SET locked_until = :until, locked_for_ms = :length, locked_boot_ms = :ends
             WHERE telegram_id = :id",
            named_params! {
                ":id": i64::from(id),
                ":until": column(lockout.until),
                ":length": milliseconds(lockout.length),
                ":ends": milliseconds(lockout.ends),
            },
        )
    }

    /// Enrols; name and id must be free in this change.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn enrol(&self, new: &NewEnrolment) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO enrolment (telegram_id, name, secret, since, last_step)
             VALUES (:id, :name, :secret, :since, :last_step)",
            named_params! {
                ":id": i64::from(new.user.id),
                ":name": new.user.name.as_str(),
                ":secret": &new.secret.bytes()[..],
                ":since": column(new.since),
                ":last_step": column(new.last_step),
            },
        )?;
        for code in new.recovery {
            self.execute(
                "INSERT INTO recovery_code (telegram_id, salt, hash) VALUES (?1, ?2, ?3)",
                params![i64::from(new.user.id), &code.salt[..], &code.hash[..]],
            )?;
        }
        Ok(())
    }

    /// Takes everything of `id` away.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn remove(&self, id: TelegramId) -> Result<(), StoreError> {
        self.execute(
            "DELETE FROM enrolment WHERE telegram_id = ?1",
            [i64::from(id)],
        )
    }

    /// Has every last step at `step` at least, and no recovery code left: what may have been used since
    /// a copy was made is not taken again.
    pub(super) fn age_codes(&self, step: u64) -> Result<(), StoreError> {
        self.execute(
            "UPDATE enrolment SET last_step = max(last_step, ?1)",
            [column(step)],
        )?;
        self.execute("DELETE FROM recovery_code", [])
    }

    /// See [`Store::anchor_lockouts`](super::Store::anchor_lockouts).
    pub(super) fn anchor_lockouts(&self, now: Now) -> Result<(), StoreError> {
        for listed in self.done(rows::list(&self.transaction))? {
            if let Some(Lockout { length, until, .. }) = listed.enrolled.lockout {
                let again = Lockout::after_restart(length, until, now);
                self.lock(listed.enrolled.user.id, again)?;
            }
        }
        Ok(())
    }

    fn execute(&self, sql: &str, parameters: impl Params) -> Result<(), StoreError> {
        let run = || self.transaction.prepare_cached(sql)?.execute(parameters);
        self.done(run()).map(drop)
    }

    fn done<T>(&self, result: Result<T, rusqlite::Error>) -> Result<T, StoreError> {
        result.map_err(schema::failed(self.path))
    }
}

impl fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change").field("path", &self.path).finish()
    }
}
