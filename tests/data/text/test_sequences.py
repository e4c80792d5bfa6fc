"""Sequences: padded batches whose padding is nothing, an order that is a function, and the verbs over them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import dlkit
from dlkit import atomic_io, specs
from dlkit.config.resolve import resolve
from dlkit.config.schema import Augment
from dlkit.data.batches import Batch
from dlkit.data.inputs import Stream, split_stream
from dlkit.data.loader import TrainingData, batches_in_order, split
from dlkit.data.splits import SequenceSamples, Splits
from dlkit.data.text import padding
from dlkit.data.text.collate import POOL, bucket_by_size
from dlkit.data.text.ragged import row_starts, token_lookup
from dlkit.errors import DataError, UsageError
from dlkit.evaluation.evaluate import evaluate
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Failure, Prediction
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec, SequenceSpec, TreeSpec
from dlkit.training import checkpoint
from dlkit.training.train import resume_run
from dlkit_cli.main import run as dlkit_command

CPU = torch.device("cpu")
VOCABULARY = tuple(f"w{number}" for number in range(9))
SPEC = SequenceSpec(("a", "b"), vocabulary=8, words=VOCABULARY[:6], tokens="space")
TINY = {"data.options.train": 120, "data.options.test": 40, "model.options.hidden_size": 8, "data.options.length": 20}


def tokens(count: int = 60) -> SequenceSamples:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 12, count)
    values = rng.integers(0, len(VOCABULARY), lengths.sum()).astype(np.int32)
    return SequenceSamples(values, row_starts(lengths), np.arange(count, dtype=np.int64) % 2, VOCABULARY)


def numbers(count: int = 30) -> SequenceSamples:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 6, count)
    values = rng.random((lengths.sum(), 3), np.float32)
    return SequenceSamples(values, row_starts(lengths), rng.random(count, np.float32))


def row(samples: SequenceSamples, position: int) -> np.ndarray:
    return samples.values[samples.starts[position] : samples.starts[position + 1]]


def data(samples: SequenceSamples, spec: SequenceSpec = SPEC, **others: object) -> TrainingData:
    settings = {"augment": Augment(), "batch_size": 8, "seed": 5, "device": CPU, **others}
    return TrainingData(samples, spec, **settings)  # type: ignore[arg-type]


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) > 0 and all(
        torch.equal(a.indices, b.indices) and torch.equal(a.inputs.values, b.inputs.values)
        for a, b in zip(one, other, strict=True)
    )


# -- specs and batches


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        SequenceSpec((), features=2, longest=7),
        TreeSpec(("x", "y"), 4, ("a", "8\xa01/2"), "space", ("0", "1")),
        ImageSpec(1, 8, 8, ("a", "b"), (0.5,), (0.5,)),
    ],
)
def test_a_spec_returns_from_json(spec: specs.Spec) -> None:
    assert specs.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_spec_without_a_kind_is_of_images() -> None:
    spec = ImageSpec(1, 8, 8, ("a", "b"), (0.5,), (0.5,))
    old = {name: value for name, value in spec.to_json().items() if name != "kind"}
    assert specs.from_json(old) == spec


@pytest.mark.parametrize("samples", [tokens(), numbers()], ids=["tokens", "numbers"])
def test_a_batch_holds_each_sequence_and_zeros_behind_it(samples: SequenceSamples) -> None:
    lookup = token_lookup(samples.vocabulary, SPEC.words)
    batch = padding.collate_sequences(samples, np.array([3, 0, 17]), lookup)
    assert batch.values.dtype == (torch.int64 if samples.vocabulary else torch.float32)
    for position, index in enumerate((3, 0, 17)):
        expected = lookup[row(samples, index)] if samples.vocabulary else row(samples, index)
        assert batch.lengths[position] == len(expected) == batch.mask[position].sum()
        assert (batch.values[position, : len(expected)].numpy() == expected).all()
        assert not batch.values[position, len(expected) :].any() and batch.mask[position, : len(expected)].all()
    assert batch.values.shape[1] == batch.lengths.max()


def test_a_word_that_the_spec_does_not_have_is_unknown() -> None:
    assert token_lookup(("w7", "w0", "w5"), SPEC.words).tolist() == [specs.UNKNOWN, 2, 7]


def test_a_batch_in_parts_is_the_batch() -> None:
    batch = next(iter(data(tokens()).epoch(0)))
    parts = list(batch.parts(3))
    assert [len(part) for part in parts] == [3, 3, 2] and all(part.total == 8 for part in parts)
    assert torch.equal(torch.cat([part.inputs.values for part in parts]), batch.inputs.values)
    assert torch.equal(torch.cat([part.inputs.lengths for part in parts]), batch.inputs.lengths)
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)


def test_no_more_than_the_longest_is_read() -> None:
    spec = SequenceSpec(SPEC.classes, SPEC.vocabulary, words=SPEC.words, longest=4)
    short, long = (torch.cat([b.inputs.lengths for b in batches_in_order(tokens(), s, 60, CPU)]) for s in (spec, SPEC))
    assert long.max() > 4 and torch.equal(short, long.clamp(max=4))


# -- the order


def test_an_epoch_holds_every_sequence_once_and_the_next_another_order() -> None:
    one, other = ([int(i) for batch in data(tokens()).epoch(epoch) for i in batch.indices] for epoch in (0, 1))
    assert sorted(one) == sorted(other) == list(range(60)) and one != other


def test_no_two_epochs_put_the_same_sequences_together() -> None:
    one, other = ({frozenset(batch.indices.tolist()) for batch in data(tokens(900)).epoch(epoch)} for epoch in (0, 1))
    assert not one & other


def test_targets_belong_to_their_sequences() -> None:
    samples, lookup = tokens(), token_lookup(VOCABULARY, SPEC.words)
    for batch in data(samples).epoch(2):
        for position, index in enumerate(batch.indices.tolist()):
            assert batch.targets[position] == samples.targets[index]
            length = int(batch.inputs.lengths[position])
            assert (batch.inputs.values[position, :length].numpy() == lookup[row(samples, index)]).all()


def test_an_epoch_begun_in_the_middle_is_the_rest_of_the_whole_one() -> None:
    source = data(tokens())
    assert same(list(source.epoch(1, first=3)), list(source.epoch(1))[3:])


def test_the_shares_of_ranks_make_up_the_batch_of_one() -> None:
    whole = list(data(tokens()).epoch(1))
    shares = [list(data(tokens(), rank=rank, world_size=3).epoch(1)) for rank in range(3)]
    for number, batch in enumerate(whole):
        assert all(share[number].total == len(batch) for share in shares)
        for rank in range(3):
            assert torch.equal(shares[rank][number].indices, batch.indices[rank::3])


def test_batches_are_of_like_lengths_and_come_in_no_order_of_length() -> None:
    rng = np.random.default_rng(1)
    sizes, order = rng.integers(1, 100, 2000), rng.permutation(2000)
    found = bucket_by_size(order, sizes, 10, seed=3, epoch=0)
    assert sorted(found) == list(range(2000)) and POOL * 10 < 2000
    rows = sizes[found].reshape(-1, 10)
    padded = (rows.max(axis=1, keepdims=True) - rows).sum() / rows.sum()
    before = sizes[order].reshape(-1, 10)
    assert padded < 0.05 < (before.max(axis=1, keepdims=True) - before).sum() / before.sum()
    assert 0.3 < (np.diff(rows.mean(axis=1)) > 0).mean() < 0.7


def test_the_last_batch_alone_is_short() -> None:
    assert [len(batch) for batch in data(tokens(), batch_size=7).epoch(4)] == [7] * 8 + [4]


def test_a_number_is_held_out_without_regard_to_its_value_and_comes_as_a_column() -> None:
    spec = SequenceSpec((), features=3)
    parts = split(Splits(spec, numbers()), 0.2, seed=0)
    assert len(parts["validation"]) == 6 and len(parts["train"]) == 24
    batch = next(iter(batches_in_order(numbers(), spec, 30, CPU)))
    assert batch.targets.shape == (30, 1) and batch.targets.dtype == torch.float32


# -- the verbs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An lstm after one epoch over a few expressions."""
    runs_dir = tmp_path_factory.mktemp("sequences") / "runs"
    return dlkit.train("lstm", dataset="brackets", epochs=1, batch_size=16, settings=TINY, name="a", runs_dir=runs_dir)


def test_a_run_knows_its_words_and_eval_finds_its_figures_again(run: RunFolder) -> None:
    spec = run.spec()
    assert isinstance(spec, SequenceSpec) and "[MAX" in spec.words and run.recipe().data.options["form"] == "sequences"
    found = evaluate(run, split="validation", write=False)
    assert found.metrics["top1"].value == run.metrics()[-1]["val/top1"] and found.samples == 12
    assert "sequences_per_s" in run.metrics()[-1]


def interrupted(at: int) -> Callable[[str], None]:
    """A hook that breaks off behind the step numbered `at`."""
    steps = 0

    def hook(point: str) -> None:
        nonlocal steps
        steps += point == "step"
        if point == "step" and steps == at:
            raise KeyboardInterrupt

    return hook


def ended(run: RunFolder) -> tuple[dict[str, torch.Tensor], list[dict[str, object]]]:
    found = checkpoint.newest(run.checkpoints, run.info()["run_id"], lambda text: None)
    lines = [{key: value for key, value in line.items() if not key.endswith("per_s")} for line in run.metrics()]
    return found.tensors, lines


@pytest.mark.parametrize(
    ("model", "dataset", "options"),
    [
        ("gru", "adding", {"data.options.steps": 9}),
        ("lstm", "brackets", {"data.options.length": 20, "model.options.dropout": 0.3}),
        ("tree_lstm", "brackets", {"data.options.length": 20, "data.options.nodes": "all"}),
    ],
)
def test_a_run_broken_off_in_mid_epoch_ends_like_one_that_was_not(
    model: str, dataset: str, options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "data.options.train": 100, "data.options.test": 10, "model.options.hidden_size": 8, "train.threads": 1,
        "train.accumulate": 3, "train.checkpoint_every": 2, "train.batch_size": 16, "train.epochs": 2, **options,
    }  # fmt: skip
    gold = dlkit.train(model, dataset=dataset, settings=settings, name="gold", runs_dir=tmp_path)
    monkeypatch.setattr(atomic_io, "hook", interrupted(at=9))  # of 6 an epoch: behind the checkpoint of step 8
    with pytest.raises(KeyboardInterrupt):
        dlkit.train(model, dataset=dataset, settings=settings, name="broken", runs_dir=tmp_path)
    monkeypatch.setattr(atomic_io, "hook", None)
    broken = RunFolder(tmp_path / "broken")
    resume_run(broken, changes={}, inexact=False, say=lambda text: None, progress=False)
    (weights, lines), (others, other_lines) = ended(gold), ended(broken)
    assert lines == other_lines and weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_model_of_numbers_has_losses_and_no_accuracies(tmp_path: Path) -> None:
    sizes = {"data.options.train": 60, "data.options.test": 30, "data.options.steps": 6, "model.options.hidden_size": 8}
    settings = {**sizes, "train.threads": 1}
    run = dlkit.train("gru", dataset="adding", epochs=1, settings=settings, name="a", runs_dir=tmp_path)
    line = run.metrics()[-1]
    assert "val/loss" in line and not any("top" in key for key in line)
    found = evaluate(run, split="validation")
    assert found.metrics["mse"].value == pytest.approx(line["val/loss"], rel=1e-5) and not found.classes
    assert found.metrics["rmse"].value == pytest.approx(found.metrics["mse"].value ** 0.5)
    lines = (run.path / "predictions.jsonl").read_text().splitlines()
    errors = [(row["predicted"] - row["target"]) ** 2 for row in map(json.loads, lines)]
    assert np.mean(errors) == pytest.approx(found.metrics["mse"].value)
    with pytest.raises(UsageError, match="sequences of numbers"):
        predict(run, b"1 2 3")
    with pytest.raises(DataError, match="with numbers"):
        evaluate(run, dataset="brackets")


def test_text_is_answered_a_line_an_example_and_bad_lines_by_an_error(run: RunFolder, tmp_path: Path) -> None:
    lines = [b"[MAX 2 9 ]", b"", b"[MIN 1 \xff ]", b"x" * 1_000_000, b"[SM 1 2 ]"]
    chunks = [part for line in lines for part in (line[:500_000], line[500_000:], b"\n")]
    answers = list(predict(run, iter([Stream(chunks)])))
    assert [answer.path for answer in answers] == [f"-:{number}" for number in range(1, 6)]
    failures = {number: answer.message for number, answer in enumerate(answers, 1) if isinstance(answer, Failure)}
    assert failures == {
        2: "-:2: empty.",
        3: "-:3: byte 0xff is not UTF-8.",
        4: "-:4: more than 262,144 bytes, the limit of one example.",
    }
    (tmp_path / "one.txt").write_text("[SM 1\n2 ]")
    (again,) = predict(run, tmp_path / "one.txt")
    assert isinstance(again, Prediction) and isinstance(answers[4], Prediction)
    assert [(ranked.name, pytest.approx(ranked.probability, abs=1e-6)) for ranked in again.predictions] == [
        (ranked.name, ranked.probability) for ranked in answers[4].predictions
    ]


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    (piece,) = split_stream(Stream(b"x" * 1000 for _ in range(100)), most=2000)
    assert len(piece) == 2001


def test_predict_has_evals_answers(run: RunFolder) -> None:
    evaluate(run)
    kept = [json.loads(line) for line in (run.path / "predictions.jsonl").read_text().splitlines()]
    from dlkit.datasets import brackets

    test = brackets.load(train=1, test=40, length=20).test
    assert isinstance(test, SequenceSamples)
    texts = [" ".join(test.vocabulary[word] for word in row(test, index)).encode() for index in range(40)]
    answers = predict(run, iter([Stream([b"\n".join(texts)])]))
    assert [a.predictions[0].name for a in answers if isinstance(a, Prediction)] == [row["predicted"] for row in kept]


def test_from_the_shell_text_comes_through_a_pipe(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dlkit_cli import inputs

    monkeypatch.setattr(inputs, "_stdin_chunks", lambda: iter([b"[MAX 2 9 ]\n\n[MI", b"N 2 9 ]\n"]))
    assert dlkit_command(["predict", "-", "--run", str(run.path), "--topk", "1", "--format", "tsv"]) == 3
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in rows] == ["path", "-:1", "-:2", "-:3"] and rows[2][-1] == "-:2: empty."


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.augment.horizontal_flip": 0.5}, "augment.horizontal_flip is for images"),
        ({"train.channels_last": True}, "channels_last is for images"),
        ({"data.size": 32}, "data.size is for images"),
        ({"loss.name": "cross_entropy", "data.name": "adding"}, "is a regression: recipe.loss.name is mse"),
        ({"train.monitor": "val/top1", "data.name": "adding"}, "recipe.train.monitor is a loss"),
        ({"data.name": "mnist", "data.vectors": "glove.txt"}, "vectors is for words"),
        ({"model.name": "lenet5"}, "takes images, but data set 'brackets' provides sequences"),
        ({"data.options.form": "tree"}, "form is 'tree'. Did you mean 'trees'"),
        ({"data.name": "text_csv"}, "needs a file or a folder: give --data-dir"),
    ],
)
def test_keys_of_another_kind_of_data_are_refused_before_any_work(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(flags={"model.name": "lstm", "data.name": "brackets", **settings})


def test_the_columns_of_a_table_are_named_by_flags(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data-dir", "x.csv", "--text-column", "review", "--label-column", "stars", "--dry-run"]
    assert dlkit_command(["train", "lstm", "--dataset", "text_csv", *flags]) == 0
    out = capsys.readouterr().out
    assert "text_column: review" in out and "label_column: stars" in out


def test_what_changes_images_is_refused_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mixup is for images"):
        dlkit.train("lstm", dataset="brackets", settings={**TINY, "regularizers.mixup.alpha": 0.2}, runs_dir=tmp_path)


def test_the_embedding_starts_from_vectors_and_logs_their_number(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("[MAX 9 8 7 6\nother 1 1 1 1\n")
    settings = {**TINY, "model.options.embedding_size": 4, "data.vectors": str(tmp_path / "v.txt")}
    log = io.StringIO()
    run = dlkit.train(
        "lstm", dataset="brackets", epochs=1, lr=1e-30, settings=settings, name="a", runs_dir=tmp_path,
        say=lambda text: log.write(text + "\n") and None,
    )  # fmt: skip
    spec = run.spec()
    assert isinstance(spec, SequenceSpec) and f"has 1 of the {len(spec.words)} words" in log.getvalue()
    rows = ended(run)[0]["model/embedding.weight"]
    assert rows[spec.words.index("[MAX") + 2].tolist() == [9, 8, 7, 6]
    with pytest.raises(DataError, match="embedding_size=4"):
        dlkit.train(
            "lstm", dataset="brackets", settings={**settings, "model.options.embedding_size": 5}, runs_dir=tmp_path
        )


def test_other_texts_are_read_with_the_runs_own_words(run: RunFolder, tmp_path: Path) -> None:
    from dlkit.data.text.collate import batches
    from dlkit.data.text.corpus import SequenceCorpus

    spec = run.spec()
    assert isinstance(spec, SequenceSpec)
    corpus = SequenceCorpus({"train": [["never", "[MAX", "2"]]}, {"train": [0]}, "space")
    samples = corpus.splits(("9",), 1, 100).train
    assert isinstance(samples, SequenceSamples)
    (batch,) = batches(samples, spec, [np.array([0])], [np.array([0])], CPU)
    assert batch.inputs.values.tolist() == [[1, spec.words.index("[MAX") + 2, spec.words.index("2") + 2]]
