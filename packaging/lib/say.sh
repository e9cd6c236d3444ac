#!/usr/bin/env bash
# What the quickstart says, and how it waits; sourced by packaging/quickstart.

# Says what is about to be done.
step() { printf '%s\n' "==> $*"; }

# Says a detail of the step before.
note() { printf '%s\n' "    $*"; }

# Passes on what a program says, as details.
indent() { sed 's/^/    /'; }

die() {
  clear_progress
  printf '%s\n' "quickstart: $*" >&2
  exit 1
}

clear_progress() { [ ! -t 1 ] || printf '\r\033[K'; }

# Shows how far something is: in place on a terminal, elsewhere a line when the text changes.
progress() {
  if [ -t 1 ]; then
    printf '\r\033[K    %s' "${1:0:110}"
  elif [ "$1" != "${said_progress-}" ]; then
    said_progress=$1
    printf '    %s\n' "$1"
  fi
}

# wait_for SECONDS WHAT COMMAND…: waits until the command succeeds, showing as the reason what it prints until then.
# Status 2 of the command means that it never will.
wait_for() {
  local limit=$1 what=$2 began=$SECONDS reason status
  shift 2
  while true; do
    reason=$("$@" 2>&1) && status=0 || status=$?
    case $status in
      0)
        clear_progress
        [ $((SECONDS - began)) -lt 2 ] || note "$what (after $((SECONDS - began)) s)"
        return 0
        ;;
      2) die "$reason" ;;
    esac
    reason=${reason:-not yet}
    [ $((SECONDS - began)) -lt "$limit" ] || die "$what: not within $limit s. Last reason: $reason"
    if [ -t 1 ]; then progress "waiting until $what, $((SECONDS - began)) s: $reason"; else progress "waiting until $what: $reason"; fi
    sleep 0.3
  done
}
