# What ./dev needs to set itself up: packages, Python environments, small helpers. Sourced from the
# root of the repository.

build_packages=(g++ cmake ninja-build libgtest-dev libgmock-dev librapidcheck-dev libbenchmark-dev
  nlohmann-json3-dev libcli11-dev libutf8proc-dev pkg-config python3 python3-venv)
python_packages=(g++ cmake ninja-build nlohmann-json3-dev python3 python3-dev python3-venv)
clang_packages=(clang-19 libclang-rt-19-dev llvm-19)
aarch64_packages=(g++-12-aarch64-linux-gnu qemu-user googletest)

export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi

die() {
  echo "./dev: $*" >&2
  exit 1
}

job_count() { nproc; }

# quietly LOG COMMAND...: shows the output only if the command fails.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 </dev/null || { cat "$log" >&2 && die "failed: $*"; }
}

# A Python that can make environments counts as python3-venv, one with headers as python3-dev,
# wherever it comes from.
is_installed() {
  case $1 in
    python3) command -v python3 >/dev/null ;;
    python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    python3-dev) [[ -e $(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]] ;;
    *) dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed' ;;
  esac
}

# need_packages PACKAGE...: installs what is missing, or says what to install.
need_packages() {
  command -v dpkg-query >/dev/null || return 0 # not Debian: CMake names what it cannot find
  local package missing=() as_root=()
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  if [[ $(id -u) != 0 ]]; then
    as_root=(sudo -n)
    sudo -n true 2>/dev/null || die "please install: sudo apt-get install ${missing[*]}"
  fi
  echo "installing Debian packages: ${missing[*]}" >&2
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq
    -o DPkg::Lock::Timeout=300)
  quietly build/apt-update.log "${apt[@]}" update
  quietly build/apt-install.log "${apt[@]}" install --no-install-recommends "${missing[@]}"
}

# venv NAME REQUIREMENTS: build/venv-NAME holds exactly what the file pins. Made again if it changed.
venv() {
  local folder=build/venv-$1 requirements=$2
  need_packages python3 python3-venv
  cmp -s "$requirements" "$folder/made-from.txt" && return 0
  echo "making $folder" >&2
  rm -rf "$folder"
  quietly "build/venv-$1.log" python3 -m venv "$folder"
  quietly "build/venv-$1.log" "$folder/bin/pip" install --disable-pip-version-check --quiet \
    -r "$requirements"
  cp "$requirements" "$folder/made-from.txt"
}

# The Python module, as the wheel that `pip install .` makes, in build/wheels.
module_wheel() {
  need_packages "${python_packages[@]}"
  venv python python/requirements.txt
  rm -rf build/wheels
  quietly build/wheel.log build/venv-python/bin/pip wheel --disable-pip-version-check \
    --no-build-isolation --no-deps --wheel-dir build/wheels \
    --config-settings=cmake.define.CMAKE_COMPILE_WARNING_AS_ERROR=ON .
}

# Where that was built.
wheel_build() {
  build/venv-python/bin/python -c 'import sys; print(f"build/wheel-{sys.implementation.cache_tag}")'
}

# module_into NAME: the module in build/venv-NAME.
module_into() {
  module_wheel
  quietly build/wheel-install.log "build/venv-$1/bin/pip" install --disable-pip-version-check \
    --no-deps --force-reinstall build/wheels/polyhead-*.whl
}

# Every C++ file of ours, zero-terminated.
cpp_files() {
  find include src testing tests cli bench examples python -type f \
    \( -name '*.h' -o -name '*.cc' -o -name '*.c' \) -print0
}

# What clang-tidy reads: sources that ship, not the tests beside them.
product_sources() {
  find src cli examples -type f -name '*.cc' ! -name '*_test.cc' -print0
}
