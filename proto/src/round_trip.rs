//! Every message survives the round trip, however its bytes are cut.

use std::{fmt::Debug, time::Duration};

use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    admin_authd, admin_broker, broker_authd,
    code::{Code, RECOVERY_ALPHABET, RecoveryCode, TotpCode},
    codec::{self, Message},
    conversation::{
        Description, Failure, Finished, FromWorker, Outcome, Prompt, ToWorker, TurnEvent,
    },
    frame::FrameReader,
    gateway_authd, gateway_broker,
    grant::Grant,
    hello::{AdminHello, Hello},
    ids::{AccountName, ChatId, ModelName, PromptId, Role, SessionId, TelegramId, UserName},
    limits,
    worker_broker::{Allowance, Assignment, Clocks, Report, Walls},
};

/// Encodes `message`, feeds it to a reader in pieces of the given lengths, and decodes what comes out.
fn through_the_wire<M: Message + PartialEq + Debug>(
    message: &M,
    cuts: &[usize],
) -> Result<(), TestCaseError> {
    let mut bytes = Vec::new();
    codec::encode_frame(message, &mut bytes).unwrap();
    let mut reader = FrameReader::new();
    let mut cuts = cuts.iter().copied().cycle();
    let mut rest = &bytes[..];
    let body = loop {
        let piece = cuts
            .next()
            .unwrap_or(1)
            .clamp(1, reader.wanted())
            .min(rest.len());
        let (now, later) = rest.split_at(piece);
        rest = later;
        if let Some(body) = reader.push(now, M::LIMIT).unwrap() {
            break body;
        }
    };
    prop_assert!(rest.is_empty());
    let read: M = codec::decode(&body).unwrap();
    prop_assert_eq!(&read, message);
    let mut longer = body.clone();
    longer.push(0);
    prop_assert!(
        codec::decode::<M>(&longer).is_err(),
        "a trailing byte was accepted"
    );
    prop_assert!(
        codec::decode::<M>(&body[..body.len() - 1]).is_err(),
        "a cut body was accepted"
    );
    Ok(())
}

fn hello() -> impl Strategy<Value = Hello> {
    any::<u32>().prop_map(|protocol| Hello { protocol })
}

fn telegram_id() -> impl Strategy<Value = TelegramId> {
    (1_i64..1 << 52).prop_map(|id| TelegramId::try_from(id).unwrap())
}

fn prompt_id() -> impl Strategy<Value = PromptId> {
    (0..i64::MAX).prop_map(|id| PromptId::try_from(id).unwrap())
}

fn model() -> impl Strategy<Value = ModelName> {
    "[a-z0-9][a-zA-Z0-9._:/@\\[\\]-]{0,60}".prop_map(|name| ModelName::try_from(name).unwrap())
}

fn account() -> impl Strategy<Value = AccountName> {
    "[a-z_][a-z0-9_-]{0,31}".prop_map(|name| AccountName::try_from(name).unwrap())
}

fn user_name() -> impl Strategy<Value = UserName> {
    "[A-Za-zÄé][A-Za-z 0-9]{0,30}[a-z]".prop_map(|name| UserName::try_from(name).unwrap())
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::User), Just(Role::Admin)]
}

fn grant() -> impl Strategy<Value = Grant> {
    any::<[u8; 32]>().prop_map(Grant::from_random)
}

fn second_factor() -> impl Strategy<Value = gateway_broker::SecondFactor> {
    use gateway_broker::SecondFactor;
    prop_oneof![Just(SecondFactor::Required), Just(SecondFactor::Optional)]
}

fn authd_user() -> impl Strategy<Value = gateway_authd::User> {
    (user_name(), telegram_id()).prop_map(|(name, id)| gateway_authd::User { name, id })
}

fn totp_code() -> impl Strategy<Value = TotpCode> {
    "[0-9]{6}".prop_map(|digits| {
        TotpCode::try_from(<[u8; 6]>::try_from(digits.as_bytes()).unwrap()).unwrap()
    })
}

fn recovery_code() -> impl Strategy<Value = RecoveryCode> {
    any::<[u8; 10]>().prop_map(|bytes| {
        RecoveryCode::try_from(bytes.map(|b| RECOVERY_ALPHABET[usize::from(b % 32)])).unwrap()
    })
}

fn standing() -> impl Strategy<Value = gateway_authd::Standing> {
    use gateway_authd::Standing;
    prop_oneof![
        Just(Standing::NotEnrolled),
        Just(Standing::Changed),
        any::<u64>().prop_map(|until| Standing::Proven { until }),
        Just(Standing::CodeNeeded),
        any::<u64>().prop_map(|until| Standing::Locked { until }),
        Just(Standing::Unavailable),
    ]
}

fn to_authd() -> impl Strategy<Value = gateway_authd::Request> {
    use gateway_authd::Request;
    let code = prop_oneof![
        totp_code().prop_map(Code::Totp),
        recovery_code().prop_map(Code::Recovery)
    ];
    prop_oneof![
        hello().prop_map(Request::Hello),
        (authd_user(), option::of(grant()), any::<bool>())
            .prop_map(|(user, grant, renew)| Request::Standing { user, grant, renew }),
        (authd_user(), code).prop_map(|(user, code)| Request::Verify { user, code }),
        authd_user().prop_map(|user| Request::Lock { user }),
    ]
}

fn from_authd() -> impl Strategy<Value = gateway_authd::Reply> {
    use gateway_authd::{Reply, Verdict};
    let verdict = prop_oneof![
        (grant(), any::<u64>(), option::of(any::<u8>())).prop_map(
            |(grant, until, recovery_left)| Verdict::Granted {
                grant,
                until,
                recovery_left,
            }
        ),
        Just(Verdict::Refused),
        any::<u64>().prop_map(|until| Verdict::Locked { until }),
        any::<u32>().prop_map(|after_ms| Verdict::Later { after_ms }),
        Just(Verdict::NotEnrolled),
        Just(Verdict::Unavailable),
    ];
    prop_oneof![
        hello().prop_map(Reply::Hello),
        standing().prop_map(Reply::Standing),
        verdict.prop_map(Reply::Verdict),
        Just(Reply::Locked),
        authd_refusal().prop_map(Reply::Refused),
    ]
}

fn broker_from_authd() -> impl Strategy<Value = broker_authd::Reply> {
    use broker_authd::{GrantEnd, Reply};
    let end = prop_oneof![
        Just(GrantEnd::Idle),
        Just(GrantEnd::Absolute),
        Just(GrantEnd::Locked),
        Just(GrantEnd::Enrolment),
        Just(GrantEnd::Replaced),
    ];
    prop_oneof![
        hello().prop_map(Reply::Hello),
        (telegram_id(), standing()).prop_map(|(user, standing)| Reply::Checked { user, standing }),
        (telegram_id(), end).prop_map(|(user, end)| Reply::Ended { user, end }),
        authd_refusal().prop_map(Reply::Refused),
    ]
}

fn admin_to_authd() -> impl Strategy<Value = admin_authd::Request> {
    use admin_authd::Request;
    prop_oneof![
        (hello(), any::<u32>())
            .prop_map(|(hello, admin)| Request::Hello(AdminHello { hello, admin })),
        Just(Request::Status),
        Just(Request::Enrolments),
        (authd_user(), any::<bool>()).prop_map(|(user, replace)| Request::Enrol { user, replace }),
        totp_code().prop_map(|code| Request::Confirm { code }),
        user_name().prop_map(|name| Request::Remove { name }),
        user_name().prop_map(|name| Request::Unlock { name }),
    ]
}

fn admin_from_authd() -> impl Strategy<Value = admin_authd::Reply> {
    use admin_authd::{AuthdStatus, Enrolment, NotDone, RECOVERY_CODES, Reply, Secret};
    let status = any::<(u32, u64, u32, bool, u64)>().prop_map(
        |(pid, started, gateway_connections, broker_connected, answered)| {
            Reply::Status(AuthdStatus {
                pid,
                started,
                gateway_connections,
                broker_connected,
                answered,
            })
        },
    );
    let enrolment = (
        authd_user(),
        any::<(u64, Option<u64>, Option<u64>, u32, u8, bool)>(),
    )
        .prop_map(
            |(user, (since, authenticated_until, locked_until, failures, left, ahead))| {
                Reply::Enrolment(Enrolment {
                    user,
                    since,
                    authenticated_until,
                    locked_until,
                    failures,
                    recovery_left: left,
                    ahead_of_clock: ahead,
                })
            },
        );
    let not_done = prop_oneof![
        Just(NotDone::EnrolledAlready),
        Just(NotDone::NotEnrolled),
        Just(NotDone::NothingToConfirm),
        Just(NotDone::WrongCode),
        Just(NotDone::Unavailable),
    ];
    prop_oneof![
        hello().prop_map(Reply::Hello),
        status,
        enrolment,
        Just(Reply::EnrolmentsEnd),
        any::<[u8; 20]>().prop_map(|bytes| Reply::Secret(Secret(bytes))),
        vec(recovery_code(), 0..=RECOVERY_CODES).prop_map(Reply::Confirmed),
        Just(Reply::Done),
        not_done.prop_map(Reply::NotDone),
        authd_refusal().prop_map(Reply::Refused),
    ]
}

fn refusal() -> impl Strategy<Value = gateway_broker::Refusal> {
    use gateway_broker::Refusal;
    prop_oneof![
        Just(Refusal::Version),
        Just(Refusal::NotPermitted),
        Just(Refusal::UnknownUser),
        Just(Refusal::SecondFactor),
        Just(Refusal::NotEnrolled),
        Just(Refusal::EnrolmentChanged),
        Just(Refusal::AuthdUnavailable),
        Just(Refusal::TooManyWorkers),
        Just(Refusal::TooManyConnections),
        Just(Refusal::LaunchFailed),
        Just(Refusal::Stopping),
    ]
}

fn authd_refusal() -> impl Strategy<Value = gateway_authd::Refusal> {
    use gateway_authd::Refusal;
    prop_oneof![
        Just(Refusal::Version),
        Just(Refusal::NotPermitted),
        Just(Refusal::TooManyConnections)
    ]
}

fn report() -> impl Strategy<Value = Report> {
    (
        any::<(bool, u32, u8, bool, bool)>(),
        any::<([u8; 16], u32)>(),
    )
        .prop_map(
            |((in_turn, agent_pid, landlock_abi, landlock_whole, seccomp), (session, turns))| {
                Report {
                    in_turn,
                    agent_pid,
                    landlock_abi,
                    landlock_whole,
                    seccomp,
                    session,
                    turns,
                }
            },
        )
}

fn to_broker() -> impl Strategy<Value = gateway_broker::Request> {
    use gateway_broker::Request;
    prop_oneof![
        hello().prop_map(Request::Hello),
        Just(Request::Subscribe),
        (telegram_id(), any::<u64>()).prop_map(|(id, at)| Request::Stranger { id, at }),
        (telegram_id(), option::of(grant()))
            .prop_map(|(user, grant)| Request::Attach { user, grant }),
    ]
}

fn from_broker() -> impl Strategy<Value = gateway_broker::Reply> {
    use gateway_broker::{Reply, UserEntry};
    let chat = (1_i64..1 << 52).prop_map(|id| ChatId::try_from(-id).unwrap());
    let user = (
        telegram_id(),
        user_name(),
        role(),
        vec(chat, 0..limits::CHATS),
        option::of(model()),
        second_factor(),
    );
    prop_oneof![
        hello().prop_map(Reply::Hello),
        user.prop_map(|(id, name, role, chats, model, second_factor)| {
            Reply::User(UserEntry {
                id,
                name,
                role,
                second_factor,
                chats,
                model,
            })
        }),
        Just(Reply::UsersEnd),
        refusal().prop_map(Reply::Refused),
    ]
}

fn to_admin() -> impl Strategy<Value = admin_broker::Reply> {
    use admin_broker::{
        BrokerStatus, LoginEnd, Reply, Stranger, UserStatus, WorkerLife, WorkerStatus,
    };
    let life = prop_oneof![
        Just(WorkerLife::Starting),
        Just(WorkerLife::Live),
        Just(WorkerLife::Dying)
    ];
    let worker = (any::<(u32, u64, bool, u64)>(), life, option::of(report())).prop_map(
        |((pid, started, attached, reported), life, report)| WorkerStatus {
            pid,
            life,
            started,
            attached,
            report,
            reported,
        },
    );
    let user = (
        telegram_id(),
        user_name(),
        role(),
        account(),
        (any::<(u32, bool, bool)>(), second_factor()),
        (option::of(worker), vec(".{0,60}", 0..9)),
    );
    let stranger = (telegram_id(), any::<(u64, u32)>()).prop_map(|(id, (last, times))| Stranger {
        id,
        last,
        times,
    });
    prop_oneof![
        hello().prop_map(Reply::Hello),
        any::<((u32, u64, u32, u32), (bool, bool, bool))>().prop_map(
            |((pid, started, workers, workers_limit), (gateway, authd, shared_key))| {
                Reply::Broker(BrokerStatus {
                    pid,
                    started,
                    workers,
                    workers_limit,
                    gateway_connected: gateway,
                    authd_connected: authd,
                    shared_key,
                })
            }
        ),
        user.prop_map(
            |(
                id,
                name,
                role,
                account,
                ((uid, own_key, login), second_factor),
                (worker, weakened),
            )| {
                Reply::User(UserStatus {
                    id,
                    name,
                    role,
                    account,
                    uid,
                    second_factor,
                    own_key,
                    login,
                    weakened,
                    worker,
                })
            }
        ),
        Just(Reply::StatusEnd),
        vec(stranger, 0..=limits::STRANGERS).prop_map(Reply::Strangers),
        any::<(u32, u32)>().prop_map(|(users, ended)| Reply::Reloaded { users, ended }),
        ".{0,200}".prop_map(Reply::ReloadRefused),
        Just(Reply::LoginBegins),
        ".{0,200}".prop_map(Reply::LoginRefused),
        (any::<i32>(), select(LoginEnd::ALL.to_vec()))
            .prop_map(|(status, why)| Reply::LoginEnded { status, why }),
        refusal().prop_map(Reply::Refused),
    ]
}

fn to_worker() -> impl Strategy<Value = ToWorker> {
    prop_oneof![
        (prompt_id(), ".{0,2000}", option::of(model()), any::<bool>()).prop_map(
            |(id, text, model, only_if_begun)| ToWorker::Prompt(Prompt {
                id,
                text,
                model,
                only_if_begun,
            })
        ),
        Just(ToWorker::Interrupt),
        Just(ToWorker::NewSession),
        prompt_id().prop_map(ToWorker::Acknowledge),
        Just(ToWorker::Describe),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::AgentMissing),
        Just(Failure::NotLoggedIn),
        any::<i32>().prop_map(|status| Failure::AgentEnded { status }),
        Just(Failure::NoResult),
        Just(Failure::Silent),
        Just(Failure::TurnTooLong),
        Just(Failure::ToolTooLong),
        Just(Failure::Garbage),
        Just(Failure::TooMuchOutput),
        Just(Failure::Budget),
        Just(Failure::TooManySteps),
        Just(Failure::SessionGone),
        ".{0,100}".prop_map(Failure::Api),
        Just(Failure::WorkerEnded),
        Just(Failure::Disk),
        Just(Failure::LowSpace),
        Just(Failure::QueueFull),
    ]
}

fn from_worker() -> impl Strategy<Value = FromWorker> {
    let outcome = prop_oneof![
        Just(Outcome::Done),
        Just(Outcome::Interrupted),
        Just(Outcome::NotBegun),
        failure().prop_map(Outcome::Failed)
    ];
    let finished =
        (outcome, any::<(u64, u64)>()).prop_map(|(outcome, (cost, duration_ms))| Finished {
            outcome,
            cost_micro_usd: cost,
            duration_ms,
        });
    let event = prop_oneof![
        Just(TurnEvent::Accepted),
        Just(TurnEvent::Started),
        ".{0,3000}".prop_map(TurnEvent::Text),
        "[A-Za-z]{1,64}".prop_map(TurnEvent::Tool),
        any::<u32>().prop_map(|attempt| TurnEvent::Retrying { attempt }),
        finished.prop_map(TurnEvent::Finished),
    ];
    let description = (
        any::<(u64, [u8; 16], u32, u64, Option<u64>, u32)>(),
        ".{0,20}",
        ".{0,20}",
        option::of(prompt_id()),
    )
        .prop_map(
            |((started, session, turns, cost, budget, queued), version, model, running)| {
                FromWorker::Description(Description {
                    started,
                    session: SessionId::from_bytes(session),
                    agent_version: version,
                    model,
                    turns,
                    cost_micro_usd: cost,
                    budget_micro_usd: budget,
                    running,
                    queued,
                    needs_login: queued % 2 == 1,
                })
            },
        );
    prop_oneof![
        refusal().prop_map(FromWorker::Refused),
        hello().prop_map(FromWorker::Hello),
        (prompt_id(), event).prop_map(|(prompt, event)| FromWorker::Turn { prompt, event }),
        description,
    ]
}

fn assignment() -> impl Strategy<Value = Assignment> {
    let paths = ("/[a-z/]{0,40}", "/[a-z/]{0,40}", "/[a-z/]{0,40}");
    let agent = (
        vec("/[a-z/]{0,40}", 1..3),
        option::of("http://[a-z]{1,9}"),
        option::of(model()),
    );
    let clocks = any::<(u32, u32, u32)>().prop_map(|(silence, turn, tool)| Clocks {
        silence: Duration::from_secs(silence.into()),
        turn: Duration::from_secs(turn.into()),
        tool: Duration::from_secs(tool.into()),
    });
    let allow = vec(
        select(Allowance::ALL.map(|(allowance, _, _)| allowance).to_vec()),
        0..4,
    );
    let walls = (any::<(bool, u64)>(), allow, vec("/[a-z]{0,9}", 0..4)).prop_map(
        |((strict, free), allow, write_paths)| Walls {
            strict,
            allow,
            write_paths,
            free,
        },
    );
    let reach = (
        option::of(vec(any::<u16>(), 0..9)),
        vec("/[a-z]{0,9}", 0..4),
        walls,
    );
    (
        account(),
        paths,
        agent,
        any::<(bool, bool, Option<u64>)>(),
        clocks,
        reach,
    )
        .prop_map(
            |(account, paths, agent, (has_key, login, budget_micro_usd), clocks, reach)| {
                Assignment {
                    account,
                    home: paths.0,
                    shell: paths.1,
                    state: paths.2,
                    agent: agent.0,
                    base_url: agent.1,
                    model: agent.2,
                    has_key,
                    login,
                    budget_micro_usd,
                    clocks,
                    connect_ports: reach.0,
                    read_paths: reach.1,
                    walls: reach.2,
                }
            },
        )
}

proptest! {
    #[test]
    fn gateway_and_broker(
        request in to_broker(), reply in from_broker(), cuts in vec(1_usize..9, 1..9)
    ) {
        through_the_wire(&request, &cuts)?;
        through_the_wire(&reply, &cuts)?;
    }

    #[test]
    fn root_and_broker(
        reply in to_admin(), protocol in hello(), name in user_name(), cuts in vec(1_usize..9, 1..9)
    ) {
        use admin_broker::Request;
        let requests =
            [Request::Hello(AdminHello { hello: protocol, admin: 7 }), Request::Status, Request::Strangers, Request::Reload, Request::Login(name)];
        for request in requests {
            through_the_wire(&request, &cuts)?;
        }
        through_the_wire(&reply, &cuts)?;
    }

    #[test]
    fn authd_and_its_peers(
        asked in to_authd(), answered in from_authd(), checked in broker_from_authd(),
        admin in admin_to_authd(), told in admin_from_authd(),
        (user, grant) in (authd_user(), option::of(grant())), cuts in vec(1_usize..9, 1..9)
    ) {
        through_the_wire(&asked, &cuts)?;
        through_the_wire(&answered, &cuts)?;
        through_the_wire(&broker_authd::Request::Check { user, grant }, &cuts)?;
        through_the_wire(&checked, &cuts)?;
        through_the_wire(&admin, &cuts)?;
        through_the_wire(&told, &cuts)?;
    }

    #[test]
    fn gateway_and_worker(
        told in to_worker(), said in from_worker(), cuts in vec(1_usize..900, 1..9)
    ) {
        through_the_wire(&told, &cuts)?;
        through_the_wire(&said, &cuts)?;
    }

    #[test]
    fn worker_and_broker(assignment in assignment(), report in report(), cuts in vec(1_usize..9, 1..9)) {
        through_the_wire(&assignment, &cuts)?;
        prop_assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_pass_with_a_rest(bytes in vec(any::<u8>(), 0..300)) {
        fn canonical<M: Message>(bytes: &[u8]) -> Result<(), TestCaseError> {
            if let Ok(message) = codec::decode::<M>(bytes) {
                let again = codec::encode(&message).unwrap();
                prop_assert!(again.len() <= bytes.len());
            }
            Ok(())
        }
        canonical::<gateway_broker::Request>(&bytes)?;
        canonical::<gateway_broker::Reply>(&bytes)?;
        canonical::<admin_broker::Reply>(&bytes)?;
        canonical::<broker_authd::Request>(&bytes)?;
        canonical::<gateway_authd::Request>(&bytes)?;
        canonical::<gateway_authd::Reply>(&bytes)?;
        canonical::<admin_authd::Request>(&bytes)?;
        canonical::<admin_authd::Reply>(&bytes)?;
        canonical::<ToWorker>(&bytes)?;
        canonical::<FromWorker>(&bytes)?;
        canonical::<Assignment>(&bytes)?;
        let _ = Report::from_bytes(&bytes);
    }
}

#[test]
fn a_body_above_its_limit_is_refused_on_both_sides() {
    let giant = ToWorker::Prompt(Prompt {
        id: PromptId::try_from(1).unwrap(),
        text: "x".repeat(limits::CONVERSATION_FRAME),
        model: None,
        only_if_begun: false,
    });
    let mut out = b"before".to_vec();
    assert!(codec::encode_frame(&giant, &mut out).is_err());
    assert_eq!(out, b"before");
    let body = vec![0; limits::CONTROL_FRAME + 1];
    assert_eq!(
        codec::decode::<gateway_broker::Request>(&body),
        Err(codec::CodecError::TooLong(limits::CONTROL_FRAME))
    );
}
