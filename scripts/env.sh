# shellcheck shell=bash
# Sourced by the Makefile and the other scripts: what every command of this checkout needs in its environment.

# Some containers and CI services set no HOME; bash still knows it.
export HOME="${HOME:-$(cd ~ && pwd)}"

# A rustup that scripts/setup has just installed is on no shell's PATH yet.
iad_cargo_bin="${CARGO_HOME:-$HOME/.cargo}/bin"
if [ -x "$iad_cargo_bin/cargo" ]; then
    export PATH="$iad_cargo_bin:$PATH"
fi
unset iad_cargo_bin

# Open MPI's mpirun refuses root unless told twice that it is meant (containers).
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
