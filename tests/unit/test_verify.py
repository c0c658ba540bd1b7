"""What is said of a GGUF file: where llama.cpp agrees with the merged model, by how much it does not, and its perplexity."""

import math
from typing import Any

import pytest

from deepred_ray.llama import Score
from deepred_ray.stages.verify import perplexity_change, verify_answers

PROMPT = [1, 2]


class Told:
    """A llama.cpp whose thoughts are given: for each token of a text its probability, the likeliest one, and that one's."""

    def __init__(self, thoughts: dict[int, tuple[float, int, float]]) -> None:
        self.thoughts = thoughts

    def score(self, prompt: list[int], ids: list[int]) -> list[Score]:
        return [Score(math.log(own), best, math.log(top)) for own, best, top in (self.thoughts[token] for token in ids)]

    def complete(self, prompt: list[int], max_tokens: int) -> list[int]:
        return [best for _, best, _ in self.thoughts.values()][:max_tokens]


def answer(*ids: int, nats: float = 0.0) -> dict[str, Any]:
    return {"prompt": PROMPT, "answer": list(ids), "nats": nats}


def test_a_file_that_says_the_same() -> None:
    llama = Told({7: (0.5, 7, 0.5), 8: (0.25, 8, 0.25)})
    found = verify_answers(llama, [answer(7, 8)], [answer(7, 8, nats=math.log(8))])
    assert (found["top1_agreement"], found["tokens"], found["largest_margin"]) == (1.0, 2, 0.0)
    assert (found["greedy_equal"], found["answers"], found["held_out_tokens"]) == (1, 1, 2)
    assert found["perplexity"] == pytest.approx(math.sqrt(8))
    assert found["perplexity_merged"] == pytest.approx(math.sqrt(8))
    assert perplexity_change(found) == pytest.approx(0)


def test_the_margin_is_that_of_the_worst_place_where_another_token_is_likelier() -> None:
    llama = Told({7: (0.2, 9, 0.4), 8: (0.30, 9, 0.33), 6: (0.01, 6, 0.9)})
    found = verify_answers(llama, [answer(7, 8, 6)], [answer(8, 8, nats=2 * math.log(3))])
    assert found["top1_agreement"] == pytest.approx(1 / 3)
    assert found["largest_margin"] == pytest.approx(math.log(2), abs=1e-4)
    assert found["greedy_equal"] == 0
    assert found["perplexity"] == pytest.approx(1 / 0.3)
    assert perplexity_change(found) == pytest.approx(1 / 0.9 - 1)
