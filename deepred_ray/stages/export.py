"""export: the adapter merged into its base, GGUF files of it, and proof that llama.cpp says the same.

INPUT   adapter/ and the base model
OUTPUT  merged/ (Hugging Face folder, half precision), gguf/<theme>-<quantization>.gguf
fan-out one adapter, one file a quantization
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

import ray

from deepred_ray import models, placement
from deepred_ray.config import Config
from deepred_ray.console import say
from deepred_ray.errors import DeepredError, InputError, ModelError
from deepred_ray.llama import CONTEXT_TOKENS, Llama
from deepred_ray.quantize import FILE_TYPES, quantizer
from deepred_ray.runs import Manifest, Run
from deepred_ray.stages.batches import Batches
from deepred_ray.stages.verify import Spoken, perplexity_change, verify_answers, verify_texts
from deepred_ray.theme import Theme

CHECK_PROMPTS = 4
ANSWER_TOKENS = 32
HELD_OUT_TOKENS = 1000
MERGED = "merged"
EXACT = ("f32", "f16")
"""Types that hold the merged model's weights as they are."""


def run(run: Run, config: Config, theme: Theme) -> Manifest:
    """Merge once, then convert and verify each quantization that is missing.

    Raises:
        DeepredError: the merged model differs from the adapter by more than the tolerance, or one of llama.cpp's tools failed.
        InputError: merged/ is there and is not of an export.
        ModelError: the adapter or its base is missing, there is no quantizer, or llama.cpp cannot load what was written.
    """
    settings = config.export
    adapter = find_adapter(run, settings.adapter)
    base = models.resolve(config.model)
    missing = [
        name for name in settings.quantizations if not (run.local_copy(f"gguf/{theme.name}-{name}") / "verified.json").exists()
    ]
    if set(missing) & set(FILE_TYPES):
        quantizer()
    conversations = check_conversations(theme)
    merged = run.local_copy(MERGED)
    if not (merged / "merge.json").exists():
        if merged.exists():
            raise InputError(f"{merged} is there and is not what export made", "Move it away, or use another --run NAME.")
        # In a process of its own: it gives back its memory, and a cluster puts it where there is some.
        task = merge.options(**placement.options(settings.resources))
        ray.get(task.remote(run, base, str(adapter), conversations, settings.tolerance))
    proof = (run.folder / MERGED / "merge.json").read_json()
    say(f"  merged; logits differ by {proof['largest_logit_difference']:.4f} at most from the adapter's")
    files = {}
    # What the K-quants are made of comes first.
    for quantization in sorted(settings.quantizations, key=lambda name: name != "f16"):
        name = f"gguf/{theme.name}-{quantization}"
        if not (run.local_copy(name) / "verified.json").exists():
            prompts = [item.prompt for item in theme.evaluation]
            task = convert.options(**placement.options(settings.resources))
            ray.get(task.remote(run, name, quantization, proof, conversations, prompts, settings.tolerance))
        verified = json.loads((run.local_copy(name) / "verified.json").read_text())
        file = run.local_copy(name) / f"{theme.name}-{quantization}.gguf"
        files[quantization] = verified | {"path": f"{name}/{file.name}", "bytes": file.stat().st_size}
        say(
            f"  {file.name}: {file.stat().st_size / 2**20:.0f} MiB; llama.cpp's next token is transformers' in "
            f"{verified['top1_agreement']:.1%} of {verified['tokens']} places, its token ids in {verified['token_ids_equal']} of "
            f"{verified['texts']} texts; perplexity {verified['perplexity']:.2f}, {perplexity_change(verified):+.1%}; "
            f"{verified['tokens_per_s']:.0f} tokens/s"
        )
    return Manifest(
        "export",
        "files",
        len(files),
        len(files),
        {},
        0.0,
        outputs={
            "merge": {"largest_logit_difference": proof["largest_logit_difference"]},
            "gguf": {name: files[name] for name in settings.quantizations},
        },
    )


def find_adapter(run: Run, named: str | None) -> Path:
    folder = Path(named).expanduser().resolve() if named else run.local_copy("adapter")
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} is no PEFT adapter: it has no adapter_config.json", "Name one with --adapter, or run `deepred train`."
        )
    return folder


def check_conversations(theme: Theme) -> list[list[dict[str, str]]]:
    """Prompts on which adapter, merged model and GGUF are compared."""
    system = theme.system
    style = [item for item in theme.evaluation if item.kind == "style"]
    items = sorted(style, key=lambda item: item.category != "plan")[:CHECK_PROMPTS]
    return [[{"role": "system", "content": system}, {"role": "user", "content": item.prompt}] for item in items]


@ray.remote(max_retries=0)
def merge(run: Run, base: str, adapter: str, conversations: list[Any], tolerance: float) -> None:
    """Write merged/ in half precision: finer than bf16 for weights of this size, and what F16 GGUF holds exactly.

    Raises:
        ModelError: the adapter is for another base.
        DeepredError: merged model and adapter differ by more than the tolerance.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run.here(adapter)
    base = models.here(base)
    tokenizer = AutoTokenizer.from_pretrained(base, **models.loading())
    model = load_adapter(base, adapter)
    prompts = [
        tokenizer(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True), add_special_tokens=False)[
            "input_ids"
        ]
        for chat in conversations
    ]
    with torch.no_grad():
        tuned = [model(torch.tensor([ids])).logits[0] for ids in prompts]
        with run.artefact(MERGED) as folder:
            model.merge_and_unload().half().save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            forget_code(folder)
            merged: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **models.weights()).eval()
            difference = max(
                float((merged(torch.tensor([ids])).logits[0] - logits).abs().max())
                for ids, logits in zip(prompts, tuned, strict=True)
            )
            if difference > tolerance:
                raise DeepredError(
                    f"merged model and adapter differ by {difference:.3f} in a logit, {tolerance} is allowed",
                    "Raise --export.tolerance only if you know why they differ.",
                )
            answers = [spoken(merged, ids, greedy(merged, ids, tokenizer)) for ids in prompts]
            held_out = [
                spoken(merged, before, whole)
                for prompt, answer in held_out_answers(run)
                for before, whole in whole_tokens(tokenizer, prompt, answer)
            ]
            proof = {"largest_logit_difference": difference, "answers": answers, "held_out": held_out or answers}
            (folder / "merge.json").write_text(json.dumps(proof))


def forget_code(folder: Path) -> None:
    """Take from the model's files where code of its own is to be found, unless it may run: llama.cpp's converter would fetch it
    and run it."""
    if models.trusted():
        return
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text("utf-8"))
        if values.pop("auto_map", None):
            (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False), "utf-8")


def load_adapter(base: str, adapter: str) -> Any:
    """The base in full precision, whatever it was trained in, with the adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **models.weights())
    try:
        return PeftModel.from_pretrained(model, adapter).eval()
    except (RuntimeError, ValueError) as error:
        if not any(sign in str(error) for sign in ("size mismatch", "arget modules")):
            raise
        trained_on = json.loads(Path(adapter, "adapter_config.json").read_text()).get("base_model_name_or_path")
        raise ModelError(
            f"adapter {adapter} does not fit the base {base}: {str(error).splitlines()[0]}",
            f"It was trained on {trained_on}: name that with --model.",
        ) from error


def greedy(model: Any, ids: list[int], tokenizer: Any) -> list[int]:
    """Token ids of the greedy answer, up to whatever ends it or to the first that is a part of a character."""
    import torch

    made = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids)),
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
        pad_token_id=tokenizer.eos_token_id,
    )
    ends = model.generation_config.eos_token_id
    ended_by = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    answer = [int(token) for token in made[0][len(ids) :]]
    return list(takewhile(lambda token: token not in ended_by and not is_fragment(tokenizer, token), answer))


def is_fragment(tokenizer: Any, token: int) -> bool:
    """Whether the token is a part of a character's bytes; llama.cpp's server tells nothing of such a one by itself."""
    return "\ufffd" in tokenizer.decode([token])


def whole_tokens(tokenizer: Any, prompt: list[int], answer: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The runs of the answer that have no fragment of a character, each with all that stands before it."""
    place = 0
    for fragments, group in groupby(answer, key=lambda token: is_fragment(tokenizer, token)):
        start, place = place, place + len(list(group))
        if not fragments:
            yield prompt + answer[:start], answer[start:place]


def spoken(model: Any, prompt: list[int], answer: list[int]) -> Spoken:
    """The two, with what the model thinks of the answer."""
    import torch

    logits = model(torch.tensor([prompt + answer]), logits_to_keep=len(answer) + 1).logits[0, :-1]
    nats = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(answer, dtype=torch.long), reduction="sum")
    return {"prompt": prompt, "answer": answer, "nats": float(nats)}


def held_out_answers(run: Run) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids of answers in held-out conversations, without the ends of their turns, and of all that stands before each; together
    about `HELD_OUT_TOKENS` of answers, and none beyond llama.cpp's context. None for an adapter from elsewhere."""
    if not run.table("tokens").files(".parquet"):
        return
    left = HELD_OUT_TOKENS
    for conversation in Batches(run.table("tokens"), "val").conversations():
        place = 0
        for trained, group in groupby(conversation.trained.tolist()):
            start, place = place, place + len(list(group))
            if trained and place - start > 1 and place < CONTEXT_TOKENS:
                yield conversation.ids[:start].tolist(), conversation.ids[start : place - 1].tolist()
                left -= place - start
            if left <= 0:
                return


@ray.remote(max_retries=0)
def convert(
    run: Run,
    name: str,
    quantization: str,
    proof: dict[str, list[Spoken]],
    conversations: list[Any],
    texts: list[str],
    tolerance: float,
) -> None:
    """Write one GGUF file with llama.cpp's own tools, load it in llama.cpp and compare it with the merged model.

    Raises:
        DeepredError: a tool failed, llama.cpp reads texts or chats otherwise than the base's tokenizer, or a file that holds the
            weights exactly answers otherwise by more than the tolerance.
    """
    from transformers import AutoTokenizer

    merged = run.local_copy(MERGED)
    with run.artefact(name) as folder:
        file = folder / f"{Path(name).name}.gguf"
        if quantization in FILE_TYPES:
            f16 = name.removesuffix(quantization) + "f16"
            whole = run.local_copy(f16) / f"{Path(f16).name}.gguf"
            source = whole if whole.exists() else folder / "f16.gguf"
            if source != whole:
                converter(merged, source, "f16")
            tool([*quantizer(), str(source), str(file), quantization.upper()], file)
            if source != whole:
                source.unlink()
        else:
            converter(merged, file, quantization)
        llama, tokenizer = Llama(file), AutoTokenizer.from_pretrained(merged, **models.loading())
        verified = verify_texts(llama, tokenizer, conversations, texts)
        verified |= verify_answers(llama, proof["answers"], proof["held_out"])
        if quantization in EXACT and verified["largest_margin"] > tolerance:
            raise DeepredError(
                f"llama.cpp holds another token likelier than the merged model's by {verified['largest_margin']} nats in a "
                f"{quantization} file, {tolerance} is allowed",
                "llama.cpp may not know this architecture well; ask the model with vLLM instead.",
            )
        (folder / "verified.json").write_text(json.dumps(verified, ensure_ascii=False))


def converter(merged: Path, file: Path, kind: str) -> None:
    tool([sys.executable, "-m", "convert_hf_to_gguf", str(merged), "--outfile", str(file), "--outtype", kind], file)


def tool(command: Sequence[str], file: Path) -> None:
    """Run one of llama.cpp's tools. Raises DeepredError if the file is not there afterwards."""
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    print(made.stdout, made.stderr)
    if made.returncode or not file.is_file():
        last = (made.stderr.strip().splitlines() or ["no message"])[-1]
        raise DeepredError(f"no {file.name} was made: {last}", "The log of the run has all that llama.cpp's tools said.")
