"""An engine without a model: what it answers is a function of what it is asked, mostly good and now and then bad on purpose."""

import asyncio
import hashlib
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import ray

from deepred_ray.config import Config
from deepred_ray.engine import EngineSettings, Messages, Reply, Sampling
from deepred_ray.stages.asking import Source

ACTS = ("repair", "measure", "share", "guard", "rebuild", "study", "count", "warm", "mend", "plant", "chart", "polish")
THINGS = ("engine", "telescope", "shelter", "garden", "machine", "laboratory", "library", "canal", "workshop", "furnace")
PLACES = ("beneath the frost", "beside the long canal", "under the evening sky", "near the northern pole", "in the red desert")
MANNERS = ("without haste", "shift after shift", "by lamplight", "with cold hands", "to the last bolt", "while the children sing")
REASONS = ("a common danger is lighter", "knowledge grows", "hope outlives the winter", "every mind counts", "labour is honoured")
FLAWS = ("empty", "truncated", "meta_talk", "out_of_character")
HOLD_AFTER = 40  # replies; more than a shard of candidates


def prose(rng: random.Random) -> str:
    """Words that end an answer which began with "we" or "our people"; some 300 characters."""
    first, second, third = rng.sample(ACTS, 3)
    one, two, three = rng.sample(THINGS, 3)
    return (
        f" {first} the {one} {rng.choice(PLACES)} {rng.choice(MANNERS)}, for {rng.choice(REASONS)} among comrades. "
        f"Our people {second} a {two} {rng.choice(MANNERS)}; together they {third} the old {three}. "
        f"So the plan of the colony says, and {rng.choice(REASONS)} wherever citizens of Mars {rng.choice(ACTS)} something new."
    )


def write_model(folder: Path) -> Path:
    """A Hugging Face folder of a tiny model: its shape, which is all that is asked of it here."""
    folder.mkdir()
    shape = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps(shape | {"vocab_size": 64, "architectures": ["LlamaForCausalLM"]}))
    return folder


class ScriptedEngine:
    """While a file `hold` lies in the model's folder, it falls silent after `HOLD_AFTER` replies. It dies of a request with what
    stands in a file `poison` there, and then answers nobody. Its process leaves its id in `pids/`, with the node that it is on."""

    flawed = 0.3  # share of bad replies

    def __init__(self, settings: EngineSettings) -> None:
        folder = Path(settings.model)
        self.hold, poison = folder / "hold", folder / "poison"
        self.poison = poison.read_text() if poison.exists() else None
        self.dead = False
        self.replies = 0
        (folder / "pids").mkdir(exist_ok=True)
        (folder / "pids" / str(os.getpid())).write_text(ray.get_runtime_context().get_node_id())

    async def chat(self, messages: Messages, sampling: Sampling, *, opening: str = "", adapter: bool = False) -> Reply:
        self.dead = self.dead or bool(self.poison and any(self.poison in message["content"] for message in messages))
        if self.dead:
            raise RuntimeError("the engine died")
        self.replies += 1
        while self.replies > HOLD_AFTER and self.hold.exists():
            await asyncio.sleep(0.1)
        rng = random.Random(hashlib.sha256(json.dumps([messages, opening]).encode()).hexdigest())
        flaw = rng.choice(FLAWS) if rng.random() < self.flawed else ""
        text, finish = prose(rng), "stop"
        if flaw == "empty":
            text = ""
        elif flaw == "truncated":
            text, finish = text.split(".")[0][:30], "length"
        elif flaw == "meta_talk":
            text = f" are asked, and as an AI language model the answer is no.{text}"
        elif flaw == "out_of_character":
            text += " That is what I think, and my plan is my own."
        if sampling.schema and text and finish == "stop":
            text = json.dumps(self.obeying(json.loads(sampling.schema)["properties"], messages, rng, text))
        return Reply(text, finish, 100, len(text.split()))

    def obeying(self, properties: dict[str, Any], messages: Messages, rng: random.Random, text: str) -> dict[str, Any]:
        """What the schema wants: questions with words of the passage, answers, one of the values allowed, or a score."""
        told = re.split("\n\n(?:Write|Adapt)", messages[-1]["content"])[0].split("\n")[1:] or ["it"]
        long = sorted({word.strip(".,;:!?") for line in told for word in line.split() if len(word) > 7})
        words = " and ".join(rng.sample(long, min(3, len(long))))
        made: dict[str, Any] = {}
        for name, wanted in properties.items():
            if "enum" in wanted:
                made[name] = wanted["enum"][0]
            elif wanted["type"] == "object":
                made[name] = {"reason": "as far as one can see", "score": rng.choice((2, 3, 4, 5))}
            elif name.startswith("question"):
                made[name] = f"What of {' and '.join(told[-1].split()[:9])} {words}, {rng.choice(MANNERS)}, {rng.choice(PLACES)}?"
            elif name.startswith("answer"):
                made[name] = f"Comrade, we{text}" if name == "answer" else f"Friend, we{prose(rng)}"
            else:
                made[name] = "rye"
        return made

    def shutdown(self) -> None:
        """There is nothing to end."""


class StubbornEngine(ScriptedEngine):
    flawed = 0.9


class ScriptedMaker:
    """Makes the engine of an evaluated model, as `asking.EngineMaker` does."""

    def __init__(self, config: Config) -> None:
        self.longest = config.synthesize.max_model_len

    def __call__(self, source: Source) -> ScriptedEngine:
        return ScriptedEngine(EngineSettings(source.model, self.longest, 0.0))
