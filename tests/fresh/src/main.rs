//! What an admin and her users do with kai from the first command to the last, on a machine that is thrown
//! away afterwards: `tests/fresh/run` makes it and runs this there, as root.
//!
//! - [`machine`]: commands on it, its services, the emulated Telegram and model;
//! - [`readme`]: the commands that README.md tells an admin to type;
//! - [`installed`], [`refused`], [`used`], [`versions`], [`removed`]: the story, chapter by chapter;
//! - [`listing`], [`processes`]: what there is in its file system, and what runs.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod installed;
mod listing;
mod machine;
mod processes;
mod readme;
mod refused;
mod removed;
mod used;
mod versions;

use std::path::PathBuf;

use clap::Parser;

use machine::Machine;

/// What this run is told.
#[derive(Debug, Parser)]
struct Given {
    /// The directory with README.md, left-behind, kai.deb and next.deb.
    #[arg(long, value_name = "DIR")]
    files: PathBuf,
    /// The agent's package, where no registry can be reached.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// How often longer than usual all may take.
    #[arg(long, value_name = "TIMES", default_value_t = 1)]
    patience: u32,
}

fn main() {
    let given = Given::parse();
    let machine = Machine::new(&given);

    machine.chapter("before");
    machine.wait_until_booted();
    let before = listing::Listing::of_this_machine();

    machine.chapter("the README's steps, to the first answer");
    installed::by_the_readme(&machine, &given);
    installed::again_nothing_changes(&machine);
    installed::status_is_well(&machine);

    machine.chapter("wrong");
    refused::a_kernel_without_landlock(&machine);
    refused::nobody_else_can_hold_it_up(&machine);
    refused::a_unit_that_fails_to_start(&machine);

    machine.chapter("in use");
    used::each_agent_has_its_users_account(&machine);
    used::alice_works_while_bob_is_idle(&machine, &given);
    used::an_admin_may_look_and_do_nothing(&machine);
    used::services_have_what_they_need_and_no_more(&machine);
    used::a_killed_change_of_users_is_made_good(&machine);
    used::the_walls_hold(&machine);
    used::each_service_comes_back(&machine);

    machine.chapter("a second version");
    versions::a_version_that_does_not_start(&machine, &given);
    versions::an_upgrade_that_is_killed_at_each_step(&machine);
    versions::upgrade_with_a_turn_in_flight(&machine, &given);
    versions::rollback(&machine);

    machine.chapter("gone, back from a copy, and gone");
    removed::restore(&machine, &given);
    removed::uninstall(&machine, &given);
    let reasons = std::fs::read_to_string(given.files.join("left-behind")).unwrap();
    before.judge(&listing::Listing::of_this_machine(), &reasons);
    println!("kai-fresh: all {} chapters are true", machine.chapters());
}
