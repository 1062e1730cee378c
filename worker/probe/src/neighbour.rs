//! The neighbour: a process under a second account that nobody has, with everything of its own laid out as
//! openly as its account can.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
    thread,
};

use nix::{
    mqueue::{MQ_OFlag, MqAttr, mq_open, mq_unlink},
    sys::stat::Mode,
};

use crate::{Problem, sys};

/// How the names of what is laid out outside `place` begin; the place's own name follows.
const OUTSIDE: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Lays everything out below and beside `place`, tells of it on standard output as `name=value` lines,
/// ended by an empty one, and lives until standard input ends. Then removes what is not below `place`.
///
/// # Errors
/// If what it tells cannot be written. What a host does not let it lay out is left out.
pub fn live(place: &Path) -> Result<(), Problem> {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let home = place.join("neighbour");
    let mut told = Vec::new();
    let mut tell = |name: &str, value: String| told.push(format!("{name}={value}"));

    let secret = home.join("secret");
    fs::write(&secret, "blue suitcase")?;
    fs::set_permissions(&secret, Permissions::from_mode(0o666))?;
    tell("home", home.display().to_string());
    tell("file", secret.display().to_string());
    let mut made = Vec::new();
    let directory = Path::new("/tmp").join(format!("{name}.d"));
    if fs::create_dir(&directory).is_ok() {
        fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
        tell("tmp-directory", directory.display().to_string());
        made.push(directory);
    }
    for (key, directory) in ["tmp-file", "var-tmp-file", "shm-file"].iter().zip(OUTSIDE) {
        let path = Path::new(directory).join(&*name);
        if File::create_new(&path).is_ok() {
            fs::set_permissions(&path, Permissions::from_mode(0o666))?;
            tell(key, path.display().to_string());
            made.push(path);
        }
    }
    let mut sockets = Vec::new();
    let in_tmp = format!("/tmp/{name}.sock");
    let in_run = format!("/run/{name}/neighbour.sock");
    for (key, path) in [("tmp-socket", in_tmp), ("run-socket", in_run)] {
        if let Ok(socket) = UnixListener::bind(&path) {
            fs::set_permissions(&path, Permissions::from_mode(0o666))?;
            sockets.push(socket);
            tell(key, path.clone());
            made.push(path.into());
        }
    }
    let address = SocketAddr::from_abstract_name(&*name)?;
    sockets.push(UnixListener::bind_addr(&address)?);
    tell("abstract", name.clone().into_owned());

    let key = i64::from(std::process::id()) | 0x6b61_0000;
    let open = i64::from(libc::IPC_CREAT | libc::IPC_EXCL | 0o666);
    let memory = sys::call(libc::SYS_shmget, [key, 4096, open]);
    let messages = sys::call(libc::SYS_msgget, [key, open]);
    let semaphores = sys::call(libc::SYS_semget, [key, 1, open]);
    for (name, made) in [
        ("sysv-memory", &memory),
        ("sysv-messages", &messages),
        ("sysv-semaphores", &semaphores),
    ] {
        if made.is_ok() {
            tell(name, key.to_string());
        }
    }
    let queue = format!("/{name}");
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_RDWR;
    let all = Mode::from_bits_truncate(0o666);
    let attributes = MqAttr::new(0, 1, 16, 0);
    let opened = mq_open(queue.as_str(), flags, all, Some(&attributes));
    if opened.is_ok() {
        // The kernel's own name has no slash (mq_overview(7)).
        tell("message-queue", name.clone().into_owned());
    }
    let terminal = nix::pty::openpty(None, None)?;
    let path = nix::unistd::ttyname(&terminal.slave)?;
    fs::set_permissions(&path, Permissions::from_mode(0o622))?;
    tell("terminal", path.display().to_string());

    let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    tell("tcp", tcp.local_addr()?.port().to_string());
    let tcp6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok();
    if let Some(listening) = &tcp6 {
        tell("tcp6", listening.local_addr()?.port().to_string());
    }
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    tell("udp", udp.local_addr()?.port().to_string());
    thread::spawn(move || echo(&udp));

    let mut output = std::io::stdout();
    writeln!(output, "{}\n", told.join("\n"))?;
    output.flush()?;
    let _ = std::io::stdin().read_to_end(&mut Vec::new());

    for path in made {
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
    let _ = mq_unlink(queue.as_str());
    let remove = libc::IPC_RMID.into();
    let _ = memory.and_then(|id| sys::call(libc::SYS_shmctl, [id, remove, 0]));
    let _ = messages.and_then(|id| sys::call(libc::SYS_msgctl, [id, remove, 0]));
    let _ = semaphores.and_then(|id| sys::call(libc::SYS_semctl, [id, 0, remove, 0]));
    Ok(())
}

fn echo(socket: &UdpSocket) {
    let mut datagram = [0; 8];
    while let Ok((length, from)) = socket.recv_from(&mut datagram) {
        let _ = socket.send_to(&datagram[..length], from);
    }
}
