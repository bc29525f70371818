"""The report: what it shows, and that nothing foreign gets out of its quotes."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from math import nan
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fedaq.errors import UserError
from fedaq.settings import Settings
from fedaq_lab import comparison_table
from fedaq_lab.report_page import gather, write_report
from fedaq_server.records.record import RoundRecord
from server.run_files import write_run
from server.test_saved import FACTS, record

EVIL = "<script>alert(1)</script>&\"'$x_1$\x1b[31m"


def saved(folder: Path, rounds: int = 3, **changes: Any) -> Path:
    """Make the folder of a run whose accuracy and energy rise."""
    folder.mkdir(parents=True)
    settings = Settings().model_dump(mode="json")
    facts = {**FACTS, "shut_out": [], "settings": settings, **changes}
    write_run(folder, facts, [of_round(number) for number in range(1, rounds + 1)])
    return folder


def of_round(number: int, **changes: Any) -> RoundRecord:
    return record(number, **{"test_accuracy": 0.3 * number, "energy_j": 0.5, **changes})


def compared(folder: Path, *lines: str, rounds: Sequence[RoundRecord] = ()) -> Path:
    runs = []
    for line in lines:
        for seed in (1, 2):
            run = saved(folder / comparison_table.folder_of(line) / f"seed-{seed}", seed=seed)
            if rounds:
                settings = Settings().model_dump(mode="json")
                write_run(run, {**FACTS, "settings": settings, "seed": seed}, rounds)
        paths = (folder / comparison_table.folder_of(line)).glob("seed-*/run.json")
        read = tuple(json.loads(path.read_text()) for path in sorted(paths))
        runs.append(comparison_table.Line(line, read))
    content = comparison_table.summarize(runs, 0.55)
    (folder / "compare.json").write_text(json.dumps(content))
    return folder


class Page(HTMLParser):
    """What a browser sees of a page: its tables, texts, and everything it would fetch."""

    VOID = ("meta", "br", "img", "link", "input")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []
        self.feed(path.read_text())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.fetched.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def page_of(*folders: Path, out: Path) -> Page:
    path, pictures = write_report(folders, out)
    assert {p.name for p in out.iterdir()} == {path.name, *(p.name for p in pictures)}
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.format == "PNG"
            assert image.width > 800
    return Page(path)


def test_one_run(tmp_path: Path) -> None:
    page = page_of(saved(tmp_path / "first"), out=tmp_path / "report")
    header, row = page.tables[0]
    cells = dict(zip(header, row, strict=True))
    assert cells == {
        "run": "first", "scheme": "fedaq", "clients": "2", "rounds": "3", "accuracy": "90.00%",
        "best": "90.00%", "energy": "1.50 J", "bits up": "2.00", "bits down": "4.00",
        "payload up": "300 B", "payload down": "600 B", "on the wire": "2.10 kB",
        "time": "3.00 s",
    }  # fmt: skip
    assert "digits: one run" in page.text
    assert "fedaq 0.1.0, torch 2.13.0" in page.text
    assert ["rounds", "30"] in page.tables[1]
    assert "missing" not in page.text
    assert sorted(p.stem for p in (tmp_path / "report").glob("*.png")) == [
        "accuracy", "accuracy-energy", "bits", "energy", "loss", "payload",
    ]  # fmt: skip


def test_the_page_stands_alone(tmp_path: Path) -> None:
    runs = [saved(tmp_path / name) for name in ("first", "second")]
    page = page_of(*runs, out=tmp_path / "report")
    assert page.fetched == []
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    content = (tmp_path / "report" / "report.html").read_text()
    assert set(re.findall(r"https?://[^\"' <]+", content)) == {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
    references = set(re.findall(r"(?:url\(|href=\")#([^\")]+)", content))
    assert references <= set(page.ids)
    assert references


def test_runs_that_differ(tmp_path: Path) -> None:
    other = Settings(seed=2, scheme="fixed").model_dump(mode="json")
    page = page_of(
        saved(tmp_path / "first"),
        saved(tmp_path / "second", 2, finished=False, settings=other, fedaq="0.0.9"),
        out=tmp_path / "report",
    )
    runs, differences, _ = page.tables
    assert [row[0] for row in runs[1:]] == ["first", "second"]
    assert runs[2][3] == "2 of 30"
    assert differences == [["run", "scheme", "seed"], ["first", "fedaq", "1"],
                           ["second", "fixed", "2"]]  # fmt: skip
    assert "fedaq 0.0.9, torch 2.13.0 (second)" in page.text


def test_clients_that_were_missing(tmp_path: Path) -> None:
    folder = saved(tmp_path / "first")
    rounds = [of_round(1), of_round(2, clients=1, left_out=1), of_round(3, train_loss=nan)]
    settings = Settings().model_dump(mode="json")
    write_run(folder, {**FACTS, "settings": settings}, rounds)
    page = page_of(folder, out=tmp_path / "report")
    assert "first: updates were missing in round 2 (1 of 2)." in page.text
    assert "first: mallory in round 2: three refusals" in page.text


def test_a_comparison(tmp_path: Path) -> None:
    folder = compared(tmp_path / "cmp", "fp32", "fixed:fixed.uplink_bits=4")
    page = page_of(folder, saved(tmp_path / "own"), out=tmp_path / "report")
    target, runs = page.tables[:2]
    assert target[0] == list(comparison_table.COLUMNS)
    assert {row[0] for row in target[1:]} == {"fp32", "fixed, uplink_bits 4"}
    assert target[1][1:3] == ["2.0", "1.00 J ±0%"]
    assert [row[0] for row in runs[1:]] == [
        "fp32, seed 1", "fp32, seed 2", "fixed, uplink_bits 4, seed 1",
        "fixed, uplink_bits 4, seed 2", "own",
    ]  # fmt: skip
    assert (tmp_path / "report" / "energy-to-target.png").exists()
    lines = gather([folder]).lines
    assert [(line.name, len(line.runs)) for line in lines] == [
        ("fp32", 2), ("fixed, uplink_bits 4", 2),
    ]  # fmt: skip


def test_two_comparisons_do_not_mix(tmp_path: Path) -> None:
    folders = [compared(tmp_path / name, "fp32") for name in ("one", "two")]
    page = page_of(*folders, out=tmp_path / "report")
    assert [row[0] for row in page.tables[2][1:]] == [
        "one: fp32, seed 1", "one: fp32, seed 2", "two: fp32, seed 1", "two: fp32, seed 2",
    ]  # fmt: skip


def test_comparisons_of_one_name_have_a_picture_each(tmp_path: Path) -> None:
    """Then they are called by their paths, whose slashes a file cannot have in its name."""
    folders = [compared(tmp_path / parent / "cmp", "fp32") for parent in ("a<b>", "b")]
    page = page_of(*folders, out=tmp_path / "report")
    assert [p.stem for p in sorted((tmp_path / "report").glob("energy-to-*"))] == [
        "energy-to-target-1", "energy-to-target-2",
    ]  # fmt: skip
    for folder in folders:
        assert f"Energy to accuracy 0.55, {folder}" in page.text


def test_bits_that_cost_nothing(tmp_path: Path) -> None:
    rounds = [of_round(number, energy_j=0.0) for number in (1, 2, 3)]
    folder = compared(tmp_path / "cmp", "fp32", rounds=rounds)
    page = page_of(folder, out=tmp_path / "report")
    assert page.tables[0][1][1:4] == ["2.0", "0 J ±0%", ""]
    comparison = json.loads((folder / "compare.json").read_text())
    assert len(comparison_table.draw(comparison, tmp_path)) == 3


def test_foreign_words_stay_words(tmp_path: Path) -> None:
    """Names of tasks, clients, schemes, settings and folders come from anywhere."""
    folder = tmp_path / EVIL.replace("/", "|")
    settings = {**Settings().model_dump(mode="json"), EVIL: EVIL}
    rounds = [of_round(1, left_out=1)]
    facts = {
        **FACTS, "task": EVIL, "scheme": EVIL, "fedaq": EVIL, "versions": {EVIL: EVIL},
        "settings": settings, "shut_out": [{"name": EVIL, "round": 1, "reason": EVIL}],
    }  # fmt: skip
    folder.mkdir()
    write_run(folder, facts, rounds)
    other = saved(tmp_path / "other")
    (compared(tmp_path / "cmp", "fp32") / "compare.json").write_text(
        (tmp_path / "cmp" / "compare.json").read_text().replace(
            '"name": "fp32"', f'"name": {json.dumps(EVIL)}'
        )
    )  # fmt: skip
    page = page_of(folder, other, tmp_path / "cmp", out=tmp_path / "report")
    assert "script" not in page.tags
    assert "<script>alert(1)</script>&\"'$x_1$" in page.text
    assert "\x1b" not in page.text


def test_a_run_without_rounds(tmp_path: Path) -> None:
    page = page_of(saved(tmp_path / "new", 0, finished=False), out=tmp_path / "report")
    assert "No round is over yet." in page.text
    assert page.tables[0][1][3] == "0 of 30"


def test_folders_of_the_same_name(tmp_path: Path) -> None:
    folders = [saved(tmp_path / parent / "run") for parent in ("a", "b")]
    assert [entry.name for entry in gather(folders).entries] == [str(f) for f in folders]


def test_what_cannot_be_shown_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither a run \(run.json\) nor a comparison"):
        write_report([tmp_path], tmp_path / "report")
    assert not (tmp_path / "report").exists()
    for content in ("{}", "[", '{"lines": [1], "target": 0}'):
        (tmp_path / "compare.json").write_text(content)
        with pytest.raises(UserError, match=r"compare.json: not the record of a comparison$"):
            write_report([tmp_path], tmp_path / "report")
    run = saved(tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*file: cannot be written: File exists"):
        write_report([run], tmp_path / "file")


@pytest.mark.parametrize("spoil", [
    lambda whole: whole["lines"][0].pop("line"),
    lambda whole: whole.update(target="high"),
    lambda whole: whole.update(lines=[]),
    lambda whole: whole["lines"][0].update(seeds=[]),
    lambda whole: whole["lines"][0]["energy_j_to_target"].update(mean="much"),
    lambda whole: whole["lines"][0].update(payload_bytes_to_target=None),
])  # fmt: skip
def test_a_foreign_comparison_is_one_line(
    spoil: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    path = compared(tmp_path / "cmp", "fp32") / "compare.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"compare.json: not the record of a comparison$"):
        write_report([tmp_path / "cmp"], tmp_path / "report")


def test_more_lines_than_colours(tmp_path: Path) -> None:
    folders = [saved(tmp_path / f"run-{number}") for number in range(12)]
    styles = {
        tuple(sorted((k, v) for k, v in style.items() if k in ("color", "linestyle")))
        for style in styles_of(folders)
    }
    assert len(styles) == 12


def styles_of(folders: list[Path]) -> list[dict[str, Any]]:
    from fedaq_lab.report_pictures import _style

    return [_style(index, line) for index, line in enumerate(gather(folders).lines)]


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = saved(tmp_path / "run")
    pages = [write_report([run], tmp_path / name)[0].read_bytes() for name in ("one", "two")]
    assert pages[0] == pages[1]
    assert replace(gather([run]).entries[0].run, id="").id == ""
