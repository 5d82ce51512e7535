#!/usr/bin/env bash
# Sets up everything the project needs: system packages, .venv and the Python packages.
#
#   tools/setup.sh --infer      to compare and recognise with the shipped model, without TensorFlow
#   tools/setup.sh --service    to run the service too
#   tools/setup.sh              to run all scripts
#   tools/setup.sh --dev        to run the tests too
#
# Environment:
#   PYTHON   interpreter to build .venv with (default: the first of python3, python3.13 ... 3.10
#            that is between 3.10 and 3.13)
#   MIRROR   package index to use in place of the default one, e.g. a mirror close to you
#
# A second call skips what is done, until a requirements file changes. Missing system packages never
# stop it: without PortAudio the microphone doesn't work, and all else does.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly VENV=.venv
readonly MIN_MINOR=10 MAX_MINOR=13   # Python 3.x that TensorFlow has packages for

with_tests=no
case "${1:-}" in
  "") wanted=run ;;
  --infer) wanted=infer ;;
  --service) wanted=service ;;
  --dev) wanted=dev with_tests=yes ;;
  *) echo "usage: tools/setup.sh [--infer | --service | --dev]" >&2; exit 2 ;;
esac

say() { echo "setup: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

supported_python() {
  "$1" -c "import sys; sys.exit(not (3, $MIN_MINOR) <= sys.version_info[:2] <= (3, $MAX_MINOR))" \
    >/dev/null 2>&1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if have "$candidate" && supported_python "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
}

# --- System packages -----------------------------------------------------------------------------

has_python_headers() {
  "$python" -c 'import os, sysconfig, sys
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}
has_portaudio() {
  if have brew && [ -e "$(brew --prefix)/include/portaudio.h" ]; then return 0; fi
  have gcc && gcc -E -x c - >/dev/null 2>&1 <<<'#include <portaudio.h>'
}
can_make_venv() { "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; }
microphone_works() { [ -x $VENV/bin/python ] && $VENV/bin/python -c 'import pyaudio' 2>/dev/null; }

# Prints the missing packages by the names of the package manager $1.
missing_packages() {
  local manager=$1
  if [ -z "$python" ]; then
    if ! have python3; then
      echo python3
      if [ "$manager" = apt-get ]; then echo python3-venv; fi
    fi
  elif ! can_make_venv && [ "$manager" = apt-get ]; then
    echo python3-venv
  fi
  if ! microphone_works; then
    if ! has_portaudio; then
      case $manager in
        apt-get) echo portaudio19-dev ;;
        dnf) echo portaudio-devel ;;
        brew) echo portaudio ;;
      esac
    fi
    if [ "$manager" != brew ]; then
      if ! have gcc; then
        echo gcc
        if [ "$manager" = apt-get ]; then echo libc6-dev; fi
      fi
      if [ -z "$python" ] || ! has_python_headers; then
        if [ "$manager" = apt-get ]; then echo python3-dev; else echo python3-devel; fi
      fi
    fi
  fi
  # The tests record from a virtual sound card and decode what only ffmpeg can.
  if [ $with_tests = yes ] && [ "$manager" != brew ]; then
    if ! have pulseaudio; then echo pulseaudio; fi
    if ! have pactl; then echo pulseaudio-utils; fi
    if [ "$manager" = apt-get ]; then
      if ! ls /usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so >/dev/null 2>&1; then
        echo libasound2-plugins
      fi
      if ! have ffmpeg; then echo ffmpeg; fi
    else
      if ! ls /usr/lib*/alsa-lib/libasound_module_pcm_pulse.so >/dev/null 2>&1; then
        echo alsa-plugins-pulseaudio
      fi
      if ! have ffmpeg; then echo ffmpeg-free; fi
    fi
  fi
}

# The tests of the web page need a browser; without one they are skipped.
install_browser() {
  local as_root="" packages="chromium chromium-driver"
  if [ $with_tests != yes ] || ! have apt-get || { have chromium && have chromedriver; }; then
    return 0
  fi
  if [ "$(id -u)" != 0 ]; then
    if have sudo && sudo -n true 2>/dev/null; then as_root="sudo -n"; else return 0; fi
  fi
  say "installing for the tests: $packages"
  { $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends $packages; } </dev/null >/dev/null 2>&1 ||
    say "no $packages here: the tests of the web page are skipped"
}

install_system_packages() {
  local manager packages as_root=""
  for manager in apt-get dnf brew none; do
    if have $manager; then break; fi
  done
  if [ $manager = none ]; then
    if ! has_portaudio && ! microphone_works; then
      say "for the microphone install PortAudio with its headers, a C compiler and Python's headers"
    fi
    return 0
  fi
  packages=$(missing_packages $manager | tr '\n' ' ')
  packages=${packages% }
  if [ -z "$packages" ]; then return 0; fi
  if [ $manager != brew ] && [ "$(id -u)" != 0 ]; then
    # Asks for the password only where somebody can type it.
    if have sudo && [ -t 0 ]; then
      as_root="sudo"
    elif have sudo; then
      as_root="sudo -n"
    else
      say "not root and no sudo: have somebody run: $manager install $packages"
      return 0
    fi
  fi
  say "installing system packages: $packages"
  case $manager in
    apt-get)
      { $as_root apt-get update -qq &&
        $as_root env DEBIAN_FRONTEND=noninteractive \
          apt-get install -y -qq --no-install-recommends $packages >/dev/null; } </dev/null ;;
    dnf) $as_root dnf install -y -q $packages </dev/null ;;
    brew) brew install -q $packages </dev/null ;;
  esac || say "that failed; run it by hand: ${as_root:+sudo }$manager install $packages"
}

# --- Python packages -----------------------------------------------------------------------------

# The requirements files of each level; a level includes those before it.
files_of() {
  case $1 in
    infer) echo requirements-infer.txt ;;
    service) echo requirements-service.txt requirements-infer.txt ;;
    run) echo requirements.txt "$(files_of service)" ;;
    dev) echo requirements-dev.txt requirements-cluster.txt "$(files_of run)" ;;
  esac
}
fingerprint() {   # changes when a requirements file or the interpreter does
  # shellcheck disable=SC2046  # a list of names without spaces
  { cat $(files_of "$1"); "$VENV/bin/python" -VV; } | cksum
}
is_done() {
  [ -x $VENV/bin/python ] && [ -f "$VENV/setup-$1.done" ] &&
    [ "$(cat "$VENV/setup-$1.done")" = "$(fingerprint "$1" 2>/dev/null)" ]
}
pip_install() {
  "$VENV/bin/python" -m pip install --disable-pip-version-check -q \
    ${MIRROR:+--index-url "$MIRROR"} "$@"
}

if is_done $wanted; then first_time=no; else first_time=yes; fi

python=$(find_python)
if [ $first_time = yes ]; then
  install_system_packages
  install_browser
  if [ -z "$python" ]; then python=$(find_python); fi
fi

if ! "$VENV/bin/python" -c '' >/dev/null 2>&1; then
  if [ -z "$python" ]; then
    say "error: no Python 3.$MIN_MINOR to 3.$MAX_MINOR found; install one, or name it: PYTHON=/path/to/python3"
    exit 1
  fi
  say "making $VENV with $("$python" --version)"
  if ! "$python" -m venv --clear "$VENV"; then
    say "error: $python can't make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
    exit 1
  fi
fi

# The microphone's package apart from the others, since it alone must be compiled and may fail.
no_microphone=$VENV/requirements-no-microphone.txt
# Files that it names are looked for beside it.
grep -vi '^pyaudio' requirements.txt | sed 's#^-r #-r ../#' > "$no_microphone"
if [ $first_time = yes ]; then
  case $wanted in
    infer | service)
      say "installing Python packages"
      pip_install -r "requirements-$wanted.txt" ;;
    *)
      say "installing Python packages (TensorFlow is large: this takes some minutes)"
      if [ $wanted = dev ]; then pip_install -r "$no_microphone" -r requirements-dev.txt
      else pip_install -r "$no_microphone"; fi ;;
  esac
  for level in infer service run dev; do
    fingerprint $level > $VENV/setup-$level.done
    if [ $level = $wanted ]; then break; fi
  done
fi

if ! microphone_works; then
  # Tried once, and again as soon as PortAudio has come.
  if [ $first_time = yes ] || has_portaudio; then
    requirement=$(grep -i '^pyaudio' requirements.txt | sed 's/ *#.*//')
    if [ "$(uname)" = Darwin ] && have brew; then
      CFLAGS="-I$(brew --prefix)/include ${CFLAGS:-}" LDFLAGS="-L$(brew --prefix)/lib ${LDFLAGS:-}" \
        pip_install "$requirement" > $VENV/pyaudio.log 2>&1 || true
    else
      pip_install "$requirement" > $VENV/pyaudio.log 2>&1 || true
    fi
  fi
  if ! microphone_works; then
    say "warning: PyAudio can't be installed, so the microphone won't work; all else does."
    say "         See $VENV/pyaudio.log and docs/faq.md, then run this again."
  fi
fi
