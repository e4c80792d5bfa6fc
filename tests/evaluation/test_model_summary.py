"""What `dlkit models` answers: counts against arithmetic, and no torch for a listing or a typo."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from dlkit.errors import UsageError
from dlkit.evaluation.model_summary import Layer, _layers, natural_spec, summarize
from dlkit_cli.main import run


def by_name(name: str, **options: object) -> dict[str, Layer]:
    return {layer.name: layer for layer in summarize(name, options=options).layers}


def test_lenet5_layers_have_the_papers_shapes_and_counts() -> None:
    layers = by_name("lenet5")
    assert {name: (layer.output, layer.parameters) for name, layer in layers.items() if layer.parameters} == {
        "c1": ((6, 28, 28), 156),
        "s2": ((6, 14, 14), 12),
        "c3": ((16, 10, 10), 1_516),
        "s4": ((16, 5, 5), 32),
        "c5": ((120,), 48_120),
        "f6": ((84,), 10_164),
        "output": ((10,), 850),
    }
    assert "shrink" not in layers  # S4 has the size that C5 takes


def test_multiply_adds_are_those_of_arithmetic() -> None:
    layers = by_name("lenet5")
    assert layers["c1"].macs == 6 * 25 * 28 * 28
    assert layers["s2"].macs == 6 * 14 * 14
    assert layers["c3"].macs == 60 * 25 * 10 * 10
    assert layers["c5"].macs == 400 * 120
    assert by_name("lenet5_relu")["c3"].macs == 16 * 6 * 25 * 10 * 10
    assert by_name("lenet5", output="rbf")["output"].macs == 840
    assert by_name("simple_cnn")["conv"].macs == 32 * 9 * 26 * 26


def test_rbf_bitmaps_are_no_parameters() -> None:
    summary = summarize("lenet5", options={"output": "rbf"})
    assert summary.parameters == summary.trainable == 60_000


def test_a_spec_changes_input_and_output() -> None:
    summary = summarize("lenet5_relu", natural_spec(3, 64, 64, 37))
    assert summary.input == (3, 64, 64) and summary.classes == 37
    assert summary.layers[-1].output == (37,)
    assert [layer.output for layer in summary.layers if layer.kind == "AdaptiveAvgPool2d"] == [(16, 5, 5)]


def test_a_summary_takes_no_memory_for_weights() -> None:
    huge = summarize("mlp", natural_spec(3, 4096, 4096, 10), {"hidden": "1000000"})  # 200 TB if it were built
    assert huge.parameters == 3 * 4096 * 4096 * 10**6 + 10**6 + 10**7 + 10


def test_options_are_written_out_and_checked() -> None:
    assert summarize("lenet5_relu").options["activation"] == "relu"
    with pytest.raises(UsageError, match=r"'droput'.*'dropout'"):
        summarize("lenet5", options={"droput": 0.5})
    with pytest.raises(UsageError, match="'lenet5'"):
        summarize("lenet")


def test_models_list_names_every_model_without_torch() -> None:
    code = (
        "import sys; from dlkit_cli.main import run; code = run(['models', 'list', '--format', 'jsonl']);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"lenet5", "lenet5_relu", "mlp", "simple_cnn"} <= {row["name"] for row in rows}
    assert all(row["schema"] == "dlkit.models/1" for row in rows)


def test_models_show_answers_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "lenet5", "--option", "output=rbf", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dlkit.model/1"
    assert document["parameters"] == 60_000 and document["macs"] == 328_096
    assert [layer["name"] for layer in document["layers"]][:4] == ["border", "c1", "squash", "s2"]
    assert "Proc. IEEE" in document["document"]


def test_models_show_takes_the_spec_of_a_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "lenet5_relu", "--dataset", "shapes", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["input"] == [3, 28, 28] and document["classes"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet"], "'lenet5'"),
        (["lenet5", "--option", "activaton=relu"], "'activation'"),
        (["lenet5", "--option", "activation"], "KEY=VALUE"),
        (["lenet5", "--dataset", "mnits"], "'mnist'"),
        (["lenet5", "--data-dir", "."], "--dataset folder"),
    ],
)
def test_a_mistake_is_told_in_one_line_without_torch(arguments: list[str], message: str) -> None:
    code = (
        f"import sys; from dlkit_cli.main import run; code = run({['models', 'show', *arguments]!r});"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1 and message in result.stderr and not result.stdout


def test_a_table_shows_paper_layers_and_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "lenet5", "--format", "table"]) == 0
    text = capsys.readouterr().out
    assert "Differs from the paper" in text and "PartialConv2d" in text and "60,850 parameters" in text


def test_tsv_has_the_layers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "mlp", "--format", "tsv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["name", "kind", "output", "parameters", "macs"]
    assert all(len(line.split("\t")) == 5 for line in lines)


def test_weights_that_two_calls_share_are_counted_once() -> None:
    shared = nn.Linear(3, 3)
    layers = _layers(nn.Sequential(shared, nn.ReLU(), shared), torch.zeros(1, 3))
    assert [(layer.kind, layer.parameters, layer.macs) for layer in layers] == [
        ("Linear", 12, 9),
        ("ReLU", 0, 0),
        ("Linear", 0, 9),
    ]
