"""Which INT8 file of several a machine is judged by."""

import pytest

from bench import embedders
from bench.embedders import NCNN, PLAIN, REWRITTEN

BEST = {PLAIN: 10.0, REWRITTEN: 4.5, NCNN: 5.0, "int8-u": 3.9, "int8-s": 9.0}


@pytest.fixture
def verdicts(monkeypatch):
    """Verdicts by what is held against what, on a CPU with the given excuse."""

    def judge(excuse):
        monkeypatch.setattr(embedders, "int8_excuse", lambda: excuse)
        return {row.what: row.verdict for row in embedders._judged(BEST, ["int8-u", "int8-s"])}

    return judge


def test_the_fastest_int8_file_is_judged(verdicts):
    """A file in another board's format is told beside it; a peer that is absent has no row."""
    told = verdicts("")
    assert told[f"int8-u: time against {PLAIN}"] == "reached"
    assert told[f"int8-s: time against {PLAIN}"] == "told only: int8-u is faster here"
    assert not any("LiteRT" in what for what in told)


def test_without_vnni_no_int8_time_is_judged(verdicts):
    """FP32 rows are, whatever the CPU."""
    told = verdicts("CPU without VNNI")
    assert told[f"int8-u: time against {NCNN}"] == "told only: CPU without VNNI"
    assert told[f"{REWRITTEN}: time against {PLAIN}"] == "reached"
