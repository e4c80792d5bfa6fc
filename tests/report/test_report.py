"""report: what the page says is what the run's files say, and nothing on it comes from elsewhere or runs by itself."""

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
from dlkit.report.data import Answer, read
from dlkit.report.markup import element, raw, script_json
from dlkit.report.report import report
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
            told = shown[f"{name}.{part}"]
            assert (None if told is None else float(told)) == metric.get(part)


def test_the_cells_are_the_confusion_matrix_and_sum_to_the_samples(evaluated: RunFolder, written: Path) -> None:
    shown = [int(count) for count in Page.of(written).attributes("data-count")]
    with (evaluated.path / "confusion_matrix.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    assert shown == [int(count) for row in rows for count in row[1:]]
    assert sum(shown) == evaluation(evaluated)["samples"]
    data = Page.of(written).data["runs"][0]
    assert sum(count for _, _, count in data["counts"]) == sum(shown)
    assert len(data["mistakes"]) == sum(count for true, said, count in data["counts"] if true != said) > 0


def test_the_calibration_diagram_is_off_by_the_calibration_error(evaluated: RunFolder) -> None:
    bins = read(evaluated).calibration
    samples = sum(one.samples for one in bins)
    assert samples == evaluation(evaluated)["samples"]
    off = sum(one.samples / samples * abs(one.accuracy - one.confidence) for one in bins)
    assert off == pytest.approx(evaluation(evaluated)["metrics"]["ece"]["value"], abs=1e-12)


def test_every_mistake_has_its_picture_and_the_most_confident_comes_first(written: Path) -> None:
    mistakes = Page.of(written).data["runs"][0]["mistakes"]
    assert all(picture.startswith("data:image/") for *_, picture, _ in mistakes)
    assert [one[3] for one in mistakes] == sorted((one[3] for one in mistakes), reverse=True)


def test_as_many_mistakes_as_right_answers_are_explained(written: Path) -> None:
    page = Page.of(written)
    assert page.attributes("class", "span").count("two") == 2 and "integrated_gradients" in page.text


def test_what_explain_left_in_the_runs_folder_is_shown(own: RunFolder, tmp_path: Path) -> None:
    Image.new("L", (28, 28), 90).save(tmp_path / "grey.png")
    list(dlkit.explain(own, tmp_path / "grey.png"))
    (own.path / "explanations" / "other.json").write_text("{}")
    page = Page.of(report([own], explain=0).path)
    assert "explanations/" in page.text and "grey.png: " in page.text
    assert [alt for alt in page.attributes("alt") if "grey.png" in alt]


def test_of_every_pair_of_classes_one_mistake_comes_before_the_second_of_any() -> None:
    wrong = [Answer(place, place % 3, 3, 1 - place / 1000) for place in range(200)]
    first = report_examples.shown_first(wrong)
    assert {one.target for one in first[:3]} == {0, 1, 2} and first[0].id == 0
    assert len(first) == 3 * report_examples.A_CELL


# -- what it is made of


def test_nothing_is_loaded_from_elsewhere(written: Path) -> None:
    page, text = Page.of(written), written.read_text(encoding="utf-8")
    places = [place for name in ("src", "href", "srcset", "action", "data") for place in page.attributes(name)]
    assert len(places) > 20 and all(place.startswith(("data:", "#")) for place in places)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in page.attributes("content", "meta")[0]


def test_the_policy_admits_our_style_and_script_and_no_others(written: Path) -> None:
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
    """Names a class by a script, and a sample by another."""
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


def test_names_that_are_html_are_shown_and_not_obeyed(own: RunFolder, written: Path) -> None:
    hostile(own)
    page, tame = Page.of(report([own], explain=0).path), Page.of(written)
    assert [tag for tag, _ in page.elements].count("script") == [tag for tag, _ in tame.elements].count("script") == 2
    assert "x" not in page.attributes("src") and not page.attributes("onerror")
    assert HOSTILE in page.text and "{{DATA}} �gnp.exe" in page.text
    assert page.data["runs"][0]["classes"][0] == HOSTILE


def test_text_is_escaped_unless_it_is_markup() -> None:
    assert element("a", "<b>", raw("<i>"), title='"x"') == '<a title="&quot;x&quot;">&lt;b&gt;<i></a>'
    assert element("br", class_="x", hidden=True, id=None) == '<br class="x" hidden/>'
    assert "<" not in script_json({"</script>": "<!--"}) and json.loads(script_json(["<&>"])) == ["<&>"]


# -- runs that lack something


def test_a_run_without_evaluation_names_the_command_that_makes_it(own: RunFolder) -> None:
    (own.path / "evaluation.json").unlink()
    found = report([own])
    page = Page.of(found.path)
    assert f"dlkit eval {own.path}" in page.text and "Learning curves" in page.text
    assert "Confusion" not in page.text and not page.attributes("data-metric")
    assert [missing["command"] for missing in found.document()["missing"]] == [f"dlkit eval {own.path}"]


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_a_run_that_did_not_finish_says_so_and_how_it_goes_on(own: RunFolder, status: str) -> None:
    own.update(status=status, ended=None, error="the disk was full" if status == "failed" else None)
    with (own.path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 99')  # cut short
    page = Page.of(report([own], explain=0).path)
    assert f"dlkit train --resume {own.path}" in page.text
    assert ("the disk was full" in page.text) == (status == "failed")


def test_a_run_that_has_just_begun_has_a_page(own: RunFolder) -> None:
    (own.path / "evaluation.json").unlink()
    run_folders.rewrite_metrics(own, [])
    own.update(status="running", ended=None, best=None, epochs=None)
    assert "Nothing is logged yet" in Page.of(report([own]).path).text


def test_answers_of_another_evaluation_are_not_shown_beside_this_one(own: RunFolder) -> None:
    lines = (own.path / "predictions.jsonl").read_text().splitlines(keepends=True)
    (own.path / "predictions.jsonl").write_text("".join(lines[:-1]))
    found = report([own], explain=0)
    assert not Page.of(found.path).attributes("data-count") and "Evaluate" not in found.gaps[0][1].what
    assert found.gaps[0][1].command == f"dlkit eval {own.path}"


def test_an_evaluation_older_than_the_best_weights_is_left_out(own: RunFolder) -> None:
    rewrite(own, "evaluation.json", step=1)
    page = Page.of(report([own], explain=0).path)
    assert "its evaluation is older than its best checkpoint: of step 1, now" in page.text
    assert not page.data["runs"][0]["mistakes"] and "dlkit eval" in page.text


def test_mistakes_are_listed_where_their_images_are_gone(own: RunFolder) -> None:
    rewrite(own, "evaluation.json", fingerprint="0" * 64)
    page = Page.of(report([own], explain=0).path)
    assert "cannot be looked at" in page.text and not page.attributes("src")
    assert page.data["runs"][0]["mistakes"] and not any(one[4] for one in page.data["runs"][0]["mistakes"])


def test_a_fitted_model_has_no_curves(own: RunFolder) -> None:
    own.update(fitted_to=320)
    run_folders.rewrite_metrics(own, [{"step": 1, "epoch": 1, "val/top1": 0.5, "fit_s": 61.2}])
    page = Page.of(report([own], explain=0).path)
    assert "Learning curves" not in page.text and "1 min 1 s" in page.text and not page.data["charts"]


def test_a_damaged_evaluation_or_log_is_named_on_a_page_that_shows_the_rest(own: RunFolder) -> None:
    for text in ("{", "[]", '{"samples": 3}', json.dumps(evaluation(own) | {"metrics": {"top1": {}}})):
        (own.path / "evaluation.json").write_text(text)
        found = report([own], explain=0)
        assert "evaluation.json is damaged" in found.gaps[0][1].what
        assert found.gaps[0][1].command == f"dlkit eval {own.path}" and "Learning curves" in Page.of(found.path).text
    own.metrics_file.write_text(own.metrics_file.read_text().replace("0.", "1.", 1) + "[[[\n")
    assert "line 4" in report([own], explain=0).gaps[0][1].what


def test_a_run_that_cannot_be_read_does_not_hide_the_others(own: RunFolder, rival: RunFolder) -> None:
    (rival.path / "run.json").write_text("[" * 50_000)
    said: list[str] = []
    assert [run.name for run in report([own, rival], explain=0, say=said.append).runs] == ["own"]
    assert any(line.startswith("warning: ") and "rival" in line for line in said)
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


def test_a_tree_that_was_written_is_read_as_the_same_tree() -> None:
    from dlkit.data.splits import TreeSamples
    from dlkit.data.text.treebank import labelled_example, parse_tree

    lexicon = ("good", "(", "film")
    arrays = {  # written level by level: ((good film) ())
        "words": [-1, -1, 1, 0, 2], "parents": [-1, 0, 0, 1, 1], "siblings": [0, 0, 1, 0, 1],
        "heights": [2, 1, 0, 0, 0], "reading": [3, 4, 2, -1, -1],
    }  # fmt: skip
    tree = TreeSamples(
        **{name: np.array(values, np.int32) for name, values in arrays.items()}, labels=np.zeros(5, np.int64),
        starts=np.array([0, 5]), targets=np.zeros(1, np.int64), lexicon=lexicon,
    )  # fmt: skip
    text = report_examples.written(tree, 0)
    assert text == "(((good) (film)) (-LRB-))"
    assert [parse_tree(text).words[node] for node in parse_tree(text).reading] == ["good", "film", "-LRB-"]
    headed = replace(tree, words=np.array([0, 2, 1, 0, 2], np.int32), reading=np.array([3, 1, 4, 0, 2], np.int32))
    found = labelled_example(report_examples.written(headed, 0), ())
    assert [found.words[node] for node in found.reading] == ["good", "film", "film", "good", "("]
    assert [found.parents[node] for node in found.reading] == [1, 0, 1, -1, 0]


def test_answers_that_are_numbers_are_drawn_against_what_was_asked(tmp_path: Path) -> None:
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


def test_many_classes_are_a_picture_and_a_list_of_pairs(own: RunFolder) -> None:
    spec, document = own.info()["spec"], evaluation(own)
    more = [f"more {place}" for place in range(50)]
    rewrite(own, "run.json", spec=spec | {"classes": [*spec["classes"], *more]})
    blank = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    rewrite(own, "evaluation.json", classes=[*document["classes"], *({"class": name, **blank} for name in more)])
    page = Page.of(report([own], explain=0).path)
    assert "canvas" in dict(page.elements) and not page.attributes("data-count")
    assert len(page.attributes("data-pair")) > 3


# -- several runs


@pytest.fixture
def rival(own: RunFolder) -> RunFolder:
    """Like `own`, but for one setting, and every fifth answer wrong."""
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
    for told in (
        f"{paired.p_value:.3g}",
        f"{paired.only_first}",
        f"{100 * paired.difference.value:+.2f}",
        "optimizer.lr",
    ):
        assert told in page.text
    assert page.text.count("changed") == 0 and page.attributes("class").count("changed") == 1
    assert (
        len(page.data["runs"]) == 2 and {"all-val-loss", "r0-train-loss", "r1-train-loss"} <= page.data["charts"].keys()
    )
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))


def test_answers_that_are_numbers_are_not_compared_as_right_or_wrong(own: RunFolder, rival: RunFolder) -> None:
    for run in (own, rival):
        rewrite(run, "evaluation.json", topk=0)
    assert "numbers" in compare(own, rival).unpaired


def test_a_run_named_twice_is_one(own: RunFolder) -> None:
    assert report([own, own.path], explain=0).path.name == "report.html"


# -- where it goes


def test_the_page_goes_where_it_is_asked_to(own: RunFolder, tmp_path: Path) -> None:
    assert report([own], explain=0).path == own.path / "report.html"
    assert report([own], output=tmp_path, explain=0).path == tmp_path / "own.html"
    assert report([own], output=tmp_path / "x.HTML", explain=0).path == tmp_path / "x.HTML"
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_could_not_be_written_is_refused_before_any_work(
    own: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlkit.report.report.read", lambda run: pytest.fail("work was done"))
    (tmp_path / "a.html").mkdir()
    (tmp_path / "file").touch()
    for output in ("model.onnx", "nowhere"):
        with pytest.raises(UsageError, match=r"ends in \.html"):
            report([own], output=tmp_path / output)
    for output in ("nowhere/x.html", "file/x.html"):
        with pytest.raises(StorageError, match="no folder"):
            report([own], output=tmp_path / output)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(StorageError, match="no permission"):
        report([own])


def test_the_command_prints_the_path_alone(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_without_a_browser_the_path_is_printed_and_it_is_said(
    own: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: asked.append(address))
    assert command(["report", str(own.path), "--explain", "0", "--open"]) == 0
    told = capsys.readouterr()
    assert told.out.endswith("report.html\n") and "no browser" in told.err
    assert asked == [(own.path / "report.html").resolve().as_uri()]


def test_a_misspelt_run_is_exit_2(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["report", "onw", "--runs-dir", str(own.path.parent)]) == 2
    assert "own" in capsys.readouterr().err


# -- in a browser


@contextmanager
def browsed(path: Path, **settings: Any) -> Iterator[Any]:
    """The page in headless Chromium; it must ask for nothing and complain of nothing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    complaints: list[str] = []
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(**settings)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.route(re.compile("^(?!file:|data:)"), lambda route: complaints.append(route.request.url))
        page.goto(path.as_uri())
        yield page
        browser.close()
    assert not complaints


@pytest.mark.slow
def test_in_a_browser_cells_open_tables_sort_and_curves_answer(written: Path) -> None:
    with browsed(written) as page:
        data = page.evaluate("data.runs[0]")
        true, said, count = next(one for one in data["counts"] if one[0] != one[1])
        assert not page.locator(".chosen img").count()
        page.click(f'[data-pair="{true},{said}"]')
        assert page.locator(".chosen img").count() == count
        assert page.evaluate("[...document.querySelectorAll('.chosen img')].every(image => image.naturalWidth > 0)")
        assert f"{data['classes'][true]} taken for {data['classes'][said]}: {count}" in page.inner_text(".chosen")
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
def test_in_a_browser_the_keyboard_walks_the_matrix(written: Path) -> None:
    with browsed(written, color_scheme="dark", viewport={"width": 400, "height": 800}) as page:
        page.focus(".cells button")
        before = page.evaluate("document.activeElement.dataset.pair")
        for key in ("ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.pair") != before
        page.keyboard.press("Enter")
        assert page.locator(".chosen img").count() > 0
        assert page.evaluate("document.querySelectorAll('.cells button[tabindex=\"0\"]').length") == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 400  # nothing sticks out of a telephone


@pytest.mark.slow
def test_in_a_browser_hostile_names_do_nothing(own: RunFolder) -> None:
    hostile(own)
    with browsed(report([own], explain=0).path) as page:
        page.locator(".cells button").first.click()
        assert "{{DATA}}" in page.inner_text("body") and page.title() == "mlp on shapes · dlkit"
        assert page.locator("img").count() == 0
