"""The log of the files that a client receives."""

from __future__ import annotations

import logging
from random import Random

import pytest

from pspd.core.client.download import Download, Stage
from pspd.core.model.parameters import FAST
from pspd.core.model.ranges import RangeSet
from pspd.core.model.tuning import CLIENT_TUNING
from pspd.daemon.member.reception import ReceptionLog
from tests.core.bench import Bench

CHUNKS = 1000


def download_of(held_chunks: int = 0) -> Download:
    verified = RangeSet([(0, held_chunks)])
    return Download(Bench().manifest("talk.mp4", CHUNKS), verified, FAST, CLIENT_TUNING, Random(1), 0)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="pspd.daemon.member.reception")
    return caplog


def test_first_line_names_the_file_and_its_size(lines: pytest.LogCaptureFixture) -> None:
    ReceptionLog("anna").update([download_of(300)])
    assert lines.messages == ["anna: receives talk.mp4 (999.9 KiB), has 300.0 KiB of it"]


def test_each_step_is_logged_once(lines: pytest.LogCaptureFixture) -> None:
    reception, download = ReceptionLog("anna"), download_of()
    for chunk in range(CHUNKS):
        reception.update([download])
        download.verified.add(chunk, chunk + 1)
    steps = [message for message in lines.messages if "%" in message]
    assert len(steps) == 9
    assert steps[3].startswith("anna: has 40 % of talk.mp4 (400.0 KiB of 999.9 KiB), ")
    assert steps[3].endswith("/s")


def test_complete_files_are_not_logged(lines: pytest.LogCaptureFixture) -> None:
    reception, download = ReceptionLog("anna"), download_of(CHUNKS)
    reception.update([download])
    download = download_of()
    download.enter(Stage.DECLINED)
    reception.update([download])
    assert lines.messages == []
    assert reception.end(download.file_id) == ""


def test_end_returns_the_duration() -> None:
    reception, download = ReceptionLog("anna"), download_of()
    reception.update([download])
    assert reception.end(download.file_id).endswith(" s")
    assert reception.end(download.file_id) == ""
