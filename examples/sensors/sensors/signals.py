"""Accelerometer signals of people in motion, made up from a few facts of physics.

Gravity points somewhere, as the device is worn; steps and pedals add a fundamental frequency
and its harmonics, wheels a rattle; the sensor adds noise. Nothing is downloaded, and the same
seed gives the same signals.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 50
GRAVITY_MS2 = 9.81
ACTIVITIES = ("rest", "walk", "run", "stairs", "cycle", "ride")

Signal = NDArray[np.float64]


@dataclass(frozen=True)
class _Motion:
    """How an activity shakes a device, in units of gravity.

    Attributes
    ----------
    cadence_hz : float
        Steps or turns of the pedals in a second.
    up : tuple of float
        Amplitudes along gravity, of the fundamental and its harmonics.
    forward : tuple of float
        The same in the direction of motion.
    every_other : float
        Amplitude at half the cadence: left and right differ.
    rattle : float
        Standard deviation of what has no period.
    """

    cadence_hz: float
    up: tuple[float, ...] = ()
    forward: tuple[float, ...] = ()
    every_other: float = 0.0
    rattle: float = 0.0


_MOTIONS = {
    "rest": _Motion(0.25, up=(0.01,)),
    "walk": _Motion(1.9, up=(0.28, 0.10, 0.04), forward=(0.15, 0.06), every_other=0.06),
    "run": _Motion(2.7, up=(0.90, 0.30, 0.10), forward=(0.35, 0.15), every_other=0.12),
    "stairs": _Motion(1.5, up=(0.30, 0.16, 0.09), forward=(0.10, 0.03), every_other=0.16),
    "cycle": _Motion(1.2, up=(0.07, 0.02), forward=(0.16, 0.03), rattle=0.05),
    "ride": _Motion(0.4, up=(0.05,), forward=(0.07,), rattle=0.06),
}

# Where "up" and "forward" lie in the axes of a device that is worn so.
PLACEMENTS = {
    "belt": ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "pocket": ((0.0, -0.94, 0.34), (0.0, 0.34, 0.94)),
    "wrist": ((-1.0, 0.0, 0.0), (0.0, 0.7, 0.7)),
}


@dataclass(frozen=True)
class Wearer:
    """Whoever wears a device, and how.

    Attributes
    ----------
    placement : str
        One of `PLACEMENTS`.
    tilt : float
        Radians by which it sits askew.
    gain : float
        How hard this wearer moves, and how sensitive the sensor is.
    pace : float
        Times the usual cadence.
    noise_g : float
        Of the sensor.
    """

    placement: str
    tilt: float
    gain: float
    pace: float
    noise_g: float


def some_wearer(number: int, random: np.random.Generator) -> Wearer:
    """Draw a wearer; three with successive numbers wear the device in three places."""
    return Wearer(
        placement=list(PLACEMENTS)[number % len(PLACEMENTS)],
        tilt=random.normal(0.0, 0.15),
        gain=random.uniform(0.7, 1.4),
        pace=random.uniform(0.88, 1.12),
        noise_g=random.uniform(0.01, 0.04),
    )


def record(wearer: Wearer, activity: str, seconds: float, random: np.random.Generator) -> Signal:
    """Return what the sensor measures, in m/s^2: shape (3, seconds * RATE_HZ)."""
    motion = _MOTIONS[activity]
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    # Nobody keeps a cadence exactly.
    wander = np.cumsum(random.normal(0.0, 0.02, len(times))) / RATE_HZ
    turns = motion.cadence_hz * wearer.pace * (times + wander) + random.uniform()
    up = 1.0 + wearer.gain * (
        _harmonics(motion.up, turns)
        + motion.every_other * np.sin(np.pi * turns)
        + random.normal(0.0, motion.rattle, len(times))
    )
    forward = wearer.gain * (
        _harmonics(motion.forward, turns + 0.25) + random.normal(0.0, motion.rattle, len(times))
    )
    directions = np.array(PLACEMENTS[wearer.placement]).T
    cos, sin = np.cos(wearer.tilt), np.sin(wearer.tilt)
    tilted = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ directions
    measured = tilted @ np.stack([up, forward])
    noisy: NDArray[np.float64] = measured + random.normal(0.0, wearer.noise_g, measured.shape)
    return GRAVITY_MS2 * noisy


def _harmonics(amplitudes: tuple[float, ...], turns: Signal) -> Signal:
    waves = (
        amplitude * np.sin(2 * np.pi * number * turns)
        for number, amplitude in enumerate(amplitudes, 1)
    )
    return sum(waves, np.zeros_like(turns))
