# shellcheck shell=bash
# shellcheck disable=SC2154 # it shares the variables of scripts/setup
# Sourced by scripts/setup: finds the MPI and writes .cargo/config.toml, which tells cargo where each piece is.

# The mpirun of the MPI that the program is built with; the program starts its ranks through it.
find_mpi() {
    mpicc=$(realpath -s "$(command -v "${MPICC:-mpicc}")")
    mpi_link=$("$mpicc" -show) || die 2 "'$mpicc -show' fails; set MPICC to the compiler wrapper of your MPI"
    mpirun=${IAD_MPIRUN:-$(mpirun_beside)} ||
        die 2 "no mpirun beside $mpicc; set IAD_MPIRUN to the one of the same MPI"
}

# The mpirun of the same MPI: mpirun.mpich of mpicc.mpich where systems have several, else the one in the same folder.
mpirun_beside() {
    local folder=${mpicc%/*} name=${mpicc##*/} candidate
    for candidate in "$folder/mpirun${name#mpicc}" "$folder/mpiexec${name#mpicc}" "$folder/mpirun" "$folder/mpiexec"; do
        if [ -x "$candidate" ]; then echo "$candidate"; return; fi
    done
    command -v mpirun || command -v mpiexec
}

# Cargo sees that MPICC has another name, not that the same name leads to another MPI; and it would link what is there
# with the old library. So what was built with another MPI is removed.
notice_mpi() {
    local folder=${CARGO_TARGET_DIR:-target} now="$mpicc: $mpi_link"
    [ "$(cat "$folder/mpi" 2>/dev/null)" = "$now" ] && return
    if compgen -G "$folder/*/build/mpi-sys-*" >/dev/null; then
        say "the MPI is another one than the last build's: what depends on it will be built again"
        rm -rf "$folder"/*/build/{mpi,mpi-sys,comm}-* "$folder"/*/.fingerprint/{mpi,mpi-sys,comm}-*
    fi
    mkdir -p "$folder"
    echo "$now" >"$folder/mpi"
}

# Prints .cargo/config.toml. RUNPATH (new dtags) instead of LD_LIBRARY_PATH, which still wins where it is set.
# [target] instead of [build]: a [target] table of the user's own would silently displace [build] rustflags.
cargo_config() {
    local libclang cmake
    echo '# Written by scripts/setup; run that again instead of editing this.'
    echo '[env]'
    echo "LIBTORCH = '$torch'"
    # tch's build script compares the patch version too, where the folder states one.
    if [ -f "$torch/build-version" ] && [[ "$(version_of "$torch")" != "$torch_version"* ]]; then
        echo "LIBTORCH_BYPASS_VERSION_CHECK = '1'"
    fi
    echo "MPICC = '$mpicc'"
    echo "IAD_MPIRUN = '$mpirun'"
    libclang=$(libclang_folder)
    if [[ $libclang != /usr/lib* ]]; then # where bindgen looks by itself
        echo "LIBCLANG_PATH = '$libclang'"
        # PyPI's libclang comes without the compiler's own headers (stddef.h); the C compiler has them.
        [[ $libclang != "$cache"/* ]] ||
            echo "BINDGEN_EXTRA_CLANG_ARGS = '-isystem $("${CC:-cc}" -print-file-name=include)'"
    fi
    [ -z "${HDF5_DIR:-}" ] || echo "HDF5_DIR = '$(realpath -s "$HDF5_DIR")'"
    cmake=$(find_cmake)
    [ "$cmake" = "$(command -v cmake)" ] || echo "CMAKE = '$cmake'"
    echo
    echo '[build] # rustdoc links the examples in the documentation'
    link_arguments rustdocflags
    echo "[target.'cfg(target_os = \"linux\")']"
    link_arguments rustflags
}

link_arguments() {
    local folder
    echo "$1 = ["
    echo "    '-Clink-arg=-Wl,--enable-new-dtags',"
    for folder in "\$ORIGIN/lib" "$torch/lib" "$nccl_folder" $(mpi_folders) \
        ${HDF5_DIR:+"$(realpath -s "$HDF5_DIR")/lib"}; do
        [ -z "$folder" ] || echo "    '-Clink-arg=-Wl,-rpath,$folder',"
    done
    echo ']'
}

# Library folders of an MPI that the system's loader does not know (modules, private builds).
mpi_folders() { tr ' ' '\n' <<<"$mpi_link" | sed -n 's/^-L//p' | grep -Ev '^/(usr/)?lib' | sort -u || true; }

write_config() {
    local new=.cargo/config.toml.new old=.cargo/config.toml
    mkdir -p .cargo
    cargo_config >$new
    if cmp -s $new $old; then rm $new; return; fi
    if [ -f $old ] && ! grep -q 'Written by scripts/setup' $old; then
        mv $old $old.yours
        say "your $old is kept as $old.yours; move what you need of it to ${CARGO_HOME:-$HOME/.cargo}/config.toml"
    fi
    mv $new $old
    say "wrote $old (libtorch in $torch, mpirun is $mpirun)"
}
