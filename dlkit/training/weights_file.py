"""Weights from a file that anyone may have written: a state dict, bare or nested in a training script's checkpoint.

What PyTorch's tutorials, torchvision's references, timm, Lightning, mmpretrain, nanoGPT and others save is read alike:
the state dict is found under keys such as state_dict, model or net, and what wrappers put before every name (module.,
_orig_mod., model.) is stripped. Where averaged weights lie beside raw ones, the part "ema" or "raw" chooses between
them; any other part is the key of the state dict. Nothing in a file is executed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from dlkit.errors import ModelFileError

RAW, EMA = "raw", "ema"
RAW_WORDS = {"state", "dict", "model", "net", "network", "module", "weights", "params", "best"}  # make up a key
EMA_WORDS = {"ema", "swa", "averaged", "avg"}  # one of them in a key: averaged weights
ANYWHERE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # may wrap a part of a network too
DEEPEST = 5  # keys above a state dict
MOST_TENSORS = 50_000  # more than any network has; comparing a million names would take minutes
OWN_PARTS = {"ema/": EMA, "model/": RAW}  # of a dlkit checkpoint, the ones that eval uses first

Say = Callable[[str], None]
Parts = Mapping[str, tuple[str, Mapping[str, Tensor]]]  # raw or ema → the key, and what lies there


def read_weights(source: Path, say: Say = lambda text: None, part: str | None = None) -> dict[str, Tensor]:
    """Weights by name from a .safetensors file or anything that torch.save wrote, read without executing anything.

    Of a run's checkpoint, the network's alone: the averaged ones where it has them. Elsewhere the raw ones, unless
    `part` is "ema".

    Raises:
        ModelFileError: no such file, damaged, without such a part, or a pickle that holds more than tensors.
    """
    document = _load(source)
    name = f"weights {source}"
    if own := own_parts(document):
        return choose(own, part, name, say, default=EMA)[1]
    if part not in (None, RAW, EMA):
        document, part = _under(document, str(part), name), None
    parts = _parts(document, name)
    if not parts:
        raise ModelFileError(f"{name} hold no tensors by name; save model.state_dict() alone.")
    key, tensors = choose(parts, part, name, say)
    _check_count(tensors, name)
    if key:
        say(f"{name}: using what is saved under {key!r}")
    return _stripped(tensors, name, say)


def choose(parts: Parts, part: str | None, name: str, say: Say, default: str = RAW) -> tuple[str, dict[str, Tensor]]:
    """The key and the tensors of a part; where there are raw and averaged weights, says which are used.

    Raises:
        ModelFileError: there is no such part.
    """
    if not parts:
        raise ModelFileError(f"{name} hold no weights.")
    if part is not None and part not in parts:
        raise ModelFileError(f"{name} hold no part {part!r}. They hold: {', '.join(parts)}.")
    selected = part or (default if default in parts else next(iter(parts)))
    if len(parts) > 1 and part is None:
        kinds = {RAW: "the raw ones", EMA: "the averaged (EMA) ones"}
        other = RAW if selected == EMA else EMA
        say(f"{name} hold raw and averaged (EMA) weights: using {kinds[selected]}. Append :{other} for {kinds[other]}.")
    key, tensors = parts[selected]
    return key, dict(tensors)


def _load(source: Path) -> Any:
    if not source.is_file():
        raise ModelFileError(f"weights {source}: no such file. Give a run, a .safetensors or a .pt state dict.")
    try:
        if source.suffix.lower() == ".safetensors":
            with safetensors.safe_open(source, "pt") as file:
                _check_count(file.keys(), f"weights {source}")
            return safetensors.torch.load_file(source)
        # Training scripts save their arguments too; a Namespace is nothing but attributes.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(source, map_location="cpu", weights_only=True)
    except ModelFileError:
        raise
    except Exception as error:  # a hostile or damaged file may make a reader raise anything
        raise ModelFileError(f"weights {source} cannot be read: {_reason(error)}") from error


def _check_count(names: Collection[str], source: str) -> None:
    if len(names) > MOST_TENSORS:
        raise ModelFileError(f"{source} hold {len(names):,} tensors: at most {MOST_TENSORS:,} can be read.")


def own_parts(document: Any) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """The weights in a checkpoint of dlkit, whose names begin with model/ and ema/."""
    names = list(document) if isinstance(document, Mapping) else []
    if not any(isinstance(name, str) and name.startswith("model/") for name in names):
        return {}
    under = {
        kind: {name.removeprefix(prefix): document[name] for name in names if name.startswith(prefix)}
        for prefix, kind in OWN_PARTS.items()
    }
    return {kind: ("", tensors) for kind, tensors in under.items() if tensors}


def _under(document: Any, path: str, name: str) -> Any:
    """What lies under a key, or under keys with dots between."""
    for key in [path] if isinstance(document, Mapping) and path in document else path.split("."):
        if not isinstance(document, Mapping) or key not in document:
            there = ", ".join(map(str, document)) if isinstance(document, Mapping) else "no keys"
            raise ModelFileError(f"{name} hold nothing under {path!r}. They hold: {there[:200]}.")
        document = document[key]
    return document


def _parts(document: Any, name: str, depth: int = 0) -> dict[str, tuple[str, Mapping[str, Tensor]]]:
    """The raw and the averaged weights in a document, with the key that each lies under."""
    if not isinstance(document, Mapping) or depth > DEEPEST:
        return {}
    inner = {str(key): value for key, value in document.items() if isinstance(value, Mapping)}
    found: dict[str, list[tuple[str, Mapping[str, Tensor]]]] = {}
    for key, value in inner.items():
        if kind := kind_of(key):
            for part, (below, tensors) in _parts(value, name, depth + 1).items():
                path = f"{key}.{below}" if below else key
                found.setdefault(EMA if EMA in (kind, part) else RAW, []).append((path, tensors))
    for part, places in found.items():
        if len(places) > 1:
            keys = ", ".join(repr(path) for path, _ in places)
            raise ModelFileError(f"{name} hold several networks: {keys}. Append the key of one, as in FILE:{part}.")
    if found:
        return {part: places[0] for part, places in found.items()}
    if tensors := {str(key): value for key, value in document.items() if isinstance(value, Tensor)}:
        return _grouped(tensors)
    unknown = [(key, value) for key, value in inner.items() if _is_state_dict(value)]
    if len(unknown) > 1:
        keys = ", ".join(repr(key) for key, _ in unknown)
        raise ModelFileError(f"{name} hold several networks: {keys}. Append the key of one: FILE:{unknown[0][0]}.")
    return {RAW: unknown[0]} if unknown else {}


def _grouped(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Mapping[str, Tensor]]]:
    """Tensors whose names begin with model. and ema. in two parts, or all of them in one."""
    first = {name.partition(".")[0] for name in tensors if not is_counter(name, tensors[name])}
    kinds = {head: kind_of(head) for head in first}
    if sorted(map(str, kinds.values())) != [EMA, RAW]:
        return {RAW: ("", tensors)}
    return {
        str(kind): ("", {name: tensor for name, tensor in tensors.items() if name.startswith(f"{head}.")})
        for head, kind in kinds.items()
    }


def kind_of(key: str) -> str | None:
    """Whether a key names raw or averaged weights, or neither."""
    words = {word for word in re.split(r"[^a-z]+", key.lower()) if word}
    if words & EMA_WORDS and words <= RAW_WORDS | EMA_WORDS:
        return EMA
    return RAW if words and words <= RAW_WORDS else None


def _is_state_dict(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())


def is_counter(name: str, tensor: Tensor) -> bool:
    """Whether this is a number beside the weights: n_averaged, epoch, step."""
    return "." not in name and tensor.numel() == 1 and not tensor.is_floating_point()


def _stripped(tensors: Mapping[str, Tensor], source: str, say: Say) -> dict[str, Tensor]:
    """The weights without what wrappers put before their names, as often as they did, and without counters."""
    names, prefixes = list(tensors), [prefix for prefix in ANYWHERE if any(prefix in name for name in tensors)]
    for prefix in prefixes:
        names = [name.replace(prefix, "") for name in names]
    while prefix := _wrapper(names, list(tensors.values())):
        prefixes.append(prefix)
        names = [name.removeprefix(prefix) for name in names]
    told = " and ".join(dict.fromkeys(prefixes))
    if len(set(names)) < len(names):
        raise ModelFileError(f"{source} hold a name twice, with and without {told}")
    if prefixes:
        say(f"{source}: stripped {told} from the names")
    return {name: tensor for name, tensor in zip(names, tensors.values(), strict=True) if name != "n_averaged"}


def _wrapper(names: Sequence[str], tensors: Sequence[Tensor]) -> str:
    """What a wrapper put before the names: module. before any of them, or the like of model. before all; "" if none."""
    if any(name.startswith("module.") for name in names):
        return "module."
    weights = [name for name, tensor in zip(names, tensors, strict=True) if not is_counter(name, tensor)]
    head = weights[0].partition(".")[0] if weights else ""
    return f"{head}." if kind_of(head) and all(name.startswith(f"{head}.") for name in weights) else ""


def _reason(error: Exception) -> str:
    """The reader's reason in a line. torch's own advises to execute the file."""
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if asked:
        return f"its pickle asks for {asked[1]}, and nothing was executed. Save model.state_dict() alone."
    if isinstance(error, RuntimeError | safetensors.SafetensorError) and str(error):
        return f"{str(error).splitlines()[0].split('. ')[0].rstrip('.')}."
    return "it is no state dict, or it is damaged."
