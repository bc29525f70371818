#!/bin/sh
# Whether seeds give the same bytes on aarch64: tests/wire/codec_answers.py under emulation.
#
#     tests/wire/aarch64.sh WHEEL [FOLDER]
#
# WHEEL is that for aarch64 (make wheels). On Debian 12 on x86-64, as root, with qemu-user-static
# installed and arm64 among dpkg's architectures (dpkg --add-architecture arm64; apt-get update).
# Fetches Debian's CPython 3.11 and the aarch64 wheels of numpy, protobuf and zstd into FOLDER,
# about 50 MB, and changes nothing else.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
wheel=$(realpath "$1")
folder=${2:-$(mktemp -d)}
python=$root/.venv/bin/python
mkdir -p "$folder/system" "$folder/site" "$folder/wheels"
cd "$folder"
apt-get download -q python3.11-minimal:arm64 libpython3.11-minimal:arm64 \
    libpython3.11-stdlib:arm64 libc6:arm64 libstdc++6:arm64 libgcc-s1:arm64 zlib1g:arm64 \
    libexpat1:arm64 libffi8:arm64 libssl3:arm64 libbz2-1.0:arm64 liblzma5:arm64 libuuid1:arm64
for package in *.deb; do dpkg-deb -x "$package" system; done
"$python" -m pip download --quiet --dest wheels --constraint "$root/constraints.txt" \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux2014_aarch64 --platform any --python-version 3.11 \
    --only-binary=:all: numpy protobuf backports.zstd
for each in wheels/*.whl "$wheel"; do "$python" -m zipfile -e "$each" site; done

emulated() {
    qemu-aarch64-static -L system -E PYTHONHOME="$folder/system/usr" \
        -E PYTHONPATH="$folder/site" -E PYTHONDONTWRITEBYTECODE=1 \
        system/usr/bin/python3.11 "$@"
}
answers=$root/tests/wire/codec_answers.py
emulated -c 'import platform; print(platform.machine())'
emulated "$answers"
"$python" -c 'import platform; print(platform.machine())'
"$python" "$answers"
