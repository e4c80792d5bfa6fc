"""serve's page in a headless Chromium: dropped images and drawn digits are answered, and nothing is asked elsewhere."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import encoded, picture
from PIL import Image, ImageDraw

import dlkit
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Prediction
from dlkit.runs.run_folder import RunFolder
from dlkit.serve.listener import listen
from dlkit.serve.model import open_model
from dlkit.signals import StopFlag

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip(
        "the page is looked at in Chromium, and there is none: apt-get install chromium", allow_module_level=True
    )
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
sync_api = pytest.importorskip("playwright.sync_api")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
EIGHT_TIMES = 8


def like_mnist(name: str, rng: np.random.Generator) -> Image.Image:
    """A one or a zero as MNIST shows them: white on black, 20 pixels in the middle of 28, grey edges."""
    image = Image.new("L", (28 * EIGHT_TIMES, 28 * EIGHT_TIMES))
    pen, middle = ImageDraw.Draw(image), 14 * EIGHT_TIMES
    width, reach = int(EIGHT_TIMES * rng.uniform(2, 3.4)), 10 * EIGHT_TIMES
    if name == "one":
        lean = rng.uniform(-3, 3) * EIGHT_TIMES
        pen.line((middle - lean, middle - reach, middle + lean, middle + reach), 255, width)
    else:
        narrow = reach * rng.uniform(0.6, 1)
        pen.ellipse((middle - narrow, middle - reach, middle + narrow, middle + reach), None, 255, width)
    return image.resize((28, 28), Image.Resampling.BOX)


@pytest.fixture(scope="module")
def digit_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root, rng = tmp_path_factory.mktemp("digits"), np.random.default_rng(0)
    for name in ("one", "zero"):
        (root / "train" / name).mkdir(parents=True)
        for number in range(80):
            like_mnist(name, rng).save(root / "train" / name / f"{number:03}.png")
    settings = {"data.options.size": 28, "data.options.channels": 1, "model.options.hidden": "32"}
    return dlkit.train(
        "mlp", dataset="folder", data_dir=root, epochs=8, batch_size=16, settings=settings, name="digits",
        runs_dir=root / "runs",
    )  # fmt: skip


@dataclass
class Page:
    """A page that is looked at, what it asked for, and what it complained about."""

    page: Any
    url: str
    asked: list[str]
    complaints: list[str]

    def best(self, name: str) -> str:
        """The most probable class with its probability, once it is that."""
        sync_api.expect(self.page.locator("#best")).to_contain_text(name)
        return str(self.page.inner_text("#best"))

    def draw(self, *points: tuple[float, float]) -> None:
        """One stroke of the mouse through points from 0 to 1."""
        box = self.page.locator("#pad").bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place)
        self.page.mouse.up()

    def seen(self) -> np.ndarray:
        """(28, 28): the drawing as the model is given it."""
        script = "() => [...document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data]"
        return np.array(self.page.evaluate(script), np.uint8).reshape(28, 28, 4)[..., 0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(digit_run: RunFolder) -> Iterator[str]:
    from dlkit.serve.app import application
    from dlkit.serve.connections import run_until

    stop = StopFlag()
    with listen("127.0.0.1", 0) as listener:
        served = open_model(digit_run, "best", "cpu", Path("runs"), str)
        app = application(served, "127.0.0.1", str)
        thread = threading.Thread(target=run_until, args=(stop, app, listener, str))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        stop.signal = 15
        thread.join()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    context = browser.new_context(has_touch=True)
    found = Page(context.new_page(), address, [], [])
    context.on("request", lambda request: found.asked.append(request.url))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on("console", lambda said: found.complaints.append(said.text) if said.type == "error" else None)
    found.page.goto(address)
    yield found
    context.close()
    assert len(found.asked) >= 5, "the page, its style, its two scripts and the model"
    assert [url for url in found.asked if not url.startswith((address, "blob:" + address, "data:image/"))] == []
    assert found.complaints == []


def test_a_dropped_image_is_answered_and_explained(page: Page, digit_run: RunFolder) -> None:
    image = encoded(like_mnist("zero", np.random.default_rng(1)), "PNG")
    dropped = page.page.evaluate_handle(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)), transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "nought.png", { type: "image/png" }));
            return transfer;
        }""",
        base64.b64encode(image).decode(),
    )
    page.page.dispatch_event("main", "drop", {"dataTransfer": dropped})
    (expected,) = predict(digit_run, image, device="cpu")
    assert isinstance(expected, Prediction)
    share = page.best("zero").split("\n")[0]
    p = expected.predictions[0].probability
    assert share == ("zero > 99.9 %" if p > 0.999 else f"zero {100 * p:.1f} %")
    assert page.page.inner_text("#file-name") == "nought.png"
    sync_api.expect(page.page.locator("#overlay")).to_be_visible()
    assert page.page.evaluate("document.getElementById('overlay').naturalWidth") == 280
    assert "zero" in page.page.inner_text("#why-text") and page.page.locator("#classes li").count() == 2


@pytest.mark.parametrize("corner", [(0.05, 0.05), (0.7, 0.7)])
def test_a_digit_drawn_small_in_a_corner_is_read_as_if_it_were_mnists(page: Page, corner: tuple[float, float]) -> None:
    x, y = corner
    page.draw((x + 0.1, y), (x + 0.1, y + 0.2))
    page.best("one")
    page.page.click("#clear")
    sync_api.expect(page.page.locator("#answer")).to_be_hidden()
    turns = np.linspace(0, 2 * np.pi, 24)
    page.draw(*((x + 0.1 + 0.07 * np.cos(turn), y + 0.1 + 0.1 * np.sin(turn)) for turn in turns))
    page.best("zero")


def test_a_drawing_is_white_on_black_twenty_pixels_high_with_its_mass_in_the_centre(page: Page) -> None:
    page.draw((0.6, 0.1), (0.8, 0.1), (0.62, 0.5))  # a seven
    page.best("o")
    seen = page.seen().astype(float)
    rows, columns = np.nonzero(seen > 40)
    assert seen.max() == 255 and (seen == 0).sum() > 500 and ((seen > 0) & (seen < 255)).sum() > 20
    assert 19 <= np.ptp(rows) + 1 <= 21 and np.ptp(columns) < np.ptp(rows)
    centre = np.array(np.unravel_index(np.arange(784), (28, 28))) + 0.5
    assert np.allclose((centre * seen.ravel()).sum(1) / seen.sum(), 14, atol=0.3)


def test_keys_and_fingers_draw_and_undo_takes_a_stroke_back(page: Page) -> None:
    page.page.focus("#pad")
    for _ in range(12):
        page.page.keyboard.press("Shift+ArrowDown")
    page.best("one")
    page.page.locator("#pad").tap(position={"x": 20, "y": 20})
    sync_api.expect(page.page.locator("#pad-hint")).to_be_hidden()
    page.page.click("#undo")
    page.best("one")
    page.page.focus("#pad")
    page.page.keyboard.press("Delete")
    sync_api.expect(page.page.locator("#empty")).to_be_visible()


def test_what_is_no_image_is_told_on_the_page_and_the_next_is_answered(page: Page, tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("hello")
    page.page.set_input_files("#file", tmp_path / "letter.png")
    sync_api.expect(page.page.get_by_role("alert")).to_contain_text("not an image")
    picture(200, 150).save(tmp_path / "picture.png")
    page.page.set_input_files("#file", tmp_path / "picture.png")
    sync_api.expect(page.page.get_by_role("alert")).to_be_hidden()
    page.best("o")
    page.complaints[:] = [said for said in page.complaints if "422" not in said]  # Chromium tells of each refusal


def test_the_addresses_for_programs_stand_on_the_page(page: Page) -> None:
    page.page.goto(f"{page.url}docs")
    sync_api.expect(page.page.locator("#addresses tr")).to_have_count(5)
    assert f"{page.url}predict" in page.page.inner_text("#curl")
