"""The program of the page on checking a model prints what the page says, but for the digits of rounding."""

import re
import runpy
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "checking.md"


def blocks(language: str) -> str:
    """All blocks of one language, one after another."""
    text = PAGE.read_text(encoding="utf-8")
    return "".join(re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def without_numbers(text: str) -> str:
    return re.sub(r"\d\.\d\de[+-]\d\d", "number", text)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d\.\d\de[+-]\d\d", text)]


def test_the_page_on_checking(command, tmp_path, monkeypatch, capsys):
    """On a shorter training than the guide's."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "runs").symlink_to(CHECKOUT / "demo" / "runs")
    monkeypatch.chdir(tmp_path)
    assert command("preprocess", "demo/runs/a_*", "demo/runs/b_*", "--out", "demo/results/dataset") == 0
    settings = ["training.run='demo/results/guide/training'", "training.epochs=1", "data.max_edges=4000"]
    assert command("train", CHECKOUT / "demo" / "config.toml", *(x for text in settings for x in ("--set", text))) == 0
    (tmp_path / "page.py").write_text(blocks("python"), encoding="utf-8")
    capsys.readouterr()
    runpy.run_path(str(tmp_path / "page.py"))
    printed, page = capsys.readouterr().out, blocks("text")
    assert without_numbers(printed) == without_numbers(page)
    for ours, theirs in zip(numbers(printed), numbers(page), strict=True):
        assert (ours < 1e-10) == (theirs < 1e-10)
