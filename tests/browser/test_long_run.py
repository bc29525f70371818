"""What a page keeps of a run of many rounds."""

import os
from pathlib import Path

import pytest

from browser import chromium
from fedaq_server.dashboard.live import MOST_KEPT, Point
from fedaq_server.dashboard.live import bounded as as_the_server
from fedaq_server.dashboard.serving import PageAccess, served

if chromium.PATH is None and not os.environ.get("REQUIRE_BROWSER"):
    pytest.skip("there is no chromium on this machine", allow_module_level=True)

ROUNDS, BEST = 20_000, 777
# Points come one by one, as they do to a page that is open all the time.
KEPT = """async ({rounds, best}) => {
  const metric = { name: "accuracy", higher_is_better: true };
  const app = document.querySelector("script[type=module]").src;
  const { bounded } = await import(app.replace("app.js", "live.js"));
  let points = [], most = 0;
  for (let round = 1; round <= rounds; round++) {
    points = bounded([...points, [round, round === best ? 2 : round / rounds]], metric);
    most = Math.max(most, points.length);
  }
  return [most, points.map((point) => point[0])];
}"""


def test_a_page_keeps_what_the_server_does_and_the_best_round(tmp_path: Path) -> None:
    points: tuple[Point, ...] = ()
    for number in range(1, ROUNDS + 1):
        points = as_the_server((*points, (number,)))
    kept = [point[0] for point in points]
    access = PageAccess("127.0.0.1", None)
    with served(access, 0, tmp_path, None) as shown, chromium.launched() as browser:
        page = browser.new_page()
        page.goto(shown.address)
        assert page.evaluate(KEPT, {"rounds": ROUNDS, "best": 0}) == [MOST_KEPT, kept]
        most, with_best = page.evaluate(KEPT, {"rounds": ROUNDS, "best": BEST})
    assert most == MOST_KEPT
    assert set(with_best) - set(kept) == {BEST}
