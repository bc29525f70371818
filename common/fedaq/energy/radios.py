"""Presets for real radios: what each activity draws, at what rate, and who says so.

A device is charged the power it draws while it sends or listens, divided by the rate
at which payload then moves. What a radio spends while nothing moves (connecting, the
tail after a transfer, sleep) is not in these figures.
"""

import difflib
from dataclasses import dataclass

from fedaq.energy.cost import RadioCost


@dataclass(frozen=True)
class Activity:
    """Sending or listening.

    Attributes
    ----------
    power_w : float
        Drawn meanwhile.
    rate_bps : float
        Bits that move meanwhile.
    source : str
        Where both figures come from; what is assumed is called an assumption.
    """

    power_w: float
    rate_bps: float
    source: str

    @property
    def j_per_bit(self) -> float:
        """``power_w / rate_bps``."""
        return self.power_w / self.rate_bps


@dataclass(frozen=True)
class Radio:
    """One kind of radio link.

    Attributes
    ----------
    title : str
        For people to read.
    uplink : Activity
        The device sends.
    receive : Activity
        The device listens.
    downlink : Activity
        The access point, base station or gateway sends.
    """

    title: str
    uplink: Activity
    receive: Activity
    downlink: Activity

    def cost(self) -> RadioCost:
        """Return the joules per bit of this link."""
        return RadioCost(self.uplink.j_per_bit, self.downlink.j_per_bit, self.receive.j_per_bit)


def known_radio(name: str, *others: str) -> str:
    """Return a name that is a preset's or one of `others`.

    Raises
    ------
    ValueError
        If it is neither; the message has the words that help.
    """
    known = [*others, *PRESETS]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise ValueError(f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}")
    return name


# ---- The serving side of the cellular presets -------------------------------
# Auer et al., "How much energy is needed to run a wireless network?", IEEE Wireless
# Communications 18(5), 2011, eq. (1) and table II: a macro base station draws
# N_TRX (P_0 + slope * P_out). What it draws anyway (P_0) is not the payload's doing, so a
# payload pays slope * P_out for the share of the carrier that it occupies.
_MACRO_SLOPE = 4.7
_MACRO_SECTOR_W = 2 * 20.0  # two transceivers a sector, 20 W each
_MACRO_BLOCKS = 50  # resource blocks of the 10 MHz carrier for which table II holds
_MACRO_SOURCE = (
    "assumption: the load-dependent power of a macro base station, 4.7 x 40 W a sector "
    "(Auer et al., IEEE Wireless Communications 18(5), 2011, table II)"
)


def _macro_share_w(blocks: int) -> float:
    return _MACRO_SLOPE * _MACRO_SECTOR_W * blocks / _MACRO_BLOCKS


# Spreading factor 7, 125 kHz, code rate 4/5: R_b = SF * BW / 2**SF * CR (SX1276 datasheet).
_LORA_BPS = 7 * 125e3 / 2**7 * 4 / 5

# The least current of table "Modem current consumption", Cat-M1 (transmitting at 0 dBm, where
# the power amplifier hardly counts).
_NRF9160_LISTENING_W = 0.045 * 3.7
_NRF9160_LISTENING = (
    "assumption: listening draws what the nRF9160 draws at 0 dBm, 45 mA at 3.7 V (nRF9160 "
    "Product Specification, modem current consumption)"
)

# No radio in particular: the same for a bit in each direction, and listening is free.
CONSTANT = RadioCost(1e-7, 1e-7)

PRESETS = {
    "wifi": Radio(
        title="Wi-Fi 802.11n (ESP32)",
        uplink=Activity(
            power_w=0.180 * 3.3,
            rate_bps=20e6,
            source="ESP32 Series Datasheet v5.3, table 5-4: 180 mA at 3.3 V, MCS7, 14 dBm; "
            "ESP-IDF Programming Guide, Wi-Fi throughput: TCP 20 Mbit/s in the air",
        ),
        receive=Activity(
            power_w=0.100 * 3.3,
            rate_bps=20e6,
            source="the same table: 95 to 100 mA at 3.3 V; the same throughput",
        ),
        downlink=Activity(
            power_w=0.180 * 3.3,
            rate_bps=20e6,
            source="assumption: the access point's transmitter draws what the device's does",
        ),
    ),
    "lte-m": Radio(
        title="LTE-M, Cat-M1 (nRF9160)",
        uplink=Activity(
            power_w=0.100 * 3.7,
            rate_bps=180e3,
            source="nRF9160 Product Specification, modem current consumption: 100 mA at 23 dBm, "
            "uplink 180 kbit/s, band 13; 3.7 V as in Nordic's Online Power Profiler",
        ),
        receive=Activity(
            power_w=_NRF9160_LISTENING_W,
            rate_bps=300e3,
            source=f"{_NRF9160_LISTENING}; 300 kbit/s, the half-duplex peak rate of Cat-M1",
        ),
        downlink=Activity(
            power_w=_macro_share_w(6),
            rate_bps=300e3,
            source=f"{_MACRO_SOURCE}; 6 of 50 resource blocks",
        ),
    ),
    "nb-iot": Radio(
        title="NB-IoT, Cat-NB1",
        uplink=Activity(
            power_w=0.5,
            rate_bps=62e3,
            source="3GPP TR 45.820, energy consumption evaluation: 500 mW while transmitting; "
            "62 kbit/s, the peak rate of Cat-NB1",
        ),
        receive=Activity(
            power_w=_NRF9160_LISTENING_W,
            rate_bps=26e3,
            source=f"{_NRF9160_LISTENING}; 26 kbit/s, the peak rate of Cat-NB1",
        ),
        downlink=Activity(
            power_w=_macro_share_w(1),
            rate_bps=26e3,
            source=f"{_MACRO_SOURCE}; 1 of 50 resource blocks",
        ),
    ),
    "5g-nr": Radio(
        title="5G NR, low band (Galaxy S20 Ultra)",
        uplink=Activity(
            power_w=0.02915,
            rate_bps=1e6,
            source="Narayanan et al., SIGCOMM 2021, doi 10.1145/3452296.3472923: every "
            "Mbit/s up adds 29.15 mW (a connected phone draws watts besides)",
        ),
        receive=Activity(
            power_w=0.02915 / 2.2,
            rate_bps=1e6,
            source="the same paper: a Mbit/s up adds 2.2 to 5.9 times what one down adds; "
            "assumption: 2.2",
        ),
        downlink=Activity(
            power_w=_macro_share_w(_MACRO_BLOCKS),
            rate_bps=75e6,
            source=f"{_MACRO_SOURCE}; the whole carrier; 75 Mbit/s, the mean of the paper's "
            "low-band downlink run limited to 250 Mbit/s (SIGCOMM21-5G/artifact)",
        ),
    ),
    "lora": Radio(
        title="LoRa, SF7, 125 kHz (SX1276)",
        uplink=Activity(
            power_w=0.029 * 3.3,
            rate_bps=_LORA_BPS,
            source="SX1276/77/78/79 datasheet: 29 mA at 3.3 V, 13 dBm; "
            "R_b = SF BW / 2**SF CR with CR = 4/5",
        ),
        receive=Activity(
            power_w=0.0103 * 3.3,
            rate_bps=_LORA_BPS,
            source="the same datasheet: 10.3 mA at 3.3 V, LoRa, 125 kHz, band 1",
        ),
        downlink=Activity(
            power_w=0.029 * 3.3,
            rate_bps=_LORA_BPS,
            source="assumption: the gateway's transmitter draws what the device's does",
        ),
    ),
}
