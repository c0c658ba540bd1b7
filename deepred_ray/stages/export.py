"""export: the adapter merged into its base, GGUF files of it, and proof that llama.cpp says the same.

INPUT   adapter/ and the base model
OUTPUT  merged/ (Hugging Face folder, half precision), gguf/deepred-<quantization>.gguf
fan-out one adapter, one file a quantization
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ray

from deepred_ray import models
from deepred_ray.config import Config
from deepred_ray.console import say
from deepred_ray.errors import DeepredError, ModelError
from deepred_ray.llama import Llama
from deepred_ray.runs import Manifest, Run
from deepred_ray.text.hard_texts import hard_texts
from deepred_ray.theme import Theme

CHECK_PROMPTS = 4
ANSWER_TOKENS = 32
MERGED = "merged"
MOST_OTHER = 0.1


def run(run: Run, config: Config, theme: Theme) -> Manifest:
    """Merge once, then convert and verify each quantization that is missing.

    Raises:
        DeepredError: the merged model differs from the adapter by more than the tolerance, or the converter failed.
        ModelError: the adapter or its base is missing, or llama.cpp cannot load what was written.
    """
    settings = config.export
    adapter = find_adapter(run, settings.adapter)
    base = models.resolve(config.model)
    conversations = check_conversations(theme)
    merged = run.local_copy(MERGED)
    if not (merged / "merge.json").exists():
        # In a process of its own: it gives back its memory, and a cluster puts it where there is some.
        ray.get(merge.remote(run, base, str(adapter), conversations, settings.tolerance))
    proof = json.loads((merged / "merge.json").read_text())
    say(f"  merged; logits differ by {proof['largest_logit_difference']:.4f} at most from the adapter's")
    files = {}
    for quantization in settings.quantizations:
        name = f"gguf/deepred-{quantization}"
        if not (run.local_copy(name) / "verified.json").exists():
            ray.get(
                convert.remote(run, name, quantization, proof["answers"], conversations, [item.prompt for item in theme.evaluation])
            )
        verified = json.loads((run.local_copy(name) / "verified.json").read_text())
        file = run.local_copy(name) / f"deepred-{quantization}.gguf"
        files[quantization] = verified | {"path": f"{name}/{file.name}", "bytes": file.stat().st_size}
        say(
            f"  {file.name}: {file.stat().st_size / 2**20:.0f} MiB; llama.cpp's next token is transformers' in "
            f"{verified['top1_agreement']:.1%} of {verified['tokens']} places, its token ids in {verified['token_ids_equal']} of "
            f"{verified['texts']} texts; {verified['tokens_per_s']:.0f} tokens/s"
        )
    return Manifest(
        "export",
        "files",
        len(files),
        len(files),
        {},
        0.0,
        outputs={"merge": {k: v for k, v in proof.items() if k != "answers"}, "gguf": files},
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
    items = [item for item in theme.evaluation if item.category == "plan"][:CHECK_PROMPTS]
    return [[{"role": "system", "content": system}, {"role": "user", "content": item.prompt}] for item in items]


@ray.remote(num_cpus=1, max_retries=0)
def merge(run: Run, base: str, adapter: str, conversations: list[Any], tolerance: float) -> None:
    """Write merged/ in half precision: finer than bf16 for weights of this size, and what F16 GGUF holds exactly."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
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
            merged: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            difference = max(
                float((merged(torch.tensor([ids])).logits[0] - logits).abs().max())
                for ids, logits in zip(prompts, tuned, strict=True)
            )
            if difference > tolerance:
                raise DeepredError(
                    f"merged model and adapter differ by {difference:.3f} in a logit, {tolerance} is allowed",
                    "Raise --export.tolerance only if you know why they differ.",
                )
            answers = [greedy(merged, ids, tokenizer.eos_token_id) for ids in prompts]
            (folder / "merge.json").write_text(
                json.dumps(
                    {
                        "largest_logit_difference": difference,
                        "answers": [{"prompt": ids, "answer": answer} for ids, answer in zip(prompts, answers, strict=True)],
                    }
                )
            )


def greedy(model: Any, ids: list[int], eos: int) -> list[int]:
    """Token ids of the greedy answer, without the end of the turn."""
    import torch

    made = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=ANSWER_TOKENS, do_sample=False, pad_token_id=eos
    )
    answer = [int(token) for token in made[0][len(ids) :]]
    return answer[: answer.index(eos)] if eos in answer else answer


@ray.remote(num_cpus=1, max_retries=0)
def convert(
    run: Run, name: str, quantization: str, answers: list[dict[str, list[int]]], conversations: list[Any], texts: list[str]
) -> None:
    """Write one GGUF file with llama.cpp's own converter, load it in llama.cpp and compare it with the merged model.

    Raises:
        DeepredError: the converter failed, or llama.cpp reads texts or chats otherwise than the base's tokenizer.
    """
    from transformers import AutoTokenizer

    with run.artefact(name) as folder:
        file = folder / f"deepred-{quantization}.gguf"
        made = subprocess.run(
            [
                sys.executable,
                "-m",
                "convert_hf_to_gguf",
                str(run.local_copy(MERGED)),
                "--outfile",
                str(file),
                "--outtype",
                quantization,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        print(made.stderr)
        if made.returncode or not file.is_file():
            last = (made.stderr.strip().splitlines() or ["no message"])[-1]
            raise DeepredError(f"convert-hf-to-gguf wrote no {quantization} GGUF: {last}", "The log of the run has all it said.")
        llama, tokenizer = Llama(file), AutoTokenizer.from_pretrained(run.local_copy(MERGED))
        verified = verify_texts(llama, tokenizer, conversations, texts) | verify_answers(llama, answers)
        (folder / "verified.json").write_text(json.dumps(verified, ensure_ascii=False))


def verify_texts(llama: Any, tokenizer: Any, conversations: list[Any], texts: list[str]) -> dict[str, Any]:
    """How many of the texts (`hard_texts`, with these among them) have the same token ids in llama.cpp and in transformers, and
    which have not.

    Raises:
        DeepredError: a rendered chat prompt differs, or over a tenth of the texts.
    """
    for chat in conversations:
        ours, theirs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False), llama.render(chat)
        if ours != theirs:
            raise DeepredError(f"llama.cpp renders a chat otherwise than the base's template: {theirs!r}, wanted {ours!r}")
    asked = hard_texts(sorted(set(tokenizer.all_special_tokens)), texts)
    other = [text for text in asked if llama.tokenize(text) != list(tokenizer(text, add_special_tokens=False)["input_ids"])]
    if len(other) > MOST_OTHER * len(asked):
        raise DeepredError(
            f"llama.cpp splits {len(other)} of {len(asked)} texts otherwise than the base's tokenizer, such as {other[0]!r}",
            "llama.cpp may not know this tokenizer; ask its model with vLLM instead.",
        )
    return {"texts": len(asked), "token_ids_equal": len(asked) - len(other), "token_ids_differ": other}


def verify_answers(llama: Any, answers: list[dict[str, list[int]]]) -> dict[str, Any]:
    """Top-1 agreement under teacher forcing: how often llama.cpp's likeliest next token is the merged model's.

    `greedy_equal` counts whole greedy answers that are the same; `tokens_per_s` is of these, prompts read before.
    """
    same = total = equal = 0
    seconds = 0.0
    for item in answers:
        prompt, answer = item["prompt"], item["answer"]
        same += sum(llama.complete(prompt + answer[:place], 1)[:1] == [token] for place, token in enumerate(answer))
        total += len(answer)
        started = time.perf_counter()
        equal += llama.complete(prompt, len(answer)) == answer
        seconds += time.perf_counter() - started
    return {
        "top1_agreement": same / total if total else 1.0,
        "tokens": total,
        "greedy_equal": equal,
        "answers": len(answers),
        "tokens_per_s": round(total / seconds, 1) if seconds else 0.0,
    }
