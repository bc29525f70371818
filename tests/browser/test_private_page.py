"""The page of a private run in a real browser: the budget of epsilon has a tile of its own."""

import os
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from browser import chromium
from browser.test_page import check_accessibility, page_of, screenshot
from system.commands import Commands, free_port

if chromium.PATH is None and not os.environ.get("REQUIRE_BROWSER"):
    pytest.skip("there is no chromium on this machine", allow_module_level=True)


@pytest.fixture(scope="module", name="page")
def opened_page() -> Iterator[Page]:
    with chromium.launched() as browser:
        yield from page_of(browser)


def test_the_epsilon_that_is_spent_is_shown_beside_its_budget(
    lasting_commands: Commands, page: Page
) -> None:
    port, page_port = free_port(), free_port()
    server = lasting_commands.start(
        "server", "--task", "digits", "--clients", 2, "--rounds", 400, "--port", port,
        "--dashboard-port", page_port, "--set", "privacy.epsilon=40", "--out", "run",
    )  # fmt: skip
    server.wait_for("watch it: ")
    page.goto(f"http://127.0.0.1:{page_port}/")
    for part in ("1/2", "2/2"):
        lasting_commands.start("client", "--server", f"127.0.0.1:{port}", "--partition", part)
    tile = page.locator(".tile", has_text="Epsilon")
    expect(tile).to_contain_text("of 40 for delta 0.00001")
    expect(page.locator("h1")).to_have_text(re.compile(r"Round ([3-9]|\d\d+) of 400"))
    shown = tile.locator(".value").first.inner_text()
    assert 0 < float(shown) < 40
    expect(page.locator(".tile", has_text="Energy")).to_be_visible()
    check_accessibility(page)
    screenshot(page, "private")
