#!/usr/bin/env bash
# Installs what is missing and builds Nova; sourced by packaging/quickstart.

readonly build_packages=(build-essential pkg-config ca-certificates curl)
readonly libvirt_packages=(
  libvirt-dev libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils dnsmasq-base nftables iproute2 iputils-ping
  openssh-client cpio e2fsprogs xz-utils zstd tini util-linux procps
)
# A cold build on two slow cores.
readonly build_takes='2 to 5 minutes the first time'

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

can_be_root() {
  [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }
}

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || printf '%s ' "$package"
  done
}

# Installs those of the packages that are missing. Where no systemd runs nothing may be started by it: we start what we need.
install_packages() {
  local missing codename policy=/usr/sbin/policy-rc.d ours='' log
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  can_be_root || die "these packages are missing and only root can install them: $missing"
  step "Installing $missing(apt)"
  log=$(mktemp)
  if [ ! -d /run/systemd/system ] && [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    ours=yes
  fi
  codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME-}")
  # shellcheck disable=SC2086  # one package a word
  {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-remove --no-install-recommends install $missing ||
      # A newer qemu-utils than the distribution's own keeps qemu-system-x86 out, and would be removed for it.
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-remove --no-install-recommends --allow-downgrades install "qemu-utils/$codename" $missing
  } >"$log" 2>&1 || {
    tail -n 5 "$log" >&2
    [ -z "$ours" ] || as_root rm -f $policy
    die "apt-get could not install $missing(see $log)"
  }
  [ -z "$ours" ] || as_root rm -f $policy
  rm -f "$log"
}

# Finds a cargo that is new enough, or says in one line how to get it.
find_cargo() {
  local wanted have
  PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$repo/Cargo.toml")
  have=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || have=
  if [ -z "$have" ] || [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n 1)" != "$wanted" ]; then
    die "Rust $wanted or newer is needed (${have:-none} is here). Get it by: curl -sSf https://sh.rustup.rs | sh -s -- -y   and run this again."
  fi
}

# Builds the programs; cargo itself knows whether there is anything to do.
build_nova() {
  local features=() log total=0 compiled
  [ "$hypervisor" = simulated ] || features=(--features nova-hypervisor/libvirt)
  find_cargo
  step "Building Nova in $target ($build_takes, nothing if it is built)"
  local command=(cargo build --locked --manifest-path "$repo/Cargo.toml" --profile "$profile" --bins
    -p nova-combined -p nova-manage -p nova-network -p nova-hypervisor "${features[@]}")
  if [ -t 2 ]; then
    "${command[@]}" || die 'the build failed'
    return 0
  fi
  log=$(mktemp)
  "${command[@]}" >"$log" 2>&1 &
  total=$(grep -c '^name = ' "$repo/Cargo.lock")
  while kill -0 $! 2>/dev/null; do
    compiled=$(grep -cE '^ *Compiling' "$log" || true)
    [ "$compiled" -lt 5 ] || progress "compiled $((compiled / 25 * 25)) of at most $total crates"
    sleep 0.5
  done
  wait $! || { tail -n 30 "$log" >&2; die "the build failed (all of it: $log)"; }
  rm -f "$log"
}

# Copies the programs to where they run from, so that a later build does not change a running cloud; $new_programs says so.
install_programs() {
  local from=$target/$profile_folder program
  mkdir -p "$state/bin"
  for program in nova-combined nova-manage nova-dhcpbridge nova-libvirt; do
    [ -e "$from/$program" ] || { [ "$program" = nova-libvirt ] && continue; die "the build made no $program"; }
    cmp -s "$from/$program" "$state/bin/$program" && continue
    install -m 755 "$from/$program" "$state/bin/$program"
    new_programs=yes
  done
}
