# shellcheck shell=bash
# shellcheck disable=SC2154 # it shares the variables of scripts/setup
# Sourced by scripts/setup: --check, which lists what is there, what would be fetched, its size and where it goes.

report_pieces() {
    local missing packages name venv=$cache/torch-$torch_version rust size reader
    there() { printf '  there   %-22s %s\n' "$1" "$2"; }
    fetch() { printf '  fetch   %-22s %s, to %s\n' "$1" "$2" "$3"; }
    echo 'set-up would do this (nothing is installed by --check):'
    list_missing
    for name in "${missing[@]+"${missing[@]}"}"; do printf '  install %s\n' "$name"; done
    if [ ${#packages[@]} -gt 0 ]; then
        size=$(apt_size "${packages[@]}")
        if root_prefix >/dev/null; then name='by itself'; else name='which you do: sudo'; fi
        printf '  %s apt-get install %s%s\n' "$name" "${packages[*]}" "${size:+ ($size to download)}"
    else
        there 'system packages' 'compiler, make, pkg-config, MPI'
    fi
    rust=$(rust_version)
    if rust_is_there; then there 'Rust' "$(command -v cargo)"; else
        fetch "Rust $rust" "$rust_size" "${RUSTUP_HOME:-$HOME/.rustup} and ${CARGO_HOME:-$HOME/.cargo}"; fi
    if has_tools; then there 'cmake, libclang' "$(find_cmake), $(libclang_folder)"; else
        fetch 'cmake, libclang' "$tools_size" "$cache/tools"; fi
    if [ -n "$torch" ]; then there "libtorch $torch_series" "$torch (yours)"
    elif torch_is_there "$venv"; then there "libtorch $torch_series" "$venv"
    elif wants_whole_torch; then fetch "torch $torch_version, CUDA" "$whole_size" "$venv"
    else fetch "torch $torch_version, CPU" "$library_size" "$venv"; fi
    if [ $tests = yes ] && [ -z "$torch" ]; then
        for reader in "${readers[@]}"; do
            if has_reader "$venv" "$reader"; then there "${reader%%==*}" "$venv"; else
                fetch "$reader" 'up to 30 MB' "$venv"; fi
        done
    fi
    if [ $tests = yes ]; then
        if has_deny; then there 'cargo-deny' "$(command -v cargo-deny || echo "$deny")"; else
            fetch "cargo-deny $deny_version" 'about 20 MB of sources' "$deny"; fi
        if has_axe; then there 'axe-core' "$axe"
        elif has npm; then fetch "axe-core $axe_version" 'about 1 MB' "$axe"; fi
    fi
    there 'HDF5' "${HDF5_DIR:-built by cargo from a crate; HDF5_DIR names your own}"
    if rust_is_there && cargo fetch --locked --offline --target "$(host_triple)" >/dev/null 2>&1; then
        there 'crates' "${CARGO_HOME:-$HOME/.cargo}/registry"
    else
        fetch 'crates' '29 MB, 290 MB on disk' "${CARGO_HOME:-$HOME/.cargo}/registry"
    fi
}

# "12.3 MB", as apt-get would download it; nothing where there is no apt-get or its lists are missing.
apt_size() {
    has apt-get || return 0
    LC_ALL=C apt-get install --assume-no --no-install-recommends "$@" 2>/dev/null </dev/null |
        sed -n 's/^Need to get \([^/]*B\).*/\1/p' || true
}
