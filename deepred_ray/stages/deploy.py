"""deploy: an exported GGUF file where an application on this machine finds it. Nothing else of the application is touched.

LM Studio lists <models>/<publisher>/<model>/<file>.gguf (https://lmstudio.ai/docs/basics/import-model); Ollama builds a model from
a Modelfile (https://github.com/ollama/ollama/blob/main/docs/modelfile.md).
"""

import contextlib
import shutil
import subprocess
from pathlib import Path

from deepred_ray import models
from deepred_ray.config import Config
from deepred_ray.console import say
from deepred_ray.errors import DeepredError
from deepred_ray.runs import Run
from deepred_ray.theme import Theme

PUBLISHER = "deepred_ray"
LOAD_S = 300.0
CHATML_END = "<|im_end|>"
# Ollama has templates of its own for what it recognises in a GGUF file; ChatML is written out, since it is in every shape.
OLLAMA_CHATML = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"


def run(run: Run, config: Config, theme: Theme) -> None:
    """Put the first of the run's GGUF files wherever the settings say."""
    settings = config.export
    name = f"{theme.name}-{settings.quantizations[0]}"
    for place in settings.deploy:
        file = run.local_copy(f"gguf/{name}") / f"{name}.gguf"
        if place == "lmstudio":
            folder = Path(settings.lm_studio).expanduser() if settings.lm_studio else None
            to_lm_studio(file, run.name, folder, Path.home())
        else:
            from transformers import AutoTokenizer

            template = AutoTokenizer.from_pretrained(run.local_copy("merged"), **models.loading()).chat_template
            to_ollama(file, run.name, theme.system, str(template))


def lm_studio_home(home: Path) -> Path:
    """LM Studio's own folder: where its pointer says, else the place of newer versions or, if only that exists, of older ones."""
    pointer = home / ".lmstudio-home-pointer"
    if pointer.is_file() and (named := pointer.read_text("utf-8").strip()):
        return Path(named)
    places = (home / ".lmstudio", home / ".cache" / "lm-studio")
    return next((place for place in places if place.is_dir()), places[0])


def to_lm_studio(file: Path, run_name: str, models: Path | None, home: Path) -> Path:
    """Copy the file to LM Studio's `models` folder (None: where LM Studio is found) and, if its command line is there, load it.

    Raises:
        DeepredError: no such folder, or it cannot be written.
    """
    folder = models or lm_studio_home(home) / "models"
    if not folder.is_dir():
        raise DeepredError(
            f"no folder {folder}", "Start LM Studio once, or name the folder that its My Models tab shows with --export.lm-studio."
        )
    target = folder / PUBLISHER / run_name / file.name
    draft = target.with_suffix(".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, draft)
        draft.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise DeepredError(f"cannot write {target}: {error.strerror or error}", "LM Studio's folder needs room for it.") from error
    say(f"  placed for LM Studio: {target}")
    own = lm_studio_home(home) / "bin" / "lms"
    if lms := shutil.which("lms") or (str(own) if own.is_file() else None):
        load(lms, f"{PUBLISHER}/{run_name}/{file.name}")
    return target


def load(lms: str, model: str) -> None:
    """Load the model; LM Studio that is not running is no error, since the file is in its list all the same."""
    try:
        done = subprocess.run(
            [lms, "load", model, "-y"], capture_output=True, text=True, timeout=LOAD_S, stdin=subprocess.DEVNULL, check=False
        )
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        fault = None if done.returncode == 0 else (said or [f"exit status {done.returncode}"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        fault = str(error)
    say(f"  loaded in LM Studio: {model}" if fault is None else f"  lms did not load it ({fault}); load it in LM Studio's list")


def to_ollama(file: Path, run_name: str, system: str, chat_template: str) -> Path:
    """Write a Modelfile beside the file, and tell the command that makes a model of it.

    Raises:
        ValueError: a system prompt that ends the quotes of a Modelfile.
    """
    if '"""' in system:
        raise ValueError(f'a Modelfile cannot hold a system prompt with """: {system[:80]}')
    lines = [f"FROM ./{file.name}"]
    if CHATML_END in chat_template:
        lines += [f'TEMPLATE """{OLLAMA_CHATML}"""', f'PARAMETER stop "{CHATML_END}"']
    lines += [f'SYSTEM """{system}"""', ""]
    target = file.with_name("Modelfile")
    target.write_text("\n".join(lines), "utf-8")
    say(f"  for Ollama: ollama create {run_name.lower()} -f {target}")
    return target
