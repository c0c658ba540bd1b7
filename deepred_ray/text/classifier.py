"""A small classifier that tells a persona's text from neutral text: logistic regression on words and proportions."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deepred_ray.text.metrics import Rate, rate
from deepred_ray.text.prose import words
from deepred_ray.text.style import StyleRules, proportions

PERSONA = "persona"
LENGTHS = (22, 35, 50, 70, 100, 140)
"""Words that texts are cut to in turn, so that length tells nothing."""
FOLDS = 5
INVERSE_REGULARIZATION = 10.0
PROPORTION_WEIGHT = 0.1
PERSONA_FROM = 0.5
"""Probability from which a text counts as the persona's."""
_CONTRACTION = re.compile(r"'(?:s|re|ll|ve|d|t|m)$")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of texts that a classifier was not trained on: how many it put where they belong, in all and by source."""

    overall: Rate
    sources: dict[str, Rate]

    def as_dict(self) -> dict[str, Any]:
        return {"overall": asdict(self.overall), "sources": {name: asdict(each) for name, each in self.sources.items()}}


def cut(texts: Sequence[str]) -> list[str]:
    """The texts, each cut to one of `LENGTHS`, drawn by its own hash; shorter ones stay whole, doubles go."""
    return [
        " ".join(text.split()[: LENGTHS[int.from_bytes(hashlib.sha256(text.encode()).digest()[:2]) % len(LENGTHS)]])
        for text in dict.fromkeys(texts)
    ]


def tokens(text: str) -> list[str]:
    # Whether an author contracts is no sign of the persona.
    return [_CONTRACTION.sub("", word) for word in words(text)]


def balanced(names: Sequence[str]) -> list[float]:
    """Weights, 1 on average, by which the persona's texts weigh as much as all others, and each source as much as any of its
    side."""
    sizes = Counter(names)
    sides = Counter(name.startswith(PERSONA) for name in sizes)
    return [len(names) / len(sides) / sides[name.startswith(PERSONA)] / sizes[name] for name in names]


class StyleClassifier:
    """Logistic regression on TF-IDF of words, without contractions, and on `style.proportions`, with equal weight for persona
    and neutral texts (Pedregosa et al. 2011, "Scikit-learn: machine learning in Python"). Deterministic.

    `sources` maps a name to texts; those of a name that begins with `PERSONA` are the persona's. Every fifth text of each source is
    held out to measure `accuracy`; then it is trained on all. Raises ValueError for a source of under `FOLDS` texts.
    """

    def __init__(self, sources: Mapping[str, Sequence[str]], rules: StyleRules) -> None:
        self.rules = rules
        rows = [(name, text, number % FOLDS == 0) for name, texts in sources.items() for number, text in enumerate(cut(texts))]
        if few := [name for name in sources if sum(row[0] == name for row in rows) < FOLDS]:
            raise ValueError(f"the classifier of style has under {FOLDS} texts of {', '.join(few)}")
        self.sizes = {name: sum(row[0] == name for row in rows) for name in sources}
        held = [row for row in rows if row[2]]
        self._fit([row for row in rows if not row[2]])
        guesses = self.is_persona([text for _, text, _ in held])
        right = [(name, guess == name.startswith(PERSONA)) for (name, *_), guess in zip(held, guesses, strict=True)]
        by_source = {source: rate(ok for name, ok in right if name == source) for source in sources}
        self.accuracy = Accuracy(rate(ok for _, ok in right), by_source)
        self._fit(rows)

    def _fit(self, rows: Sequence[tuple[str, str, bool]]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        texts = [text for _, text, _ in rows]
        self._words: Any = TfidfVectorizer(analyzer=tokens, sublinear_tf=True, min_df=2).fit(texts)
        self._scaler: Any = StandardScaler().fit([proportions(text, self.rules) for text in texts])
        self._model: Any = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=2000)
        is_persona = [name.startswith(PERSONA) for name, *_ in rows]
        self._model.fit(self._features(texts), is_persona, sample_weight=balanced([name for name, *_ in rows]))

    def _features(self, texts: Sequence[str]) -> Any:
        from scipy.sparse import csr_matrix, hstack

        scaled = self._scaler.transform([proportions(text, self.rules) for text in texts])
        return hstack([csr_matrix(PROPORTION_WEIGHT * scaled), self._words.transform(texts)]).tocsr()

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """That each text is the persona's, 0 to 1."""
        if not texts:
            return []
        place = list(self._model.classes_).index(True)
        return [float(each) for each in np.asarray(self._model.predict_proba(self._features(texts)))[:, place]]

    def is_persona(self, texts: Sequence[str]) -> list[bool]:
        return [probability >= PERSONA_FROM for probability in self.probabilities(texts)]
