# shellcheck shell=bash
# Sourced by checks that some machines cannot make: they say why, and that is no failure.

left_out() {
    echo "${0##*/}: left out: $*"
    exit 0
}

need_open_mpi() {
    local mpirun
    mpirun=$(sed -n "s/^IAD_MPIRUN = '\(.*\)'/\1/p" .cargo/config.toml)
    [[ "$("$mpirun" --version)" == *"Open MPI"* ]] || left_out "this checkout is not built with Open MPI ($mpirun)"
}
