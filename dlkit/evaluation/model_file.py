"""An exported file as a model to be used: .onnx by onnxruntime, without torch; .safetensors by torch.

A file is told by its ending, checked whole, and only then handed to the library that reads its format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlkit import export_metadata
from dlkit.data.text.encoding import Text
from dlkit.errors import ModelFileError, UsageError, VerificationError
from dlkit.export.formats import _onnx_safety, onnx, safetensors
from dlkit.export_metadata import About
from dlkit.inference.classifier import Answer, Classifier, LogProbabilities

SUFFIXES = (".onnx", ".safetensors", ".pt2")


@dataclass(frozen=True)
class ModelFile:
    """A file that was checked; `load` makes from a device's name what answers its images or texts."""

    path: Path
    about: About
    load: Callable[[str], Classifier]


def is_model_file(name: str) -> bool:
    """Whether this names a file, and not a network: timm/NAME is one."""
    return Path(name).suffix.lower() in SUFFIXES or ("/" in name and not name.startswith("timm/"))


def open_model_file(path: Path) -> ModelFile:
    """Read and check an exported file; its weights are not yet loaded.

    Raises:
        UsageError: a package that it needs is missing, or its format is for other programs.
        ModelFileError: no such file, or it is malformed, hostile, or no export of dlkit.
        VerificationError: it was changed since it was exported.
    """
    kind = path.suffix.lower()
    if kind == ".pt2":
        raise UsageError(f"{path}: a .pt2 file is for your own programs. Give dlkit an .onnx or .safetensors file.")
    if kind not in SUFFIXES:
        raise UsageError(f"{path}: a model file ends in .onnx or .safetensors.")
    if kind == ".onnx":
        export_metadata.need(("onnx", "onnxruntime"), f"running {path}")
    return from_bytes(_onnx_safety.read_file(path), path)


def from_bytes(data: bytes, path: Path) -> ModelFile:
    """The same for bytes that were or will be at `path`."""
    with _told_of(path):
        if path.suffix.lower() == ".onnx":
            whole, about = _onnx_safety.checked(data, path)
            return ModelFile(path, about, lambda device: _named(path, onnx.classifier, whole, about, device))
        export_metadata.check_seal(data, safetensors.MARKER)
        found = safetensors.read_about(data)
        if found is None:
            raise ModelFileError(
                "it does not say what it is: no export of dlkit. For bare weights give --model NAME --weights FILE."
            )
        return ModelFile(path, found, lambda device: _on_device(path, data, found, device))


def _on_device(path: Path, data: bytes, about: About, device: str) -> Classifier:
    from dlkit.training.precision import choose_device

    return _named(path, safetensors.classifier, data, about, str(choose_device(device)))


def _named(
    path: Path, load: Callable[[bytes, About, str], Classifier], data: bytes, about: About, device: str
) -> Classifier:
    with _told_of(path):
        return Named(path, load(data, about, device))


@dataclass(frozen=True)
class Named:
    """A classifier whose errors name its file."""

    path: Path
    classify: Any  # a Classifier, of trees a TextClassifier

    def __call__(self, inputs: Any) -> LogProbabilities:
        with _told_of(self.path):
            found: LogProbabilities = self.classify(inputs)
            return found

    def answer(self, inputs: Any) -> Answer:
        with _told_of(self.path):
            found: Answer = self.classify.answer(inputs)
            return found

    def nodes(self, texts: Sequence[Text]) -> list[LogProbabilities]:
        """Those of each node of trees."""
        with _told_of(self.path):
            found: list[LogProbabilities] = self.classify.nodes(texts)
            return found


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (ModelFileError, VerificationError) as error:
        raise type(error)(f"model file {path}: {error}") from error
