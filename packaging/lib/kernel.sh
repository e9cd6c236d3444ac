# Names the packages of a kernel for virtual machines. Sourced; the caller has a function `fail`.

# Prints the package that holds the newest kernel made for virtual machines of architecture $1, as this distribution calls it.
kernel_packages() {
  local meta names
  for meta in "linux-image-cloud-$1" linux-image-virtual "linux-image-$1"; do
    names=$(apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
    [ -n "$names" ] || continue
    echo "$names"
    # Ubuntu keeps the modules beside the kernel.
    apt-cache show "${names/linux-image/linux-modules}" >/dev/null 2>&1 && echo "${names/linux-image/linux-modules}"
    return 0
  done
  fail 'no kernel package found; run apt-get update first'
}
