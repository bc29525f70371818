#!/bin/sh
# Whether an arm64 client trains with an x86-64 server, and to which bytes.
#
#     tests/containers/arm64.sh [FOLDER [ROUNDS]]
#
# On Debian 12 on x86-64, as root, with debootstrap, qemu-user-static and binfmt-support. Makes an
# arm64 system in FOLDER and installs the client there from a wheel, as docs/how-to/raspberry-pi.md does;
# TORCH_INDEX_URL names another index of torch without CUDA. Then runs the codec's vectors there,
# and twice the same federation of three clients: all on x86-64, and one of them on arm64.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$(mktemp -d)}
number=${2:-10}
system=$folder/system
fedaq=$root/.venv/bin/fedaq
index=${TORCH_INDEX_URL:-https://download.pytorch.org/whl/cpu}

# A Raspberry Pi 4's processor. The default one of QEMU 7.2 has vector instructions (SVE) with which
# PyTorch's products of small matrices come out wrong.
inside() {
    chroot "$system" env -i QEMU_CPU=cortex-a72 PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
}
finish() {
    kill $started 2>/dev/null || true
    umount "$system/proc"
}
started=
trap finish EXIT

[ -e "$system/usr/bin/python3" ] || debootstrap --arch=arm64 --variant=minbase \
    --include=python3-venv,ca-certificates bookworm "$system"
cp /etc/resolv.conf /etc/hosts "$system/etc"
cp /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs"
mount -t proc proc "$system/proc"
rm -rf "$system/trial" && mkdir -p "$system/trial"
FEDAQ_WHEEL=aarch64-linux "$root/.venv/bin/python" -m pip wheel --quiet --no-deps \
    --wheel-dir "$system/trial" "$root"
cp -r "$root/constraints.txt" "$root/tests/wire" "$system/trial"

# The two commands of docs/how-to/raspberry-pi.md.
inside python3 -m venv /opt/fedaq
inside sh -c "PIP_CERT=/etc/ssl/certs/ca-certificates.crt /opt/fedaq/bin/pip install --quiet \
    --constraint /trial/constraints.txt --extra-index-url '$index' \
    \"\$(ls /trial/fedaq-*.whl)[client]\""
inside /opt/fedaq/bin/pip check
inside uname -m
echo "codec on arm64:"
inside /opt/fedaq/bin/python /trial/wire/codec_answers.py
echo "codec on x86-64:"
"$root/.venv/bin/python" "$root/tests/wire/codec_answers.py"

# federation NAME PREFIX...: three clients; PREFIX is before the third client.
federation() {
    out=$folder/$1
    shift
    rm -rf "$out"
    "$fedaq" server --task digits --clients 3 --rounds $number --port 50977 --out "$out" \
        --set capture=true > "$out.log" 2>&1 &
    server=$!
    started="$started $server"
    for part in 1 2; do
        "$fedaq" client --server 127.0.0.1:50977 --partition $part/3 > /dev/null 2>&1 &
        started="$started $!"
    done
    "$@" client --server 127.0.0.1:50977 --partition 3/3
    wait $server
}
federation x86-64 "$fedaq"
federation arm64 inside /opt/fedaq/bin/fedaq
same=0
for one in "$folder"/x86-64/payloads/* "$folder"/x86-64/model.safetensors; do
    other=$folder/arm64/${one#"$folder"/x86-64/}
    if cmp -s "$one" "$other"; then same=$((same + 1)); else
        echo "${one##*/}: another one, $(wc -c < "$one") and $(wc -c < "$other") bytes"
    fi
done
echo "byte for byte the same: $same payloads and models"
"$root/.venv/bin/python" - "$folder" <<'PYTHON'
import json, sys
from pathlib import Path

from safetensors.numpy import load_file

runs = [Path(sys.argv[1]) / name for name in ("x86-64", "arm64")]
for run in runs:
    rounds = json.loads((run / "run.json").read_text())["rounds"]
    last = rounds[-1]
    print(f"{run.name}, round {last['round']}: accuracy {last['test_accuracy']:.4f}")
one, other = (load_file(run / "model.safetensors") for run in runs)
apart = max(abs(one[name] - other[name]).max() for name in one)
print(f"weights at most {apart:.2g} apart, the largest is {max(abs(w).max() for w in one.values()):.2g}")
PYTHON
