"""Talk with the tuned model: its GGUF, in llama.cpp, in the voice of one of the theme's personas."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from deepred_ray.config import Config, load
from deepred_ray.console import console
from deepred_ray.errors import InputError
from deepred_ray.llama import Llama
from deepred_ray.runs import Run
from deepred_ray.theme import Theme

ANSWER_TOKENS = 200
TURNS_KEPT = 6


def talk(root: str, options: argparse.Namespace) -> int:
    """Answer one question (`--ask`), or each line of the standard input until it ends or `/quit`.

    Raises:
        InputError: the persona or the run's GGUF is not there. ModelError: llama.cpp cannot load it.
    """
    run = Run(root, options.run)
    theme = Theme.find(options.theme or theme_of(run))
    persona = theme.personas.get(options.persona) if options.persona else next(iter(theme.personas.values()))
    if persona is None:
        raise InputError(f"no persona {options.persona!r}", f"Name one of {', '.join(theme.personas)}.")
    llama = load_quietly(Path(options.gguf) if options.gguf else newest_gguf(run))
    messages = [{"role": "system", "content": persona.system[0]}]

    def answer(question: str) -> None:
        messages.append({"role": "user", "content": question})
        # The system prompt stays; of the talk only the last turns fit a small model's mind.
        shown = [messages[0], *messages[1:][-(2 * TURNS_KEPT + 1) :]]
        text = llama.chat(shown, max_tokens=ANSWER_TOKENS, temperature=options.temperature, on_text=write)
        write("\n")
        messages.append({"role": "assistant", "content": text})

    if options.ask:
        answer(options.ask)
        return 0
    name = theme.title
    if sys.stdin.isatty():
        console.print(f"[bold]{name}[/bold] listens. An empty line or /quit ends the talk.")
    while (question := read_line()) not in (None, "", "/quit"):
        if sys.stdin.isatty():
            console.print(f"[red]{name}[/red]: ", end="")
        answer(str(question))
    return 0


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def read_line() -> str | None:
    try:
        return input("you: " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


def theme_of(run: Run) -> str:
    """The theme that a run was made with; the default one where there is no such run."""
    file = run.folder / "config.json"
    return load(file.read_json(), file.path).theme if file.exists() else Config().theme


def newest_gguf(run: Run) -> Path:
    manifest = run.manifest("export")
    if manifest is None:
        raise InputError(f"run {run.name} has no GGUF yet", f"Run `deepred export --run {run.name}`, or name a file with --gguf.")
    files = list(manifest.outputs["gguf"].values())
    smallest = min(files, key=lambda file: int(file["bytes"]))
    folder, name = smallest["path"].rsplit("/", 1)
    return run.local_copy(folder) / name


def load_quietly(gguf: Path, **options: Any) -> Llama:
    """A `Llama` with these options; llama.cpp writes its own log to the error stream; only errors of ours belong there."""
    sys.stderr.flush()
    errors = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            return Llama(gguf, **options)
    finally:
        os.dup2(errors, 2)
        os.close(errors)
