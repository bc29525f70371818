#!/bin/sh
# Whether seeds give the same bytes on aarch64: tests/wire/codec_answers.py under emulation.
#
#     tests/wire/aarch64.sh [FOLDER]
#
# On Debian 12 on x86-64, as root, with qemu-user-static installed and arm64 among dpkg's
# architectures (dpkg --add-architecture arm64; apt-get update). Fetches Debian's CPython 3.11
# and the aarch64 wheels of numpy and llvmlite into FOLDER, about 80 MB, and changes nothing
# else. The compiler runs there too; the image it makes is then used without it, and once more the
# loops are compiled in the process itself.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$(mktemp -d)}
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
    --only-binary=:all: numpy llvmlite protobuf
for wheel in wheels/*.whl; do "$python" -m zipfile -e "$wheel" site; done

emulated() {
    qemu-aarch64-static -L system -E PYTHONHOME="$folder/system/usr" \
        -E PYTHONPATH="$folder/site:$root/common" -E PYTHONDONTWRITEBYTECODE=1 \
        system/usr/bin/python3.11 "$@"
}
answers=$root/tests/wire/codec_answers.py
emulated -c 'import platform; print(platform.machine())'
emulated -P -m fedaq.codec.machine_code > image.bin
emulated "$answers" image.bin
emulated "$answers"
"$python" -c 'import platform; print(platform.machine())'
"$python" "$answers"
