"""Synthesis against the bare engine: the same model and parameters, the same requests, output tokens a second.

    python benchmarks/synthesis_speed.py mirror/files --books 6

First the stage fills slots, as `deepred synthesize` does, and notes its replies. Then vLLM alone is given every request that the
stage made, all at once, and at last some of them one after another. Start-up is in none of the times. The bare engine draws other
replies, so tokens a second are compared and not seconds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import books
from processes import deepred

from deepred_ray import cluster, models
from deepred_ray.config import Config
from deepred_ray.engine import EngineSettings, cpu_options, environment
from deepred_ray.runs import Run
from deepred_ray.stages import trial
from deepred_ray.stages.filling import Recipe
from deepred_ray.stages.synthesize import engine_maker, engine_settings, in_task, planned_slots, recipe_of
from deepred_ray.stages.tables import Row, passage_texts
from deepred_ray.text import chatml, prompts
from deepred_ray.text.reject import Reject
from deepred_ray.theme import Theme

TRIAL = "speed"


def requests_of(recipe: Recipe, slots: dict[str, Row], rows: list[Row]) -> list[Row]:
    """Every request that the stage made: its messages and what had been said, the answer's opening, the tokens it may have."""
    made = []
    for row in rows:
        prompt = recipe.prompt(slots[row["example_id"]], row["attempt"])
        said: list[prompts.Turn] = []
        for number, reply in enumerate(row["replies"]):
            opening = prompt.openings[number] if prompt.openings else ""
            made.append({"messages": prompt.messages(said), "opening": opening, "max_tokens": prompt.max_tokens})
            if prompt.questions:
                answer = chatml.parse_answer(reply.removeprefix(opening), "stop", opening)
                said.append(prompts.Turn(prompt.questions[number], "" if isinstance(answer, Reject) else answer))
    return made


def bare(file: Path, alone: int) -> None:
    """In a process of its own: tokens a second of vLLM with all requests of the file, and with `alone` of them one by one."""
    told = json.loads(file.read_text())
    os.environ |= environment()
    from vllm import LLM, SamplingParams

    options = cpu_options(told["kv_cache_gib"])
    engine = LLM(told["model"], max_model_len=told["max_model_len"], disable_log_stats=True, **options)
    tokenizer: Any = engine.get_tokenizer()
    texts, params = [], []
    for request in told["requests"]:
        text = tokenizer.apply_chat_template(request["messages"], add_generation_prompt=True, tokenize=False)
        texts.append({"prompt_token_ids": tokenizer(text + request["opening"], add_special_tokens=False)["input_ids"]})
        params.append(SamplingParams(max_tokens=request["max_tokens"], **told["sampling"]))
    speeds = {}
    for name, count in (("all", len(texts)), ("one", alone)):
        started, tokens = time.monotonic(), 0
        for group in [slice(0, count)] if name == "all" else [slice(place, place + 1) for place in range(count)]:
            tokens += sum(len(done.outputs[0].token_ids) for done in engine.generate(texts[group], params[group], use_tqdm=False))
        speeds[name] = tokens / (time.monotonic() - started)
    print("SPEEDS " + json.dumps(speeds))


def run_bare(model: EngineSettings, recipe: Recipe, requests: list[Row], alone: int, folder: Path) -> dict[str, float]:
    sampling = recipe.settings
    told = {
        "model": model.model,
        "max_model_len": model.max_model_len,
        "kv_cache_gib": model.kv_cache_gib,
        "requests": requests,
        "sampling": {
            "temperature": sampling.temperature,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "bad_words": list(recipe.theme.unspoken),
        },
    }
    file = folder / "requests.json"
    file.write_text(json.dumps(told))
    done = subprocess.run([sys.executable, __file__, "--bare", str(file), "--alone", str(alone)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    line = next(line for line in done.stdout.splitlines() if line.startswith("SPEEDS "))
    return dict(json.loads(line.removeprefix("SPEEDS ")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    if "--bare" in sys.argv:
        parser.add_argument("--bare", type=Path)
        parser.add_argument("--alone", type=int)
        options = parser.parse_args()
        return bare(options.bare, options.alone)
    books.add_arguments(parser)
    parser.add_argument("--slots", type=int, default=256, help="slots to fill (default: 256)")
    parser.add_argument("--alone", type=int, default=12, help="requests to send one at a time (default: 12)")
    parser.add_argument(
        "--repeat", type=int, default=1, help="how often both are measured, in turns; the median counts (default: 1)"
    )
    parser.add_argument("--model", default="smollm2", help="model for both, by the plain contract (default: smollm2)")
    parser.add_argument(
        "--in-flight", type=int, default=128, help="slots that the stage's engine works on at a time (default: 128)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="deepred-speed-") as folder:
        run = books.write_run(Path(folder), "speed", books.chosen_books(options))
        subprocess.run(deepred("corpus", "--data-root", run.root, "--run", run.name), check=True, stdout=subprocess.DEVNULL)
        settings = {"examples": options.slots, "contract": "plain", "in_flight": options.in_flight}
        config = Config.model_validate({"run": run.name, "data_root": run.root, "model": options.model, "synthesize": settings})
        results = [measure(run, config, Path(folder), options.alone) for _ in range(options.repeat)]
    name = models.resolve(options.model).rsplit("/", 1)[-1]
    print(f"{name}, {os.cpu_count()} cores, {options.slots} slots, {options.in_flight} in flight; output tokens/s:")
    for name, label in (("stage", "the stage"), ("all", "bare, all at once"), ("one", "bare, one at a time")):
        values = [result[name] for result in results]
        print(f"{label:<24} {statistics.median(values):7.1f}  ({', '.join(f'{value:.1f}' for value in values)})")
    for name, label in (("all", "stage to all at once"), ("one", "stage to one at a time")):
        ratios = sorted(result["stage"] / result[name] for result in results)
        print(f"{label:<24} {statistics.median(ratios):.2f}")
    print(
        f"yield {results[-1]['accepted'] / results[-1]['attempts']:.1%} of {results[-1]['attempts']:.0f} attempts; "
        f"rejected: {dict(results[-1]['rejected'])}"
    )


def measure(run: Run, config: Config, folder: Path, alone: int) -> dict[str, Any]:
    theme = Theme.find(config.theme)
    cluster.connect(config.ray)
    try:
        recipe = recipe_of(run, config, theme)
        slots = in_task(planned_slots, run, config, theme)
        found = trial.run_trial(run, recipe, engine_settings(config), engine_maker(config), slots, TRIAL)
        rows = trial.candidates(run, TRIAL)
    finally:
        cluster.disconnect()
    texts = passage_texts(run, {slot["chunk_id"] for slot in slots if slot["chunk_id"]})
    by_id = {slot["example_id"]: slot | {"text": texts.get(slot["chunk_id"])} for slot in slots}
    speeds = run_bare(engine_settings(config), recipe, requests_of(recipe, by_id, rows), alone, folder)
    return {
        "stage": found.tokens_per_s,
        "accepted": found.accepted,
        "attempts": found.attempts,
        "rejected": Counter(found.rejected).most_common(),
        **speeds,
    }


if __name__ == "__main__":
    main()
