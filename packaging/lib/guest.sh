#!/usr/bin/env bash
# Image, key, group and the first instance; sourced by packaging/quickstart.

readonly key_name=quickstart

# Registers the guest's kernel, ramdisk and disk; sets $image.
register_image() {
  local kernel ramdisk
  image=$(cat "$state/run/image" 2>/dev/null) || image=
  if [ -n "$image" ] && ec2 DescribeImages "ImageId.1=$image" >/dev/null 2>&1; then
    return 0
  fi
  step 'Registering the guest: kernel (aki), ramdisk (ari), disk (ami)'
  kernel=$(registered kernel --kind kernel --name guest-kernel)
  ramdisk=$(registered initramfs --kind ramdisk --name guest-ramdisk)
  image=$(registered disk.raw --name guest --kernel "$kernel" --ramdisk "$ramdisk")
  note "$kernel, $ramdisk, $image"
  echo "$image" >"$state/run/image"
}

# Prints the id of the image made from the file $1 of the guest, which is registered as the words behind it say, unless an
# earlier run came as far as that.
registered() {
  local file=$state/guest-image/$1 seen id
  shift
  seen=$(ec2 DescribeImages Filter.1.Name=manifest-location "Filter.1.Value.1=$file")
  id=$(element imageId <<<"$seen")
  if [ "$(element imageState <<<"$seen")" != available ]; then
    # One that was cut off half way is in the way of the next.
    [ -z "$id" ] || manage image delete "$id"
    id=$(manage image register "$file" --public "$@" 2>"$state/log/register.log") || die "$(tail -n 1 "$state/log/register.log")"
  fi
  echo "$id"
}

build_image() {
  local folder=$state/guest-image name
  if [ "$hypervisor" != simulated ]; then
    step 'The guest image, made from packages of this distribution'
    "$repo/packaging/guest-image" "$folder" | indent
    chmod 755 "$folder"
    return 0
  fi
  # Nothing boots it, so anything will do.
  mkdir -p "$folder"
  for name in kernel initramfs disk.raw; do [ -s "$folder/$name" ] || head -c 65536 /dev/zero >"$folder/$name"; done
}

create_key() {
  pem=$state/creds/$key_name.pem
  if [ -s "$pem" ] && ec2 DescribeKeyPairs "KeyName.1=$key_name" >/dev/null 2>&1; then
    return 0
  fi
  step "Creating the key pair $key_name ($pem)"
  ec2 DeleteKeyPair "KeyName=$key_name" >/dev/null
  local answer
  answer=$(ec2 CreateKeyPair "KeyName=$key_name")
  (umask 077 && element keyMaterial <<<"$answer" | sed 's/&#13;//g' >"$pem")
}

authorize() {
  local said
  if ! said=$(ec2 AuthorizeSecurityGroupIngress GroupName=default "IpProtocol=$1" "FromPort=$2" "ToPort=$3" CidrIp=0.0.0.0/0 2>&1 >/dev/null); then
    [[ $said == InvalidPermission.Duplicate* ]] || die "$said"
  fi
}

# Prints element $1 of the instance.
of_instance() { ec2 DescribeInstances "InstanceId.1=$instance" | element "$1"; }

instance_state() { ec2 DescribeInstances "InstanceId.1=$instance" | tr -d '\n' | sed -n 's/.*<instanceState>\(.*\)<\/instanceState>.*/\1/p' | element name; }

# Launches an instance, or finds the one that runs; sets $instance.
launch_instance() {
  local seen=''
  instance=$(cat "$state/run/instance" 2>/dev/null) || instance=
  [ -z "$instance" ] || seen=$(instance_state 2>/dev/null) || seen=
  case $seen in
    pending | running) return 0 ;;
    stopping | stopped)
      wait_for 60 "$instance has stopped" state_is stopped
      step "Starting $instance again"
      ec2 StartInstances "InstanceId.1=$instance" >/dev/null
      ;;
    *)
      step "Launching an instance of $image"
      instance=$(ec2 RunInstances "ImageId=$image" MinCount=1 MaxCount=1 InstanceType=m1.tiny "KeyName=$key_name" | element instanceId)
      [ -n "$instance" ] || die 'RunInstances named no instance'
      echo "$instance" >"$state/run/instance"
      ;;
  esac
}

# Succeeds when the instance is in state $1; says what it is in until then, and gives up if it can no longer get there.
state_is() {
  local seen
  seen=$(instance_state)
  [ "$seen" != "$1" ] || return 0
  echo "it is ${seen:-unknown}$(of_instance message | sed 's/^/: /')"
  case $seen in terminated | shutting-down) return 2 ;; *) return 1 ;; esac
}

pings() { ping -c 1 -W 1 -q "$address" >/dev/null 2>&1 || { echo "$address does not answer ping yet; its kernel boots"; return 1; }; }

lets_us_in() {
  local said
  said=$(ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=3 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o LogLevel=ERROR -i "$pem" "root@$address" true 2>&1) || { echo "ssh: ${said##*: }"; return 1; }
}

await_instance() {
  wait_for 120 "$instance runs" state_is running
  address=$(of_instance privateIpAddress)
  [ "$hypervisor" != simulated ] || return 0
  wait_for 120 "$instance answers ping" pings
  wait_for 120 "$instance lets the key's owner in" lets_us_in
}
