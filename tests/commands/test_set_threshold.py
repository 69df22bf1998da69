"""A model of one's own decides nothing before a curve has set its threshold; then it does."""

import json
import re
import subprocess
import sys

import pytest

from kiosk.clock import SystemClock
from kiosk.config import load
from kiosk.errors import ModelError
from kiosk.lab.faces import digest_of, digest_of_all
from kiosk.vision.manifest import load_manifest, manifest_of
from kiosk.vision.measure import candidates
from kiosk.vision.pipeline import open_pipeline

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
COMMAND = "kiosk lab roc own-fp32 --folders DIR --far 1e-4 --set-threshold own-fp32 --config FILE"


@pytest.fixture
def added(foreign, kiosk, config):
    """The path of a file that was added as own-fp32."""
    path = foreign()
    assert kiosk("models", "add", path, "--id", "own-fp32", "--config", config())[0] == 0
    return path


@pytest.fixture
def roc(kiosk, config, made_up):
    """A function that measures over the made-up people."""

    def run(model, *options):
        fixed = ("--folders", made_up, "--aligned", "--resamples", 50, "--config", config())
        models = model if isinstance(model, tuple) else (model,)
        return kiosk("lab", "roc", *models, *fixed, *options)

    return run


def own(config):
    return manifest_of(load(config())).get("own-fp32", "embedder")


def test_daemon_enrol_and_compare_refuse_it_by_name(added, kiosk, config, people):
    """Each says which model, what it lacks, and the command that sets it."""
    path = config('embedder = "own-fp32"\n')
    picture = people / "obama.jpg"
    daemon = subprocess.run(
        [sys.executable, "-m", "kiosk", "run", "--config", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    enrol = kiosk("enrol", "obama", picture, "--config", path)
    compare = kiosk("compare", picture, picture, "--model", "own-fp32", "--config", path)
    profile = kiosk("models", "profile", "--config", path)
    for status, said in (
        (daemon.returncode, daemon.stderr),
        (enrol[0], enrol[2]),
        (compare[0], compare[2]),
        (profile[0], profile[2]),
    ):
        assert status == 1
        assert "model own-fp32: a threshold expected" in said
        assert COMMAND in said
    also = load(config('also = "own-fp32"\n'))
    with pytest.raises(ModelError, match="model own-fp32: a threshold expected"):
        open_pipeline(
            also.models, clock=SystemClock(), record=print, choice_in=path.parent / "state"
        )


def test_a_threshold_in_the_configuration_is_no_way_round(added, kiosk, config, people):
    """A number there was found for some other model."""
    path = config('embedder = "own-fp32"\n[recognition]\nthreshold = 0.4\n')
    status, _, err = kiosk("enrol", "obama", people / "obama.jpg", "--config", path)
    assert status == 1
    assert COMMAND in err


def test_doctor_and_list_say_so(added, kiosk, config):
    """doctor fails with the command; the list has no threshold for it."""
    path = config('embedder = "own-fp32"\n')
    status, out, _ = kiosk("doctor", "--config", path)
    assert status == 1
    assert "failed  models: model own-fp32: a threshold expected" in out
    assert COMMAND in out
    _, out, _ = kiosk("models", "list", "--config", path)
    assert re.search(r"own-fp32 +embedder +present +own-64-4pt +64 +not set .*no threshold", out)
    _, out, _ = kiosk("models", "list", "--config", path, "--json")
    (listed,) = [e for e in json.loads(out) if e["id"] == "own-fp32"]
    assert (listed["usable"], listed["threshold"]) == (False, None)


def test_embedding_alone_needs_no_threshold(added, kiosk, config, people):
    """What decides nothing may be had."""
    status, out, _ = kiosk(
        *("embed", people / "obama.jpg", "--json", "--model", "own-fp32", "--config", config())
    )
    assert status == 0
    assert json.loads(out)["space"] == "own-64-4pt"


def test_the_curve_sets_it(added, roc, config, kiosk, made_up):
    """The upper bound for the FAR, with pairs, FAR and the digest of the very pictures."""
    status, out, _ = roc("own-fp32", "--far", 1e-3, "--set-threshold", "own-fp32", "--json")
    assert status == 0
    said = json.loads(out)
    upper = said["wanted"][0]["upper"]
    found = own(config)
    assert found.usable
    assert upper == found.threshold == float(f"{upper:.6f}")
    assert said["set"]["threshold"] == found.threshold
    assert said["set"]["tar"] == said["wanted"][0]["tar_at_upper"]
    assert said["set"]["note"] == found.threshold_note
    for words in ("FAR 1e-3", "1650 impostor", "120 genuine", "60 aligned crops", "people"):
        assert words in found.threshold_note
    digest = digest_of_all(digest_of(p) for p in made_up.rglob("*.png"))
    assert digest in found.threshold_note
    assert not re.search(r"20\d\d-", found.threshold_note)
    manifest = manifest_of(load(config()))
    assert [e.id for e in candidates(manifest, "own-fp32")] == ["own-fp32"]
    path = config('embedder = "own-fp32"\n')
    assert "own-fp32: hash as pinned" in kiosk("models", "check", "--config", path)[1]
    assert kiosk("models", "profile", "--config", path)[0] == 0


def test_the_file_itself_may_be_named(added, roc, config):
    """By its hash it is the added one, and is fed as that was said to be."""
    status, out, _ = roc(added, "--far", 1e-3, "--set-threshold", "own-fp32")
    assert status == 0
    assert "threshold of own-fp32 set to 0." in out
    assert "in force after a restart" in out
    assert own(config).usable


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--far", 1e-4), "10000 impostor pairs expected for FAR 1e-4, got 1650"),
        ((), "--far X expected with it"),
        (("--far", 0.9), "at most 1e-2 expected for a threshold that decides, got 9e-1"),
        (("--far", 1e-3, "--resamples", 0), "--resamples above 0"),
    ],
)
def test_what_the_pairs_cannot_tell_is_not_set(added, roc, config, options, words):
    """Too few pairs, no FAR, no resamples: refused before anything is measured."""
    status, _, err = roc("own-fp32", "--set-threshold", "own-fp32", *options)
    assert status == 2
    assert words in err
    assert not own(config).usable


def test_only_what_was_added_can_be_set(added, roc):
    """A shipped model keeps its threshold; nobody's is unknown."""
    for name in ("mobilefacenet-fp32", "nobody-fp32"):
        status, _, err = roc("own-fp32", "--far", 1e-3, "--set-threshold", name)
        assert status == 2
        assert "a model that was added expected" in err


def test_another_files_curve_sets_nothing(added, roc, foreign, config):
    """The threshold of a model comes from that model's own curve."""
    other = foreign("other.onnx", seed=1)
    status, _, err = roc(other, "--far", 1e-3, "--set-threshold", "own-fp32")
    assert status == 2
    assert "the file of own-fp32 among those measured expected" in err
    assert not own(config).usable


def test_a_model_that_tells_nobody_apart_is_not_set(kiosk, config, roc, foreign):
    """Where no genuine pair lies above the bound, there is no threshold to set."""
    path = foreign("blind.onnx", mix_up=True)
    assert kiosk("models", "add", path, "--id", "own-fp32", "--config", config())[0] == 0
    status, _, err = roc("own-fp32", "--far", 1e-3, "--set-threshold", "own-fp32")
    assert status == 2, err
    assert "genuine pairs above the threshold" in err
    assert not own(config).usable


def test_a_model_that_hardly_tells_people_apart_is_not_set(kiosk, config, roc, foreign, made_up):
    """Folders shuffled, so that cosines say nothing of people: TAR about the FAR, AUC about 0.5."""
    assert kiosk("models", "add", foreign(), "--id", "own-fp32", "--config", config())[0] == 0
    pictures = sorted(made_up.rglob("*.png"))
    contents = [path.read_bytes() for path in pictures]
    # Five pictures each: a stride of 12 hands everybody one of five others.
    for number, path in enumerate(pictures):
        path.write_bytes(contents[number * 7 % len(contents)])
    status, _, err = roc("own-fp32", "--far", 1e-2, "--set-threshold", "own-fp32")
    assert status == 2, err
    assert re.search("a model that tells people apart expected|genuine pairs above", err)
    assert not own(config).usable


def test_a_laxer_threshold_does_not_replace_a_stricter_one_in_silence(added, roc, config):
    """Both numbers are told; a stricter one needs no word."""
    assert roc("own-fp32", "--far", 1e-3, "--set-threshold", "own-fp32")[0] == 0
    strict = own(config)
    status, _, err = roc("own-fp32", "--far", 1e-2, "--set-threshold", "own-fp32")
    assert status == 0
    assert own(config).threshold < strict.threshold
    assert f"lets more pass than {strict.threshold:.6f}, which it replaces" in err
    _, out, err = roc("own-fp32", "--far", 1e-3, "--set-threshold", "own-fp32", "--json")
    said = json.loads(out)["set"]
    assert "lets more pass" not in err
    assert (said["laxer"], said["replaced"]["threshold"] < said["threshold"]) == (False, True)


def test_int8_of_the_space_waits_for_its_own(
    added, roc, quantised, foreign, kiosk, config, tmp_path, caplog
):
    """INT8 is no candidate while it has no threshold, and the journal says so; then it is.

    Of a model of another space, which nobody configured, the journal is silent.
    """
    other = ("--id", "other-fp32", "--space", "elsewhere", "--config", config())
    assert kiosk("models", "add", foreign("other.onnx", seed=1), *other)[0] == 0
    path = quantised(added)
    assert kiosk("models", "add", path, "--id", "own-int8", "--config", config())[0] == 0
    assert roc("own-fp32", "--far", 1e-3, "--set-threshold", "own-fp32")[0] == 0
    settings = load(config('embedder = "own-fp32"\n'))
    assert [e.id for e in candidates(manifest_of(settings), "own-fp32")] == ["own-fp32"]
    open_pipeline(settings.models, clock=SystemClock(), record=print, choice_in=tmp_path / "state")
    assert [r.fields["model"] for r in caplog.records if r.msg == "model.no_threshold"] == [
        "own-int8"
    ]
    both = ("own-fp32", "own-int8")
    assert roc(both, "--far", 1e-3, "--set-threshold", "own-int8")[0] == 0
    ids = [e.id for e in candidates(manifest_of(load(config())), "own-fp32")]
    assert ids == ["own-fp32", "own-int8"]


def test_the_shipped_manifest_stays_alone_without_a_configuration(added):
    """Only a configuration or a state folder brings in what was added."""
    with pytest.raises(ModelError, match="in no manifest"):
        load_manifest().get("own-fp32", "embedder")
