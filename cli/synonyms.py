"""What other tools call our commands and options: a first try with one of these words is told ours."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence

# what a person types → what to type here
COMMANDS = {
    "evaluate": "eval", "test": "eval", "score": "eval", "metrics": "eval",
    "val": "eval --split validation", "validate": "eval --split validation", "validation": "eval --split validation",
    "fit": "train", "finetune": "train", "fine-tune": "train", "learn": "train", "run": "train",
    "classify": "predict", "infer": "predict", "inference": "predict", "label": "predict", "detect": "predict",
    "resume": "train --resume", "continue": "train --resume",
    "info": "dataset info", "check": "dataset check", "download": "dataset download", "data": "dataset",
    "datasets": "dataset list", "summary": "models show", "model": "models", "list": "models list", "ls": "runs list",
    "compare": "runs compare", "history": "runs list", "logs": "runs show",
    "tune": "sweep", "search": "sweep", "hpo": "sweep", "lr_find": "lr-find", "lrfind": "lr-find",
    "deploy": "serve", "server": "serve", "api": "serve", "convert": "export", "onnx": "export --to onnx",
    "visualize": "explain", "gradcam": "explain --method grad_cam", "interpret": "explain", "benchmark": "baseline",
    "version": "--version", "init": "train photos", "start": "train photos",
}  # fmt: skip
OPTIONS = {
    "--size": "--img-size", "--imgsz": "--img-size", "--image-size": "--img-size", "--imsize": "--img-size",
    "--input-size": "--img-size", "--resize": "--img-size", "--crop-size": "--img-size", "--resolution": "--img-size",
    "--bs": "--batch-size", "--batch": "--batch-size", "--mini-batch": "--batch-size",
    "--learning-rate": "--lr", "--lr0": "--lr", "--optimizer": "--opt", "--optim": "--opt",
    "--scheduler": "--sched", "--lr-scheduler": "--sched", "--decay": "--weight-decay", "--l2": "--weight-decay",
    "--epoch": "--epochs", "--num-epochs": "--epochs", "--n-epochs": "--epochs", "--max-epochs": "--epochs",
    "--num-workers": "--workers", "--threads": "--set train.threads", "--random-state": "--seed",
    "--random-seed": "--seed", "--gpu": "--device", "--gpus": "--device", "--cuda": "--device", "--cpu": "--device",
    "--val-split": "--validation", "--val-size": "--validation", "--validation-split": "--validation",
    "--val": "--validation", "--test-size": "--test-split", "--test-ratio": "--test-split", "--split": "--test-split",
    "--data": "--dataset", "--data-path": "--dataset", "--data-root": "--dataset", "--input": "--dataset",
    "--folder": "--dataset", "--path": "--dataset", "--train-dir": "--dataset", "--root": "--dataset",
    "--labels": "--classes", "--class": "--classes", "--class-names": "--classes", "--names": "--classes",
    "--output": "--runs-dir", "--output-dir": "--runs-dir", "--out": "--runs-dir", "--save-dir": "--runs-dir",
    "--project": "--runs-dir", "--run-name": "--name", "--experiment": "--name",
    "--checkpoint": "--resume", "--ckpt": "--resume", "--finetune": "--pretrained", "--fine-tune": "--pretrained",
    "--from-scratch": "--no-pretrained", "--scratch": "--no-pretrained", "--augment": "--aa", "--augmentation": "--aa",
    "--fp16": "--amp", "--mixed-precision": "--amp", "--early-stopping": "--patience", "--wandb": "--track",
    "--config": "--recipe", "--cfg": "--recipe", "--verbose": "--debug", "--top-k": "--topk", "--k": "--topk",
    "--model": "MODEL", "--arch": "MODEL", "--architecture": "MODEL", "--network": "MODEL",
}  # fmt: skip


def command_named(word: str) -> str | None:
    """What to type for a word that is no command: another tool's, or a path."""
    if os.path.isdir(word):
        return f"train {word}"
    return f"predict {word}" if os.path.isfile(word) else COMMANDS.get(word.lower())


def option_hint(option: str, known: Sequence[str]) -> str | None:
    """Our option for another tool's, misspelt or not, if the command has it."""
    word = option.replace("_", "-").lower()
    near = [word] if word in OPTIONS else difflib.get_close_matches(word, [*known, *OPTIONS], n=1, cutoff=0.75)
    ours = OPTIONS.get(near[0], "") if near else ""
    if ours == "MODEL":
        return None if "--model" in known else "The model is an argument: dlkit train MODEL DATA."
    return f"Did you mean {ours!r}?" if ours.partition(" ")[0] in known else None


def help_first(arguments: Sequence[str]) -> list[str]:
    """`help train` and `train help` as `train --help`."""
    words = list(arguments)
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    return [*words[:-1], "--help"] if words[1:] and words[-1] == "help" and not os.path.exists("help") else words
