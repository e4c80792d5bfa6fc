"""An exported file as a model: .onnx runs in onnxruntime without torch, .safetensors in torch.

The suffix determines the format; a file is checked before its library reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlkit import export_metadata, packages
from dlkit.data.text.encoding import Text
from dlkit.errors import ModelFileError, UsageError, VerificationError
from dlkit.export.formats import _onnx_safety, onnx, safetensors
from dlkit.export_metadata import ExportMetadata
from dlkit.inference.classifier import Classifier, LogProbabilities, NetworkOutput

SUFFIXES = (".onnx", ".safetensors", ".pt2")


@dataclass(frozen=True)
class ModelFile:
    """A checked file; `load` makes its classifier on a device."""

    path: Path
    about: ExportMetadata
    load: Callable[[str], Classifier]


def is_model_file(name: str) -> bool:
    """Whether this names a file and not a model such as torchvision/NAME."""
    return Path(name).suffix.lower() in SUFFIXES or ("/" in name and not packages.is_member(name))


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
    """Check the bytes of a file at `path`."""
    with _errors_of(path):
        if path.suffix.lower() == ".onnx":
            complete, about = _onnx_safety.check_file(data, path)
            return ModelFile(path, about, lambda device: _named(path, onnx.classifier, complete, about, device))
        export_metadata.check_seal(data, safetensors.MARKER)
        about_file = safetensors.read_about(data)
        if about_file is None:
            raise ModelFileError(
                "it does not say what it is: no export of dlkit. For bare weights give --model NAME --weights FILE."
            )
        return ModelFile(path, about_file, lambda device: _on_device(path, data, about_file, device))


def _on_device(path: Path, data: bytes, about: ExportMetadata, device: str) -> Classifier:
    from dlkit.training.precision import choose_device

    return _named(path, safetensors.classifier, data, about, str(choose_device(device)))


def _named(
    path: Path,
    load: Callable[[bytes, ExportMetadata, str], Classifier],
    data: bytes,
    about: ExportMetadata,
    device: str,
) -> Classifier:
    with _errors_of(path):
        return FileClassifier(path, load(data, about, device))


@dataclass(frozen=True)
class FileClassifier:
    """A classifier whose errors name its file."""

    path: Path
    classify: Any  # a Classifier, of trees a TextClassifier

    def __call__(self, inputs: Any) -> LogProbabilities:
        with _errors_of(self.path):
            log_probabilities: LogProbabilities = self.classify(inputs)
            return log_probabilities

    def answer(self, inputs: Any) -> NetworkOutput:
        with _errors_of(self.path):
            answer: NetworkOutput = self.classify.answer(inputs)
            return answer

    def nodes(self, texts: Sequence[Text]) -> list[LogProbabilities]:
        """The log probabilities of each node of trees."""
        with _errors_of(self.path):
            nodes: list[LogProbabilities] = self.classify.nodes(texts)
            return nodes


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (ModelFileError, VerificationError) as error:
        raise type(error)(f"model file {path}: {error}") from error
