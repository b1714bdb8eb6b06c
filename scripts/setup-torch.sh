# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # it shares the variables of scripts/setup
# Sourced by scripts/setup: which libtorch is used, and the one that is installed where the user has none.

torch_version=2.11.0 # the one version that tch 0.24 is written for
torch_series=2.11
# numpy: torch warns without it. nvidia-cuda-crt: the headers that the wheels of CUDA's headers lack.
torch_requirements=("torch==$torch_version" numpy 'nvidia-cuda-crt==13.0.*')

# Prints the version of the libtorch in $1, as the archive (build-version) or the wheel (version.py) states it.
version_of() {
    if [ -f "$1/build-version" ]; then
        cat "$1/build-version"
    elif [ -f "$1/version.py" ]; then
        sed -n "s/^__version__ *= *['\"]\(.*\)['\"].*/\1/p" "$1/version.py"
    fi
}

has_libtorch() { [ -f "$1/lib/libtorch_cpu.so" ] && [ -d "$1/include" ] && [[ "$(version_of "$1")" == $torch_series.* ]]; }

# The torch folder of the active python, looked up without the seconds that importing torch takes.
torch_of_python() {
    python3 -c '
import importlib.metadata, importlib.util, sys
if not importlib.metadata.version("torch").startswith(sys.argv[1] + "."): sys.exit(1)
print(importlib.util.find_spec("torch").submodule_search_locations[0])' $torch_series 2>/dev/null
}

# Sets `torch` to the user's own libtorch, if there is one; leaves it empty otherwise.
find_torch() {
    torch=''
    if [ -n "${LIBTORCH:-}" ]; then
        has_libtorch "$LIBTORCH" || die 2 "LIBTORCH=$LIBTORCH (version '$(version_of "$LIBTORCH")') is not a libtorch \
$torch_series with lib/libtorch_cpu.so and include/; correct it, or unset it and set-up provides one"
        torch=$(realpath "$LIBTORCH")
    elif torch=$(torch_of_python) && has_libtorch "$torch"; then
        torch=$(realpath "$torch")
    else
        torch=''
    fi
}

# install_venv FOLDER REQUIREMENT...: a virtual environment, whole or not marked `.complete`. An interrupted one is
# carried on with, not begun again; clones that start at the same time wait for the first.
install_venv() {
    local venv=$1 start=$SECONDS log python
    shift
    [ "$(cat "$venv/.complete" 2>/dev/null)" = "$*" ] && return
    mkdir -p "$venv"
    exec 9>"$venv.lock"
    flock --nonblock 9 || { say "another set-up is filling $venv; waiting for it"; flock 9; }
    if [ "$(cat "$venv/.complete" 2>/dev/null)" != "$*" ]; then
        python=$(find_python) || die 2 'python 3.10 to 3.14 with its venv module is missing'
        "$venv/bin/python" -I -m pip --version >/dev/null 2>&1 || "$python" -I -m venv --clear "$venv"
        log=$(mktemp)
        LC_ALL=C "$venv/bin/python" -I -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" \
            </dev/null 2>&1 | tee "$log" | sed -nu 's/^ *Downloading \([^ ]*\.whl (.*)\)$/  \1/p' || {
            tail -n 15 "$log" >&2
            die 1 "pip could not fill $venv (above; all of it in $log); run this again to carry on"
        }
        downloads+=("$(sed -n 's/^ *Downloading .* (\([0-9.]* [a-zA-Z]*\))$/\1/p' "$log" | sum_sizes) pip in \
$(spell $((SECONDS - start))) (installing included)")
        rm "$log"
        echo "$*" >"$venv/.complete"
    fi
    exec 9>&-
}

# The wheels ship libnccl.so.2 only; the loader of NCCL's bindings asks for libnccl.so. $1 = folder for the link,
# $2 = option for ln.
link_nccl() {
    local target
    nccl_folder=''
    for target in "$(dirname "$torch")/nvidia/nccl/lib/libnccl.so.2" "$torch/lib/libnccl.so.2"; do
        [ -f "$target" ] || continue
        nccl_folder=$1
        mkdir -p "$1"
        [ "$1/libnccl.so" -ef "$target" ] || ln -sfn ${2:+"$2"} "$target" "$1/libnccl.so"
        return
    done
}

provide_torch() {
    local venv=$cache/torch-$torch_version free
    if [ -n "$torch" ]; then
        # The user's folder may be read-only, so the link lives in the checkout, ignored by git.
        mkdir -p .iad
        [ -f .iad/.gitignore ] || echo '*' >.iad/.gitignore
        link_nccl "$checkout/.iad/lib"
        return
    fi
    if [ ! -f "$venv/.complete" ]; then
        [ "$(uname -sm)" = 'Linux x86_64' ] || say "torch $torch_version was tried on x86_64 Linux only"
        mkdir -p "$venv"
        free=$(($(df -Pk "$venv" | awk 'END { print $4 }') / 1000000))
        [ -d "$venv/lib" ] || ((free >= 9)) ||
            die 2 "torch needs 9 GB in $cache, which has $free GB; free some, or set IAD_CACHE to another folder"
        say "installing torch $torch_version (about 3 GB to download) into $venv, shared by all checkouts"
    fi
    install_venv "$venv" "${torch_requirements[@]}"
    torch=$(echo "$venv"/lib/python3*/site-packages/torch)
    has_libtorch "$torch" || die 1 "no libtorch $torch_series in $venv; delete that folder and run this again"
    link_nccl "$venv/lib/iad" --relative
}
