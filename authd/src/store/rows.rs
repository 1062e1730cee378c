//! A row as what it means. What the tables' own checks let through and is still nothing of ours is an
//! error of reading, never a guess.

use std::{fmt, time::Duration};

use kai_proto::{
    admin_authd::SECRET,
    gateway_authd::User,
    ids::{TelegramId, UnixSeconds, UserName},
};
use rusqlite::{Connection, Row, params, types::Type};
use zeroize::Zeroizing;

use crate::attempt::{Counts, Lockout};

/// The secret of one enrolment, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; SECRET]>);

impl Secret {
    /// From random bytes.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; SECRET]>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the comparison and for the authenticator.
    #[must_use]
    pub fn bytes(&self) -> &[u8; SECRET] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What there is about a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Neither their name nor their id is enrolled.
    Nobody,
    /// The name is enrolled with another id, or the id with another name.
    Changed,
    /// Both are, together.
    Enrolled(Enrolled),
}

/// One enrolment, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Who.
    pub user: User,
    /// When it was confirmed.
    pub since: UnixSeconds,
    /// The step of the last accepted code; none at or below it is accepted.
    pub last_step: u64,
    /// Wrong codes so far.
    pub counts: Counts,
    /// The last lockout; it may have ended.
    pub lockout: Option<Lockout>,
    /// The latest step in which a code of theirs was looked at, by the clock of then.
    pub seen_step: u64,
}

/// One enrolment in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The enrolment.
    pub enrolled: Enrolled,
    /// Recovery codes that are left.
    pub recovery_left: u8,
}

/// The columns of [`enrolled`], in its order.
macro_rules! columns {
    () => {
        "telegram_id, name, since, last_step, failures, lockouts, \
         locked_until, locked_for_ms, locked_boot_ms, seen_step"
    };
}

pub(super) fn find(database: &Connection, user: &User) -> Result<Found, rusqlite::Error> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM enrolment WHERE telegram_id = ?1 OR name = ?2"
    );
    let mut statement = database.prepare_cached(sql)?;
    let mut rows = statement.query(params![i64::from(user.id), user.name.as_str()])?;
    let mut found = Found::Nobody;
    while let Some(row) = rows.next()? {
        let enrolled = enrolled(row)?;
        if enrolled.user == *user {
            found = Found::Enrolled(enrolled);
        } else {
            return Ok(Found::Changed);
        }
    }
    Ok(found)
}

pub(super) fn list(database: &Connection) -> Result<Vec<Listed>, rusqlite::Error> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        ", (SELECT count(*) FROM recovery_code AS code WHERE code.telegram_id = enrolment.telegram_id)",
        " FROM enrolment ORDER BY name"
    );
    let mut statement = database.prepare_cached(sql)?;
    let listed = |row: &Row| {
        Ok(Listed {
            enrolled: enrolled(row)?,
            recovery_left: u8::try_from(row.get::<_, i64>(10)?).unwrap_or(u8::MAX),
        })
    };
    statement.query_map([], listed)?.collect()
}

/// Users by name alone, or by id alone.
pub(super) fn matching(
    database: &Connection,
    name: Option<&UserName>,
    id: Option<TelegramId>,
) -> Result<Vec<User>, rusqlite::Error> {
    let mut statement = database.prepare_cached(
        "SELECT telegram_id, name FROM enrolment WHERE telegram_id = ?1 OR name = ?2",
    )?;
    let parameters = params![id.map(i64::from), name.map(UserName::as_str)];
    statement.query_map(parameters, user)?.collect()
}

/// The secret of the enrolment of `id`.
pub(super) fn secret(database: &Connection, id: TelegramId) -> Result<Secret, rusqlite::Error> {
    let mut statement =
        database.prepare_cached("SELECT secret FROM enrolment WHERE telegram_id = ?1")?;
    statement.query_row([i64::from(id)], |row| {
        let mut bytes = Zeroizing::new([0; SECRET]);
        let found = row.get_ref(0)?.as_blob()?;
        if found.len() != SECRET {
            return Err(strange(0, Type::Blob));
        }
        bytes.copy_from_slice(found);
        Ok(Secret(bytes))
    })
}

fn user(row: &Row) -> Result<User, rusqlite::Error> {
    Ok(User {
        id: TelegramId::try_from(row.get::<_, i64>(0)?).map_err(|_| strange(0, Type::Integer))?,
        name: UserName::try_from(row.get::<_, String>(1)?).map_err(|_| strange(1, Type::Text))?,
    })
}

fn enrolled(row: &Row) -> Result<Enrolled, rusqlite::Error> {
    let lockout = match (count(row, 6), count(row, 7), count(row, 8)) {
        (Ok(until), Ok(length), Ok(ends)) => Some(Lockout {
            until,
            length: Duration::from_millis(length),
            ends: Duration::from_millis(ends),
        }),
        _ if row.get_ref(6)?.data_type() == Type::Null => None,
        _ => return Err(strange(6, Type::Integer)),
    };
    Ok(Enrolled {
        user: user(row)?,
        since: count(row, 2)?,
        last_step: count(row, 3)?,
        counts: Counts {
            failures: small(row, 4)?,
            lockouts: small(row, 5)?,
        },
        lockout,
        seen_step: count(row, 9)?,
    })
}

/// A column that is not negative.
fn count(row: &Row, column: usize) -> Result<u64, rusqlite::Error> {
    u64::try_from(row.get::<_, i64>(column)?).map_err(|_| strange(column, Type::Integer))
}

/// A column that is not negative; a larger one than we ever write counts as the largest.
fn small(row: &Row, column: usize) -> Result<u32, rusqlite::Error> {
    Ok(u32::try_from(count(row, column)?).unwrap_or(u32::MAX))
}

fn strange(column: usize, kind: Type) -> rusqlite::Error {
    let what = "a row that kai-authd does not write".into();
    rusqlite::Error::FromSqlConversionFailure(column, kind, what)
}

/// A number for a column; none that we write is larger than fits.
pub(super) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Milliseconds for a column, rounded up: what ends then has not ended before.
pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}
