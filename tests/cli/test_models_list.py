"""`dlkit models list`: sizes, published accuracy, filters, and a table that fits the terminal."""

from __future__ import annotations

import json

import pytest

from dlkit import catalog, registry
from dlkit_cli import formats
from dlkit_cli.main import run


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert run(["models", "list", *arguments, "--format", "jsonl"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_model_is_listed_with_what_is_published_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in listed(capsys)}
    assert list(rows) == registry.names("models", with_timm=False)
    resnet = rows["resnet50"]
    assert (resnet["parameters"], resnet["macs"], resnet["input"]) == (25_557_032, 4_089_184_256, [3, 224, 224])
    assert (resnet["weights"], resnet["top1"], resnet["pretrained"]) == (["IMAGENET1K_V1"], 0.7613, True)
    newer = rows["torchvision/resnet50"]
    assert newer["weights"] == ["IMAGENET1K_V2", "IMAGENET1K_V1"] and newer["top1"] == 0.80858
    assert rows["lenet5"]["top1"] is None and not rows["lenet5"]["pretrained"]
    assert rows["svm"]["parameters"] is None


def test_filters_keep_what_they_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["name"] for row in listed(capsys, "--task", "trees")] == ["child_sum_tree_lstm", "tree_lstm"]
    assert all(row["pretrained"] for row in listed(capsys, "--pretrained"))
    names = [str(row["name"]) for row in listed(capsys, "torchvision/swin*", "lenet5")]
    assert names[:2] == ["lenet5", "lenet5_relu"] and all(name.startswith("torchvision/swin") for name in names[2:])
    assert listed(capsys, "--task", "text", "--pretrained") == []


def test_a_pattern_that_matches_nothing_brings_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "torchvision/swin_tt"]) == 2
    assert "Did you mean 'torchvision/swin_t'?" in capsys.readouterr().err


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_table_fits_its_terminal_and_keeps_whole_names(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(formats, "_width", lambda: width)
    assert run(["models", "list", "--format", "table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert all(f" {entry.name} " in text for entry in catalog.find())
    assert "69.8 %" in text and "11.7M" in text and ("weights" in text) == (width >= 80)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1k"), (61_706, "61.7k"), (999_499, "999k"), (10**12, "1000G")],
)  # fmt: skip
def test_a_quantity_has_three_digits_and_a_unit(number: int, text: str) -> None:
    assert str(formats.Quantity(number)) == text and json.dumps(formats.Quantity(number)) == str(number)
