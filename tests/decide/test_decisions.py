"""One decision for each visit, from the gallery, the tracks and the repeat window."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.config import Recognition
from kiosk.decide.gallery import Gallery, Template
from kiosk.decide.policy import Outcome, Policy
from kiosk.decide.track import Tracker, overlap
from kiosk.errors import EmbeddingError, GalleryError, SpaceMismatchError
from kiosk.types import Direction, Embedding, Quality, Sighting, Stamp, Trust

SPACE = "test-64"
GOOD = Quality(1.0, 1.0, 1.0, 1.0, 1.0)
RULES = Recognition(repeat_window_s=300.0)


def face(seed, space=SPACE, dim=64):
    """A person's face: the same seed is the same person."""
    return Embedding.of(np.random.default_rng(seed).standard_normal(dim), space)


def like(embedding, noise, seed):
    """The same person seen a little differently."""
    rng = np.random.default_rng(seed + 5000)
    step = rng.standard_normal(embedding.vector.size) * noise / np.sqrt(embedding.vector.size)
    return Embedding.of(embedding.vector + step, embedding.space)


def stamp(second, boot="boot-1", utc_offset_s=0):
    """A moment so many seconds after the start."""
    return Stamp(
        int((1_700_000_000 + second + utc_offset_s) * 1000),
        int(second * 1e9),
        boot,
        Trust.SYNCED,
    )


def sighting(embedding, second, box=(100.0, 100.0, 80.0, 80.0), quality=GOOD):
    """A face at a moment and a place."""
    marks = np.zeros((4, 2), np.float32)
    return Sighting(embedding, box, marks, 0.9, quality, None, stamp(second))


class Remembered:
    """A history in memory, as the outbox keeps it on disk."""

    def __init__(self):
        self.punches = {}

    def last_recorded(self, employee, kind):
        return self.punches.get((employee, kind))


def policy(gallery, rules=RULES, history=None, direction=None):
    return Policy(
        rules,
        threshold=0.5,
        direction=direction,
        gallery=gallery,
        history=history or Remembered(),
    )


def walk(policy_, embeddings, start=0.0, step=0.1, **where):
    """Feed one face a frame; all decisions but LOOK."""
    made = []
    for number, embedding in enumerate(embeddings):
        second = start + number * step
        made += policy_.decide([sighting(embedding, second, **where)], stamp(second))
    return [decision for decision in made if decision.outcome is not Outcome.LOOK]


ANNA, BERT = face(1), face(2)
BOTH = Gallery([Template("anna", ANNA, "a"), Template("bert", BERT, "b")])


def test_a_visit_is_recorded_once():
    """Ten frames of one person are one punch."""
    decisions = walk(policy(BOTH), [like(ANNA, 0.3, n) for n in range(10)])
    assert [(d.outcome, d.person) for d in decisions] == [(Outcome.RECORD, "anna")]
    assert decisions[0].score == pytest.approx(0.95, abs=0.05)


def test_single_frames_decide_nothing():
    """Fewer frames than must agree bring no decision."""
    assert walk(policy(BOTH), [ANNA, ANNA]) == []
    assert len(walk(policy(BOTH), [ANNA, ANNA, ANNA])) == 1


def test_two_names_in_one_track_are_no_agreement():
    """A track that names two people equally often says neither."""
    rules = replace_rules(frames_to_agree=2)
    mixed = Embedding.of(ANNA.vector + 1.02 * BERT.vector, SPACE)
    other = Embedding.of(1.02 * ANNA.vector + BERT.vector, SPACE)
    loose = policy(BOTH, replace_rules(frames_to_agree=3, margin=0.0))
    assert [d.outcome for d in walk(loose, [mixed, other] * 4)] == [Outcome.UNKNOWN]
    assert [d.outcome for d in walk(policy(BOTH, rules), [mixed] * 8)] == [Outcome.UNKNOWN]


def replace_rules(**changes):
    names = {n: getattr(RULES, n) for n in RULES.__struct_fields__}
    return Recognition(**{**names, **changes})


def test_a_stranger_is_unknown_once():
    """A stranger's visit ends as one unknown, after the configured number of frames."""
    decisions = walk(policy(BOTH), [like(face(9), 0.2, n) for n in range(20)])
    assert [d.outcome for d in decisions] == [Outcome.UNKNOWN]
    assert decisions[0].person is None


def test_poor_pictures_do_not_vote():
    """Frames below the least quality neither agree nor give up."""
    poor = replace(GOOD, sharpness=0.1)
    assert walk(policy(BOTH), [ANNA] * 30, quality=poor) == []


def test_a_newcomer_in_the_same_place_is_a_new_visit():
    """Somebody who steps into the same place without a gap is decided for themselves."""
    decisions = walk(policy(BOTH), [ANNA] * 5 + [BERT] * 5)
    assert [d.person for d in decisions] == ["anna", "bert"]


def test_two_people_side_by_side():
    """Two faces in one frame are two visits."""
    both = policy(BOTH)
    made = []
    for n in range(5):
        left = sighting(ANNA, n / 10, box=(0.0, 0.0, 90.0, 90.0))
        right = sighting(BERT, n / 10, box=(300.0, 0.0, 80.0, 80.0))
        made += both.decide([right, left], stamp(n / 10))
    recorded = [d.person for d in made if d.outcome is Outcome.RECORD]
    assert sorted(recorded) == ["anna", "bert"]


def test_repeat_window_within_a_boot_ignores_the_wall_clock():
    """A clock set back or forward does not open or close the window."""
    history = Remembered()
    history.punches["anna", Direction.IN] = stamp(0.0, utc_offset_s=-86_400)
    decisions = walk(policy(BOTH, history=history, direction=Direction.IN), [ANNA] * 4, start=100)
    assert [d.outcome for d in decisions] == [Outcome.ALREADY_RECORDED]
    later = walk(policy(BOTH, history=history, direction=Direction.IN), [ANNA] * 4, start=301)
    assert [d.outcome for d in later] == [Outcome.RECORD]


def test_repeat_window_over_a_restart_uses_the_wall_clock():
    """After a reboot the window still holds, by UTC."""
    history = Remembered()
    history.punches["anna", None] = stamp(0.0, boot="boot-0")
    decisions = walk(policy(BOTH, history=history), [ANNA] * 4, start=200)
    assert [d.outcome for d in decisions] == [Outcome.ALREADY_RECORDED]
    assert decisions[0].before == stamp(0.0, boot="boot-0")


@pytest.mark.parametrize("unproven", ["before", "now"])
def test_across_boots_an_unproven_clock_holds_nobody_back(unproven):
    """How long the kiosk was off is unknown: a punch too many harms less than one too few."""
    history = Remembered()
    before, now = stamp(0.0), stamp(1.0, boot="boot-2")
    live = policy(BOTH, history=history)
    history.punches["anna", None] = before
    assert live.repeated("anna", now) is before
    marks = {"before": before, "now": now}
    marks[unproven] = replace(marks[unproven], trust=Trust.UNSYNCED)
    history.punches["anna", None] = marks["before"]
    assert live.repeated("anna", marks["now"]) is None


def test_repeat_window_is_per_direction():
    """An IN does not hide an OUT."""
    history = Remembered()
    history.punches["anna", Direction.IN] = stamp(0.0)
    decisions = walk(policy(BOTH, history=history, direction=Direction.OUT), [ANNA] * 4, start=10)
    assert [d.outcome for d in decisions] == [Outcome.RECORD]


def test_a_new_gallery_is_in_force_at_the_next_frame():
    """Replacing the attribute is all that an enrolment needs."""
    live = policy(Gallery())
    assert walk(live, [ANNA] * 2) == []
    live.gallery = BOTH
    assert [d.person for d in walk(live, [ANNA] * 2, start=0.2)] == ["anna"]


def test_the_margin_keeps_twins_apart():
    """A probe as near to two people as to one is nobody."""
    twins = Gallery([Template("anna", ANNA, "a"), Template("twin", like(ANNA, 0.05, 3), "t")])
    decisions = walk(policy(twins), [like(ANNA, 0.05, n) for n in range(10)])
    assert [d.outcome for d in decisions] == [Outcome.UNKNOWN]


def test_gallery_of_another_model_matches_nobody():
    """Embeddings of two spaces are never compared."""
    old = Gallery([Template("anna", face(1, "old-space"), "a")])
    assert old.identify(ANNA) is None
    with pytest.raises(SpaceMismatchError, match="enrol again"):
        ANNA.similarity(face(1, "old-space"))


def test_gallery_edits():
    """Adding twice adds once; removing a stranger is refused by name."""
    grown = BOTH.added([Template("anna", ANNA, "a"), Template("anna", face(3), "a2")])
    assert grown.people() == {"anna": 2, "bert": 1}
    assert grown.removed("anna").people() == {"bert": 1}
    with pytest.raises(GalleryError, match="'carl'"):
        grown.removed("carl")


def test_gallery_refuses_mixed_dimensions():
    """One space has one dimension."""
    with pytest.raises(GalleryError, match="one dimension"):
        Gallery([Template("a", face(1), "x"), Template("b", face(2, dim=128), "y")])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_identify_is_the_nearest(seed, count):
    """The matrix gives what a loop over all templates gives."""
    rng = random.Random(seed)
    people = [f"p{rng.randrange(8)}" for _ in range(count)]
    templates = [Template(p, face(seed + n), str(n)) for n, p in enumerate(people)]
    probe = face(seed + 99_999)
    match = Gallery(templates).identify(probe)
    scores = {t.person: -1.0 for t in templates}
    for t in templates:
        scores[t.person] = max(scores[t.person], t.embedding.similarity(probe))
    best = max(scores, key=scores.get)
    others = [v for p, v in scores.items() if p != best]
    assert match.person == best
    assert match.score == pytest.approx(scores[best], abs=1e-5)
    assert match.runner_up == pytest.approx(max(others, default=-1.0), abs=1e-5)


def test_overlap_is_intersection_over_union():
    """Same box 1, half shifted a third, apart 0."""
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1.0
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (20, 0, 10, 10)) == 0.0


def test_a_track_ends_after_the_gap():
    """A face unseen for longer than the gap comes back as a new track."""
    tracker = Tracker(gap_s=2.0, min_quality=0.3)
    (first,), _ = tracker.follow([sighting(ANNA, 0.0)], stamp(0.0))
    _, ended = tracker.follow([], stamp(2.1))
    (second,), _ = tracker.follow([sighting(ANNA, 2.2)], stamp(2.2))
    assert ended == [first]
    assert first.number != second.number


@pytest.mark.parametrize("window", [300.0, 0.0])
def test_one_person_twice_in_a_frame_is_recorded_once(window):
    """A reflection or a photograph beside the person is the same person: nobody is there twice."""
    rules = replace_rules(repeat_window_s=window)
    both = policy(BOTH, rules)
    made = []
    for n in range(5):
        left = sighting(ANNA, n / 10, box=(0.0, 0.0, 90.0, 90.0))
        right = sighting(like(ANNA, 0.1, n), n / 10, box=(300.0, 0.0, 80.0, 80.0))
        made += both.decide([right, left], stamp(n / 10))
    told = [(d.outcome, d.person) for d in made if d.outcome is not Outcome.LOOK]
    assert told == [(Outcome.RECORD, "anna"), (Outcome.ALREADY_RECORDED, "anna")]
    assert made[-1].before == made[-2].sighting.seen


def test_an_enrolment_is_in_force_for_who_stands_there():
    """Somebody who was told "not recognised" need not leave: the new gallery looks anew."""
    live = policy(Gallery())
    assert [d.outcome for d in walk(live, [ANNA] * 20)] == [Outcome.UNKNOWN]
    live.gallery = BOTH
    decisions = walk(live, [ANNA] * 5, start=2.0)
    assert [(d.outcome, d.person) for d in decisions] == [(Outcome.RECORD, "anna")]


def test_a_stranger_is_told_once_whatever_the_gallery():
    """Enrolling somebody else makes no second unknown visit of the one who stands there."""
    live = policy(BOTH)
    stranger = face(9)
    assert [d.outcome for d in walk(live, [stranger] * 20)] == [Outcome.UNKNOWN]
    live.gallery = BOTH.removed("bert")
    assert walk(live, [stranger] * 20, start=2.0) == []


def test_a_recorded_visit_stays_one_under_a_new_gallery():
    """Replacing the gallery does not record anew who was recorded."""
    live = policy(BOTH, replace_rules(repeat_window_s=0.0))
    assert len(walk(live, [ANNA] * 5)) == 1
    live.gallery = BOTH.removed("bert")
    assert walk(live, [ANNA] * 5, start=0.5) == []


OTHER = "other-128"


def two(seed, noise=0.2, n=0):
    """One person's face in both spaces, as a pair."""
    return (
        like(face(seed), noise, n),
        like(face(seed + 100, OTHER, 128), noise, n),
    )


def side_by_side(gallery, rules=RULES, history=None):
    return Policy(
        rules,
        threshold=0.5,
        also_threshold=0.6,
        direction=None,
        gallery=gallery,
        history=history or Remembered(),
    )


def walk_two(policy_, faces, start=0.0):
    """Feed one face a frame, in both spaces; all decisions but LOOK."""
    made = []
    for number, (main, also) in enumerate(faces):
        second = start + number / 10
        seen = replace(sighting(main, second), also=also)
        made += policy_.decide([seen], stamp(second))
    return [decision for decision in made if decision.outcome is not Outcome.LOOK]


def template(person, embedding):
    return Template(person, embedding, f"{person} {embedding.space}")


OLD_ONLY = Gallery([template("anna", face(101, OTHER, 128))])
IN_BOTH = OLD_ONLY.added([template("anna", ANNA), template("bert", face(102, OTHER, 128))])


def test_a_person_matches_in_the_space_they_are_enrolled_in():
    """The decision's embedding and score are those of the space that named the person."""
    (made,) = walk_two(side_by_side(OLD_ONLY), [two(1, n=n) for n in range(5)])
    assert (made.outcome, made.person) == (Outcome.RECORD, "anna")
    assert made.sighting.embedding.space == OTHER
    assert made.score == pytest.approx(
        made.sighting.embedding.similarity(face(101, OTHER, 128)), abs=1e-6
    )
    (bert,) = walk_two(side_by_side(IN_BOTH), [two(2, n=n) for n in range(5)])
    assert (bert.person, bert.sighting.embedding.space) == ("bert", OTHER)


def test_who_is_in_both_spaces_goes_by_the_one_in_use():
    """The punch is to carry the new space as soon as it can."""
    (made,) = walk_two(side_by_side(IN_BOTH), [two(1, n=n) for n in range(5)])
    assert (made.person, made.sighting.embedding.space) == ("anna", SPACE)


@pytest.mark.parametrize("window", [0.0, 300.0])
def test_two_spaces_make_no_second_visit(window):
    """Frames that match in one space, the other, or both, of one person: one record."""
    stranger = face(9), face(109, OTHER, 128)
    faces = []
    for n in range(30):
        main, also = two(1, n=n)
        faces.append([(main, also), (main, stranger[1]), (face(1), also)][n % 3])
    made = walk_two(side_by_side(IN_BOTH, replace_rules(repeat_window_s=window)), faces)
    assert [(d.outcome, d.person) for d in made] == [(Outcome.RECORD, "anna")]


def test_a_person_in_the_other_space_is_within_the_repeat_window_all_the_same():
    """The window is by person: having enrolled again in between opens it for nobody."""
    history = Remembered()
    live = side_by_side(OLD_ONLY, history=history)
    (first,) = walk_two(live, [two(1, n=n) for n in range(4)])
    history.punches["anna", None] = first.sighting.seen
    live.gallery = IN_BOTH
    (second,) = walk_two(live, [two(1, n=n) for n in range(4)], start=10.0)
    assert first.sighting.embedding.space == OTHER
    assert second.sighting.embedding.space == SPACE
    assert second.outcome is Outcome.ALREADY_RECORDED


def test_two_spaces_that_name_two_people_name_none():
    """A face that is anna in one space and bert in the other is nobody."""
    faces = [(two(1, n=n)[0], two(2, n=n)[1]) for n in range(10)]
    made = walk_two(side_by_side(IN_BOTH), faces)
    assert [d.outcome for d in made] == [Outcome.UNKNOWN]
    assert made[0].sighting.embedding.space == SPACE


def test_each_space_has_its_own_threshold():
    """A cosine of 0.55 is enough in the space in use and too little in the other."""
    main = Embedding.of(0.55 * ANNA.vector + 0.835 * _across(ANNA), SPACE)
    other = face(101, OTHER, 128)
    also = Embedding.of(0.55 * other.vector + 0.835 * _across(other), OTHER)
    assert main.similarity(ANNA) == pytest.approx(0.55, abs=0.01)
    assert also.similarity(other) == pytest.approx(0.55, abs=0.01)
    made = walk_two(side_by_side(IN_BOTH), [(main, also)] * 4)
    assert [d.person for d in made] == ["anna"]
    made = walk_two(side_by_side(OLD_ONLY), [(main, also)] * 10)
    assert [d.outcome for d in made] == [Outcome.UNKNOWN]


def _across(embedding):
    """A unit vector at a right angle to an embedding."""
    other = np.random.default_rng(77).standard_normal(embedding.vector.size)
    other -= (other @ embedding.vector) * embedding.vector
    return (other / np.linalg.norm(other)).astype(np.float32)


def test_a_second_embedding_is_of_another_space():
    """Two embeddings of one space in a sighting are a mistake, said at once."""
    with pytest.raises(EmbeddingError, match="another space"):
        replace(sighting(ANNA, 0.0), also=BERT)
