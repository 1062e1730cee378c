//! What the kernel would answer to a call, by running the filters as it does: classic BPF, as far as they
//! use it. So the filters of an architecture are judged that is not there to run them.

use kai_proto::worker_broker::Allowance;
use seccompiler::{BpfProgram, TargetArch};

use super::seccomp::{Answers, program};

pub(super) const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
/// The upper half of a register, which the kernel ignores in an int.
pub(super) const GARBAGE: u64 = 0xdead_beef_0000_0000;

/// The answer of a denial with this errno.
pub(super) fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.unsigned_abs()
}

/// The answer to a call of the architecture that the filters are for.
pub(super) fn answer(target: TargetArch, call: i64, arguments: [u64; 6]) -> u32 {
    answer_to(target, target, call, arguments, &[])
}

/// The answer of the filters of `target` to a call of the architecture `caller`.
pub(super) fn answer_to(
    caller: TargetArch,
    target: TargetArch,
    call: i64,
    arguments: [u64; 6],
    allow: &[Allowance],
) -> u32 {
    // AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of linux/audit.h.
    let architecture: u32 = match caller {
        TargetArch::aarch64 => 0xc000_00b7,
        _ => 0xc000_003e,
    };
    let mut data = Vec::new();
    data.extend_from_slice(&(call as u32).to_ne_bytes());
    data.extend_from_slice(&architecture.to_ne_bytes());
    data.extend_from_slice(&[0; 8]);
    for argument in arguments {
        data.extend_from_slice(&argument.to_ne_bytes());
    }
    run(&program(allow, Answers::Usual, target).unwrap(), &data)
}

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
