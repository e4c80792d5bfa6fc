"""report: the page shows the contents of the run's files, loads nothing else and runs only its own script."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_folders
from PIL import Image

import dlkit
from dlkit import documents
from dlkit.errors import ModelFileError, StorageError, UsageError
from dlkit.experiments.compare import compare
from dlkit.report import examples as report_examples
from dlkit.report import page as report_page
from dlkit.report.data import SampleResult, read_run
from dlkit.report.report import report
from dlkit.report.samples import format_tree
from dlkit.runs.run_folder import RunFolder
from dlkit_cli.main import run as command

GOLDEN = Path(__file__).parents[1] / "golden"
HOSTILE = '</script><img src=x onerror="document.title=1">'


@dataclass
class Page(HTMLParser):
    """A page as a browser's parser sees it: its elements with their attributes, and the text in each."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements:
            self.texts.append((self.elements[-1][0], data))

    @classmethod
    def of(cls, path: Path) -> Page:
        page = cls()
        page.feed(path.read_text(encoding="utf-8"))
        return page

    def attributes(self, name: str, tag: str | None = None) -> list[str]:
        found = [attrs[name] for kind, attrs in self.elements if name in attrs and tag in (None, kind)]
        return [value or "" for value in found]

    @property
    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag not in ("script", "style"))

    @property
    def data(self) -> dict[str, Any]:
        (text,) = [text for tag, text in self.texts if tag == "script" and text.startswith("{")]
        return dict(json.loads(text))


@pytest.fixture(scope="module")
def evaluated(tiny_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    path = tmp_path_factory.mktemp("report") / "runs" / "tiny"
    shutil.copytree(tiny_run.path, path)
    early = [{"step": step, "epoch": 1, "train/loss": 9.0 / step, "lr": 0.1} for step in (2, 4)]
    run_folders.rewrite_metrics(RunFolder(path), [*early, *RunFolder(path).metrics()])
    dlkit.evaluate(path)
    return RunFolder(path)


@pytest.fixture
def own(evaluated: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy to be changed."""
    shutil.copytree(evaluated.path, tmp_path / "runs" / "own")
    return RunFolder(tmp_path / "runs" / "own")


@pytest.fixture(scope="module")
def written(evaluated: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report([evaluated], output=tmp_path_factory.mktemp("page") / "one.html", explain=1).path


def evaluation(run: RunFolder) -> dict[str, Any]:
    return dict(json.loads((run.path / "evaluation.json").read_bytes()))


def rewrite(run: RunFolder, name: str, **changes: Any) -> None:
    documents.write(run.path / name, documents.read(run.path / name) | changes)


# -- the numbers


def test_the_figures_on_the_page_are_the_evaluations(evaluated: RunFolder, written: Path) -> None:
    shown = {
        attrs["data-metric"]: attrs.get("data-value")
        for _, attrs in Page.of(written).elements
        if "data-metric" in attrs
    }
    metrics = evaluation(evaluated)["metrics"]
    assert len(shown) == 3 * len(metrics) > 20
    for name, metric in metrics.items():
        for part in ("value", "low", "high"):
            value = shown[f"{name}.{part}"]
            assert (None if value is None else float(value)) == metric.get(part)


def test_the_cells_are_the_confusion_matrix_and_sum_to_the_samples(evaluated: RunFolder, written: Path) -> None:
    shown = [int(count) for count in Page.of(written).attributes("data-count")]
    with (evaluated.path / "confusion_matrix.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    assert shown == [int(count) for row in rows for count in row[1:]]
    assert sum(shown) == evaluation(evaluated)["samples"]
    data = Page.of(written).data["runs"][0]
    assert sum(count for _, _, count in data["counts"]) == sum(shown)
    assert len(data["mistakes"]) == sum(count for true, predicted, count in data["counts"] if true != predicted) > 0


def test_the_gaps_of_the_reliability_diagram_are_the_calibration_error(evaluated: RunFolder) -> None:
    bins = read_run(evaluated).calibration
    samples = sum(bin.samples for bin in bins)
    assert samples == evaluation(evaluated)["samples"]
    error = sum(bin.samples / samples * abs(bin.accuracy - bin.confidence) for bin in bins)
    assert error == pytest.approx(evaluation(evaluated)["metrics"]["ece"]["value"], abs=1e-12)


def test_every_mistake_has_its_image_and_the_most_confident_comes_first(written: Path) -> None:
    mistakes = Page.of(written).data["runs"][0]["mistakes"]
    assert all(picture.startswith("data:image/") for *_, picture, _ in mistakes)
    assert [one[3] for one in mistakes] == sorted((one[3] for one in mistakes), reverse=True)


def test_as_many_mistakes_as_correct_predictions_are_explained(written: Path) -> None:
    page = Page.of(written)
    assert page.attributes("class", "span").count("two") == 2 and "integrated_gradients" in page.text


def test_explanations_in_the_run_folder_are_shown(own: RunFolder, tmp_path: Path) -> None:
    Image.new("L", (28, 28), 90).save(tmp_path / "gray.png")
    list(dlkit.explain(own, tmp_path / "gray.png"))
    (own.path / "explanations" / "other.json").write_text("{}")
    page = Page.of(report([own], explain=0).path)
    assert "explanations/" in page.text and "gray.png: " in page.text
    assert [alt for alt in page.attributes("alt") if "gray.png" in alt]


def test_the_first_mistake_of_every_pair_of_classes_precedes_the_second_of_any() -> None:
    mistakes = [SampleResult(index, index % 3, 3, 1 - index / 1000) for index in range(200)]
    ranked = report_examples.rank_mistakes(mistakes)
    assert {mistake.target for mistake in ranked[:3]} == {0, 1, 2} and ranked[0].id == 0
    assert len(ranked) == 3 * report_examples.MAX_PER_CELL


# -- security


def test_nothing_else_is_loaded(written: Path) -> None:
    page, text = Page.of(written), written.read_text(encoding="utf-8")
    urls = [url for name in ("src", "href", "srcset", "action", "data") for url in page.attributes(name)]
    assert len(urls) > 20 and all(url.startswith(("data:", "#")) for url in urls)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in page.attributes("content", "meta")[0]


def test_the_policy_admits_only_our_style_and_script(written: Path) -> None:
    page = Page.of(written)
    policy = page.attributes("content", "meta")[0]
    for tag in ("style", "script"):
        (text,) = [text for kind, text in page.texts if kind == tag and not text.startswith("{") and text.strip()]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    others = [rule for rule in policy.split("; ") if "sha256" not in rule]
    assert others == ["default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    assert not page.attributes("style")
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]


def hostile(run: RunFolder) -> None:
    """Give a class and the samples names that are scripts."""
    spec = run.info()["spec"]
    name = spec["classes"][0]
    rewrite(run, "run.json", spec=spec | {"classes": [HOSTILE, *spec["classes"][1:]]})
    document = evaluation(run)
    document["classes"][0]["class"] = HOSTILE
    rewrite(run, "evaluation.json", classes=document["classes"], warnings=[HOSTILE, "{{DATA}} \u202egnp.exe"])
    lines = [json.loads(line) for line in (run.path / "predictions.jsonl").read_text().splitlines()]
    for line in lines:
        line["id"] = f"/nowhere/\udcff{HOSTILE}{line['id']}.png"
        for key in ("target", "predicted"):
            line[key] = HOSTILE if line[key] == name else line[key]
    run_folders.rewrite_predictions(run, lines)


def test_names_that_are_html_are_shown_as_text(own: RunFolder, written: Path) -> None:
    hostile(own)
    page, tame = Page.of(report([own], explain=0).path), Page.of(written)
    assert [tag for tag, _ in page.elements].count("script") == [tag for tag, _ in tame.elements].count("script") == 2
    assert "x" not in page.attributes("src") and not page.attributes("onerror")
    assert HOSTILE in page.text and "{{DATA}} �gnp.exe" in page.text
    assert page.data["runs"][0]["classes"][0] == HOSTILE


def test_values_are_escaped_and_unprintable_characters_replaced() -> None:
    template = report_page.environment().from_string('<a title="{{ title }}">{{ text }}</a>{{ data | tojson }}')
    hostile_text = "<b>\x00\u202e\udcff"
    shown = template.render(title='"x"', text=hostile_text, data={"</script>": "<!--&"})
    assert shown.startswith('<a title="&#34;x&#34;">&lt;b&gt;���</a>')
    data = shown.partition("</a>")[2]
    assert "<" not in data and json.loads(data) == {"</script>": "<!--&"}


# -- incomplete runs


def test_a_run_without_evaluation_names_the_command_that_creates_it(own: RunFolder) -> None:
    (own.path / "evaluation.json").unlink()
    found = report([own])
    page = Page.of(found.path)
    assert f"dlkit eval {own.path}" in page.text and "Learning curves" in page.text
    assert "Confusion" not in page.text and not page.attributes("data-metric")
    assert [missing["command"] for missing in found.document()["missing"]] == [f"dlkit eval {own.path}"]


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_an_unfinished_run_is_marked_with_the_command_that_resumes_it(own: RunFolder, status: str) -> None:
    own.update(status=status, ended=None, error="the disk was full" if status == "failed" else None)
    with (own.path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 99')  # cut short
    page = Page.of(report([own], explain=0).path)
    assert f"dlkit train --resume {own.path}" in page.text
    assert ("the disk was full" in page.text) == (status == "failed")


def test_a_run_that_has_just_started_has_a_page(own: RunFolder) -> None:
    (own.path / "evaluation.json").unlink()
    run_folders.rewrite_metrics(own, [])
    own.update(status="running", ended=None, best=None, epochs=None)
    assert "nothing has been logged yet" in Page.of(report([own]).path).text


def test_predictions_of_another_evaluation_are_not_shown(own: RunFolder) -> None:
    lines = (own.path / "predictions.jsonl").read_text().splitlines(keepends=True)
    (own.path / "predictions.jsonl").write_text("".join(lines[:-1]))
    found = report([own], explain=0)
    assert not Page.of(found.path).attributes("data-count") and "Evaluate" not in found.omissions[0][1].reason
    assert found.omissions[0][1].command == f"dlkit eval {own.path}"


def test_an_evaluation_older_than_the_best_weights_is_not_shown(own: RunFolder) -> None:
    rewrite(own, "evaluation.json", step=1)
    page = Page.of(report([own], explain=0).path)
    assert "its evaluation is older than its best checkpoint: of step 1, now" in page.text
    assert not page.data["runs"][0]["mistakes"] and "dlkit eval" in page.text


def test_mistakes_are_listed_if_their_images_are_missing(own: RunFolder) -> None:
    rewrite(own, "evaluation.json", fingerprint="0" * 64)
    page = Page.of(report([own], explain=0).path)
    assert "cannot be shown" in page.text and not page.attributes("src")
    assert page.data["runs"][0]["mistakes"] and not any(one[4] for one in page.data["runs"][0]["mistakes"])


def test_a_fitted_model_has_no_curves(own: RunFolder) -> None:
    own.update(fitted_to=320)
    run_folders.rewrite_metrics(own, [{"step": 1, "epoch": 1, "val/top1": 0.5, "fit_s": 61.2}])
    page = Page.of(report([own], explain=0).path)
    assert "Learning curves" not in page.text and "1 min 1 s" in page.text and not page.data["charts"]


def test_a_damaged_evaluation_or_log_is_reported_on_an_otherwise_complete_page(own: RunFolder) -> None:
    for text in ("{", "[]", '{"samples": 3}', json.dumps(evaluation(own) | {"metrics": {"top1": {}}})):
        (own.path / "evaluation.json").write_text(text)
        found = report([own], explain=0)
        assert "evaluation.json is damaged" in found.omissions[0][1].reason
        assert (
            found.omissions[0][1].command == f"dlkit eval {own.path}" and "Learning curves" in Page.of(found.path).text
        )
    own.metrics_file.write_text(own.metrics_file.read_text().replace("0.", "1.", 1) + "[[[\n")
    assert "line 4" in report([own], explain=0).omissions[0][1].reason


def test_a_run_that_cannot_be_read_does_not_hide_the_others(own: RunFolder, rival: RunFolder) -> None:
    (rival.path / "run.json").write_text("[" * 50_000)
    messages: list[str] = []
    assert [run.name for run in report([own, rival], explain=0, say=messages.append).runs] == ["own"]
    assert any(line.startswith("warning: ") and "rival" in line for line in messages)
    with pytest.raises(ModelFileError, match="rival"):
        report([rival], explain=0)


# -- other kinds of runs


def test_sentences_are_shown_as_text(tmp_path: Path) -> None:
    settings = {
        "data.options.train": 60,
        "data.options.test": 20,
        "data.options.length": 12,
        "model.options.hidden_size": 8,
    }
    run = dlkit.train("lstm", dataset="brackets", epochs=1, settings=settings, name="text", runs_dir=tmp_path)
    dlkit.evaluate(run)
    page = Page.of(report([run]).path)
    texts = [text for *_, text in page.data["runs"][0]["mistakes"]]
    assert texts and all("[" in text or "(" in text for text in texts)
    assert any(text in page.text for text in texts)
    assert "Explanations" in page.text and any(title.startswith("+1.00") for title in page.attributes("title", "span"))


def test_a_formatted_tree_is_parsed_as_the_same_tree() -> None:
    from dlkit.data.splits import TreeSamples
    from dlkit.data.text.treebank import parse_example, parse_tree

    vocabulary = ("good", "(", "film")
    arrays = {  # written level by level: ((good film) ())
        "words": [-1, -1, 1, 0, 2], "parents": [-1, 0, 0, 1, 1], "siblings": [0, 0, 1, 0, 1],
        "heights": [2, 1, 0, 0, 0], "reading": [3, 4, 2, -1, -1],
    }  # fmt: skip
    tree = TreeSamples(
        **{name: np.array(values, np.int32) for name, values in arrays.items()}, labels=np.zeros(5, np.int64),
        starts=np.array([0, 5]), targets=np.zeros(1, np.int64), vocabulary=vocabulary,
    )  # fmt: skip
    text = format_tree(tree, 0)
    assert text == "(((good) (film)) (-LRB-))"
    assert [parse_tree(text).words[node] for node in parse_tree(text).reading] == ["good", "film", "-LRB-"]
    headed = replace(tree, words=np.array([0, 2, 1, 0, 2], np.int32), reading=np.array([3, 1, 4, 0, 2], np.int32))
    found = parse_example(format_tree(headed, 0), ())
    assert [found.words[node] for node in found.reading] == ["good", "film", "film", "good", "("]
    assert [found.parents[node] for node in found.reading] == [1, 0, 1, -1, 0]


def test_the_predictions_of_a_regression_are_drawn_over_their_targets(tmp_path: Path) -> None:
    settings = {
        "data.options.train": 60,
        "data.options.test": 30,
        "data.options.steps": 6,
        "model.options.hidden_size": 8,
    }
    run = dlkit.train("gru", dataset="adding", epochs=1, settings=settings, name="sums", runs_dir=tmp_path)
    dlkit.evaluate(run)
    page = Page.of(report([run]).path)
    assert "Largest errors" in page.text and "Confusion" not in page.text
    assert any(path.count("M") == 30 for path in page.attributes("d"))


def test_many_classes_are_an_image_and_a_list_of_pairs(own: RunFolder) -> None:
    spec, document = own.info()["spec"], evaluation(own)
    more = [f"more {index}" for index in range(50)]
    rewrite(own, "run.json", spec=spec | {"classes": [*spec["classes"], *more]})
    blank = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    rewrite(own, "evaluation.json", classes=[*document["classes"], *({"class": name, **blank} for name in more)])
    page = Page.of(report([own], explain=0).path)
    assert "canvas" in dict(page.elements) and not page.attributes("data-count")
    assert len(page.attributes("data-pair")) > 3


# -- several runs


@pytest.fixture
def rival(own: RunFolder) -> RunFolder:
    """`own` with another setting, and every fifth prediction wrong."""
    path = own.path.with_name("rival")
    shutil.copytree(own.path, path)
    recipe = path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 0.001", "lr: 0.01"))
    lines = [json.loads(line) for line in (path / "predictions.jsonl").read_text().splitlines()]
    for line in lines[::5]:
        line["predicted"] = next(name for name in line["topk"] if name != line["target"])
    run_folders.rewrite_predictions(RunFolder(path), lines)
    right = sum(line["predicted"] == line["target"] for line in lines)
    metrics = evaluation(own)["metrics"]
    value = right / len(lines)
    rewrite(RunFolder(path), "evaluation.json", metrics=metrics | {"top1": {"value": value, "low": value, "high": 1.0}})
    return RunFolder(path)


def test_several_runs_are_compared_with_the_first(own: RunFolder, rival: RunFolder) -> None:
    found = report([own, rival], explain=0)
    assert found.path == own.path / "comparison.html"
    page, paired = Page.of(found.path), compare(own, rival).paired
    assert paired is not None and paired.only_first > paired.only_second
    for text in (
        f"{paired.p_value:.3g}",
        f"{paired.only_first}",
        f"{100 * paired.difference.value:+.2f}",
        "optimizer.lr",
    ):
        assert text in page.text
    assert page.text.count("changed") == 0 and page.attributes("class").count("changed") == 1
    assert len(page.data["runs"]) == 2 and {"all-val-loss", "r0-loss", "r1-loss"} <= page.data["charts"].keys()
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))


def test_regressions_are_not_compared_sample_by_sample(own: RunFolder, rival: RunFolder) -> None:
    for run in (own, rival):
        rewrite(run, "evaluation.json", topk=0)
    assert "numbers" in compare(own, rival).unpaired


def test_a_run_given_twice_is_one(own: RunFolder) -> None:
    assert report([own, own.path], explain=0).path.name == "report.html"


# -- output


def test_the_page_is_written_to_the_requested_path(own: RunFolder, tmp_path: Path) -> None:
    assert report([own], explain=0).path == own.path / "report.html"
    assert report([own], output=tmp_path, explain=0).path == tmp_path / "own.html"
    assert report([own], output=tmp_path / "x.HTML", explain=0).path == tmp_path / "x.HTML"
    assert not list(tmp_path.glob(".*.tmp"))


def test_an_unwritable_output_is_refused_before_any_work(
    own: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlkit.report.report.read_run", lambda run: pytest.fail("work was done"))
    (tmp_path / "a.html").mkdir()
    (tmp_path / "file").touch()
    for output in ("model.onnx", "nowhere"):
        with pytest.raises(UsageError, match=r"ends in \.html"):
            report([own], output=tmp_path / output)
    for output in ("nowhere/x.html", "file/x.html"):
        with pytest.raises(StorageError, match="does not exist"):
            report([own], output=tmp_path / output)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(StorageError, match="no permission"):
        report([own])


def test_the_command_prints_only_the_path(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["report", str(own.path), "--explain", "0"]) == 0
    assert capsys.readouterr().out == f"{own.path / 'report.html'}\n"


def test_the_document_has_the_golden_form(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (own.path / "evaluation.json").unlink()
    assert command(["report", str(own.path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    golden = json.loads((GOLDEN / "report.json").read_text())
    assert list(document) == list(golden) and document["schema"] == golden["schema"]
    assert list(document["missing"][0]) == list(golden["missing"][0])
    assert document["bytes"] == (own.path / "report.html").stat().st_size


def test_a_missing_browser_is_reported_and_the_path_printed(
    own: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address))
    assert command(["report", str(own.path), "--explain", "0", "--open"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("report.html\n") and "no browser" in err
    assert opened == [(own.path / "report.html").resolve().as_uri()]


def test_a_misspelt_run_is_exit_2(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["report", "onw", "--runs-dir", str(own.path.parent)]) == 2
    assert "own" in capsys.readouterr().err


# -- in a browser


@contextmanager
def browsed(path: Path, **settings: Any) -> Iterator[Any]:
    """The page in headless Chromium; it must send no requests and log no messages."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    messages: list[str] = []
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(**settings)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.route(re.compile("^(?!file:|data:)"), lambda route: messages.append(route.request.url))
        page.goto(path.as_uri())
        yield page
        browser.close()
    assert not messages


@pytest.mark.slow
def test_in_a_browser_cells_open_tables_sort_and_charts_show_values(written: Path) -> None:
    with browsed(written) as page:
        data = page.evaluate("data.runs[0]")
        true, predicted, count = next(cell for cell in data["counts"] if cell[0] != cell[1])
        assert not page.locator(".selected img").count()
        page.click(f'[data-pair="{true},{predicted}"]')
        assert page.locator(".selected img").count() == count
        assert page.evaluate("[...document.querySelectorAll('.selected img')].every(image => image.naturalWidth > 0)")
        pair = f"{data['classes'][true]} predicted as {data['classes'][predicted]}: {count}"
        assert pair in page.inner_text(".selected")
        first = "table.sortable tbody tr td:nth-child(3)"
        recalls = [float(text.split()[0]) for text in page.locator(first).all_inner_texts()]
        page.click("table.sortable thead th:nth-child(3) button")
        assert [float(text.split()[0]) for text in page.locator(first).all_inner_texts()] == sorted(recalls)
        assert page.get_attribute("table.sortable thead th:nth-child(3)", "aria-sort") == "ascending"
        page.focus(".curves svg")
        page.keyboard.press("Home")
        assert page.locator(".rule").first.get_attribute("visibility") == "visible"
        shown = page.inner_text(".curves .key output")
        page.keyboard.press("End")
        assert page.inner_text(".curves .key output") != shown


@pytest.mark.slow
def test_in_a_browser_the_arrow_keys_move_over_the_matrix(written: Path) -> None:
    with browsed(written, color_scheme="dark", viewport={"width": 400, "height": 800}) as page:
        page.focus(".cells button")
        before = page.evaluate("document.activeElement.dataset.pair")
        for key in ("ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.pair") != before
        page.keyboard.press("Enter")
        assert page.locator(".selected img").count() > 0
        assert page.evaluate("document.querySelectorAll('.cells button[tabindex=\"0\"]').length") == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 400  # fits on a phone


@pytest.mark.slow
def test_in_a_browser_hostile_names_are_text(own: RunFolder) -> None:
    hostile(own)
    with browsed(report([own], explain=0).path) as page:
        page.locator(".cells button").first.click()
        assert "{{DATA}}" in page.inner_text("body") and page.title() == "mlp on shapes · dlkit"
        assert page.locator("img").count() == 0
