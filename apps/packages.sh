# The Debian packages that Tandem needs, and how the scripts install the missing ones. Sourced, not run.
# "a|b": either will do, a is installed.

build_packages=(
  g++ cmake ninja-build
  'libopenblas-pthread-dev|libopenblas-openmp-dev|libopenblas-serial-dev'
  zlib1g-dev libfmt-dev nlohmann-json3-dev                      # the library
  libcli11-dev libpng-dev 'libcurl4-openssl-dev|libcurl4-gnutls-dev' ca-certificates  # the program
)
test_packages=(catch2 qemu-user perl)
long_packages=(clang)
interop_packages=(python3-venv)

# Ends the script with one sentence.
die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# Prints those of its arguments that are not installed, separated by blanks.
missing_packages() {
  local installed entry missing=() name
  installed=" $(dpkg-query -W -f '${db:Status-Status}=${Package} ' 2>/dev/null || true)"
  for entry in "$@"; do
    for name in ${entry//|/ }; do
      [[ $installed == *" installed=$name "* ]] && continue 2
    done
    missing+=("${entry%%|*}")
  done
  echo "${missing[*]}"
}

# install_packages LOG ENTRY...: installs what is missing. Nothing missing: no call of apt.
install_packages() {
  local log=$1 missing as_root=()
  shift
  missing=$(missing_packages "$@")
  [[ $missing ]] || return 0
  command -v apt-get >/dev/null ||
    die "this system has no apt-get; install what these Debian packages hold, then run again: $missing"
  if ((EUID != 0)); then
    command -v sudo >/dev/null ||
      die "packages are missing, and installing them needs root or sudo; run as root: apt-get install --no-install-recommends $missing"
    as_root=(sudo)
  fi
  echo "Installing Debian packages: $missing"
  mkdir -p "$(dirname "$log")" || die "cannot write to $(dirname "$log")"
  # Lists that are absent or stale make the first try fail; only then are they fetched.
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=300)
  # shellcheck disable=SC2086  # one word a package
  if ! "${apt[@]}" install --no-install-recommends --no-remove $missing >"$log" 2>&1; then
    { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends --no-remove $missing; } >"$log" 2>&1 || {
      tail -n 5 "$log" >&2
      die "apt-get could not install $missing; the lines above are the end of $log"
    }
  fi
}
