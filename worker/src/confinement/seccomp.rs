//! Seccomp. One filter has one errno, so several are stacked; the kernel runs them all and
//! the strictest answer counts.
//!
//! A call of another architecture (`int 0x80`) ends the process, by the check at the head of each
//! filter, and so does one of x32, which x86-64 otherwise takes for its own.

use std::collections::BTreeMap;

use kai_proto::worker_broker::Allowance;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::syscalls::{
    Denied, NO_SUCH_FAMILY, NO_SUCH_PROTOCOL, NOT_PERMITTED, NOT_PERMITTED_HERE, NOT_THERE, When,
    lifted,
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
    for program in programs(allow, answers, here()?)? {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

fn here() -> Result<TargetArch, FilterFailed> {
    Ok(TargetArch::try_from(std::env::consts::ARCH)?)
}

/// All filters, as the kernel takes them.
fn programs(
    allow: &[Allowance],
    answers: Answers,
    target: TargetArch,
) -> Result<Vec<BpfProgram>, FilterFailed> {
    let everywhere = [NOT_PERMITTED, NOT_PERMITTED_HERE].concat();
    let stacked: [(&[Denied], i32); 4] = [
        (&everywhere, libc::EPERM),
        (NOT_THERE, libc::ENOSYS),
        (NO_SUCH_FAMILY, libc::EAFNOSUPPORT),
        (NO_SUCH_PROTOCOL, libc::EPROTONOSUPPORT),
    ];
    let mut programs = Vec::with_capacity(5);
    for (table, usual) in stacked {
        let errno = match answers {
            Answers::Usual => usual,
            Answers::Marked(errno) => errno,
        };
        let held = table.iter().filter(|entry| !lifted(entry.call, allow));
        programs.push(filter(held, errno, target)?);
    }
    programs.extend(no_x32());
    Ok(programs)
}

fn filter<'a>(
    table: impl Iterator<Item = &'a Denied>,
    errno: i32,
    target: TargetArch,
) -> Result<BpfProgram, FilterFailed> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for entry in table {
        calls
            .entry(entry.call)
            .or_default()
            .extend(cases(entry.when)?);
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
    }
    Ok(rules)
}

/// x32 calls carry the architecture of x86-64 and a number with bit 30: every table above would miss
/// them.
#[cfg(target_arch = "x86_64")]
fn no_x32() -> Option<BpfProgram> {
    use seccompiler::sock_filter;

    const X32_BIT: u32 = 0x4000_0000;
    let load_number = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_if_bit = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    Some(vec![
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
    ])
}

#[cfg(not(target_arch = "x86_64"))]
fn no_x32() -> Option<BpfProgram> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_compiles_and_all_together_are_small() {
        let programs = programs(&[], Answers::Usual, here().unwrap()).unwrap();

        let instructions: usize = programs.iter().map(Vec::len).sum();
        assert_eq!(
            programs.len(),
            if cfg!(target_arch = "x86_64") { 5 } else { 4 }
        );
        assert!(
            instructions < 512,
            "{instructions} instructions run at each call"
        );
    }

    /// What the kernel would answer, by running the programs as it does.
    fn answer(call: i64, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&(call as u32).to_ne_bytes());
        let native = match std::env::consts::ARCH {
            "x86_64" => 0xc000_003e_u32,
            "aarch64" => 0xc000_00b7,
            other => panic!("no filters for {other}"),
        };
        data.extend_from_slice(&native.to_ne_bytes());
        data.extend_from_slice(&[0; 8]);
        arguments
            .iter()
            .for_each(|argument| data.extend_from_slice(&argument.to_ne_bytes()));
        // The strictest is the smallest as a signed number, as in seccomp(2).
        let programs = programs(&[], Answers::Usual, here().unwrap()).unwrap();
        let answers = programs
            .iter()
            .map(|program| run(program, &data).cast_signed());
        answers.min().unwrap().cast_unsigned()
    }

    /// Classic BPF, as far as filters use it.
    fn run(program: &BpfProgram, data: &[u8]) -> u32 {
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let step = &program[at];
            let k = step.k;
            at += 1 + match u32::from(step.code) {
                0x20 => {
                    let word = k as usize..k as usize + 4;
                    accumulator = u32::from_ne_bytes(data[word].try_into().unwrap());
                    0
                }
                0x54 => {
                    accumulator &= k;
                    0
                }
                0x05 => k as usize,
                0x06 => return k,
                jump => {
                    let holds = match jump {
                        0x15 => accumulator == k,
                        0x25 => accumulator > k,
                        0x35 => accumulator >= k,
                        0x45 => accumulator & k != 0,
                        other => panic!("an instruction {other:#x}"),
                    };
                    usize::from(if holds { step.jt } else { step.jf })
                }
            };
        }
    }

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const GARBAGE: u64 = 0xdead_beef_0000_0000;

    fn errno(number: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | number.unsigned_abs()
    }

    #[test]
    fn every_entry_is_denied_with_its_errno_also_with_garbage_in_the_upper_halves() {
        let tables = [
            (NOT_PERMITTED, libc::EPERM),
            (NOT_PERMITTED_HERE, libc::EPERM),
            (NOT_THERE, libc::ENOSYS),
            (NO_SUCH_FAMILY, libc::EAFNOSUPPORT),
        ];
        for (table, expected) in tables {
            for Denied { call, when, .. } in table {
                let values: Vec<(u8, u32)> = match *when {
                    When::Always => vec![(0, 0)],
                    When::AnyBit(at, bits) => bits.iter().map(|bit| (at, bit | 1)).collect(),
                    When::OneOf(at, values) => values.iter().map(|value| (at, *value)).collect(),
                    When::NoneOf(at, _) => vec![(at, 0x77)],
                    When::Unless(..) => unreachable!(),
                };
                for (at, value) in values {
                    let mut arguments = [GARBAGE; 6];
                    arguments[usize::from(at)] |= u64::from(value);
                    assert_eq!(answer(*call, arguments), errno(expected), "call {call}");
                }
            }
        }
    }

    #[test]
    fn what_everybody_needs_is_allowed() {
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

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_call_of_x32_ends_the_process() {
        let x32 = libc::SYS_read | 0x4000_0000;
        assert_eq!(answer(x32, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn the_kernel_takes_the_filters_and_a_thread_can_still_be_started() {
        // Filters count per thread, so this one alone is confined.
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
        let all = [NOT_PERMITTED, NOT_PERMITTED_HERE, NOT_THERE, NO_SUCH_FAMILY].concat();
        let mut calls: Vec<i64> = all.iter().map(|entry| entry.call).collect();
        calls.sort_unstable();
        calls.dedup();

        assert_eq!(calls.len(), all.len());
        assert!(
            all.iter()
                .chain(NO_SUCH_PROTOCOL)
                .all(|entry| !entry.reason.is_empty())
        );
    }
}
