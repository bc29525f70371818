"""The digits, learned slowly enough to be watched."""

import os
import time
from dataclasses import replace
from typing import Any

from fedaq.tasks import load_task, train_classifier

PAUSE_S = float(os.environ.get("SLOW_DIGITS_S", "0.25"))


def _train(*arguments: Any) -> float:
    time.sleep(PAUSE_S)
    return train_classifier(*arguments)


task = replace(load_task("digits", None), train=_train)
