"""What a million devices take, from what fleet.py measured of a thousand and of five thousand.

    python benchmarks/fleet.py --clients 1000 --out all.json
    python benchmarks/fleet.py --clients 5000 --drawn 200 --rounds 8 --out drawn.json
    python benchmarks/extrapolate.py all.json drawn.json

Paper, not a measurement. Measured are, of one server: memory and processor time of a client that
takes part, and of one that is connected; the bytes around a payload. Assumed is the rest, each by
an option, and that

- a relay is as good a server as the one that was measured, with one core for Python,
- what is measured grows in proportion to clients, and the codec's part of it to parameters,
- devices are drawn in turn, transfer and train at the same time, and a round waits for the last,
- a device is sent the differences that it missed, at most the whole model in float32; a relay,
  which takes part in every round, missed none,
- nothing is lost, and nothing sent twice.
"""

import argparse
import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from fedaq.energy.cost import downlink_j_per_bit
from fedaq.energy.radios import PRESETS, Radio

DEVICES = (1_000, 10_000, 100_000, 1_000_000)
MB, RAW_BITS = 1e6, 32


@dataclass(frozen=True)
class Measured:
    """What one server takes.

    Attributes
    ----------
    idle_mb, connected_mb, taking_part_mb : float
        Without clients; of each that is connected; and more of one that takes part in a round.
    round_cpu_s : float
        Of each that takes part, of which `codec_cpu_s` is the codec's.
    connected_cpu : float
        Share of a core that each connected client takes.
    around_bytes : float
        That a round of a client takes besides its payload.
    parameters : int
        With which all this was measured.
    """

    idle_mb: float
    connected_mb: float
    taking_part_mb: float
    round_cpu_s: float
    codec_cpu_s: float
    connected_cpu: float
    around_bytes: float
    parameters: int


def measured(all_drawn: dict[str, Any], few_drawn: dict[str, Any]) -> Measured:
    """Take apart what two runs of fleet.py found."""
    found = (all_drawn, few_drawn)
    above_mb = [run["peak_mb"] - run["idle_mb"] for run in found]
    connected_mb, taking_part_mb = np.linalg.solve(
        [[run["clients"], run["drawn"]] for run in found], above_mb
    )
    # Per round: of those that take part, and of each second of those that are connected.
    round_cpu_s, connected_cpu = np.linalg.solve(
        [[run["drawn"], run["clients"] * run["round_s"]] for run in found],
        [run["server_cpu_s"] for run in found],
    )
    payload_bytes = (
        (all_drawn["uplink_bits"] + all_drawn["downlink_bits"]) * all_drawn["parameters"] / 8
    )
    return Measured(
        all_drawn["idle_mb"], float(connected_mb), float(taking_part_mb), float(round_cpu_s),
        all_drawn["codec"]["server_s"], max(float(connected_cpu), 0.0),
        all_drawn["wire_bytes"] / all_drawn["drawn"] - payload_bytes, all_drawn["parameters"],
    )  # fmt: skip


@dataclass(frozen=True)
class Hop:
    """The link between devices and a server, or between relays and the root."""

    radio: Radio
    up_bits: float
    down_bits: float

    @property
    def energy_j(self) -> float:
        """Of one client's round."""
        cost = self.radio.cost()
        down: float = downlink_j_per_bit([cost], broadcast=False)
        return self.up_bits * cost.uplink_j_per_bit + self.down_bits * down

    @property
    def seconds(self) -> float:
        """Of one client's round."""
        radio = self.radio
        return self.up_bits / radio.uplink.rate_bps + self.down_bits / radio.receive.rate_bps


@dataclass(frozen=True)
class Server:
    """What one server takes that has so many clients, of which some are drawn."""

    of: Measured
    clients: int
    drawn: int
    parameters: int

    @property
    def memory_mb(self) -> float:
        own = self.of
        return own.idle_mb + self.clients * own.connected_mb + self.drawn * own.taking_part_mb

    @property
    def round_s(self) -> float:
        """Seconds of its core in a round; infinite where those who are connected take all of it."""
        own = self.of
        codec_s = own.codec_cpu_s * (self.parameters / own.parameters - 1)
        left = 1 - self.clients * own.connected_cpu
        work_s = self.drawn * (own.round_cpu_s + codec_s)
        return work_s / left if left > 0 else float("inf")


def rows(own: Measured, asked: argparse.Namespace) -> list[list[str]]:
    """Return a line of the table for each number of devices, with relays and without."""
    up, down = asked.up_bits * asked.parameters, asked.down_bits * asked.parameters
    missed = min(asked.down_bits / asked.share, RAW_BITS) * asked.parameters
    near, far = Hop(PRESETS[asked.radio], up, missed), Hop(PRESETS[asked.backhaul], up, down)
    around_bits = 8 * own.around_bytes
    found = []
    for devices in DEVICES:
        drawn = round(asked.share * devices)
        for relays in (0, ceil(devices / asked.per_relay)):
            if relays == 1:
                continue
            if relays:
                leaf = Server(own, ceil(devices / relays), ceil(drawn / relays), asked.parameters)
                root = Server(own, relays, relays, asked.parameters)
                root_bits, hop = relays * (up + down + around_bits), far
                servers_s = leaf.round_s + root.round_s
            else:
                leaf = root = Server(own, devices, drawn, asked.parameters)
                root_bits, hop = drawn * (up + missed + around_bits), None
                servers_s = root.round_s
            hop_s, hop_j = (hop.seconds, relays * hop.energy_j) if hop else (0.0, 0.0)
            round_s = asked.training_s + near.seconds + hop_s + servers_s
            found.append([
                f"{devices:,}", f"{drawn:,}", str(relays or "-"),
                f"{leaf.memory_mb / 1000:.1f}" if relays else "-", f"{root.memory_mb / 1000:.1f}",
                f"{drawn * (up + missed + around_bits) / 8 / MB:,.1f}",
                f"{root_bits / 8 / MB:,.1f}", f"{drawn * near.energy_j:,.1f}",
                f"{hop_j:,.2f}" if relays else "-",
                f"{servers_s:,.1f}", f"{round_s:,.0f}",
            ])  # fmt: skip
    return found


HEAD = (
    "devices", "drawn", "relays", "GB of a relay", "GB of the root", "MB a round, all",
    "MB, root's", "J a round, devices", "J, relays", "s of servers", "s a round",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("all", type=Path, help="of fleet.py, all clients drawn")
    parser.add_argument("drawn", type=Path, help="of fleet.py, few of many clients drawn")
    parser.add_argument("--share", type=float, default=0.04, help="of the devices in a round")
    parser.add_argument("--per-relay", type=int, default=5_000, help="devices of a relay")
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--up-bits", type=float, default=0.1, help="for a value of an update")
    parser.add_argument("--down-bits", type=float, default=0.2, help="for one of what goes down")
    parser.add_argument("--radio", default="lte-m", choices=PRESETS, help="of devices")
    parser.add_argument("--backhaul", default="wifi", choices=PRESETS, help="of relays")
    parser.add_argument("--training-s", type=float, default=10.0)
    asked = parser.parse_args()
    own = measured(*(json.loads(path.read_text()) for path in (asked.all, asked.drawn)))
    print(
        f"measured: {own.idle_mb:.0f} MB idle, {1000 * own.connected_mb:.0f} kB of each connected "
        f"client and {1000 * own.taking_part_mb:.0f} kB more of one that takes part; "
        f"{1000 * own.round_cpu_s:.1f} ms of a processor for its round, of which the codec's "
        f"{1000 * own.codec_cpu_s:.1f} ms; {1e6 * own.connected_cpu:.0f} us "
        f"a second of each that is connected; {own.around_bytes / 1000:.1f} kB around its payload"
    )
    print(
        f"assumed: {asked.share:.0%} drawn, {asked.per_relay:,} devices a relay, "
        f"{asked.parameters:,} parameters, {asked.up_bits:g} bits up and {asked.down_bits:g} down "
        "for each difference, "
        f"devices on {asked.radio}, relays on {asked.backhaul}, {asked.training_s:g} s of training"
    )
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for row in rows(own, asked):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
