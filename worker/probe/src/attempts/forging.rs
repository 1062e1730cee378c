//! What a command of the agent's tries against the agent and the worker, which run under its own account:
//! to read the agent's key, and to speak in their name.

use std::{fs, path::Path};

use super::{
    Attempt,
    Group::Forging,
    of,
    ways::{list, make, memory, read, signal, take_descriptor, trace, write},
};
use crate::{
    answer::Answer,
    sys::{at, call},
};

fn of_process(process: i32, file: &str, with: fn(String) -> Answer) -> Answer {
    with(format!("/proc/{process}/{file}"))
}

fn follow(path: String) -> Answer {
    fs::read_link(path).into()
}

/// Whether this process still has what the agent alone is given.
fn environment() -> Answer {
    let held = std::env::vars_os().find(|(name, _)| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"ANTHROPIC_") || name == b"CLAUDE_CODE_SHELL_PREFIX"
    });
    match held {
        Some((name, _)) => Answer::Open(name.to_string_lossy().into_owned()),
        None => Answer::Blocked("nothing of it".to_owned()),
    }
}

pub(super) const ATTEMPTS: &[Attempt] = &[
    of(
        Forging,
        "agent-environment",
        "reads the agent's environment, with its key",
        |s| of_process(s.agent, "environ", read),
    ),
    of(
        Forging,
        "agent-memory-file",
        "opens the agent's memory",
        |s| of_process(s.agent, "mem", write),
    ),
    of(
        Forging,
        "agent-maps",
        "reads where the agent's memory is",
        |s| of_process(s.agent, "maps", read),
    ),
    of(
        Forging,
        "agent-output",
        "writes into the agent's output",
        |s| of_process(s.agent, "fd/1", write),
    ),
    of(
        Forging,
        "agent-input",
        "writes into the agent's input",
        |s| of_process(s.agent, "fd/0", write),
    ),
    of(
        Forging,
        "agent-errors",
        "writes into the agent's standard error",
        |s| of_process(s.agent, "fd/2", write),
    ),
    of(
        Forging,
        "agent-files",
        "lists what the agent has open",
        |s| of_process(s.agent, "fd", list),
    ),
    of(Forging, "agent-directory", "goes where the agent is", |s| {
        of_process(s.agent, "cwd", follow)
    }),
    of(
        Forging,
        "agent-program",
        "asks what the agent's program is",
        |s| of_process(s.agent, "exe", follow),
    ),
    of(Forging, "agent-trace", "attaches to the agent", |s| {
        trace(s.agent)
    }),
    of(Forging, "agent-memory", "reads the agent's memory", |s| {
        memory(s.agent)
    }),
    of(
        Forging,
        "agent-descriptor",
        "takes a descriptor of the agent's",
        |s| take_descriptor(s.agent),
    ),
    of(Forging, "agent-signal", "signals the agent", |s| {
        signal(s.agent)
    }),
    of(
        Forging,
        "agent-oom-score",
        "has the agent ended first when memory runs out",
        |s| {
            of_process(s.agent, "oom_score_adj", |path| {
                fs::write(path, "1000").into()
            })
        },
    ),
    of(
        Forging,
        "agent-limits",
        "changes the agent's limits (prlimit)",
        |s| {
            let limit = [0_u64; 2];
            let files = libc::RLIMIT_NOFILE.into();
            call(libc::SYS_prlimit64, [s.agent.into(), files, 0, at(&limit)]).into()
        },
    ),
    of(
        Forging,
        "worker-limits",
        "changes the worker's limits (prlimit)",
        |s| {
            let limit = [0_u64; 2];
            let files = libc::RLIMIT_NOFILE.into();
            let asked = [s.worker.into(), files, 0, at(&limit)];
            call(libc::SYS_prlimit64, asked).into()
        },
    ),
    of(
        Forging,
        "worker-environment",
        "reads the worker's environment",
        |s| of_process(s.worker, "environ", read),
    ),
    of(
        Forging,
        "worker-memory-file",
        "opens the worker's memory",
        |s| of_process(s.worker, "mem", write),
    ),
    of(
        Forging,
        "worker-connection",
        "writes into the worker's connection",
        |s| of_process(s.worker, "fd/3", write),
    ),
    of(
        Forging,
        "worker-control",
        "writes into the worker's line to the broker",
        |s| of_process(s.worker, "fd/4", write),
    ),
    of(Forging, "worker-trace", "attaches to the worker", |s| {
        trace(s.worker)
    }),
    of(Forging, "worker-memory", "reads the worker's memory", |s| {
        memory(s.worker)
    }),
    of(
        Forging,
        "worker-descriptor",
        "takes a descriptor of the worker's",
        |s| take_descriptor(s.worker),
    ),
    of(
        Forging,
        "worker-journal",
        "lists the worker's journal",
        |s| list(&s.state),
    ),
    of(
        Forging,
        "worker-answer",
        "puts an answer into the worker's journal",
        |s| make(s.state.join("forged")),
    ),
    of(
        Forging,
        "shell-replaced",
        "puts a program in the place of the agent's shell",
        |s| {
            let links: &Path = &s.state.join("tools");
            make(links.join("forged"))
        },
    ),
    of(
        Forging,
        "environment",
        "has the agent's key, or what was told to the agent alone",
        |_| environment(),
    ),
];
