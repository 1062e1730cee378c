//! Seccomp. One filter has one errno, so several are stacked; the kernel runs them all and
//! the strictest answer counts.
//!
//! A call of another architecture (`int 0x80`) ends the process, by the check at the head of each
//! filter, and so does one of x32, which x86-64 otherwise takes for its own.

use std::collections::BTreeMap;

use kai_proto::worker_broker::Allowance;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::syscalls::{
    Denied, NO_SUCH_FAMILY, NO_SUCH_PROTOCOL, NOT_PERMITTED, NOT_THERE, When, lifted,
};

/// Why the filters are not in force.
#[derive(Debug, thiserror::Error)]
pub enum FilterFailed {
    /// A table cannot be made a filter.
    #[error("a seccomp filter cannot be built: {0}")]
    Build(#[from] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error("a seccomp filter cannot be installed: {0}")]
    Install(#[from] seccompiler::Error),
}

/// Which errno the filters answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// What programs expect of a call that is not permitted, not there, or of a family that is not.
    Usual,
    /// This one always: one that the kernel never gives tells a denial by the filter from one by the
    /// kernel.
    Marked(i32),
}

/// Puts all filters in force for this thread and what it starts, for good, but for what `allow` lifts.
///
/// # Errors
/// [`FilterFailed`]; some filters may then be in force already.
pub fn install(allow: &[Allowance], answers: Answers) -> Result<(), FilterFailed> {
    Ok(seccompiler::apply_filter(&program(
        allow,
        answers,
        here()?,
    )?)?)
}

fn here() -> Result<TargetArch, FilterFailed> {
    Ok(TargetArch::try_from(std::env::consts::ARCH)?)
}

/// The filter, as the kernel takes it: one for each errno, which is all that seccompiler has in one, behind each
/// other. Five that are installed apart cost a tenth of a launch more.
pub(super) fn program(
    allow: &[Allowance],
    answers: Answers,
    target: TargetArch,
) -> Result<BpfProgram, FilterFailed> {
    let tables: [(&[Denied], i32); 4] = [
        (NO_SUCH_PROTOCOL, libc::EPROTONOSUPPORT),
        (NO_SUCH_FAMILY, libc::EAFNOSUPPORT),
        (NOT_THERE, libc::ENOSYS),
        (NOT_PERMITTED, libc::EPERM),
    ];
    let mut programs = Vec::with_capacity(5);
    if target == TargetArch::x86_64 {
        programs.push(no_x32());
    }
    for (table, usual) in tables {
        let errno = match answers {
            Answers::Usual => usual,
            Answers::Marked(errno) => errno,
        };
        let held = table.iter().filter(|entry| !lifted(entry.call, allow));
        programs.push(filter(held, errno, target)?);
    }
    Ok(behind_each_other(&programs))
}

/// One program of several: what one allows, the next is asked about.
fn behind_each_other(programs: &[BpfProgram]) -> BpfProgram {
    let allow = (libc::BPF_RET | libc::BPF_K) as u16;
    let jump = (libc::BPF_JMP | libc::BPF_JA) as u16;
    let mut whole = BpfProgram::new();
    for (at, program) in programs.iter().enumerate() {
        let is_last = at + 1 == programs.len();
        for (line, step) in program.iter().enumerate() {
            let allows = step.code == allow && step.k == libc::SECCOMP_RET_ALLOW;
            whole.push(if allows && !is_last {
                // Over what is left of this one.
                let left = program.len() - line - 1;
                sock_filter {
                    code: jump,
                    jt: 0,
                    jf: 0,
                    k: left as u32,
                }
            } else {
                step.clone()
            });
        }
    }
    whole
}

fn filter<'a>(
    table: impl Iterator<Item = &'a Denied>,
    errno: i32,
    target: TargetArch,
) -> Result<BpfProgram, FilterFailed> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for entry in table {
        let number = match target {
            TargetArch::aarch64 => entry.call.aarch64,
            _ => entry.call.x86_64,
        };
        // What an architecture does not have needs no denying there.
        if let Some(number) = number {
            calls.entry(number).or_default().extend(cases(entry.when)?);
        }
    }
    let denial = SeccompAction::Errno(errno.unsigned_abs());
    Ok(SeccompFilter::new(calls, SeccompAction::Allow, denial, target)?.try_into()?)
}

/// The rules of one entry, of which any suffices; none at all stands for "always".
fn cases(when: When) -> Result<Vec<SeccompRule>, FilterFailed> {
    // An int argument fills half of its register and the kernel ignores the rest, so only the low
    // half is compared: with 64 bits, garbage in the upper half would pass.
    let low = |argument, comparison, value: u32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value.into())
    };
    let mut rules = Vec::new();
    match when {
        When::Always => {}
        When::AnyBit(argument, bits) => {
            for &bit in bits {
                let set = low(argument, SeccompCmpOp::MaskedEq(bit.into()), bit)?;
                rules.push(SeccompRule::new(vec![set])?);
            }
        }
        When::OneOf(argument, values) => {
            for &value in values {
                let equal = low(argument, SeccompCmpOp::Eq, value)?;
                rules.push(SeccompRule::new(vec![equal])?);
            }
        }
        When::NoneOf(argument, values) => {
            let all = values
                .iter()
                .map(|&value| low(argument, SeccompCmpOp::Ne, value))
                .collect::<Result<_, _>>()?;
            rules.push(SeccompRule::new(all)?);
        }
        When::Unless(first, second) => {
            let both = vec![
                low(first.0, SeccompCmpOp::Eq, first.1)?,
                low(second.0, SeccompCmpOp::Ne, second.1)?,
            ];
            rules.push(SeccompRule::new(both)?);
        }
        When::And(first, (argument, mask, value)) => {
            let both = vec![
                low(first.0, SeccompCmpOp::Eq, first.1)?,
                low(argument, SeccompCmpOp::MaskedEq(mask.into()), value)?,
            ];
            rules.push(SeccompRule::new(both)?);
        }
    }
    Ok(rules)
}

/// x32 calls carry the architecture of x86-64 and a number with bit 30: every table above would miss
/// them.
fn no_x32() -> BpfProgram {
    const X32_BIT: u32 = 0x4000_0000;
    let load_number = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_if_bit = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    vec![
        sock_filter {
            code: load_number,
            jt: 0,
            jf: 0,
            k: 0,
        },
        sock_filter {
            code: jump_if_bit,
            jt: 0,
            jf: 1,
            k: X32_BIT,
        },
        sock_filter {
            code: answer,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_KILL_PROCESS,
        },
        sock_filter {
            code: answer,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::mem::discriminant;

    use super::{
        super::{
            calls::{Call, PERSONALITY, PRLIMIT64},
            judged::{self, ALLOWED, GARBAGE, answer, errno},
        },
        *,
    };
    use crate::sys;

    /// Both, of which one runs here.
    const ARCHITECTURES: [TargetArch; 2] = [TargetArch::x86_64, TargetArch::aarch64];
    /// Highest number that is tried; the kernel's newest are below 480.
    const HIGHEST: i64 = 1023;
    /// An errno that no kernel gives.
    const MARK: i32 = 3999;

    fn number(call: Call, target: TargetArch) -> Option<i64> {
        match target {
            TargetArch::aarch64 => call.aarch64,
            _ => call.x86_64,
        }
    }

    /// Arguments with which an entry denies, one set for each of its cases.
    fn denied_arguments(when: When) -> Vec<[u64; 6]> {
        let with = |at: u8, value: u32| {
            let mut arguments = [0; 6];
            arguments[usize::from(at)] = value.into();
            arguments
        };
        match when {
            When::Always => vec![[0; 6]],
            When::AnyBit(at, bits) => bits.iter().map(|bit| with(at, *bit)).collect(),
            When::OneOf(at, values) => values.iter().map(|value| with(at, *value)).collect(),
            When::NoneOf(at, _) => vec![with(at, 0x77)],
            When::Unless(first, second) => {
                let mut arguments = with(first.0, first.1);
                arguments[usize::from(second.0)] = u64::from(second.1) + 6;
                vec![arguments]
            }
            When::And(first, (at, mask, value)) => {
                let mut arguments = with(first.0, first.1);
                // Bits beside the mask, as flags are, change nothing.
                arguments[usize::from(at)] = u64::from(value | !mask);
                vec![arguments]
            }
        }
    }

    fn tables() -> [(&'static [Denied], i32); 4] {
        [
            (NOT_PERMITTED, libc::EPERM),
            (NOT_THERE, libc::ENOSYS),
            (NO_SUCH_FAMILY, libc::EAFNOSUPPORT),
            (NO_SUCH_PROTOCOL, libc::EPROTONOSUPPORT),
        ]
    }

    #[test]
    fn every_filter_compiles_and_all_together_are_small() {
        for target in ARCHITECTURES {
            let instructions = program(&[], Answers::Usual, target).unwrap().len();
            assert!(
                instructions < 512,
                "{instructions} instructions run at each call"
            );
        }
    }

    #[test]
    fn on_both_architectures_every_number_is_denied_if_its_entry_says_so_and_else_allowed() {
        for target in ARCHITECTURES {
            for call in 0..=HIGHEST {
                let mut entries = tables()
                    .into_iter()
                    .flat_map(|(table, errno)| table.iter().map(move |entry| (entry, errno)));
                let always = entries.find(|(entry, _)| {
                    number(entry.call, target) == Some(call)
                        && discriminant(&entry.when) == discriminant(&When::Always)
                });
                let expected = always.map_or(ALLOWED, |(_, denial)| errno(denial));
                // A local socket, no flags: nothing that an entry with a condition denies, but 1 as a
                // personality, or as a process.
                let arguments = [libc::AF_UNIX as u64, 0, 0, 0, 0, 0];
                let said = answer(target, call, arguments);
                let denied = [PERSONALITY, PRLIMIT64].map(|call| number(call, target));
                if !denied.contains(&Some(call)) {
                    assert_eq!(said, expected, "{call} on {target:?}");
                }
            }
        }
    }

    #[test]
    fn every_entry_is_denied_with_its_errno_also_with_garbage_in_the_upper_halves() {
        for target in ARCHITECTURES {
            for (table, denial) in tables() {
                for Denied { call, when, .. } in table {
                    let Some(number) = number(*call, target) else {
                        continue;
                    };
                    for arguments in denied_arguments(*when) {
                        let mut dirty = arguments.map(|argument| argument | GARBAGE);
                        // Of several that deny a socket the first errno counts; a family is named.
                        if table.as_ptr() == NO_SUCH_PROTOCOL.as_ptr() && dirty[0] == GARBAGE {
                            dirty[0] |= libc::AF_INET as u64;
                        }
                        let said = answer(target, number, dirty);
                        assert_eq!(said, errno(denial), "{} on {target:?}", call.name);
                    }
                }
            }
        }
    }

    #[test]
    fn a_call_of_another_architecture_ends_the_process() {
        for [ours, theirs] in [[0, 1], [1, 0]].map(|pair| pair.map(|at| ARCHITECTURES[at])) {
            for call in [0, 1, 59, 221] {
                assert_eq!(
                    judged::answer_to(theirs, ours, call, [0; 6], &[]),
                    libc::SECCOMP_RET_KILL_PROCESS
                );
            }
        }
    }

    #[test]
    fn what_a_policy_allows_is_open_and_nothing_else_is() {
        for target in ARCHITECTURES {
            for (allowance, calls) in super::super::syscalls::LIFTED {
                for entry in NOT_PERMITTED {
                    let Some(number) = number(entry.call, target) else {
                        continue;
                    };
                    let arguments = denied_arguments(entry.when)[0];
                    let said = judged::answer_to(target, target, number, arguments, &[*allowance]);
                    let expected = if calls.contains(&entry.call) {
                        ALLOWED
                    } else {
                        errno(libc::EPERM)
                    };
                    assert_eq!(said, expected, "{} with {allowance:?}", entry.call.name);
                }
            }
        }
        let named = super::super::syscalls::LIFTED
            .iter()
            .map(|(allowance, _)| *allowance);
        let all = Allowance::ALL.map(|(allowance, _, _)| allowance);
        assert!(named.eq(all), "each name lifts something");
    }

    #[test]
    fn what_everybody_needs_is_allowed() {
        let here = here().unwrap();
        let answer = |call, arguments| answer(here, call, arguments);
        let socket = |family: i32, protocol: i32| {
            answer(
                libc::SYS_socket,
                [family as u64, 1, protocol as u64, 0, 0, 0],
            )
        };
        assert_eq!(socket(libc::AF_UNIX, 0), ALLOWED);
        assert_eq!(socket(libc::AF_INET, libc::IPPROTO_TCP), ALLOWED);
        assert_eq!(socket(libc::AF_INET6, libc::IPPROTO_UDP), ALLOWED);
        assert_eq!(socket(libc::AF_NETLINK, libc::NETLINK_ROUTE), ALLOWED);
        for (family, protocol) in [
            (libc::AF_INET, libc::IPPROTO_MPTCP),
            (libc::AF_INET, libc::IPPROTO_SCTP),
            (libc::AF_NETLINK, libc::NETLINK_XFRM),
        ] {
            assert_eq!(socket(family, protocol), errno(libc::EPROTONOSUPPORT));
        }
        let fork = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64;
        assert_eq!(answer(libc::SYS_clone, [fork, 0, 0, 0, 0, 0]), ALLOWED);
        assert_eq!(
            answer(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]),
            ALLOWED
        );
        assert_eq!(
            answer(libc::SYS_ioctl, [0, libc::TIOCGWINSZ, 0, 0, 0, 0]),
            ALLOWED
        );
        for call in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_setresuid,
            libc::SYS_seccomp,
        ] {
            assert_eq!(answer(call, [GARBAGE; 6]), ALLOWED);
        }
    }

    #[test]
    fn a_call_of_x32_ends_the_process() {
        for call in [0, 59, 512] {
            let said = answer(TargetArch::x86_64, call | 0x4000_0000, [0; 6]);
            assert_eq!(said, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }

    #[test]
    fn in_a_confined_process_each_listed_call_is_denied_by_the_filter_and_not_by_the_kernel() {
        // Filters and capabilities count per thread, so this one alone is confined. The capabilities go
        // first: what a filter should miss would be root's call otherwise.
        let answers = std::thread::spawn(|| {
            for set in [caps::CapSet::Effective, caps::CapSet::Permitted] {
                caps::clear(None, set).unwrap();
            }
            install(&[], Answers::Marked(MARK)).unwrap();
            let mut answers = Vec::new();
            for (table, _) in tables() {
                for Denied { call, when, .. } in table {
                    let Some(number) = number(*call, here().unwrap()) else {
                        continue;
                    };
                    for arguments in denied_arguments(*when) {
                        answers.push((call.name, arguments, sys::errno_of(number, arguments)));
                    }
                }
            }
            answers
        });

        let answers = answers.join().unwrap();

        assert!(answers.len() >= 70, "{}", answers.len());
        for (name, arguments, said) in answers {
            assert_eq!(
                said, MARK,
                "{name} {arguments:?} was answered by the kernel"
            );
        }
    }

    #[test]
    fn the_kernel_takes_the_filters_and_a_thread_can_still_be_started() {
        let confined = std::thread::spawn(|| {
            use nix::{errno::Errno, sys::socket};

            install(&[], Answers::Usual).unwrap();
            let open = |family, protocol| {
                let flags = socket::SockFlag::empty();
                socket::socket(family, socket::SockType::Stream, flags, protocol).map(drop)
            };
            let packet = open(socket::AddressFamily::Packet, None);
            let tcp = open(socket::AddressFamily::Inet, None);
            let thread = std::thread::spawn(|| 7).join().unwrap();
            let child = std::process::Command::new("true")
                .status()
                .map(|status| status.success());
            (
                packet == Err(Errno::EAFNOSUPPORT),
                tcp,
                thread,
                child.unwrap(),
            )
        });

        assert_eq!(confined.join().unwrap(), (true, Ok(()), 7, true));
    }

    #[test]
    fn no_call_is_in_a_table_twice_but_socket_and_every_entry_has_a_reason() {
        let all = [NOT_PERMITTED, NOT_THERE, NO_SUCH_FAMILY].concat();
        let mut names: Vec<&str> = all.iter().map(|entry| entry.call.name).collect();
        names.sort_unstable();
        names.dedup();

        assert_eq!(names.len(), all.len());
        assert!(
            all.iter()
                .chain(NO_SUCH_PROTOCOL)
                .all(|entry| !entry.reason.is_empty())
        );
    }
}
