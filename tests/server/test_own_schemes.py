"""Schemes of a user's own: how they are found, and what is said of those that are none."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fedaq.errors import UserError
from fedaq_server.schemes.loading import load_scheme
from fedaq_server.schemes.scheme import (
    Grant,
)
from server.scheme_rounds import outcome, planned, ranges, settings, state

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "schemes.md"


# A user's own


def own_scheme(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str) -> None:
    (folder / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("nothing", "own_scheme has no 'nothing'"),
        ("number", "scheme 'own_scheme:number' is a int; a function that takes the settings"),
        ("forgetful", "returned a NoneType without plan, grant, learn; a scheme has plan, grant"),
        ("half", "scheme 'own_scheme:half' returned a Half without learn; a scheme has"),
    ],
)
def test_a_wrong_scheme_of_the_users_own_is_named(
    attribute: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
number = 3

def forgetful(settings):
    pass

class Half:
    learn = None
    def __init__(self, settings): pass
    def plan(self, state): pass
    def grant(self, state, plan, client, ranges): pass

half = Half
"""
    own_scheme(tmp_path, monkeypatch, "own_scheme", source)
    with pytest.raises(UserError) as caught:
        load_scheme(settings(f"scheme=own_scheme:{attribute}"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("feddk", "scheme 'feddk' is unknown; built in: fp32, fixed, adaquantfl, dadaquant"),
        ("no_such_module:scheme", "there is no module 'no_such_module'"),
    ],
)
def test_a_missing_scheme_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_scheme(settings(f"scheme={name}"))
    assert message in str(caught.value)


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert source is not None
    own_scheme(tmp_path, monkeypatch, "example_of_the_docs", source[1])
    scheme = load_scheme(settings("scheme=example_of_the_docs:halving", "rounds=4"))
    bits = []
    for number in range(1, 5):
        now = replace(state(number), rounds=4)
        plan = planned(scheme, now)
        bits.append(scheme.grant(now, plan, now.clients["client-0"], ranges(1.0, 1.0)))
        scheme.learn(outcome(1.0, number))
    assert bits == [Grant((b, b)) for b in (8, 8, 4, 4)]
