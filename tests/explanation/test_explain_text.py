"""explain of text and trees: values follow their formulas, identify the decisive word, and are shown as text."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_texts
import torch
from PIL import Image
from shapes_on_disk import form
from torch import Tensor, nn

import dlkit
from dlkit import documents, registry
from dlkit.data.text.treebank import ParsedTree, parse_tree, tree_from_heads
from dlkit.errors import DataError, UsageError
from dlkit.evaluation.prediction import Node
from dlkit.explanation import faithfulness, overlay_text
from dlkit.explanation.explain import Explanation, Failure, explain
from dlkit.explanation.methods._word_vectors import WordVectorModel
from dlkit.explanation.records import NodeAttribution
from dlkit.explanation.views import words_below
from dlkit.inference.torch_classifier import TextClassifier
from dlkit.layers.attention import record_attention
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import SequenceSpec, TreeSpec
from dlkit_cli import formats
from dlkit_cli.main import run as dlkit_command

GOLDEN = Path(__file__).parents[1] / "golden"
WORDS = tuple(f"w{place}" for place in range(10))
SPECS = {
    "sequences": SequenceSpec(("a", "b", "c"), 12, words=WORDS, tokens="space"),
    "trees": TreeSpec(("a", "b", "c"), 12, WORDS, "space"),
}
SENTENCE = ["w3", "w1", "w4", "w1", "w5"]
TREE = parse_tree("((w3) (((w1) (w4)) ((w1) (w5))))")
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("sequences", {"hidden_size": 8, "embedding_size": 6}),
    "transformer": ("sequences", {"width": 8, "heads": 2, "mlp_size": 16}),
    "tree_lstm": ("trees", {"hidden_size": 8, "embedding_size": 6}),
    "child_sum_tree_lstm": ("trees", {"hidden_size": 8, "embedding_size": 6}),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def built(name: str, **options: Any) -> TextClassifier:
    kind, fixed = NETWORKS[name]
    torch.manual_seed(0)
    module = registry.load("models", name)
    model: nn.Module = module.build(SPECS[kind], **registry.resolved_options("models", name, {**fixed, **options}))
    with torch.no_grad():
        model.get_submodule("embedding").weight.mul_(30)  # vectors of today's size, so that words matter
    return TextClassifier(model.eval(), torch.device("cpu"), SPECS[kind])  # type: ignore[arg-type]


def reader_of(classifier: TextClassifier) -> WordVectorModel:
    text = SENTENCE if isinstance(classifier.spec, SequenceSpec) else TREE
    return WordVectorModel(classifier.module, lambda count: classifier.batch([text] * count))


def logits_of(classifier: TextClassifier, text: list[str] | ParsedTree) -> Tensor:
    with torch.no_grad():
        result: Tensor = classifier.module(classifier.batch([text]))
    return result


def values_of(method: str, reader: WordVectorModel, target: int = 1) -> Tensor:
    maps: Tensor = registry.load("explainers", method).explain(reader, reader.vectors, torch.tensor([target]))
    return maps


# -- words as an image


@every_network
def test_a_texts_own_word_vectors_give_the_networks_logits(name: str) -> None:
    classifier = built(name)
    reader = reader_of(classifier)
    text = SENTENCE if isinstance(classifier.spec, SequenceSpec) else TREE
    expected = logits_of(classifier, text)
    assert reader.vectors.shape[2:] == (1, 5)
    for copies in (1, 3):
        with torch.no_grad():
            result = reader(reader.vectors.expand(copies, -1, -1, -1))
        torch.testing.assert_close(result, expected.expand(copies, -1))
    assert not any(module._forward_hooks for module in classifier.module.modules())


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_removed_words_of_a_sequence_leave_a_shorter_sequence(name: str) -> None:
    classifier = built(name)
    keep = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]).bool()
    result = reader_of(classifier).masked_logits(keep)
    for row, answer in zip(keep, result, strict=True):
        left = [word for word, kept in zip(SENTENCE, row.tolist(), strict=True) if kept]
        torch.testing.assert_close(answer[None], logits_of(classifier, left), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tree_lstm", "child_sum_tree_lstm"])
def test_removed_words_of_a_tree_have_zero_vectors(name: str) -> None:
    classifier = built(name)
    reader = reader_of(classifier)
    result = reader.masked_logits(torch.tensor([[0, 1, 1, 1, 1]]).bool())
    with torch.no_grad():
        classifier.module.get_submodule("embedding").weight[2 + 3] = 0  # that of w3, which stands there alone
    torch.testing.assert_close(result, logits_of(classifier, TREE))


@every_network
def test_occlusion_is_a_loop_that_removes_each_word(name: str) -> None:
    reader = reader_of(built(name))
    complete = reader.masked_logits(torch.ones(1, 5).bool())[0, 1]
    decreases = [complete - reader.masked_logits(torch.arange(5)[None] != place)[0, 1] for place in range(5)]
    torch.testing.assert_close(values_of("occlusion", reader), torch.stack(decreases)[None, None])


def test_occlusion_of_a_node_covers_all_words_below_it() -> None:
    reader = reader_of(built("tree_lstm"))
    below = words_below(TREE)
    assert below.sum(1).tolist() == [5, 1, 4, 2, 1, 1, 2, 1, 1] and below[3].tolist() == [
        False,
        True,
        True,
        False,
        False,
    ]
    result = registry.load("explainers", "occlusion").attribute_groups(reader, torch.tensor([1]), below)
    complete = reader.masked_logits(torch.ones(1, 5).bool())[0, 1]
    for value, words in zip(result, below, strict=True):
        torch.testing.assert_close(value, complete - reader.masked_logits(~words[None])[0, 1])


@every_network
def test_integrated_gradients_of_words_are_complete(name: str) -> None:
    reader = reader_of(built(name))
    with torch.no_grad():
        ends = [reader(vectors)[0, 1] for vectors in (reader.vectors, torch.zeros_like(reader.vectors))]
    total = values_of("integrated_gradients", reader).sum()
    assert abs(total - (ends[0] - ends[1])) <= 0.01 * abs(ends[0] - ends[1])


@every_network
@pytest.mark.parametrize("method", ["saliency", "smoothgrad", "integrated_gradients", "occlusion"])
def test_values_are_finite_repeat_and_leave_the_network_as_it_was(method: str, name: str) -> None:
    reader = reader_of(built(name))
    before = {key: value.clone() for key, value in reader.network.state_dict().items()}
    one, same, other = values_of(method, reader), values_of(method, reader), values_of(method, reader, target=2)
    assert one.shape == (1, 1, 5) and one.isfinite().all() and one.any() and torch.equal(one, same)
    assert not torch.equal(one, other)
    assert all(torch.equal(value, before[key]) for key, value in reader.network.state_dict().items())
    assert all(weight.grad is None for weight in reader.network.parameters())


@pytest.mark.parametrize("pooling", ["mean", "max", "last", "attention"])
def test_attention_rollout_of_words_has_the_weights_of_the_pooling(pooling: str) -> None:
    reader = reader_of(built("transformer", pooling=pooling))
    pool = reader.network.get_submodule("pool")
    steps: list[Tensor] = []
    hook = pool.register_forward_pre_hook(lambda module, given: steps.append(given[0]))
    with torch.no_grad(), record_attention(reader) as layers:
        reader(reader.vectors)
        rolled = torch.eye(5)
        for layer in layers:
            assert layer.weights is not None
            rolled = (0.5 * layer.weights[0].mean(0) + 0.5 * torch.eye(5)) @ rolled
    hook.remove()
    shares = torch.full((5,), 0.2)
    if pooling == "last":
        shares = torch.eye(5)[4]
    elif pooling == "attention":
        shares = pool.score(pool.hidden(steps[0]).tanh())[0, :, 0].softmax(0).detach()  # type: ignore[operator]
    result = values_of("attention_rollout", reader)
    torch.testing.assert_close(result[0, 0], shares @ rolled)
    torch.testing.assert_close(result.sum(), torch.tensor(1.0))


def test_attention_rollout_is_not_for_networks_without_attention() -> None:
    with pytest.raises(UsageError, match="no self-attention"):
        values_of("attention_rollout", reader_of(built("lstm")))


def test_deletion_and_insertion_remove_and_insert_words() -> None:
    reader = reader_of(built("lstm"))
    values = torch.tensor([0.1, 0.9, -0.3, 0.5, 0.2])
    order, areas = [1, 3, 4, 0, 2], []
    for inserted in (False, True):
        curve = []
        for count in range(6):
            chosen = torch.zeros(5).bool()
            chosen[order[:count]] = True
            curve.append(float(reader.masked_logits((chosen if inserted else ~chosen)[None]).double().softmax(1)[0, 1]))
        areas.append(float(np.trapezoid(curve)) / 5)
    assert faithfulness.word_deletion_and_insertion(reader, 1, values) == pytest.approx(areas, abs=1e-6)


# -- what a trained run says


def explained(*arguments: Any, **options: Any) -> list[Explanation]:
    answers = list(explain(*arguments, write=False, **options))
    assert answers and all(isinstance(answer, Explanation) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Explanation)]


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_a_decisive_word_has_the_highest_value(method: str, text_run: RunFolder) -> None:
    texts = tiny_texts.texts(20, seed=7)
    result = explained(text_run, [text.encode() for text, _ in texts], method=method)
    right = [
        max(answer.words, key=lambda word: word.value).word == tiny_texts.DECIDING[label]
        for answer, (_, label) in zip(result, texts, strict=True)
    ]
    assert sum(right) >= 19
    assert all(answer.insertion_auc > answer.deletion_auc for answer in result)
    assert sum(answer.sanity.flagged for answer in result) <= 3


def test_the_nodes_above_the_deciding_word_have_its_value(tree_run: RunFolder) -> None:
    draw = random.Random(3)
    texts = tiny_texts.texts(12, seed=8)
    result = explained(tree_run, [tiny_texts.tree(*pair, draw).encode() for pair in texts], method="occlusion")
    right = 0
    for answer, (_, label) in zip(result, texts, strict=True):
        best = max(answer.nodes, key=lambda node: node.value).node
        right += tiny_texts.DECIDING[label] in best.words.split()
        assert answer.nodes[0].node.parent is None and len(answer.nodes) == 2 * len(answer.words) - 1
    assert right >= 11


def test_a_nodes_integrated_gradients_are_the_sum_of_its_words(tree_run: RunFolder) -> None:
    (result,) = explained(tree_run, b"(good ((a) (gem)) ((of) ((a) (film))))")
    assert result.method == "integrated_gradients" and [word.word for word in result.words] == [
        "a",
        "gem",
        "of",
        "a",
        "film",
    ]
    values = [word.value for word in result.words]
    sums = [
        sum(values),
        sum(values[:2]),
        values[0],
        values[1],
        sum(values[2:]),
        values[2],
        sum(values[3:]),
        *values[3:],
    ]
    assert [node.value for node in result.nodes] == pytest.approx(sums, abs=1e-5)
    assert result.completeness_error is not None and result.completeness_error <= 0.01


def test_a_word_that_is_not_in_the_vocabulary_is_marked(text_run: RunFolder) -> None:
    (result,) = explained(text_run, b"Gem, unheard")
    assert [(word.word, word.known) for word in result.words] == [("gem", True), (",", False), ("unheard", False)]


def test_the_records_have_their_documented_form(text_run: RunFolder, tree_run: RunFolder, tmp_path: Path) -> None:
    for run, text, name in ((text_run, b"a gem", "explain_text"), (tree_run, b"((a) (gem))", "explain_tree")):
        (result,) = explain(run, text, output=tmp_path / f"{name}.png")
        document = result.document()
        document["nodes"] = document.get("nodes", [])[1:]  # the root has no parent
        assert form(document) == {"nodes": [], **json.loads((GOLDEN / f"{name}.json").read_text())}
        assert documents.read(tmp_path / f"{name}.json") == result.document()


def test_an_untrained_network_is_flagged(text_run: RunFolder, tmp_path: Path) -> None:
    made = dlkit.train(
        "lstm", dataset="text_csv", data_dir=text_run.recipe().data.dir, epochs=1, batch_size=256, lr=1e-12,
        name="fresh", runs_dir=tmp_path,
    )  # fmt: skip
    messages: list[str] = []
    (result,) = explained(made, b"a gem of a film", say=messages.append)
    assert result.sanity.flagged and any("random" in line for line in messages)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "grad_cam"}, "does not explain sequences. There are: .*integrated_gradients"),
        ({"method": "attention_rollout"}, "no self-attention"),
        ({"method": "shapp"}, "Did you mean 'shap'"),
        ({"target": "god"}, "Did you mean 'good'"),
        ({"layer": "pool"}, "--layer is for models of images"),
        ({"montage": True}, "--montage is for models of images"),
    ],
)
def test_options_that_do_not_apply_to_text_are_errors(text_run: RunFolder, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        explain(text_run, b"a gem", **options)


def test_a_text_that_is_too_long_or_none_is_a_failure(tree_run: RunFolder) -> None:
    long = b"((a) " * 600 + b"(gem)" + b")" * 600
    answers = list(explain(tree_run, [long, b"((a) (gem", b"((a) (gem))"], write=False))
    assert [isinstance(answer, Failure) for answer in answers] == [True, True, False]
    assert isinstance(answers[0], Failure) and answers[0].code == DataError.exit_code
    assert "1,201 nodes; explain takes up to 1,000" in answers[0].message


def test_all_supported_methods_are_used(text_run: RunFolder, tmp_path: Path) -> None:
    messages: list[str] = []
    result = list(explain(text_run, b"a gem", method="all", output=tmp_path, say=messages.append))
    assert [getattr(answer, "method", None) for answer in result] == [
        "integrated_gradients", "occlusion", "saliency", "smoothgrad",
    ]  # fmt: skip
    assert any(line.startswith("attention_rollout is skipped") for line in messages)
    assert len(list(tmp_path.glob("*.png"))) == 4


# -- in the shell


def lines_from(stdin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = iter([stdin, b""])
    monkeypatch.setattr("os.read", lambda descriptor, size: next(chunks))


def test_lines_through_a_pipe_are_explained(
    text_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["explain", "-", "--run", str(text_run.path), "-o", str(tmp_path)]
    lines_from(b"a gem of a film\nit is dull\n", monkeypatch)
    assert dlkit_command([*run, "--format", "tsv"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["path", "method", "target", "probability", "place", "word", "value", "known", "png", "error"]
    assert (
        len(rows) == 1 + 5 + 3
        and rows[2][:3] == ["-:1", "integrated_gradients", "good"]
        and rows[2][4:6] == ["2", "gem"]
    )
    for name in ("line-1-integrated_gradients", "line-2-integrated_gradients"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 700
    lines_from(b"a gem\n\n", monkeypatch)
    assert dlkit_command([*run, "--format", "jsonl"]) == 3
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert [word["word"] for word in first["words"]] == ["a", "gem"] and second["error"]["code"] == 4


def test_a_table_shows_the_text_and_a_tree_its_nodes(
    tree_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines_from(b"((a) (gem))\n((a)\n", monkeypatch)
    run = ["--run", str(tree_run.path), "-o", str(tmp_path)]
    assert dlkit_command(["explain", "-", *run, "--target", "good", "--format", "table"]) == 3
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[0].startswith("-:1  integrated_gradients  good ") and lines[1] == "a gem"
    assert lines[2].split() == ["node", "words", "class", "value"]
    assert [line.split()[:2] for line in lines[4:7]] == [["0", "a"], ["1", "a"], ["2", "gem"]]
    assert lines[4].index("a gem") + 2 == lines[5].index("a ")
    assert lines[-1].startswith("-:2: ") and "not closed" in lines[-1]


def test_words_are_colored_on_a_terminal_only(text_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlkit_cli.explain import _colored_words

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    words = [{"word": "a", "value": -0.1}, {"word": "gem\x1b", "value": 0.9}]
    assert _colored_words(words) == "a gem\\x1b\n"
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = _colored_words(words)
    assert "\x1b[" in shown and "gem\\x1b" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[38" not in _colored_words(words)
    assert formats.escape("\x1b") == "\\x1b"


def test_a_drawn_dependency_tree_has_each_word_at_its_own_position() -> None:
    tree = tree_from_heads(["this", "film", "is", "good"], [2, 4, 4, 0])
    places = {node: place for place, node in enumerate(tree.reading)}
    parts = [
        NodeAttribution(Node(node, None if parent < 0 else parent, word, "", "a", 0, 1.0), 0.0, places[node])
        for node, (parent, word) in enumerate(zip(tree.parents, tree.words, strict=True))
    ]
    layout = overlay_text.tree_layout(parts)
    assert dict(zip(tree.words, layout.centers, strict=True)) == {"this": 0, "film": 1, "is": 2, "good": 3}
    assert dict(zip(tree.words, layout.heights, strict=True)) == {"this": 0, "film": 1, "is": 0, "good": 2}
