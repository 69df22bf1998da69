"""`kiosk lab roc`: pairs from three sources, figures for people and programs."""

import json

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kiosk.__main__ import main
from kiosk.lab.comparison import embed, read_models
from kiosk.lab.faces import pictures_of
from kiosk.vision.manifest import load_manifest


def roc(*arguments):
    return main(["lab", "roc", *map(str, arguments), "--aligned", "--threads", "1"])


def document_of(capsys, *arguments):
    assert roc(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_folders_agree_with_the_figures_worked_out_here(tiny_embedder, crops, capsys):
    """All pairs of a folder: AUC by scikit-learn and TAR by trying the impostors' scores."""
    model, folder = tiny_embedder(), crops()
    found = document_of(capsys, model, "--folders", folder, "--resamples", 0)
    rows = embed(pictures_of(folder), read_models(model, None, None), aligned=True)
    matrix = rows.matrices[0].astype(np.float64)
    names = np.array([path.parent.name for path in rows.paths])
    upper = np.triu_indices(len(names), 1)
    scores, same = (matrix @ matrix.T)[upper], (names[:, None] == names)[upper]
    assert found["auc"] == pytest.approx(roc_auc_score(same, scores))
    impostors = np.sort(scores[~same])[::-1]
    cut = impostors[int(1e-3 * len(impostors))]
    assert found["tar@1e-3"] == pytest.approx((scores[same] > cut).mean())
    assert (found["genuine"], found["impostors"]) == (120, 1650)
    assert (found["people"], found["pairs"]) == (12, 1770)
    assert found["tar@1e-4"] is None
    assert found["mean_cosine"] is None
    assert found["bootstrap"] is None


def test_two_models_stand_side_by_side(tiny_embedder, crops, capsys):
    """Sub-documents for both and the drop; the top holds the second; intervals by people."""
    found = document_of(
        capsys,
        *(tiny_embedder(), tiny_embedder("worse.onnx", noise=1)),
        *("--folders", crops(), "--resamples", 50),
    )
    assert found["auc"] == found["int8"]["auc"]
    assert found["drop"]["auc"] == pytest.approx(found["fp32"]["auc"] - found["int8"]["auc"])
    assert 0.3 < found["mean_cosine"] < 0.95
    assert found["bootstrap"]["drawn"] == "people"
    low, high = found["intervals"]["auc"]
    assert low <= found["auc"] <= high
    assert len(found["drop"]["intervals"]["auc"]) == 2


def test_the_table_tells_what_cannot_be_resolved(tiny_embedder, crops, capsys):
    """A FAR that is too rare is a dash and a sentence; made folds are said to be made."""
    model = tiny_embedder()
    assert roc(model, model, "--folders", crops(), "--resamples", 20, "--far", "1e-2", "--f2") == 0
    said = capsys.readouterr().out
    assert "FAR 1e-4 is not resolvable: 10000 impostor pairs needed, 1650 here" in said
    assert "seeded split" in said
    assert "INT8: FAR 1e-2 at threshold" in said
    assert "upper 95 % bound" in said
    assert "the limit of 0.5 pp holds" in said
    assert "people drawn of 12" in said
    assert "rough" in said


def test_a_wanted_far_gives_a_threshold_that_keeps_it(tiny_embedder, crops, capsys):
    """The threshold, its upper bound and the TAR at both; too rare a FAR gives none."""
    model, folder = tiny_embedder(), crops()
    arguments = (model, "--folders", folder, "--resamples", 50)
    (wanted,) = document_of(capsys, *arguments, "--far", "0.01")["wanted"]
    assert wanted["threshold"] <= wanted["upper"]
    assert wanted["tar"] >= wanted["tar_at_upper"]
    (wanted,) = document_of(capsys, *arguments, "--far", "1e-5")["wanted"]
    assert (wanted["threshold"], wanted["upper"]) == (None, None)
    assert roc(*arguments, "--far", "1e-5") == 0
    assert "no threshold for FAR 1e-5: 100000 impostor pairs needed" in capsys.readouterr().out


def test_tokens_lose_less_than_half_a_point(tiny_embedder, crops, capsys):
    """One side and both as F2 tokens: figures of their own, losses in percentage points."""
    model = tiny_embedder()
    tokens = document_of(capsys, model, "--folders", crops(), "--resamples", 0, "--f2")["f2"]
    assert abs(tokens["loss_pp"]["both_sides"]["auc"]) < 0.5
    assert tokens["worst_loss_pp"] < 0.5
    assert tokens["one_side"]["auc"] == pytest.approx(tokens["both_sides"]["auc"], abs=0.01)


def csv_of(folder, rows):
    path = folder / "pairs.csv"
    path.write_text("first,second,same\n" + "\n".join(rows) + "\n")
    return path


def test_repeated_pairs_of_a_csv_are_told(tiny_embedder, crops, capsys):
    """Counted once, whichever side stands first, and how many rows that were."""
    rows = ["p00/0.png,p00/1.png,1", "p00/1.png,p00/0.png,1", "p00/0.png,p01/0.png,0"]
    path, model = csv_of(crops(people=2), [*rows, rows[2]]), tiny_embedder()
    found = document_of(capsys, model, "--pairs", path, "--resamples", 0)
    assert (found["genuine"], found["impostors"], found["pairs_repeated"]) == (1, 1, 2)
    assert roc(model, "--pairs", path, "--resamples", 0) == 0
    assert "; 2 repeated pairs counted once" in capsys.readouterr().out


def test_pairs_of_a_csv(tiny_embedder, crops, capsys):
    """Relative paths; a missing picture takes its pair along, named; pairs are resampled."""
    folder, model = crops(people=3), tiny_embedder()
    rows = ["p00/0.png,p00/1.png,1", "p00/0.png,p01/0.png,0", "p01/0.png,p01/9.png,same"]
    path = csv_of(folder, rows)
    found = document_of(capsys, model, "--pairs", path, "--resamples", 20)
    assert (found["genuine"], found["impostors"], found["pairs_left_out"]) == (1, 1, 1)
    assert found["skipped"][0]["file"].endswith("p01/9.png")
    assert found["people"] is None
    assert found["bootstrap"]["drawn"] == "pairs"
    assert found["accuracy"] is None
    assert roc(model, "--pairs", path, "--resamples", 20) == 0
    said = capsys.readouterr().out
    assert "1 pairs left out" in said
    assert "repeated" not in said
    assert "p01/9.png" in said
    assert "who is who is not known" in said


def test_photographs_are_aligned_as_the_daemon_does(people, tmp_path, capsys):
    """Without --aligned faces are found first, and one person scores above two."""
    entry = load_manifest().get("mobilefacenet-fp32", "embedder")
    path = tmp_path / "pairs.csv"
    photos = {name: people / f"{name}.jpg" for name in ("obama", "obama3", "biden")}
    path.write_text(
        f"{photos['obama']},{photos['obama3']},same\n{photos['obama']},{photos['biden']},different\n"
    )
    arguments = ["lab", "roc", str(entry.path), "--pairs", str(path), "--resamples", "0", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["auc"], found["pictures"]) == (1.0, 3)


def test_lfw_s_folds(tiny_embedder, crops, tmp_path, capsys):
    """Ten folds of LFW's layout are used as they are given."""
    images, model = tmp_path / "lfw", tiny_embedder()
    names = [f"N{number:02}" for number in range(12)]
    for name, folder in zip(names, sorted(crops().iterdir()), strict=True):
        (images / name).mkdir(parents=True)
        for number, path in enumerate(sorted(folder.iterdir()), 1):
            cv2.imwrite(str(images / name / f"{name}_{number:04}.png"), cv2.imread(str(path)))
    lines = ["10\t1"]
    for number in range(10):
        lines += [f"{names[number]}\t1\t2", f"{names[number]}\t3\t{names[number + 1]}\t4"]
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join(lines))
    found = document_of(capsys, model, "--lfw", path, "--images", images, "--resamples", 20)
    assert (found["genuine"], found["impostors"], found["folds"]) == (10, 10, "given")
    assert len(found["accuracy_by_fold"]) == 10
    assert roc(model, "--lfw", path, "--images", images, "--resamples", 0) == 0
    assert "mean of the 10 folds given" in capsys.readouterr().out


def test_lfw_needs_its_pictures(tiny_embedder, tmp_path, capsys):
    """--lfw without --images, and the reverse, are told in one line."""
    assert roc(tiny_embedder(), "--lfw", tmp_path / "pairs.txt") == 2
    assert "--lfw: --images DIR expected with it" in capsys.readouterr().err
    pairs = ("--pairs", tmp_path / "pairs.csv", "--images", tmp_path)
    assert roc(tiny_embedder(), *pairs) == 2
    assert "paths in a CSV are absolute, or from the CSV's own folder" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "1", "-1", "nan", "much"])
def test_a_far_that_is_no_rate_is_a_mistake(rate, tmp_path, capsys):
    """Usage mistakes end with 2 before anything is read."""
    with pytest.raises(SystemExit, match="2"):
        roc(tmp_path / "absent.onnx", "--folders", tmp_path, f"--far={rate}")
    assert "--far" in capsys.readouterr().err


def test_the_shipped_model_on_real_faces(shared, capsys):
    """The 21 people of faces112: the figures that the manifest's threshold note tells."""
    entry = load_manifest().get("mobilefacenet-fp32", "embedder")
    folder = shared / "data" / "faces112"
    found = document_of(capsys, entry.path, "--folders", folder, "--resamples", 0, "--f2")
    assert (found["genuine"], found["impostors"], found["people"]) == (1386, 30240, 21)
    assert found["auc"] == pytest.approx(0.9947, abs=5e-4)
    assert found["tar@1e-3"] == pytest.approx(0.7835, abs=5e-3)
    assert found["threshold@1e-4"] == pytest.approx(0.545, abs=2e-3)
    assert found["tar@1e-5"] is None
    assert found["f2"]["worst_loss_pp"] < 0.5
