"""Choosing the examples: what only a look over all candidates can tell. Everything here runs in a task, so that the driver's
memory does not grow with the run.

INPUT   slots/, candidates/, judgements/
OUTPUT  todo/ (the empty slots, to be filled in the next pass); at the end examples/, dataset/ and rejects/synthesize
"""

from collections.abc import Iterator, Mapping, Sequence

from deepred_ray.config import Config
from deepred_ray.errors import LedgerError
from deepred_ray.review import rejected_by_hand
from deepred_ray.runs import Run
from deepred_ray.schema import CANDIDATES, EXAMPLES, REJECTS, SLOTS
from deepred_ray.stages import judging
from deepred_ray.stages.datacard import Settled, write_dataset
from deepred_ray.stages.filling import CRASH, TODO
from deepred_ray.stages.pool import write_blocks
from deepred_ray.stages.tables import Row, passage_texts
from deepred_ray.storage import Folder, rows_table
from deepred_ray.text.dedup import NearDuplicates, normalise
from deepred_ray.text.prompts import as_turns
from deepred_ray.text.splitting import Member, Splits, assert_split, held_out
from deepred_ray.theme import Theme

SAME_QUESTION = 0.85
"""Similarity from which two questions are one; the same words about another topic are less alike."""
SAME_ANSWER = 0.7
READ = ("example_id", "attempt", "question", "messages", "tokens", "seconds", "axes", "reason")


class Choice:
    """Per slot the first accepted attempt that repeats no earlier slot's questions or answers, and resembles none of the other
    split.

    In slot order, so that a run that grew chooses for its old slots what it chose before.
    """

    def __init__(self, slots: Sequence[Row], share: float, scores: Mapping[tuple[str, int], Row] | None, threshold: float) -> None:
        room = max(1, len(slots))
        self.asked: set[str] = set()
        self.questions = NearDuplicates(SAME_QUESTION, room)
        self.answers = NearDuplicates(SAME_ANSWER, room)
        self.splits = Splits(held_out((slot["book_id"] for slot in slots), share), room)
        self.scores, self.threshold = scores, threshold

    def take(self, slot: Row, row: Row) -> str | None:
        """Why an accepted attempt is no example, or None: then it is one, `row` has its split and cluster, and later ones must
        differ from it."""
        example_id, work = slot["example_id"], slot["book_id"]
        if self.scores is not None:
            score = self.scores.get((example_id, row["attempt"]), {}).get("score")
            if score is None:
                return "not_judged"
            if score < self.threshold:
                return "judged_low"
        turns = as_turns(row["messages"])
        # Only the first question: a later one is often short, and only makes sense after the answer before it.
        first = turns[0].question
        said = " ".join(turn.answer for turn in turns)
        text = conversation(row["messages"])
        if normalise(first) in self.asked or self.questions.find(first):
            return "duplicate_question"
        if self.answers.find(said):
            return "duplicate_answer"
        if self.splits.bridges(work, text):
            return "near_other_split"
        self.asked.add(normalise(first))
        self.questions.add(example_id, first)
        self.answers.add(example_id, said)
        row |= {"split": self.splits.of(work), "cluster": self.splits.add(example_id, work, text)}
        return None


def conversation(messages: Sequence[Mapping[str, str]]) -> str:
    """All that is asked and answered."""
    return "\n".join(message["content"] for message in messages[1:])


def settle(run: Run, config: Config, todo: Folder, crashed: bool) -> Settled:
    """Choose, and write the slots that stayed empty, with their passages, to `todo`; those that killed the engine if `crashed`."""
    settled = Settled()
    empty: list[Row] = []
    for slot, chosen, attempts in choose(run, config, settled):
        if chosen is None and (crashed or not any(row["reason"] == CRASH for row in attempts)):
            empty.append(slot | {"attempt": max((int(row["attempt"]) for row in attempts), default=-1) + 1})
    texts = passage_texts(run, {slot["chunk_id"] for slot in empty} - {None})
    rows = [slot | {"text": texts.get(slot["chunk_id"])} for slot in empty]
    write_blocks(todo, rows, TODO, config.synthesize.in_flight)
    return settled


def choose(run: Run, config: Config, settled: Settled) -> Iterator[tuple[Row, Row | None, list[Row]]]:
    """Each slot in order, with the attempt that fills it or None, and all its attempts; `passed_over` says why one that passed the
    validators is not the one. `settled` counts along."""
    by_slot: dict[str, list[Row]] = {}
    for row in run.table("candidates").read_table(CANDIDATES, READ).to_pylist(maps_as_pydicts="strict"):
        by_slot.setdefault(row["example_id"], []).append(row)
    slots = run.table("slots").read_table(SLOTS).to_pylist()
    settings = config.synthesize
    scores = judging.scores(run.folder, judging.judge_model(config)) if settings.judge_model else None
    choice = Choice(slots, settings.validation_share, scores, settings.judge_threshold)
    for slot in slots:
        chosen = None
        attempts = sorted(by_slot.pop(slot["example_id"], ()), key=lambda row: int(row["attempt"]))
        for row in attempts:
            reason = row["reason"] or ("superseded" if chosen else choice.take(slot, row))
            row["passed_over"] = None if row["reason"] else reason
            chosen = chosen if reason else row
            settled.attempts[slot["component"], reason or ""] += 1
            settled.tokens += row["tokens"]
            settled.seconds += row["seconds"]
        settled.slots[slot["component"]] += 1
        settled.filled[slot["component"]] += chosen is not None
        yield slot, chosen, attempts


def conclude(run: Run, config: Config, theme: Theme, model: str) -> Settled:
    """Write examples/, dataset/ and the rejects (unfilled slots, and attempts passed over), and account for every attempt.

    Raises:
        LedgerError: a work or a cluster of near-duplicates is in both splits.
    """
    settled = Settled()
    scores = judging.scores(run.folder, judging.judge_model(config)) if config.synthesize.judge_model else {}
    examples: list[Row] = []
    rejects: list[Row] = []
    for slot, chosen, attempts in choose(run, config, settled):
        rejects += [
            reject(f"{slot['example_id']}/{row['attempt']}", row["passed_over"], "an attempt that passed the validators")
            for row in attempts
            if row["passed_over"]
        ]
        if chosen is None:
            rejects.append(reject(slot["example_id"], "unfilled", f"{len(attempts)} attempts, none accepted"))
            continue
        judged = scores.get((slot["example_id"], chosen["attempt"]), {})
        examples.append(
            {name: slot[name] for name in ("example_id", "component", "source", "persona", "chunk_id", "book_id")}
            | {name: chosen[name] for name in ("attempt", "axes", "messages", "split", "cluster")}
            | {name: judged.get(name) for name in ("score", "scores", "reasons")}
        )
    try:
        assert_split([Member(row["example_id"], row["book_id"], row["split"], conversation(row["messages"])) for row in examples])
    except ValueError as error:
        raise LedgerError(f"synthesize: the split leaks: {error}") from error
    run.table("examples").write_table(rows_table(examples, EXAMPLES), "examples")
    run.table("rejects/synthesize").write_table(rows_table(rejects, REJECTS), "rejects")
    write_dataset(run, config, theme, examples, settled, model, rejected_by_hand(run))
    return settled


def reject(example_id: str, reason: str, detail: str) -> Row:
    return {"id": example_id, "reason": reason, "detail": detail, "raw": None}
