#!/usr/bin/env bash
# Starts and stops nova-combined, and a libvirtd where none runs; sourced by packaging/quickstart.

readonly unit=/etc/systemd/system/nova-combined.service

has_systemd() { [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ]; }

# Whether the process of pid file $1 runs and is the program $2.
runs() {
  local pid line
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] || return 1
  line=$(cat "/proc/$pid/cmdline" 2>/dev/null | tr '\0' ' ')
  [[ $line == *"$2"* ]]
}

# Starts a command as a process of its own, its pid in the file $1 and what it says in the log $2.
launch() {
  local pidfile=$1 log=$2
  shift 2
  rm -f "$pidfile"
  setsid --fork sh -c 'echo $$ >"$1"; shift; exec "$@"' sh "$pidfile" "$@" </dev/null >>"$log" 2>&1
}

# Ends the process of pid file $1 if it is the program $2: asks first, insists after 15 s.
end() {
  local pid i
  if runs "$1" "$2"; then
    pid=$(cat "$1")
    kill "$pid"
    for ((i = 0; i < 150; i++)); do
      runs "$1" "$2" || break
      sleep 0.1
    done
    ! runs "$1" "$2" || kill -KILL "$pid"
  fi
  rm -f "$1"
}

start_nova() {
  if has_systemd; then
    write_unit
    systemctl enable --quiet nova-combined
    systemctl "$([ -n "$new_programs" ] && echo restart || echo start)" nova-combined
  else
    start_by_hand
  fi
  wait_for 30 'nova-combined answers' api_answers
}

start_by_hand() {
  # New programs take over from the old; guests do not notice.
  [ -z "$new_programs" ] || end "$state/run/nova-combined.pid" nova-combined
  if ! runs "$state/run/nova-combined.pid" nova-combined; then
    step "Starting nova-combined (log: $state/log/nova-combined.log)"
    launch "$state/run/nova-combined.pid" "$state/log/nova-combined.log" "$state/bin/nova-combined" --flagfile="$conf"
  fi
}

api_answers() {
  local answer
  if ! has_systemd && ! runs "$state/run/nova-combined.pid" nova-combined; then
    sleep 0.3
    runs "$state/run/nova-combined.pid" nova-combined || { echo "nova-combined ended: $(tail -n 1 "$state/log/nova-combined.log")"; return 2; }
  fi
  answer=$(ec2 DescribeAvailabilityZones 2>&1) || { printf '%s' "$answer" | head -n 1; return 1; }
}

write_unit() {
  local text
  text="# Written by packaging/quickstart.
[Unit]
Description=Nova, all in one process
After=network-online.target libvirtd.service
Wants=network-online.target

[Service]
Type=notify
ExecStart=$state/bin/nova-combined --flagfile=$conf
Restart=on-failure
KillMode=process

[Install]
WantedBy=multi-user.target"
  [ "$(cat $unit 2>/dev/null)" != "$text" ] || return 0
  step "Writing the systemd unit nova-combined (log: journalctl -u nova-combined)"
  printf '%s\n' "$text" >$unit
  systemctl daemon-reload
}

libvirt_answers() { timeout 20 virsh --quiet --connect qemu:///system list >/dev/null 2>&1; }

# The same of the one that we started: one that ended will never answer, and its log says why.
our_libvirt_answers() {
  libvirt_answers && return 0
  [ ! -s "$state/run/libvirtd.pid" ] || runs "$state/run/libvirtd.pid" libvirtd && return 1
  echo "libvirtd ended: $(tail -n 1 "$state/log/libvirt.log")"
  return 2
}

# Makes sure that a libvirtd answers: systemd's, or one of ours where nothing starts daemons.
start_libvirt() {
  if has_systemd; then
    systemctl start libvirtd 2>/dev/null || systemctl start virtqemud.socket 2>/dev/null || true
  fi
  libvirt_answers && return 0
  if ! has_systemd && command -v libvirtd >/dev/null; then
    step 'Starting virtlogd and libvirtd (nothing here starts them)'
    mkdir -p "$state/run" "$state/log"
    local hide=''
    # What looks like KVM may not run a kernel; libvirt would then probe it again and again, for half a minute each time.
    [ ! -e /dev/kvm ] || kvm_works || hide=yes
    runs "$state/run/virtlogd.pid" virtlogd || launch "$state/run/virtlogd.pid" "$state/log/libvirt.log" virtlogd
    runs "$state/run/libvirtd.pid" libvirtd || launch "$state/run/libvirtd.pid" "$state/log/libvirt.log" "$repo/packaging/lib/libvirtd" ${hide:+--hide-kvm}
    wait_for 30 'libvirtd answers' our_libvirt_answers
    return 0
  fi
  return 1
}

# Boots a kernel under KVM and sees whether it says anything.
kvm_works() {
  local said
  [ -r /dev/kvm ] && [ -w /dev/kvm ] && [ -s "$state/guest-image/kernel" ] || return 1
  said=$(timeout 10 qemu-system-x86_64 -accel kvm -m 64 -nodefaults -display none -no-reboot -serial stdio \
    -kernel "$state/guest-image/kernel" -append 'console=ttyS0 panic=-1' </dev/null 2>/dev/null | tr -d '\0' | head -c 1) || true
  [ -n "$said" ]
}

stop_libvirt() {
  end "$state/run/libvirtd.pid" libvirtd
  end "$state/run/virtlogd.pid" virtlogd
}
