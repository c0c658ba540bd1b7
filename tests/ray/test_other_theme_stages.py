"""Every stage with a second theme, by data files alone: only the engine is scripted, in its voice, and the model is tiny."""

import hashlib
import json
import random
import shutil
import sys
from functools import partial
from pathlib import Path

import faults
import other_theme
import pytest
import ray

from deepred_ray.config import Config
from deepred_ray.engine import EngineSettings, Messages, Reply, Sampling
from deepred_ray.pipeline import run_stages
from deepred_ray.runs import STAGES
from deepred_ray.stages import asking, synthesize
from deepred_ray.stages.asking import Source

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

ACTS = ("trim", "polish", "mend", "watch", "count", "carry", "tar", "haul", "splice", "mark", "measure", "scrape")
THINGS = ("lamp", "wick", "lantern", "rope", "boat", "net", "anchor", "bell", "oar", "mast", "rudder", "beacon")
TIMES = ("at dusk", "before the tide", "in the fog", "after midnight", "under a low sky", "in the frost", "at first light")
QUARTERS = ("north", "south", "east", "west", "round to the north", "clean round the tower")


class KeeperEngine:
    """Goes on from its opening with words of the page that it was shown, in the keeper's voice."""

    def __init__(self, settings: EngineSettings) -> None:
        pass

    async def chat(self, messages: Messages, sampling: Sampling, *, opening: str = "", adapter: bool = False) -> Reply:
        rng = random.Random(hashlib.sha256(json.dumps([messages, opening]).encode()).hexdigest())
        page = messages[0]["content"].partition("an old book:\n")[2]
        told = sorted({word for word in page.split() if word.isalpha() and word.islower() and len(word) > 5})
        seen = rng.sample(told, min(3, len(told)))
        first, second, third = rng.sample(ACTS, 3)
        one, two, three = rng.sample(THINGS, 3)
        text = (
            f" told me of {', '.join(seen) or 'nothing'}. I {first} the {one} {rng.choice(TIMES)}, {second} the {two} "
            f"{rng.choice(TIMES)} and {third} my {three}; the wind went {rng.choice(QUARTERS)} {rng.randrange(2, 90)} times."
        )
        return Reply(text, "stop", 100, len(text.split()))

    def shutdown(self) -> None:
        """There is nothing to end."""


def keeper_maker(config: Config) -> "KeeperMaker":
    return KeeperMaker()


class KeeperMaker:
    def __call__(self, source: Source) -> KeeperEngine:
        return KeeperEngine(EngineSettings(source.model, 4096, 0.0))


def test_a_second_theme_goes_through_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(synthesize, "run", partial(synthesize.run, make_engine=KeeperEngine))
    monkeypatch.setattr(asking, "EngineMaker", keeper_maker)
    settings = faults.SMALL | {
        "synthesize": faults.SMALL["synthesize"] | {"contract": "plain"},
        "evaluate": faults.SMALL["evaluate"] | {"prompts": 16},
    }
    config = Config.model_validate(
        settings
        | {
            "run": "light",
            "data_root": str(tmp_path),
            "theme": str(other_theme.FOLDER),
            "model": str(faults.write_model(tmp_path / "model")),
            "acquire": {"input": [str(other_theme.BOOKS)]},
            "corpus": {"min_matches": 3, "size": 600},
        }
    )
    manifests = {manifest.stage: manifest for manifest in run_stages(config, STAGES, fresh=False)}
    assert list(manifests) == list(STAGES)
    assert (manifests["acquire"].rows_in, manifests["acquire"].kept) == (3, 3)
    assert manifests["synthesize"].kept == faults.SLOTS_WANTED
    assert manifests["synthesize"].outputs["unfilled"] == 0
    run = tmp_path / "light"
    other_theme.check_persona(run)
    assert other_theme.traces_of_the_first_theme(run) == []
    # The same folder elsewhere is the same theme: nothing is made again, and nothing is refused.
    elsewhere = shutil.copytree(other_theme.FOLDER, tmp_path / "elsewhere" / "keeper")
    again = run_stages(config.model_copy(update={"theme": str(elsewhere)}), STAGES, fresh=False)
    assert [manifest.finished_at for manifest in again] == [manifest.finished_at for manifest in manifests.values()]
