"""The example of a second theme as a user runs it: its configuration file, real vLLM, LoRA, GGUF and evaluation."""

from pathlib import Path

import other_theme
import pytest
from test_whole_run import deepred

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(2400)]


def test_a_second_theme_is_run_by_its_data_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(other_theme.ROOT)
    done = deepred("run", "--config", "examples/keeper.toml", "--debug", root=tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    run = tmp_path / "keeper"
    other_theme.check_persona(run)
    assert other_theme.traces_of_the_first_theme(run) == []
    assert "keeper-q8_0.gguf" in done.stdout
    assert not other_theme.FIRST_THEME.search(done.stdout), done.stdout
    # The run knows whose it is.
    asked = deepred("chat", "--run", "keeper", "--ask", "What do you see from the gallery?", "--temperature", "0", root=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert len(asked.stdout.split()) > 3
    refused = deepred("chat", "--run", "keeper", "--persona", "grandmaster", "--ask", "Who are we?", root=tmp_path)
    assert refused.returncode == 1
    assert "Name one of keeper, almanac, boatman." in refused.stderr
