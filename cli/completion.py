"""Completion for bash, zsh and fish: commands, options, and the names that an option or argument takes.

The shell starts the program with _DLKIT_COMPLETE set; no torch is imported, and no file of a run is read.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import EnumType
from pathlib import Path
from typing import Any

from dlkit import registry
from dlkit.errors import StorageError, UsageError

VARIABLE = "_DLKIT_COMPLETE"
# Each calls the program with the words so far. No space follows KEY=, whose value comes next.
SCRIPTS = {
    "bash": """\
_dlkit_completion() {
    local IFS=$'\\n'
    COMPREPLY=($(_DLKIT_COMPLETE=1 "$1" "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}
complete -o default -F _dlkit_completion dlkit
""",
    "zsh": """\
#compdef dlkit
_dlkit() {
    local -a names=("${(@f)$(_DLKIT_COMPLETE=1 $words[1] "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    names=(${names:#})
    if (( $#names )); then
        compadd -S '' -- ${(M)names:#*=}
        compadd -- ${names:#*=}
    else
        _files
    fi
}
compdef _dlkit dlkit
""",
    "fish": """\
function __dlkit_completion
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    env _DLKIT_COMPLETE=1 $words[1] $words[2..-1] "$word" 2>/dev/null
end
complete -c dlkit -a '(__dlkit_completion)'
""",
}
FILES = {"bash": ".bash_completions/dlkit.sh", "zsh": ".zfunc/_dlkit", "fish": ".config/fish/completions/dlkit.fish"}
START = {  # the line of the shell's start-up file that makes it read the script
    "bash": (".bashrc", "source ~/.bash_completions/dlkit.sh"),
    "zsh": (".zshrc", "fpath+=~/.zfunc; autoload -Uz compinit; compinit"),
}

Names = Callable[[Sequence[str]], Iterable[str]]


def _runs(rest: Sequence[str]) -> list[str]:
    folder = Path(rest[rest.index("--runs-dir") + 1] if "--runs-dir" in rest[:-1] else "runs")
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if os.path.exists(folder / entry.name / "run.json"))
    except OSError:
        return []
    return [*names, *(str(folder / name) for name in names)]


def _recipes(rest: Sequence[str]) -> list[str]:
    from dlkit.config import yaml_file

    return yaml_file.shipped_names()


def _recipe_keys(rest: Sequence[str]) -> list[str]:
    from dlkit.config.keys import key_paths

    regularizers = registry.entries("regularizers").values()
    options = [f"regularizers.{entry.name}.{option}" for entry in regularizers for option in entry.options]
    return [f"{key}=" for key in [*key_paths(), *options]]


def _of(name: str) -> Names:
    return lambda rest: registry.names(name)


def _words(text: str) -> Names:
    return lambda rest: text.split()


# parameter → the names that complete it; a command's own under "command parameter"
VALUES: Mapping[str, Names] = {
    "model": _of("models"), "pattern": _of("models"), "models show name": _of("models"),
    "data": _of("datasets"), "dataset": _of("datasets"), "names": _of("datasets"), "target": _of("datasets"),
    "classes": _of("datasets"), "dataset download name": _of("datasets"), "dataset info name": _of("datasets"),
    "dataset unpack name": _of("datasets"), "dataset verify name": _of("datasets"),
    "recipe": _recipes, "recipes show name": _recipes, "augment": _recipes,
    "set_": _recipe_keys, "param": _recipe_keys, "recipes keys pattern": _recipe_keys,
    "run": _runs, "runs": _runs, "resume": _runs, "against": _runs, "source": _runs,
    "dataset download source": _words(""), "explain target": _words(""),
    "weights": lambda rest: ["imagenet", *_runs(rest)],
    "method": _of("explainers"), "to": _of("exporters"), "track": _of("trackers"),
    "opt": _words("sgd adam adamw adagrad rmsprop"), "sched": _words("constant step cosine onecycle exponential"),
    "amp": _words("off auto bf16 fp16"), "device": _words("auto cpu cuda mps"), "aa": _words("none trivial rand"),
    "monitor": _words("val/loss val/top1 val/top5 train/loss"), "on_bad_image": _words("error skip"),
    "split": _words("train validation test"),
}  # fmt: skip


def complete(program: Any, words: Sequence[str]) -> list[str]:
    """What the last of these words may become, those before it being whole."""
    *before, word = [text for text in words if text != "="] or [""]  # bash gives the = of --flag=value as a word
    word = "" if words and words[-1] == "=" else word
    command, path, rest = program, "", []
    for text in before:
        if text in getattr(command, "commands", {}):
            command, path = program.built(text) if command is program else command.commands[text], f"{path} {text}"
        else:
            rest.append(text)
    if word.startswith("--") and "=" in word:
        name, _, word = word.partition("=")
        return [f"{name}={value}" for value in _values(_option(command, name), path, rest, word)]
    if rest and (option := _option(command, rest[-1])) is not None and not option.is_flag:
        return _values(option, path, rest, word)
    if word.startswith("-"):
        return [name for param in command.params for name in _names(param) if name.startswith(word)]
    if getattr(command, "commands", {}):
        return [name for name in command.commands if name.startswith(word)]
    return _values(_argument(command, rest), path, rest, word)


def _names(param: Any) -> list[str]:
    """The names of an option; those of an argument do not begin with a dash."""
    return [] if param.param_type_name == "argument" else [*param.opts, *param.secondary_opts]


def _option(command: Any, name: str) -> Any:
    return next((param for param in command.params if name in _names(param)), None)


def _argument(command: Any, rest: Sequence[str]) -> Any:
    """The argument that comes after these words; the last one may be repeated."""
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    count, takes_value = 0, False
    for text in rest:
        option = _option(command, text)
        count += option is None and not takes_value and not text.startswith("-")
        takes_value = option is not None and not option.is_flag
    if count >= len(arguments) and not (arguments and arguments[-1].nargs == -1):
        return None
    return arguments[min(count, len(arguments) - 1)]


def _values(param: Any, path: str, rest: Sequence[str], word: str) -> list[str]:
    """The names that a parameter takes; a network of a package is found by its name alone, too."""
    if param is None:
        return []
    names = VALUES.get(f"{path.strip()} {param.name}", VALUES.get(param.name, _choices(param)))
    known = list(dict.fromkeys(names(rest)))
    return [name for name in known if name.startswith(word)] or [
        name for name in known if word and name.partition("/")[2].startswith(word)
    ]


def _choices(param: Any) -> Names:
    """The members of an option's enumeration."""
    annotation = param.type_descriptor.annotation
    members: Iterable[Any] = annotation if isinstance(annotation, EnumType) else ()
    return lambda rest: [str(member.value) for member in members]


def script(shell: str) -> str:
    """What makes a shell complete dlkit's command lines."""
    if shell not in SCRIPTS:
        raise UsageError(f"completion is for {', '.join(SCRIPTS)}, not {shell!r}.")
    return SCRIPTS[shell]


def install(shell: str) -> Path:
    """Write the script where the shell looks for it; returns the file.

    Raises:
        StorageError: it cannot be written.
    """
    text, home = script(shell), Path.home()
    file = home / FILES[shell]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if shell in START:
            _append(home / START[shell][0], START[shell][1])
    except OSError as error:
        raise StorageError(f"completion for {shell} cannot be installed: {error}. See --show-completion.") from error
    return file


def _append(file: Path, line: str) -> None:
    """Add a line to a file of the user's that does not have it."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if line not in text:
        with file.open("a", encoding="utf-8") as end:
            end.write(f"{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n")


def current_shell() -> str:
    """The shell that called the program; that of $SHELL if there is none, or one without completion (sh, make)."""
    shellingham = importlib.import_module("shellingham")  # comes with typer, without types
    of_user = Path(os.environ.get("SHELL", "")).name
    try:
        caller, _ = shellingham.detect_shell()
    except shellingham.ShellDetectionFailure:
        return of_user
    return of_user if caller not in SCRIPTS and of_user in SCRIPTS else str(caller)
