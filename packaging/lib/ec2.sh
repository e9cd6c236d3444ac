#!/usr/bin/env bash
# A client of the EC2 API in coreutils and curl, signing with version 2; sourced by packaging/quickstart.
#
# A fresh machine has no EC2 client, and the quickstart must not make anybody install one. Secrets go through pipes, never
# through a command line that ps could show.

# HMAC-SHA256 of stdin with the key $1 (at most 64 bytes), in base64.
hmac_sha256() {
  local key=$1 inner='' outer='' i byte digest
  for ((i = 0; i < 64; i++)); do
    byte=0
    [ $i -ge ${#key} ] || printf -v byte '%d' "'${key:i:1}"
    printf -v inner '%s\\x%02x' "$inner" $((byte ^ 0x36))
    printf -v outer '%s\\x%02x' "$outer" $((byte ^ 0x5c))
  done
  digest=$({ printf '%b' "$inner"; cat; } | sha256sum | cut -d ' ' -f 1 | sed 's/../\\x&/g')
  { printf '%b' "$outer"; printf '%b' "$digest"; } | sha256sum | cut -d ' ' -f 1 | sed 's/../\\x&/g' | { read -r digest; printf '%b' "$digest"; } | base64 -w 0
}

# Percent-encodes $1 as signatures want it.
percent() {
  local LC_ALL=C text=$1 i c
  for ((i = 0; i < ${#text}; i++)); do
    c=${text:i:1}
    case $c in
      [a-zA-Z0-9._~-]) printf '%s' "$c" ;;
      *) printf '%%%02X' "'$c" ;;
    esac
  done
}

# ec2 ACTION [NAME=VALUE…]: prints the answer's XML; fails with EC2's code and message on stderr, one line.
ec2() {
  local pair pairs=() query host=${ec2_url#*://} path answer signature
  path=/${host#*/}
  host=${host%%/*}
  for pair in "Action=$1" "${@:2}" Version=2016-11-15 SignatureVersion=2 SignatureMethod=HmacSHA256 \
    "AWSAccessKeyId=$access:$project" "Timestamp=$(date -u +%Y-%m-%dT%H:%M:%SZ)"; do
    pairs+=("$(percent "${pair%%=*}")=$(percent "${pair#*=}")")
  done
  query=$(printf '%s\n' "${pairs[@]}" | LC_ALL=C sort | paste -sd '&')
  signature=$(printf 'POST\n%s\n%s\n%s' "$host" "$path" "$query" | hmac_sha256 "$secret")
  answer=$(printf '%s&Signature=%s' "$query" "$(percent "$signature")" | curl -sS --noproxy '*' --max-time 20 --data-binary @- "$ec2_url") || return 1
  case $answer in
    *'<Errors>'*)
      printf '%s: %s\n' "$(element Code <<<"$answer")" "$(element Message <<<"$answer")" >&2
      return 1
      ;;
  esac
  printf '%s\n' "$answer"
}

# Prints the text of the first element $1 of the XML on stdin.
element() { tr '\n' '\r' | sed -n "s/<$1>/\n&/;s/.*\n<$1>\([^<]*\)<.*/\1/p" | tr '\r' '\n'; }
