"""Evaluation against the bare engine: three systems, the same prompts, output tokens a second.

    python benchmarks/evaluation_speed.py RUN --data-root runs --prompts 100

RUN is a trained run. First the stage asks base, base with the system prompt and tuned, as `deepred evaluate` does, in a folder
aside. Then vLLM alone is given all of the same prompts: those of the base at once, then those of the adapter. Prompts of several
turns are left out. Start-up is in none of the times.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from deepred_ray import cluster, models
from deepred_ray.config import Config, load
from deepred_ray.engine import cpu_options, environment
from deepred_ray.runs import Run
from deepred_ray.stages import asking
from deepred_ray.stages.evaluate import SEED
from deepred_ray.text.items import Item, stratified
from deepred_ray.theme import Theme


def bare(file: Path) -> None:
    """In a process of its own: tokens a second of vLLM with all requests of the file."""
    told = json.loads(file.read_text())
    os.environ |= environment()
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    options: dict[str, Any] = cpu_options(told["kv_cache_gib"])
    engine = LLM(
        told["model"],
        max_model_len=asking.CONTEXT_TOKENS,
        disable_log_stats=True,
        enable_lora=True,
        max_lora_rank=asking.adapter_rank(told["adapter"]),
        **options,
    )
    tokenizer: Any = engine.get_tokenizer()
    params = SamplingParams(max_tokens=told["max_tokens"], temperature=0.0)
    adapter = LoRARequest("adapter", 1, told["adapter"])
    groups = {}
    for name in ("base", "tuned"):
        texts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in told[name]]
        groups[name] = [{"prompt_token_ids": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in texts]
    started, tokens = time.monotonic(), 0
    for name, prompts in groups.items():
        made = engine.generate(prompts, params, use_tqdm=False, lora_request=adapter if name == "tuned" else None)
        tokens += sum(len(done.outputs[0].token_ids) for done in made)
    print("SPEED " + json.dumps(tokens / (time.monotonic() - started)))


def run_bare(config: Config, base: str, adapter: str, items: list[Item], persona: str, folder: Path) -> float:
    plain = [[{"role": "user", "content": item.prompt}] for item in items]
    prompted = [[{"role": "system", "content": persona}, *chat] for chat in plain]
    told = {
        "model": base,
        "adapter": adapter,
        "kv_cache_gib": config.synthesize.kv_cache_gib,
        "max_tokens": config.evaluate.max_tokens,
        "base": plain + prompted,
        "tuned": prompted,
    }
    file = folder / "requests.json"
    file.write_text(json.dumps(told))
    done = subprocess.run([sys.executable, __file__, "--bare", str(file)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    line = next(line for line in done.stdout.splitlines() if line.startswith("SPEED "))
    return float(json.loads(line.removeprefix("SPEED ")))


def run_stage(config: Config, base: str, adapter: str, items: list[Item], persona: str, folder: Path) -> float:
    systems = asking.systems(config, base, adapter, None)
    cluster.connect(config.ray)
    try:
        aside = Run(str(folder), "speed")
        aside.scratch.mkdir(parents=True, exist_ok=True)
        _, speeds = asking.ask(aside, config, systems, items, persona, asking.plan(systems, items, 0, SEED))
        aside.discard("answers")
    finally:
        cluster.disconnect()
    return speeds[base]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    if "--bare" in sys.argv:
        parser.add_argument("--bare", type=Path)
        return bare(parser.parse_args().bare)
    parser.add_argument("run", help="name of a trained run")
    parser.add_argument("--data-root", default="")
    parser.add_argument("--prompts", type=int, default=100, help="prompts for each system (default: 100)")
    parser.add_argument("--repeat", type=int, default=1, help="how often both are measured, in turns (default: 1)")
    options = parser.parse_args()
    run = Run(Config(data_root=options.data_root).root, options.run)
    config = load((run.folder / "config.json").read_json(), options.run)
    theme = Theme.find(config.theme)
    items = stratified([item for item in theme.evaluation if not item.lead], options.prompts, SEED)
    base, adapter = models.resolve(config.model), str(run.local_copy("adapter"))
    with tempfile.TemporaryDirectory(prefix="deepred-speed-") as folder:
        arms = [
            (
                run_stage(config, base, adapter, items, theme.system, Path(folder)),
                run_bare(config, base, adapter, items, theme.system, Path(folder)),
            )
            for _ in range(options.repeat)
        ]
    print(f"{os.cpu_count()} cores, {len(items)} prompts, 3 systems, {config.evaluate.max_tokens} tokens at most; output tokens/s:")
    for label, values in (("the stage", [stage for stage, _ in arms]), ("bare", [alone for _, alone in arms])):
        print(f"{label:<12} {statistics.median(values):7.1f}  ({', '.join(f'{value:.1f}' for value in values)})")
    print(f"{'ratio':<12} {statistics.median(stage / alone for stage, alone in arms):7.2f}")


if __name__ == "__main__":
    main()
