#!/usr/bin/env bash
# State folder, flag file, schema, account, network and credentials; sourced by packaging/quickstart.

# The user, his project and what is named after them.
readonly user=admin project=quickstart
readonly bridge=nova0

# Runs nova-manage; data on stdout, what it remarks on stderr.
manage() { "$state/bin/nova-manage" --flagfile="$conf" "$@"; }

# Writes the flag file, unless there is one: what somebody changed in it stays.
write_conf() {
  mkdir -p "$state/creds" "$state/log" "$state/run" "$(dirname "$conf")"
  chmod 755 "$state"
  chmod 700 "$state/creds"
  touch "$state/.made-by-quickstart"
  if [ -s "$conf" ]; then
    grep -q "^--state_path=$state\$" "$conf" || die "$conf is of another Nova (its --state_path is not $state); move it away first"
    return 0
  fi
  step "Writing $conf"
  local range
  range=$(free_range) || die 'no private range is free: every candidate overlaps a route of this machine'
  cat >"$conf" <<CONF
# Written by packaging/quickstart. One flag a line; nova-combined --help explains each.
--state_path=$state
--my_ip=$(own_address "${range%.0/24}.1")
--hypervisor=$hypervisor
--network_manager=nova.network.manager.FlatDHCPManager
--flat_network_bridge=$bridge
--fixed_range=$range
--dhcpbridge=$state/bin/nova-dhcpbridge
CONF
  chmod 600 "$conf"
}

flag() { sed -n "s/^--$1=//p" "$conf" | tail -n 1; }

# The address this machine speaks to the world from; without a world, the one that its guests will know it by.
own_address() {
  local found
  found=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p' | head -n 1) || found=
  if [ -n "$found" ]; then echo "$found"; elif [ "$hypervisor" = simulated ]; then echo 127.0.0.1; else echo "$1"; fi
}

number() {
  local a b c d
  IFS=. read -r a b c d <<<"$1"
  echo $(((a << 24) + (b << 16) + (${c:-0} << 8) + ${d:-0}))
}

# Prints the first of a few private /24 that no route of this machine overlaps.
free_range() {
  local taken candidate from to at length overlap
  mapfile -t taken < <(ip -4 route show table all 2>/dev/null | sed -nE 's/^(local |broadcast |blackhole |unreachable )?([0-9.]+(\/[0-9]+)?).*/\2/p')
  for candidate in 10.{44..60}.0.0/24 172.{28..31}.200.0/24 192.168.{200..220}.0/24; do
    from=$(number "${candidate%/*}")
    overlap=
    for to in "${taken[@]}"; do
      length=${to#*/}
      [ "$length" != "$to" ] || length=32
      at=$(number "${to%/*}")
      # Two ranges overlap if they agree in the bits of the shorter prefix.
      [ "$length" -le 24 ] || length=24
      [ $((from >> (32 - length))) -ne $((at >> (32 - length))) ] || overlap=yes
    done
    [ -n "$overlap" ] || { echo "$candidate"; return 0; }
  done
  return 1
}

# Creates what is not there yet: schema, user, project, network, credentials.
create_account() {
  local keys
  step 'Creating or checking tables, user, project, network'
  manage db sync 2>&1 | indent
  if ! manage user list | grep -x "$user" >/dev/null; then
    note "User $user."
    manage user admin "$user" >/dev/null
  fi
  if ! manage project list | grep -x "$project" >/dev/null; then
    note "Project $project."
    manage project create "$project" "$user" 2>&1 | indent
  fi
  if ! manage network list | grep "^$(flag fixed_range)" >/dev/null; then
    manage network create "$(flag fixed_range)" 1 256 2>&1 | indent
  fi
  if [ ! -s "$state/creds/novarc" ]; then
    manage project zipfile "$project" "$user" "$state/creds/nova.zip" 2>&1 | indent
    manage project environment "$project" "$user" "$state/creds/novarc" 2>&1 | indent
    chmod 600 "$state"/creds/*
  fi
  keys=$(manage user exports "$user")
  access=$(sed -n 's/.*EC2_ACCESS_KEY=//p' <<<"$keys")
  secret=$(sed -n 's/.*EC2_SECRET_KEY=//p' <<<"$keys")
  ec2_url=$(sed -n 's/^export EC2_URL="\{0,1\}\([^"]*\).*/\1/p' "$state/creds/novarc")
}

# Who called sudo gets the credentials: the lines printed at the end are for him.
hand_over_credentials() { [ -z "${SUDO_UID-}" ] || [ "$(id -u)" != 0 ] || chown -R "$SUDO_UID:${SUDO_GID-}" "$state/creds"; }
