//! The host's network. Everything is aimed at the neighbour's own listeners on the loopback.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use nix::errno::Errno;

use super::{
    Attempt,
    Group::Network,
    of,
    ways::{reached, write},
};
use crate::{
    answer::Answer,
    scene::Scene,
    sys::{at, call},
};

const PATIENCE: Duration = Duration::from_secs(2);

fn port(scene: &Scene, name: &str) -> Option<u16> {
    scene.of_neighbour(name).parse().ok()
}

fn to_port(scene: &Scene, name: &str, with: impl Fn(u16) -> Answer) -> Answer {
    match port(scene, name) {
        Some(port) => with(port),
        None => Answer::Nothing(format!("the neighbour could not listen on {name}")),
    }
}

fn tcp(address: SocketAddr) -> Answer {
    TcpStream::connect_timeout(&address, PATIENCE).into()
}

/// A struct sockaddr_in of the loopback (ip(7)).
fn loopback(port: u16) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    address[4..8].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    address
}

fn stream(protocol: i32) -> io::Result<i64> {
    call(
        libc::SYS_socket,
        [
            libc::AF_INET.into(),
            libc::SOCK_STREAM.into(),
            protocol.into(),
        ],
    )
}

/// Connects by sending: TCP fast open.
fn fast_open(port: u16) -> Answer {
    let address = loopback(port);
    let flags = i64::from(libc::MSG_FASTOPEN);
    let sent = stream(0).and_then(|socket| {
        call(
            libc::SYS_sendto,
            [socket, at("x"), 1, flags, at(&address), 16],
        )
    });
    sent.into()
}

fn multipath(port: u16) -> Answer {
    let address = loopback(port);
    let connected = stream(libc::IPPROTO_MPTCP)
        .and_then(|socket| call(libc::SYS_connect, [socket, at(&address), 16]));
    connected.into()
}

fn option(level: i32, name: i32, value: &[u8]) -> Answer {
    let set = stream(0).and_then(|socket| {
        let arguments = [
            socket,
            level.into(),
            name.into(),
            at(value),
            value.len() as i64,
        ];
        call(libc::SYS_setsockopt, arguments)
    });
    set.into()
}

/// Asks the kernel to take the loopback's first address away, in a form that names no interface: who may
/// not is told so first (rtnetlink(7)).
fn change_routes() -> Answer {
    let made = call(
        libc::SYS_socket,
        [
            libc::AF_NETLINK.into(),
            libc::SOCK_RAW.into(),
            libc::NETLINK_ROUTE.into(),
        ],
    );
    let socket = match made {
        Ok(socket) => socket,
        Err(error) => return Answer::refused(&error),
    };
    // struct nlmsghdr, then an empty struct ifaddrmsg.
    let mut message = [0_u8; 24];
    message[..4].copy_from_slice(&24_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&libc::RTM_DELADDR.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[16] = libc::AF_INET as u8;
    if let Err(error) = call(libc::SYS_write, [socket, at(&message), 24]) {
        return Answer::refused(&error);
    }
    let mut reply = vec![0_u8; 4096];
    let read = call(libc::SYS_read, [socket, at(reply.as_slice()), 4096]);
    reply = std::hint::black_box(reply);
    match read {
        // struct nlmsgerr begins with the negated errno.
        Ok(length) if length >= 20 => {
            let number = i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]);
            reached(
                Err::<(), _>(io::Error::from_raw_os_error(-number)),
                &[Errno::ENODEV, Errno::EINVAL, Errno::EADDRNOTAVAIL],
            )
        }
        Ok(_) => Answer::Unknown("a short reply".to_owned()),
        Err(error) => Answer::refused(&error),
    }
}

fn connections() -> Answer {
    match std::fs::read_to_string("/proc/net/tcp") {
        Ok(text) if text.lines().count() > 1 => Answer::open(),
        Ok(_) => Answer::Blocked("none seen".to_owned()),
        Err(error) => Answer::refused(&error),
    }
}

pub(super) const ATTEMPTS: &[Attempt] = &[
    of(
        Network,
        "tcp-local",
        "connects to a service on localhost whose port the policy does not list",
        |s| to_port(s, "tcp", |port| tcp((Ipv4Addr::LOCALHOST, port).into())),
    ),
    of(
        Network,
        "tcp-local-v6",
        "connects to such a service over IPv6",
        |s| to_port(s, "tcp6", |port| tcp((Ipv6Addr::LOCALHOST, port).into())),
    ),
    of(
        Network,
        "tcp-any-address",
        "connects to such a service by the address 0.0.0.0",
        |s| to_port(s, "tcp", |port| tcp((Ipv4Addr::UNSPECIFIED, port).into())),
    ),
    of(
        Network,
        "tcp-fast-open",
        "connects by sending (TCP fast open)",
        |s| to_port(s, "tcp", fast_open),
    ),
    of(Network, "multipath-tcp", "connects by MPTCP", |s| {
        to_port(s, "tcp", multipath)
    }),
    of(
        Network,
        "udp-local",
        "sends a datagram to a service on localhost",
        |s| {
            to_port(s, "udp", |port| {
                let answered = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
                    socket.set_read_timeout(Some(PATIENCE))?;
                    socket.send_to(b"x", (Ipv4Addr::LOCALHOST, port))?;
                    socket.recv(&mut [0; 8])
                });
                answered.into()
            })
        },
    ),
    of(Network, "listen", "listens on the host's loopback", |_| {
        // In a network of its own the neighbour's port is free.
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).into()
    }),
    of(
        Network,
        "listen-as-neighbour",
        "finds a neighbour's port taken, so is on the same network",
        |s| {
            to_port(s, "tcp", |port| {
                match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                    Ok(_) => Answer::Blocked("the port is free".to_owned()),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => Answer::open(),
                    Err(error) => Answer::refused(&error),
                }
            })
        },
    ),
    of(
        Network,
        "listen-low",
        "listens on a port of the host's services",
        |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 79)).into(),
    ),
    of(
        Network,
        "connections",
        "lists the host's connections",
        |_| connections(),
    ),
    of(
        Network,
        "interfaces",
        "lists the host's network interfaces",
        |_| {
            match std::fs::read_to_string("/proc/net/dev") {
                // Two lines of headings, and the loopback.
                Ok(text) if text.lines().count() > 3 => Answer::open(),
                Ok(_) => Answer::Blocked("a loopback".to_owned()),
                Err(error) => Answer::refused(&error),
            }
        },
    ),
    of(
        Network,
        "routes",
        "changes addresses and routes (netlink)",
        |_| change_routes(),
    ),
    of(
        Network,
        "mark",
        "marks its packets for the host's routing (SO_MARK)",
        |_| option(libc::SOL_SOCKET, libc::SO_MARK, &1_u32.to_ne_bytes()),
    ),
    of(
        Network,
        "transparent",
        "sends from addresses of others (IP_TRANSPARENT)",
        |_| option(libc::SOL_IP, libc::IP_TRANSPARENT, &1_u32.to_ne_bytes()),
    ),
    of(
        Network,
        "forced-buffer",
        "takes more of the kernel's memory than allowed (SO_RCVBUFFORCE)",
        |_| option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &1_u32.to_ne_bytes()),
    ),
    of(Network, "forward", "has the host forward packets", |_| {
        write("/proc/sys/net/ipv4/ip_forward")
    }),
];
