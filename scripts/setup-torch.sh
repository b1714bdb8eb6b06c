# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # it shares the variables of scripts/setup
# Sourced by scripts/setup: which libtorch is used, and the one that is installed where the user has none.

torch_version=2.11.0 # the one version that tch 0.24 is written for
torch_series=2.11
# nvidia-cuda-crt: the headers that the wheels of CUDA's headers lack.
cuda_headers='nvidia-cuda-crt==13.0.*'
# What a CPU needs: the wheel alone, and the two libraries of CUDA that libtorch_cpu.so names, as the wheel pins them.
library_requirements=(--no-deps "torch==$torch_version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
    "$cuda_headers")
library_size='545 MB, 1.3 GB on disk'
# What a GPU and Python's torch need: all that the wheel names. numpy: torch warns without it.
whole_requirements=("torch==$torch_version" numpy "$cuda_headers")
whole_size='2.8 GB, 4.7 GB on disk'

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
        LC_ALL=C "$venv/bin/python" -I -m pip install --disable-pip-version-check --no-input --progress-bar off \
            --retries 1 "$@" \
            </dev/null 2>&1 | tee "$log" | sed -nu 's/^ *Downloading \([^ ]*\.whl (.*)\)$/  \1/p' || {
            ! grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|Temporary failure' "$log" ||
                die 1 "PyPI cannot be reached from here, and $venv is not complete. Run this where there is a network, \
or see \"Without a network\" in docs/install.md"
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

# Is a GPU of NVIDIA to be expected on this machine?
has_gpu() { [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; }

# The part of torch asked for is in the folder $1: the whole also serves where the library alone would do.
torch_is_there() {
    local marker
    marker=$(cat "$1/.complete" 2>/dev/null) || return 1
    [ "$marker" = "${whole_requirements[*]}" ] ||
        { ! wants_whole_torch && [ "$marker" = "${library_requirements[*]}" ]; }
}

wants_whole_torch() { [ $cuda = yes ] || [ $tests = yes ] || has_gpu; }

# What tests read files with, in another program than ours.
readers=('h5py==3.16.0' 'tensorboard==2.21.0' 'onnx==1.23.2' 'onnxruntime==1.32.0')

# One that is there in another version serves as well.
has_reader() { compgen -G "$1/lib/python3*/site-packages/${2%%==*}" >/dev/null; }

# Each by itself: one that has no wheel for this Python does not keep the others away.
provide_readers() {
    local reader
    for reader in "${readers[@]}"; do
        has_reader "$1" "$reader" && continue
        say "fetching $reader from PyPI into $1"
        "$1/bin/python" -I -m pip install --disable-pip-version-check --no-input --retries 1 --quiet "$reader" </dev/null ||
            say "$reader could not be installed; the tests and benches that read files with it will say so"
    done
}

# The wheels ship libnccl.so.2 only; the loader of NCCL's bindings asks for libnccl.so. $1 = folder for the link,
# $2 = option for ln.
link_nccl() {
    local target
    for target in "$(dirname "$torch")/nvidia/nccl/lib/libnccl.so.2" "$torch/lib/libnccl.so.2"; do
        [ -f "$target" ] || continue
        nccl_folder=$1
        mkdir -p "$1"
        [ "$1/libnccl.so" -ef "$target" ] || ln -sfn ${2:+"$2"} "$target" "$1/libnccl.so"
        return
    done
}

# Torch goes into one folder whichever part of it is installed, and RUNPATH names the same folders: a library that
# becomes the whole later leaves everything built as it is.
provide_torch() {
    local venv=$cache/torch-$torch_version free wanted=9 size=$whole_size part='with CUDA' requirements
    nccl_folder=''
    if [ -n "$torch" ]; then
        # The user's folder may be read-only, so the link lives in the checkout, ignored by git.
        mkdir -p .iad
        [ -f .iad/.gitignore ] || echo '*' >.iad/.gitignore
        link_nccl "$checkout/.iad/lib"
        return
    fi
    requirements=("${whole_requirements[@]}")
    if ! torch_is_there "$venv"; then
        [ "$(uname -sm)" = 'Linux x86_64' ] || say "torch $torch_version was tried on x86_64 Linux only"
        if ! wants_whole_torch; then
            wanted=3 size=$library_size part='for the CPU' requirements=("${library_requirements[@]}")
        fi
        mkdir -p "$venv"
        free=$(($(df -Pk "$venv" | awk 'END { print $4 }') / 1000000))
        [ -d "$venv/lib" ] || ((free >= wanted)) ||
            die 2 "torch needs $wanted GB in $cache, which has $free GB; free some, or set IAD_CACHE to another folder"
        say "fetching torch $torch_version $part (about $size) from PyPI into $venv, shared by all checkouts"
        install_venv "$venv" "${requirements[@]}"
    fi
    torch=$(echo "$venv"/lib/python3*/site-packages/torch)
    has_libtorch "$torch" || die 1 "no libtorch $torch_series in $venv; delete that folder and run this again"
    nccl_folder=$venv/lib/iad
    link_nccl "$nccl_folder" --relative
    [ $tests = no ] || provide_readers "$venv"
}
