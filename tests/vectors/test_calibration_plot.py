"""`syntegra-db vectors status`: the stored calibration in the terminal and as a picture."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from support.commands import run, succeed
from support.rebuild import only_index, options_for
from syntegra_db.errors import OutputFailed
from syntegra_db.vectors.maintenance import check_index_health, plot_calibrations, rebuild
from syntegra_db.vectors.maintenance._resources import IndexSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import Database, Server
    from support.texts import Texts

STATUS = ("syntegra-db", "vectors", "status", "--seconds", "1")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def calibrated(server: Server, loaded_template: tuple[str, Texts]) -> Iterator[Database]:
    with server.database(loaded_template[0]) as database:
        rebuild(database.engine, options_for(IndexSpec("ivfflat", 30, is_half=False)), calibration_seconds=2)
        yield database


def test_plot_marks_the_chosen_setting_and_shows_each_point(calibrated: Database, tmp_path: Path) -> None:
    succeed(*STATUS, "--plot", str(tmp_path / "index.svg"), url=calibrated.environment_url)
    picture = ET.parse(tmp_path / "index.svg")  # noqa: S314  written by this test
    words = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    calibration = only_index(calibrated).calibration
    assert calibration is not None
    chosen = next(point for point in calibration.points if point.recall[0] >= calibration.recall)
    assert f"chosen: ivfflat.probes = {chosen.setting}" in words
    assert "text_summary.embedding: idx_text_summary_embedding, 3,000 rows" in words
    succeed(*STATUS, "--plot", str(tmp_path / "index.png"), url=calibrated.environment_url)
    assert (tmp_path / "index.png").read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.long
def test_status_prints_a_bar_for_each_point(calibrated: Database) -> None:
    output = succeed(*STATUS, url=calibrated.environment_url)
    calibration = only_index(calibrated).calibration
    assert calibration is not None
    bars = re.findall(r"^ *([\d,]+) +([\d.]+) +([\d.]+)  (█*|#*)( chosen)?$", output, re.MULTILINE)
    assert [int(setting) for setting, *_ in bars] == [point.setting for point in calibration.points]
    recalls = [point.recall[0] for point in calibration.points]
    assert [float(recall) for _, _, recall, *_ in bars] == pytest.approx(recalls, abs=0.001)
    assert all(len(bar) == pytest.approx(40 * float(recall), abs=1) for _, _, recall, bar, _ in bars)
    assert sum(mark == " chosen" for *_, mark in bars) == 1
    document = json.loads(succeed(*STATUS, "--json", url=calibrated.environment_url))
    stored = document["indexes"][0]["calibration"]
    assert [point["setting"] for point in stored["points"]] == [point.setting for point in calibration.points]


@pytest.mark.long
def test_plot_without_calibration_and_with_other_suffix_write_nothing(loaded: Database, tmp_path: Path) -> None:
    result = run(*STATUS, "--plot", str(tmp_path / "index.png"), url=loaded.environment_url)
    assert (result.returncode, result.stdout) == (OutputFailed.exit_status, "")
    assert "has no current calibration to plot. Run `syntegra-db vectors rebuild` first." in result.stderr
    result = run(*STATUS, "--plot", str(tmp_path / "index.pdf"), url=loaded.environment_url)
    assert result.returncode == 2
    assert "--plot must be a file that ends with .png or .svg" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_plot_into_missing_folder_or_without_matplotlib_names_the_reason(
    calibrated: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = [check_index_health(calibrated.engine, 1)]
    with pytest.raises(OutputFailed, match=r"Cannot write .*index\.png: No such file or directory\."):
        plot_calibrations(reports, tmp_path / "missing" / "index.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OutputFailed, match=r"pip install 'syntegra-db\[plot\]'"):
        plot_calibrations(reports, tmp_path / "index.png")
