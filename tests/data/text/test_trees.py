"""Trees: a batch by level holds what the trees hold, and the verbs answer roots and nodes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import dlkit
from dlkit.config.schema import Augment
from dlkit.data.inputs import Stream
from dlkit.data.loader import TrainingData, batches_in_order
from dlkit.data.splits import TreeSamples
from dlkit.data.text import treebank
from dlkit.data.text.corpus import VocabularyBuilder, tree_samples
from dlkit.data.text.lines import MAX_BYTES
from dlkit.data.text.ragged import take_rows, token_lookup
from dlkit.data.text.tree_batches import Trees, collate_trees
from dlkit.data.text.treebank import ParsedTree, parse_tree, subtree_words, tree_from_heads
from dlkit.errors import UsageError
from dlkit.evaluation.evaluate import evaluate
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Failure, Prediction
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import TreeSpec

CPU = torch.device("cpu")
WORDS = ("a", "b", "c", "d")


def drawn(draw: random.Random, depth: int = 5) -> str:
    label = draw.choice("01x")
    if depth == 0 or draw.random() < 0.3:
        return f"({label} {draw.choice(WORDS)})"
    return f"({label} {' '.join(drawn(draw, depth - 1) for _ in range(draw.randint(1, 3)))})"


def forest(count: int = 20) -> tuple[list[ParsedTree], TreeSamples]:
    draw, builder = random.Random(4), VocabularyBuilder()
    parsed = [parse_tree(drawn(draw)) for _ in range(count)]
    for tree in parsed:
        tree.labels[0] = "1"
    classes = [[{"0": 0, "1": 1}.get(str(label), -1) for label in tree.labels] for tree in parsed]
    samples = tree_samples(parsed, classes, builder, "space")
    return parsed, TreeSamples(**{**vars(samples), "vocabulary": builder.words})


PARSED, SAMPLES = forest()
SPEC = TreeSpec(("0", "1"), 5, ("a", "b", "c"), "space", ("0", "1", "x"))
LOOKUP = token_lookup(SAMPLES.vocabulary, SPEC.words)


def written(trees: Trees, position: int) -> list[int]:
    """The nodes of one tree, in the order in which it is written, by walking down from its root."""
    waiting, found = [int(trees.roots[position])], []
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += [int(child) for child in reversed(trees.children[node]) if child >= 0]
    return found


def check(trees: Trees, indices: list[int]) -> None:
    """The batch holds these trees and nothing else."""
    ids = {word: position for position, word in enumerate(SPEC.words, start=2)}
    for position, index in enumerate(indices):
        tree, nodes = PARSED[index], written(trees, position)
        assert len(nodes) == len(tree.parents) == int((trees.tree == position).sum())
        assert [int(trees.tokens[node]) for node in nodes] == [0 if w is None else ids.get(w, 1) for w in tree.words]
        at = {node: number for number, node in enumerate(nodes)}
        assert [at.get(int(trees.parents[node]), -1) for node in nodes] == tree.parents
        leaves = [at[int(node)] for node in trees.leaves[position] if node >= 0]
        assert leaves == tree.reading and int(trees.lengths[position]) == len(leaves)
    check_levels(trees)


def check_levels(trees: Trees) -> None:
    for low, high in zip(trees.levels, trees.levels[1:], strict=False):
        assert (trees.children[low:high] < low).all() and (trees.children[low:high] >= -1).all()
    assert trees.levels[-1] == len(trees.tokens) and trees.edge_levels[-1] == len(trees.edges)
    assert trees.edges[:, 1].tolist() == sorted(trees.edges[:, 1].tolist())
    assert all(int(trees.parents[child]) == parent for child, parent in trees.edges.tolist())
    assert len(trees.edges) == len(trees.tokens) - len(trees.roots)
    for level, (low, high) in enumerate(zip(trees.levels, trees.levels[1:], strict=False)):
        above = trees.edges[trees.edge_levels[level] : trees.edge_levels[level + 1], 1]
        assert ((above >= low) & (above < high)).all()


def test_a_batch_holds_its_trees_by_level() -> None:
    indices = [7, 0, 19, 3]
    check(collate_trees(SAMPLES, np.array(indices), LOOKUP)[0], indices)


def test_a_part_of_a_batch_holds_its_trees_by_level() -> None:
    batch = collate_trees(SAMPLES, np.array([7, 0, 19, 3, 5]), LOOKUP, "labelled")[0]
    parts = batch.chunk(2)
    check(parts[0], [7, 0, 19])
    check(parts[1], [3, 5])
    assert sum(map(len, parts)) == len(batch)


def test_take_rows_of_trees_keeps_the_trees() -> None:
    indices = np.array([5, 2, 11])
    found = take_rows(SAMPLES, indices)
    assert isinstance(found, TreeSamples)
    check(collate_trees(found, np.array([2, 0]), LOOKUP)[0], [11, 5])
    assert found.targets.tolist() == SAMPLES.targets[indices].tolist()


@pytest.mark.parametrize("outputs", ["roots", "labelled", "all"])
def test_output_nodes_are_grouped_by_tree_in_sample_order_with_their_labels(outputs: str) -> None:
    indices = [4, 9, 1]
    trees, labels = collate_trees(SAMPLES, np.array(indices), LOOKUP, outputs)
    expected, classes = [], []
    for position, index in enumerate(indices):
        of_tree = SAMPLES.labels[SAMPLES.starts[index] : SAMPLES.starts[index + 1]].tolist()
        for node, label in zip(written(trees, position), of_tree, strict=True):
            if outputs == "all" or (outputs == "labelled" and label >= 0) or node == trees.roots[position]:
                expected.append(node)
                classes.append(label)
    assert trees.output_nodes.tolist() == expected and labels.tolist() == classes and len(trees) == len(expected)


def data(**others: object) -> TrainingData:
    settings = {"augment": Augment(), "batch_size": 6, "seed": 5, "device": CPU, **others}
    return TrainingData(SAMPLES, SPEC, **settings)  # type: ignore[arg-type]


def test_training_asks_for_every_labelled_node_and_counts_them_over_all_ranks() -> None:
    whole = list(data().epoch(1))
    shares = [list(data(rank=rank, world_size=2).epoch(1)) for rank in range(2)]
    assert sum(len(batch) for batch in whole) == int((SAMPLES.labels >= 0).sum())
    for number, batch in enumerate(whole):
        assert len(batch) == batch.total == sum(len(share[number]) for share in shares)
        assert all(share[number].total == batch.total for share in shares)
        roots = SAMPLES.targets[np.unique(batch.indices.numpy())]
        assert len(roots) == len(batch.inputs.roots) and (batch.targets >= 0).all()


def test_parts_of_a_batch_keep_targets_with_their_nodes() -> None:
    batch = next(iter(data().epoch(0)))
    parts = list(batch.parts(3))
    assert len(parts) == 3 and all(len(part) == len(part.inputs) == len(part.indices) for part in parts)
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)


def test_validation_asks_for_the_roots_in_order() -> None:
    batches = list(batches_in_order(SAMPLES, SPEC, 7, CPU))
    assert [int(i) for batch in batches for i in batch.indices] == list(range(20))
    assert torch.cat([batch.targets for batch in batches]).tolist() == SAMPLES.targets.tolist()
    assert all(torch.equal(batch.inputs.output_nodes, batch.inputs.roots) for batch in batches)


def test_an_epoch_begun_in_the_middle_is_the_rest_of_the_whole_one() -> None:
    rest, whole = list(data().epoch(1, first=2)), list(data().epoch(1))[2:]
    assert [batch.indices.tolist() for batch in rest] == [batch.indices.tolist() for batch in whole]
    assert all(torch.equal(one.inputs.tokens, other.inputs.tokens) for one, other in zip(rest, whole, strict=True))


# -- the verbs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A Tree-LSTM after one epoch over a few made-up trees, each labelled with its last word."""
    folder = tmp_path_factory.mktemp("trees")
    draw = random.Random(1)
    for name, count in (("train", 60), ("dev", 20), ("test", 20)):
        lines = []
        for _ in range(count):
            first, last = draw.choice("ab"), draw.choice("ab")
            lines.append(f"({last} ({first} {first}) ({last} {last}))\n")
        (folder / f"{name}.txt").write_text("".join(lines))
    settings = {"model.options.hidden_size": 8, "model.options.embedding_size": 8, "train.threads": 1}
    return dlkit.train(
        "tree_lstm", dataset="trees", data_dir=folder, epochs=3, batch_size=8, lr=0.05, settings=settings, name="a",
        runs_dir=folder / "runs",
    )  # fmt: skip


def test_a_run_over_trees_learns_and_eval_finds_its_figures_again(run: RunFolder) -> None:
    found = evaluate(run, split="validation", checkpoint="last", write=False)
    assert found.metrics["top1"].value == run.metrics()[-1]["val/top1"] > 0.9 and found.samples == 20
    assert run.recipe().data.options["form"] == "trees" and "nodes_per_s" in run.metrics()[-1]
    assert evaluate(run).samples == 20


def test_predict_answers_trees_in_brackets_and_their_nodes(run: RunFolder) -> None:
    lines = b"(a (b b) (a a))\n((b) (a))\n(a (b b)\n(z (b b) (a a))\n\n"
    answers = list(predict(run, iter([Stream([lines])]), nodes=True, topk=1))
    assert [isinstance(answer, Prediction) for answer in answers] == [True, True, False, False, False]
    first, second = answers[0], answers[1]
    assert isinstance(first, Prediction) and isinstance(second, Prediction)
    assert first.nodes == second.nodes and [node.words for node in first.nodes] == ["b a", "b", "a"]
    assert [node.parent for node in first.nodes] == [None, 0, 0] and first.nodes[0].name == first.predictions[0].name
    assert json.loads(json.dumps(first.document()))["nodes"][1]["class"] == first.nodes[1].name
    messages = [answer.message for answer in answers if isinstance(answer, Failure)]
    assert [message[:4] for message in messages] == ["-:3:", "-:4:", "-:5:"]
    assert (
        "not closed" in messages[0]
        and "'z' is not a label; the labels are a, b" in messages[1]
        and "empty" in messages[2]
    )


def test_a_nodes_answer_does_not_depend_on_its_batch_mates(run: RunFolder) -> None:
    (alone,) = predict(run, b"(a (b b) (a a))", nodes=True)
    together = list(predict(run, [b"(b (b (a a) (b b)) (b b))", b"(a (b b) (a a))"], nodes=True))[1]
    assert isinstance(alone, Prediction) and isinstance(together, Prediction)
    for one, other in zip(alone.nodes, together.nodes, strict=True):
        assert one.name == other.name and one.probability == pytest.approx(other.probability, abs=1e-6)


def test_a_tree_of_depth_5000_is_answered(run: RunFolder) -> None:
    (answer,) = predict(run, b"((a) " * 5000 + b"(b)" + b")" * 5000, nodes=True)
    assert isinstance(answer, Prediction) and len(answer.nodes) == 10_001
    assert answer.nodes[0].words.startswith("a a a") and answer.nodes[0].words.endswith("…")


def test_subtree_words_are_truncated() -> None:
    tree = parse_tree("((a) ((b) (c)))")
    assert subtree_words(tree, 9) == ["a b c", "a", "b c", "b", "c"]
    assert subtree_words(tree, 1) == ["a …", "a", "b …", "b", "c"]
    crossing = tree_from_heads(["a", "b", "c", "d"], [3, 0, 2, 1])  # b over c over a over d
    assert subtree_words(crossing, 2) == ["a b …", "a c …", "a d", "d"]


# -- dependency trees


HEADS = "# label = a\n1\tb\t_\t_\t_\t_\t2\t_\t_\t_\n2\ta\t_\t_\t_\t_\t0\t_\t_\t_\n"


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A child-sum Tree-LSTM after a few steps over dependency trees of two words."""
    folder = tmp_path_factory.mktemp("heads")
    other = HEADS.replace("= a", "= b").replace("\tb\t", "\tc\t")
    for name in ("train", "dev", "test"):
        (folder / f"{name}.conllu").write_text(f"{HEADS}\n{other}\n" * 8)
    settings = {"model.options.hidden_size": 8, "model.options.embedding_size": 8, "train.threads": 1}
    return dlkit.train(
        "child_sum_tree_lstm", dataset="trees", data_dir=folder, epochs=1, batch_size=8, settings=settings, name="a",
        runs_dir=folder / "runs",
    )  # fmt: skip


def test_dependency_trees_of_a_file_or_a_pipe_are_answered_as_eval_answers_them(heads: RunFolder) -> None:
    file = heads.path.parents[1] / "test.conllu"
    answers = list(predict(heads, file, nodes=True))
    assert [answer.path for answer in answers] == [f"{file}:{1 + 4 * position}" for position in range(16)]
    raw = file.read_bytes().replace(b"\n", b"\r\n")
    piped = list(predict(heads, Stream([raw[:50], raw[50:]]), nodes=True))
    for answer, again in zip(answers, piped, strict=True):
        assert isinstance(answer, Prediction) and isinstance(again, Prediction)
        assert answer.nodes == again.nodes and again.path.startswith("-:")
    first = answers[0]
    assert isinstance(first, Prediction)
    assert [(node.word, node.words) for node in first.nodes] == [("a", "b a"), ("b", "b")]
    right = sum(a.predictions[0].name == name for a, name in zip(answers, "ab" * 8, strict=True))  # type: ignore[union-attr]
    assert evaluate(heads).metrics["top1"].value == right / 16


def test_a_pipe_may_mix_both_forms_and_a_bad_tree_is_named_by_its_first_line(heads: RunFolder) -> None:
    written = f"(a (b b) (a a))\n{HEADS}\n\n{HEADS.replace('0', '7')}".encode()
    answers = list(predict(heads, Stream([written])))
    assert [type(answer) for answer in answers] == [Prediction, Prediction, Failure, Failure]
    messages = [answer.message for answer in answers if isinstance(answer, Failure)]
    assert "-:6: empty" in messages[0] and "-:7: 2 words need one head each" in messages[1]


def test_a_file_without_trees_is_reported(heads: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "empty.conllu").write_text("\n\n")
    for name, message in (("empty.conllu", "contains no trees"), ("none.conllu", "no such file")):
        (answer,) = predict(heads, tmp_path / name)
        assert isinstance(answer, Failure) and message in answer.message and name in answer.message


def test_an_endless_block_is_reported_and_not_stored(heads: RunFolder) -> None:
    lines = (b"1\tb\t_\t_\t_\t_\t0\t_\t_\t_\n" for _ in range(20_000))
    ((_, block),) = treebank.split_examples(line.rstrip(b"\n") for line in lines)
    assert len(block) < MAX_BYTES + 100
    (answer,) = predict(heads, Stream([block]))
    assert isinstance(answer, Failure) and "more than 262,144 bytes" in answer.message


def test_nodes_are_for_trees_alone(tiny_run: RunFolder) -> None:
    with pytest.raises(UsageError, match="--nodes is for models of trees; mlp reads images"):
        predict(tiny_run, Path("x.png"), nodes=True)
