"""Every kind trains as well as fp32 at default settings, or is refused with one sentence."""

import os

import pytest

from fedaq.errors import UserError
from kinds.run import LOSS, sentence_of_check, trained
from kinds.zoo import KINDS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def there(name: str) -> str:
    lacks = KINDS[name].lacks
    if lacks and "REQUIRE_KINDS" not in os.environ:
        pytest.skip(f"{', '.join(lacks)}: not installed, `make kinds` does it")
    return name


# docs/reference/models.md
SHORT = pytest.param(
    "lora_vit", marks=pytest.mark.xfail(reason="fp32 learns little on a random base")
)


@pytest.mark.parametrize(
    "name", [SHORT if n == "lora_vit" else n for n, kind in KINDS.items() if not kind.refused]
)
def test_a_kind_is_learned_as_well_as_unquantized(name: str) -> None:
    there(name)
    assert sentence_of_check(name) == ""
    plain, ours = trained(name, "fp32"), trained(name, None)
    assert plain.accuracy > 0.5
    assert ours.accuracy >= (1 - LOSS) * plain.accuracy
    assert ours.bits < plain.bits / 4


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.refused])
def test_a_kind_is_refused_with_the_same_sentence(name: str) -> None:
    there(name)
    with pytest.raises(UserError) as refused:
        trained(name, None)
    assert KINDS[name].refused in str(refused.value)
    assert sentence_of_check(name) == str(refused.value)
