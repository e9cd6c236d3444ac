#!/usr/bin/env bash
# Undoes what the quickstart did; sourced by packaging/quickstart.

# Stops guests (or with --purge: ends them), then Nova, then what it made on this machine. With --purge the files go, too.
down() {
  [ -e "$state/.made-by-quickstart" ] || { note "Nothing to undo: no quickstart has worked in $state"; return 0; }
  quiet_guests
  step 'Stopping nova-combined'
  if has_systemd && [ -e "$unit" ]; then
    systemctl disable --quiet --now nova-combined
    rm -f "$unit"
    systemctl daemon-reload
  fi
  end "$state/run/nova-combined.pid" nova-combined
  [ "$(id -u)" != 0 ] || clean_host
  stop_libvirt
  [ -z "$purge" ] || remove_files
}

# Asks Nova to stop or terminate every instance, so that domains, taps and disks go the way they should.
quiet_guests() {
  local ids list=() id n=0 action=StopInstances
  [ -s "$state/creds/novarc" ] && [ -x "$state/bin/nova-manage" ] && api_is_up || return 0
  [ -z "$purge" ] || action=TerminateInstances
  ids=$(ec2 DescribeInstances 2>/dev/null | tr -d '\n' | grep -oE '<instanceId>i-[0-9a-f]{8}' | sed 's/.*>//' | sort -u) || ids=
  for id in $ids; do
    instance=$id
    case $(instance_state) in terminated | shutting-down | stopped) continue ;; esac
    n=$((n + 1))
    list+=("InstanceId.$n=$id")
  done
  [ $n -gt 0 ] || return 0
  step "$action: $n instances"
  ec2 $action "${list[@]}" >/dev/null || true
  for id in "${list[@]#*=}"; do
    instance=$id
    wait_for 60 "$id is down" is_down
  done
}

api_is_up() {
  local keys
  keys=$(manage user exports "$user" 2>/dev/null) || return 1
  access=$(sed -n 's/.*EC2_ACCESS_KEY=//p' <<<"$keys")
  secret=$(sed -n 's/.*EC2_SECRET_KEY=//p' <<<"$keys")
  ec2_url=$(sed -n 's/^export EC2_URL="\{0,1\}\([^"]*\).*/\1/p' "$state/creds/novarc")
  ec2 DescribeAvailabilityZones >/dev/null 2>&1
}

is_down() {
  local seen
  seen=$(instance_state)
  case $seen in
    stopped | terminated) return 0 ;;
    *) echo "it is $seen" && return 1 ;;
  esac
}

# Removes what is left on the machine when Nova is gone: domains, dnsmasq, bridge, firewall.
clean_host() {
  local folder domain pidfile table
  if command -v virsh >/dev/null && libvirt_answers; then
    for folder in "$state"/instances/*/; do
      domain=$(basename "$folder")
      virsh --quiet domstate "$domain" >/dev/null 2>&1 || continue
      # Stopped without --purge it stays defined; it would not if Nova had been asked in time.
      virsh --quiet destroy "$domain" >/dev/null 2>&1 || true
      virsh --quiet undefine "$domain" >/dev/null 2>&1 || true
    done
  fi
  for pidfile in "$state"/networks/*.pid; do
    [ ! -e "$pidfile" ] || end "$pidfile" dnsmasq
  done
  if command -v ip >/dev/null && ip link show "$bridge" >/dev/null 2>&1; then
    step "Removing the bridge $bridge"
    ip link delete "$bridge"
  fi
  command -v nft >/dev/null || return 0
  nft list tables 2>/dev/null | sed -n 's/^table \(.* nova_\(compute\|network\)\)$/\1/p' | while read -r table; do
    # shellcheck disable=SC2086  # family and name
    nft delete table $table
  done
}

remove_files() {
  step "Removing $state and $conf"
  rm -f "$conf"
  [ "$(dirname "$conf")" != /etc/nova ] || rmdir --ignore-fail-on-non-empty /etc/nova
  rm -rf "$state"
  note 'Packages that apt installed stay; the build stays in the target folder of the source.'
}
