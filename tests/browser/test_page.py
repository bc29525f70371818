"""The page in a real browser, during a real run: one server and five clients, as processes.

Screenshots are left in build/screenshots.
"""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from browser import chromium
from fedaq.process.terminal import si
from fedaq.settings import HOW_REACHED, Settings
from system.commands import Commands, Running, free_port

ROOT = Path(__file__).parents[2]
View = tuple[int, Literal["light", "dark"]]
SCREENSHOTS = ROOT / "build" / "screenshots"
PATIENCE_MS = 60_000
# A name that is no markup, and one that every object in a script has already.
FOREIGN, INBORN = "<b>five", "__proto__"
NAMES = ("client-1", "client-2", "client-3", INBORN, FOREIGN)

if chromium.PATH is None and not os.environ.get("REQUIRE_BROWSER"):
    pytest.skip("there is no chromium on this machine", allow_module_level=True)


@dataclass
class Federation:
    """A server with a page, and its clients by their names."""

    commands: Commands
    port: int = field(default_factory=free_port)
    page_port: int = field(default_factory=free_port)
    server: Running | None = None
    clients: dict[str, Running] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.page_port}/"

    def start_server(self, way: str) -> None:
        """Start the server, or go on with its run."""
        # From its working directory a command takes any task.
        shutil.copy(Path(__file__).with_name("slow_digits.py"), self.commands.folder)
        self.server = self.commands.start(
            "server", way, "runs/live", "--task", "slow_digits:task", "--clients", len(NAMES),
            "--rounds", 400, "--port", self.port, "--dashboard-port", self.page_port,
            "--set", "energy.budget_j=3", "--set", "network.return_wait_s=1",
        )  # fmt: skip
        self.server.wait_for(f"watch it: {self.address}")

    def start_client(self, name: str) -> None:
        """Start a client."""
        self.clients[name] = self.commands.start(
            "client", "--server", f"127.0.0.1:{self.port}", "--name", name,
            "--task", "slow_digits:task", "--partition", f"{NAMES.index(name) + 1}/{len(NAMES)}",
        )  # fmt: skip


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium.launched() as browser:
        yield from page_of(browser)


def page_of(browser: Browser) -> Iterator[Page]:
    """Open a page; nothing may have gone wrong on it in the end."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    opened.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text)
              if message.type == "error" and "ERR_" not in message.text else None)  # fmt: skip
    yield opened
    assert errors == []


def past_run(folder: Path, scheme: str, rounds: int, energy_j: float) -> None:
    """Write what a run leaves behind."""
    records = [
        {
            "round": number, "test_accuracy": 1 - 0.5 / number, "test_loss": 1 / number,
            "train_loss": None, "uplink_bits": 1.0, "downlink_bits": 2.0,
            "uplink_payload_bytes": 1000, "downlink_payload_bytes": 2000, "energy_j": energy_j,
            "clients": 5, "left_out": 0, "seconds": 0.1,
        }
        for number in range(1, rounds + 1)
    ]  # fmt: skip
    folder.mkdir(parents=True)
    document = {
        "finished": True, "task": "digits", "scheme": scheme, "seed": 1, "clients": 5,
        "settings": Settings(scheme=scheme, rounds=rounds).model_dump(
            mode="json", exclude={"network": HOW_REACHED}
        ),
        "rounds": records,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(document))


@pytest.fixture(scope="module")
def federation(lasting_commands: Commands) -> Federation:
    runs = lasting_commands.folder / "runs"
    past_run(runs / "fp32", "fp32", 30, 0.55)
    past_run(runs / "compare" / "fixed" / "seed-1", "fixed", 25, 0.14)
    return Federation(lasting_commands)


def row(page: Page, name: str) -> str:
    return f"tr:has(th:text-is({json.dumps(name)}))"


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def check_accessibility(page: Page) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")


def round_shown(page: Page) -> int:
    found = re.match(r"Round (\d+) of 400", page.locator("h1").inner_text())
    assert found
    return int(found[1])


def test_the_page_follows_a_run_and_sees_a_client_go_and_come_back(
    federation: Federation, page: Page
) -> None:
    federation.start_server("--out")
    page.goto(federation.address)
    expect(page.locator("h1")).to_have_text("Waiting for 5 of 5 clients")
    expect(page.get_by_text("Nobody has joined yet")).to_be_visible()
    check_accessibility(page)
    screenshot(page, "waiting")
    page.evaluate("window.loadedOnce = true")
    for name in NAMES:
        federation.start_client(name)

    expect(page.locator("h1")).to_have_text(re.compile(r"Round ([4-9]|\d\d+) of 400"))
    expect(page.locator(".clients tbody tr")).to_have_count(5)
    assert page.locator(row(page, FOREIGN)).count() == 1
    assert page.locator(row(page, INBORN)).count() == 1
    assert page.locator("tbody b").count() == 0
    expect(page.locator(".tile", has_text="Energy")).to_contain_text("of 3.00 J, planned")

    federation.clients["client-3"].signal(signal.SIGKILL)
    state = page.locator(f"{row(page, 'client-3')} .state")
    expect(state).to_have_text("lost")
    expect(page.locator(row(page, "client-3"))).to_contain_text("ago")
    lost_in = round_shown(page)
    expect(page.locator("h1")).not_to_have_text(f"Round {lost_in} of 400")
    screenshot(page, "lost")
    federation.start_client("client-3")
    expect(state).to_have_text(re.compile("training|sending|receiving|done"))
    expect(page.locator(row(page, "client-3"))).to_contain_text("now")
    assert page.evaluate("window.loadedOnce") is True


def test_it_looks_right_in_light_and_dark_and_on_a_phone(page: Page) -> None:
    expect(page.locator(".plot canvas")).to_have_count(4)
    check_accessibility(page)
    views: tuple[View, ...] = ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))
    for width, scheme in views:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(150)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        screenshot(page, f"live-{width}-{scheme}")
    check_accessibility(page)
    page.set_viewport_size({"width": 1280, "height": 900})


def test_past_runs_are_laid_over_one_another_with_the_keyboard(page: Page) -> None:
    page.get_by_role("link", name="Runs").focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Runs")
    for name in ("fp32", "compare/fixed/seed-1", "live"):
        page.get_by_role("checkbox", name=name, exact=True).focus()
        page.keyboard.press("Space")
    expect(page.get_by_text("3 of at most 8 laid over one another")).to_be_visible()
    expect(page.locator(".plot canvas")).to_have_count(2)
    expect(page.locator(".chart").first).to_contain_text("fp32 98.33 %")
    differing = page.locator("section", has_text="Where their settings differ")
    expect(differing.locator("tr", has_text="scheme")).to_contain_text("fixed")
    check_accessibility(page)
    views: tuple[View, ...] = ((1280, "light"), (1280, "dark"), (390, "light"))
    for width, scheme in views:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        screenshot(page, f"runs-{width}-{scheme}")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    # What is chosen is in the address, so that it can be sent to somebody.
    page.reload()
    expect(page.locator(".plot canvas")).to_have_count(2)


def test_quantities_read_as_on_the_terminal(page: Page) -> None:
    values = [0, 3.2e-10, 1e-6, 0.00999, 0.5, 0.9996, 1, 12.345, 999.4, 999.6, 2.5e7, 3e9]
    version = page.evaluate("document.querySelector('link[rel=stylesheet]').href")
    module = version.replace("vendor/uplot.css", "format.js")
    shown = page.evaluate(
        "async ([module, values]) => { const { si } = await import(module);"
        " return values.map((value) => si(value, 'J')); }",
        [module, values],
    )
    assert shown == [si(value, "J") for value in values]


def test_a_server_that_is_killed_is_missed_and_found_again(
    federation: Federation, page: Page
) -> None:
    page.goto(federation.address)
    expect(page.locator("h1")).to_have_text(re.compile("Round"))
    page.evaluate("window.loadedOnce = true")
    before = round_shown(page)
    assert federation.server is not None
    federation.server.signal(signal.SIGKILL)
    expect(page.locator(".banner")).to_contain_text("The server does not answer")
    screenshot(page, "connection-lost")
    federation.start_server("--resume")
    expect(page.locator(".banner")).to_have_count(0)
    expect(page.locator(".connection")).to_have_text("live")
    began = time.monotonic()
    while not (page.locator("h1").inner_text().startswith("Round") and round_shown(page) > before):
        assert time.monotonic() - began < PATIENCE_MS / 1000
        page.wait_for_timeout(100)
    assert page.evaluate("window.loadedOnce") is True
