"""Who gets into the gallery, and how."""

import cv2
import numpy as np
import pytest

JPEG = {"Content-Type": "image/jpeg"}


def test_tokens_are_added_once(client, kiosk):
    """Faces add up, the same one does not count twice, and a change is in force at once."""
    put = lambda *seeds: client.put("/employees/anna/faces", json=kiosk.enrolment(*seeds)).json()  # noqa: E731
    assert put(1)["faces"] == 1
    client.post("/toon/attendance", content=kiosk.body(2, 1, employee=None))
    assert put(1, 2) == {"employee": "anna", "F2_MODEL": kiosk.space, "faces": 2}
    client.post("/toon/attendance", content=kiosk.body(2, 2, employee=None))
    assert client.delete("/employees/anna").json()["removed"] == 2
    client.post("/toon/attendance", content=kiosk.body(2, 3, employee=None))
    assert client.get("/employees").json() == {"employees": []}
    assert client.delete("/employees/anna").status_code == 404
    rows = client.get("/attendance").json()["attendance"]
    assert [row["matched"] for row in rows] == [None, "anna", None]


@pytest.mark.parametrize("name", ["anna", "Anna Müller", "王小明", "a.b_c-d@e", "x" * 64])
def test_ids_are_what_people_are_called(client, kiosk, name):
    """Letters of any script, digits, signs and inner spaces."""
    from urllib.parse import quote

    reply = client.put(f"/employees/{quote(name)}/faces", json=kiosk.enrolment(1))
    assert reply.json()["employee"] == name


@pytest.mark.parametrize("name", ["x" * 65, " a", "a%20", "a%0ab", "a%E2%80%AEb", "%ff", "%00"])
def test_ids_that_deceive_are_refused(client, kiosk, name):
    """Too long, spaces at an end, control and direction characters, broken encodings."""
    reply = client.put(f"/employees/{name}/faces", json=kiosk.enrolment(1))
    assert reply.status_code == 422
    assert "employee" in reply.json()["error"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"F2_MODEL": ""}, "F2_MODEL"),
        ({"F2_MODEL": 5}, "F2_MODEL"),
        ({"faces": []}, "faces"),
        ({"faces": "no"}, "faces"),
        ({"faces": [{}]}, "faces.0.F2_DATA"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_a_wrong_enrolment_is_named(client, kiosk, change, field):
    """400 with the field at fault; nobody is enrolled by halves."""
    reply = client.put("/employees/anna/faces", json=kiosk.enrolment(1) | change)
    assert reply.status_code == 400
    assert field in reply.json()["error"]


def test_an_error_never_shows_a_token(client, kiosk):
    """A token is to be treated like a photograph: not in an error either."""
    document = kiosk.enrolment(1)
    document["faces"][0]["F2_DIM"] = 512
    reply = client.put("/employees/anna/faces", json=document)
    assert reply.status_code == 400
    assert document["faces"][0]["F2_DATA"][:20] not in reply.text


def test_faces_of_one_space_have_one_dimension(make_client, kiosk):
    """Mixed in one enrolment, or other than those that are there: refused, naming F2_DIM."""
    client = make_client(threshold=0.5)
    own = kiosk.enrolment(1, space="own", dim=64)
    other = kiosk.enrolment(2, space="own", dim=128)
    mixed = own | {"faces": own["faces"] + other["faces"]}
    assert client.put("/employees/a/faces", json=mixed).status_code == 400
    assert client.put("/employees/a/faces", json=own).status_code == 200
    refused = client.put("/employees/b/faces", json=other)
    assert refused.status_code == 400
    assert "F2_DIM: expected 64" in refused.json()["error"]


def test_a_picture_enrols_its_one_face(client, people, kiosk):
    """The kiosk's own pipeline; the same person in another picture is then matched."""
    done = client.put(
        "/employees/obama/faces", content=(people / "obama.jpg").read_bytes(), headers=JPEG
    )
    assert done.json() == {"employee": "obama", "F2_MODEL": kiosk.space, "faces": 1}
    _, png = cv2.imencode(".png", cv2.imread(str(people / "biden.jpg")))
    png_type = {"Content-Type": "image/png"}
    assert client.put("/employees/biden/faces", content=png.tobytes(), headers=png_type).is_success


def test_a_picture_that_will_not_do_is_422_with_the_reason(client, people):
    """No picture, no face, two faces, a face too poor; nobody is enrolled."""
    photo = cv2.imread(str(people / "obama.jpg"))
    cases = {
        "expected image/jpeg": b"no picture",
        "it is of another kind": b"\xff\xd8\xff\xe0 no picture",
        "got 0": jpeg(np.full((240, 320, 3), 90, np.uint8)),
        "got 2": jpeg(np.hstack([photo, photo])),
        "quality": jpeg(cv2.GaussianBlur(photo, (0, 0), 12)),
    }
    for reason, picture in cases.items():
        reply = client.put("/employees/obama/faces", content=picture, headers=JPEG)
        assert reply.status_code == 422, reason
        assert reason in reply.json()["error"]
    assert client.get("/employees").json() == {"employees": []}


def jpeg(pixels):
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def test_a_picture_is_bounded_and_of_two_kinds(client):
    """10 MB, JPEG or PNG: each other kind is one more decoder to be attacked through."""
    large = client.put("/employees/a/faces", content=b" " * 10_000_001, headers=JPEG)
    assert large.status_code == 413
    for media_type in ("image/tiff", "text/plain", ""):
        reply = client.put("/employees/a/faces", content=b"x", headers={"Content-Type": media_type})
        assert reply.status_code == 415
        assert "image/png" in reply.json()["error"]
