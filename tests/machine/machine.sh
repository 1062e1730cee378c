# Sourced by tests/machine/run and tests/fresh/run: Debian 12 trees, and machines that run them.
#
# Sets $work, a directory that goes with the shell; the caller is at the top of the checkout.

export PATH="$PATH:/usr/sbin:/sbin"

# What is needed: program:package, ...
require() {
  local missing=() tool
  for tool; do
    command -v "${tool%%:*}" >/dev/null || missing+=("${tool#*:}")
  done
  if ((${#missing[@]})); then
    echo "$0: needs, of Debian's packages: ${missing[*]}" >&2
    exit 1
  fi
  if ((EUID)); then
    echo "$0: needs root, to make a machine's file system" >&2
    exit 1
  fi
}

step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

# What takes long runs beside this shell, so that a signal to the shell ends it too: in namespaces of its
# own, with which all its processes and mounts end.
running=
beside() {
  unshare --mount --pid --fork --kill-child -- "$@" </dev/null &
  running=$!
  local status=0
  wait "$running" || status=$?
  running=
  return "$status"
}
work=$(mktemp -d)
leave() {
  if [[ $running ]]; then
    # unshare(1) itself takes no other signal.
    kill -KILL "$running" 2>/dev/null || true
    wait "$running" 2>/dev/null || true
  fi
  rm -rf --one-file-system "$work"
}
trap leave EXIT
trap 'exit 1' HUP INT TERM

# Makes a Debian 12 with systemd in the directory $1, with the packages $2 (joined by commas) beside the least
# that there can be; from the mirror that apt has here.
make_debian() {
  local tree=$1 site
  site=$(apt-get indextargets --format '$(SITE)|$(CODENAME)' | sed -n 's/|bookworm$//p' | head -n 1)
  if [[ ! $site ]]; then
    echo "$0: apt knows no mirror of Debian 12 here; try apt-get update" >&2
    exit 1
  fi
  beside debootstrap --variant=minbase --include="systemd,systemd-sysv,dbus,sudo,passwd,$2" \
    bookworm "$tree" "$site" >"$work/debootstrap" || {
    tail -n 20 "$work/debootstrap" >&2
    exit 1
  }
  # What is the host's own is not the machine's.
  rm -f "$tree/etc/resolv.conf"
  echo kai-machine >"$tree/etc/hostname"
  printf '127.0.0.1 localhost kai-machine\n::1 localhost\n' >"$tree/etc/hosts"
  # Nothing is to happen beside the tests, and a login prompt would take the console away.
  rm -f "$tree"/etc/systemd/system/*.target.wants/{*.timer,e2scrub_reap.service}
  rm -f "$tree"/etc/systemd/system/getty.target.wants/*
  ln -s /dev/null "$tree/etc/systemd/system/console-getty.service"
  ln -s /dev/null "$tree/etc/systemd/system/serial-getty@.service"
}

# Boots the tree $1, which has linux-image-cloud-amd64, in a virtual machine without a network, for at most $2
# seconds. What comes out of its second serial port is shown, and is in $work/said afterwards. It is emulated,
# also where there is a /dev/kvm: that works in whatever machine this is itself.
boot_virtual_machine() {
  local tree=$1 limit=$2
  beside mkfs.ext4 -q -d "$tree" "$work/image" 6G
  # The network interface leads nowhere, and is there to be seen, as a host's is.
  beside timeout --kill-after=10 "$limit" qemu-system-x86_64 \
    -accel tcg,thread=multi -cpu max -smp 2 -m 3072 \
    -kernel "$tree/vmlinuz" -initrd "$tree/initrd.img" \
    -append "root=/dev/vda rw console=ttyS0 quiet loglevel=3" \
    -drive "file=$work/image,if=virtio,format=raw,cache=unsafe" \
    -nic user,model=virtio-net-pci,restrict=on -display none -monitor none -no-reboot \
    -serial "file:$work/console" \
    -chardev "stdio,id=tests,signal=off,logfile=$work/said" -serial chardev:tests || true
  rm -f "$work/image"
}

# True if the last line of $work/said that begins with "$1: " goes on with "passed".
judge() {
  local verdict
  verdict=$(grep "^$1: " "$work/said" | tail -n 1 || true)
  if [[ ! $verdict ]]; then
    echo "$0: the machine ended, or was ended, without a verdict; its console:" >&2
    tail -n 20 "$work/console" >&2 || true
  fi
  [[ $verdict == "$1: passed" ]]
}
