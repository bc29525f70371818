"""Make docs/pictures/dashboard.png: the page in the middle of a real run.

PYTHONPATH=tests python tests/browser/picture.py docs/pictures/dashboard.png
"""

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from browser.chromium import launched
from system.commands import Commands

ROUNDS = 60
# One of them, as a round may be over before it is seen.
HEADINGS = [f"Round {number} of" for number in range(38, 50)]
RUN = ("run", "--rounds", ROUNDS, "--set", "energy.budget_j=0.8")


def main() -> None:
    path = Path(sys.argv[1]).resolve()
    with TemporaryDirectory() as folder, launched() as browser:
        commands = Commands(Path(folder))
        try:
            running = commands.start(*RUN, "--dashboard-port", 0)
            running.wait_for("watch it: ")
            address = re.search(r"watch it: (\S+)", running.out.read_text())
            assert address is not None
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.goto(address[1])
            while not any(heading in page.locator("h1").inner_text() for heading in HEADINGS):
                page.wait_for_timeout(30)
            page.screenshot(path=path, full_page=True)
        finally:
            commands.kill()
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
