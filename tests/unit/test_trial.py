"""Trials: which slots stand for all, what a trial says of the run, and what two models are compared by."""

import itertools
import math
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runfolder import MAIN, attempt, slot, synthesized, write

from deepred_ray.config import Config
from deepred_ray.schema import CANDIDATES
from deepred_ray.stages import trial
from deepred_ray.stages.trial import Trial, benchmark_row, candidates, config_of_model, contracts, forecast_row, spread

TRIAL = Trial(
    model="maker/small-model",
    contract="plain",
    slots=10,
    attempts=40,
    accepted=10,
    rejected={"copied": 20, "markup": 6, "off_theme": 2, "language": 1, "unfinished": 1},
    tokens=4000,
    seconds=20.0,
    first_token_s=0.125,
    start_s=31.0,
)


# --- which slots


@given(st.integers(0, 200), st.integers(1, 250))
def test_slots_at_equal_distances(count: int, n: int) -> None:
    slots = [slot("core", number, "none", None, "b", "primary") for number in range(count)]
    found = [each["number"] for each in spread(slots, n)]
    assert len(found) == min(n, count)
    gaps = {later - earlier for earlier, later in itertools.pairwise(found)}
    assert gaps <= ({count // len(found), -(-count // len(found))} if found else set())
    assert found[:1] == [0][: len(found)]


def test_every_component_of_a_plan_is_tried() -> None:
    slots = [{"component": "core" if number % 10 < 7 else "chess" if number % 10 < 9 else "mission"} for number in range(1000)]
    assert Counter(each["component"] for each in spread(slots, 37)).keys() == {"core", "chess", "mission"}


# --- figures


def test_rates() -> None:
    assert (TRIAL.rate, TRIAL.tokens_per_s) == (0.25, 200.0)
    nothing = replace(TRIAL, attempts=0, accepted=0, tokens=0, seconds=0.0)
    assert (nothing.rate, nothing.tokens_per_s) == (0.0, 0.0)


def test_a_forecast_by_hand() -> None:
    # 1000 slots at a yield of a quarter need 4000 attempts of 100 tokens, at 200 tokens a second.
    contract, attempts, accepted, rate, speed, needed, hours, rejects = forecast_row(TRIAL, 1000)
    assert (contract, attempts, accepted, speed) == ("plain", "40", "10", "200")
    assert rate == "25% (14% to 40%)"
    assert (needed, hours) == ("4,000", "0.56")
    assert rejects == "2000 copied, 600 markup, 200 off_theme, 100 language, 100 other"


def test_a_forecast_without_a_single_accepted_reply() -> None:
    row = forecast_row(replace(TRIAL, accepted=0, rejected={"copied": 40}), 1000)
    assert row[3].startswith("0% (0% to ")
    assert row[5:] == ["inf", "inf", ""]


@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 10**6), st.floats(0.01, 1e5), st.integers(1, 10**5))
def test_a_forecast_is_the_trial_made_larger(accepted: int, refused: int, tokens: int, seconds: float, slots: int) -> None:
    attempts = accepted + refused
    made = replace(TRIAL, attempts=attempts, accepted=accepted, rejected={"copied": refused}, tokens=tokens, seconds=seconds)
    row = forecast_row(made, slots)
    needed, hours = (float(cell.replace(",", "")) for cell in row[5:7])
    assert needed == pytest.approx(slots * attempts / accepted, abs=0.51)
    assert hours == pytest.approx(seconds * slots / accepted / 3600, abs=0.0051, rel=1e-6)
    assert math.isclose(int(row[7].partition(" ")[0]) + slots, slots * attempts / accepted, abs_tol=0.51)


def test_a_comparison_by_hand() -> None:
    row = benchmark_row(replace(TRIAL, quality=3.456))
    assert row[:8] == ["small-model", "plain", "200", "0.12 s", "31 s", "25% (14% to 40%)", "30.0", "3.46"]
    assert row[8] == "20 copied, 6 markup, 2 off_theme, 2 other"
    assert benchmark_row(replace(TRIAL, first_token_s=None))[3] == "unknown"
    assert benchmark_row(TRIAL)[7] == "not asked"


# --- what is tried


def test_auto_tries_both_contracts_and_a_model_takes_the_place_of_another() -> None:
    config = Config.model_validate({"synthesize": {"model": "a/b", "temperature": 0.5}})
    assert contracts(config) == ("plain", "json")
    assert contracts(Config.model_validate({"synthesize": {"contract": "json"}})) == ("json",)
    other = config_of_model(config, "c/d")
    assert (other.synthesize.model, other.synthesize.temperature) == ("c/d", 0.5)
    assert config.synthesize.model == "a/b"


def test_a_trial_is_read_from_its_own_folder(tmp_path: Path) -> None:
    run = synthesized(tmp_path)
    assert candidates(run, "preview-json") == []
    write(run, "synthesize/trials/preview-json/candidates", CANDIDATES, [attempt(MAIN, 7)])
    (row,) = candidates(run, "preview-json")
    assert (row["attempt"], row["axes"]["contract"]) == (7, "plain")
    assert trial.trial_folder(run, "preview-json").path == f"{run.folder.path}/synthesize/trials/preview-json"


def test_a_trial_is_a_record(tmp_path: Path) -> None:
    file = synthesized(tmp_path).folder / trial.PREVIEW
    file.write_json([asdict(TRIAL)])
    assert [Trial(**each) for each in file.read_json()] == [TRIAL]
