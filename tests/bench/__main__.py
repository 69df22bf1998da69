"""`make bench`: measurements, interleaved, best of many, with the machine's name. Asserts nothing.

Needs ../shared for the accuracy figures and says so when it is absent.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from kiosk.clock import SystemClock
from kiosk.config import Camera, Models, Recognition, Replay, Server, Settings
from kiosk.decide.gallery import Gallery, Template
from kiosk.decide.policy import Policy
from kiosk.types import Frame, Stamp, Trust
from kiosk.vision.embed import open_embedder, preprocess
from kiosk.vision.manifest import load_manifest
from kiosk.vision.picture import load_picture
from kiosk.vision.pipeline import open_pipeline

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared"
PEOPLE = REPOSITORY / "kiosk" / "demo" / "people"
ROUNDS = 60
FRAMES = 10_000
CYCLE = 4


def machine():
    """The processor's name and what decides about INT8."""
    text = Path("/proc/cpuinfo").read_text()
    name = next(line.split(":")[1].strip() for line in text.splitlines() if "model name" in line)
    flags = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if flag in text]
    return f"{name} ({' '.join(flags)})"


def interleaved(functions, rounds=ROUNDS):
    """Best milliseconds of each function, all in turn in one run."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            best[name] = min(best[name], (time.perf_counter() - began) * 1000)
    return best


def pipeline(threads=1):
    return open_pipeline(Models(threads=threads), clock=SystemClock(), record=lambda _s, _m: None)


def accuracy():
    """ORL: each picture padded by 40 px and doubled; all pairs."""
    folder = SHARED / "data" / "orl"
    if not folder.is_dir():
        print("ORL: ../shared is absent, not measured")
        return
    from sklearn.metrics import roc_auc_score

    eyes, vectors, labels, missed = pipeline(2), [], [], 0
    for path in sorted(folder.glob("*/*.pgm")):
        padded = cv2.copyMakeBorder(load_picture(path), *[40] * 4, cv2.BORDER_REPLICATE)
        faces = eyes.faces(cv2.resize(padded, None, fx=2, fy=2))
        if not faces:
            missed += 1
            continue
        vectors.append(faces[0].embedding.vector)
        labels.append(path.parent.name)
    matrix, names = np.stack(vectors), np.array(labels)
    upper = np.triu_indices(len(names), 1)
    scores, same = (matrix @ matrix.T)[upper], (names[:, None] == names)[upper]
    impostors = np.sort(scores[~same])
    print(f"ORL: {missed} of {missed + len(names)} missed, AUC {roc_auc_score(same, scores):.6f}")
    for far in (1e-3, 1e-4):
        threshold = impostors[len(impostors) - int(far * len(impostors)) - 1]
        share = (scores[same] > threshold).mean()
        print(f"ORL: TAR at FAR {far:g} {share:.4f} (threshold {threshold:.4f})")


def litert():
    """The original file in LiteRT with XNNPACK, one thread; None without the npm package."""
    from ai_edge_litert.interpreter import Interpreter

    from kiosk.lab.convert import EMBEDDER

    cached = REPOSITORY / ".cache" / "tflite" / EMBEDDER.file_name
    if not cached.is_file():
        import tempfile

        from kiosk.errors import KioskError
        from kiosk.lab.convert import fetch

        try:
            with tempfile.TemporaryDirectory() as scratch:
                fetch(Path(scratch))
                cached.parent.mkdir(parents=True, exist_ok=True)
                cached.write_bytes((Path(scratch) / EMBEDDER.file_name).read_bytes())
        except KioskError as error:
            print(f"LiteRT: not measured: {error}")
            return None
    interpreter = Interpreter(model_path=str(cached), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter, interpreter.get_input_details()[0]["index"]


def embedders(crop):
    """The shipped rewrite against the same weights with PRelu nodes, and LiteRT."""
    manifest = load_manifest()
    fast = open_embedder(manifest, "mobilefacenet-fp32", 1)
    plain = open_embedder(manifest, "mobilefacenet-prelu-fp32", 1)
    functions = {
        "PRelu nodes, onnxruntime": lambda: plain.embed(crop),
        "exact rewrite, onnxruntime": lambda: fast.embed(crop),
    }
    lite = litert()
    if lite is not None:
        interpreter, number = lite
        values = preprocess(crop, manifest.get("mobilefacenet-fp32", "embedder").input)
        # The file's batch is fixed at 2 and cannot be resized: half a run is one picture.
        values = np.repeat(values.transpose(1, 2, 0)[None], 2, axis=0)

        def invoke():
            interpreter.set_tensor(number, values)
            interpreter.invoke()

        functions["LiteRT, half a batch of 2"] = invoke
    best = interleaved(functions)
    if lite is not None:
        best["LiteRT, half a batch of 2"] /= 2
    base = best["PRelu nodes, onnxruntime"]
    for name, ms in best.items():
        print(f"embedder, 1 thread: {name:28} {ms:6.2f} ms  ratio {ms / base:.3f}")


class NeverRecorded:
    """A history in which nobody was recorded."""

    def last_recorded(self, employee, kind):
        return None


def frame_of(width, height, zoom=1.0):
    photo = load_picture(PEOPLE / "obama.jpg")
    scale = height / photo.shape[0] * zoom
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((height, width, 3), 96, np.uint8)
    left = (width - small.shape[1]) // 2
    canvas[:, max(left, 0) : max(left, 0) + small.shape[1]] = small[:height, :width]
    return canvas


def frame_to_decision():
    """Detector, alignment, quality, embedding and match together against the embedder alone."""
    eyes, pixels = pipeline(), frame_of(640, 480)
    face = eyes.faces(pixels)[0]
    gallery = Gallery([Template(f"p{n}", face.embedding, str(n)) for n in range(50)])
    rules = Recognition()
    policy = Policy(
        rules, threshold=eyes.threshold, direction=None, gallery=gallery, history=NeverRecorded()
    )
    frame = Frame(pixels, Stamp(0, 0, "bench", Trust.SYNCED), "bench")

    def decide():
        policy.decide(eyes.sightings(frame), frame.seen)

    # A known face is followed for three frames and searched for at the fourth: the mean of such a
    # cycle is what a kiosk pays, not its cheapest frame.
    best = interleaved(
        {
            "embedder alone": lambda: [eyes.embed_aligned(face.aligned) for _ in range(CYCLE)],
            "frame to decision": lambda: [decide() for _ in range(CYCLE)],
        }
    )
    best = {name: ms / CYCLE for name, ms in best.items()}
    ratio = best["frame to decision"] / best["embedder alone"]
    shares = [round(float(s), 2) for s in face.detection.box]
    print(
        f"640x480, one face {shares}, 1 thread: "
        + ", ".join(f"{n} {v:.2f} ms" for n, v in best.items())
    )
    print(
        f"640x480: frame to decision / embedder = {ratio:.2f} (mean of a cycle of {CYCLE} frames)"
    )


def memory(frames=FRAMES):
    """RSS of the daemon's rooms after so many replayed frames, and over the last half."""
    from kiosk.capture.camera import EndOfFrames, open_camera

    class Hasty(SystemClock):
        """A clock that does not pace."""

        def wait(self, event, timeout_s):
            return event.is_set()

    import tempfile

    from kiosk.outbox.store import Outbox
    from kiosk.vault import open_vault

    camera_settings = Camera(
        source="replay",
        width=640,
        height=480,
        frames_per_s=60.0,
        replay=tuple(Replay(str(PEOPLE / f"{n}.jpg"), zoom=1.5) for n in ("obama", "biden")),
        replay_loops=0,
    )
    settings = Settings(server=Server("http://127.0.0.1:9"), camera=camera_settings)
    clock = Hasty()
    eyes = pipeline(2)
    with tempfile.TemporaryDirectory() as scratch:
        vault = open_vault(Path(scratch))
        outbox = Outbox(
            Path(scratch) / "outbox.db", vault=vault, device_id="bench", signer=None, clock=clock
        )
        outbox.start()
        rules = Recognition()
        policy = Policy(
            rules, threshold=eyes.threshold, direction=None, gallery=Gallery(), history=outbox
        )
        camera = open_camera(settings.camera, clock)
        camera.open()
        sizes = []
        for number in range(frames):
            try:
                frame = camera.read(5.0)
            except EndOfFrames:
                break
            policy.decide(eyes.sightings(frame), frame.seen)
            if number % (frames // 20) == 0:
                sizes.append(rss_mib())
        outbox.close(5.0)
    half = sizes[len(sizes) // 2 :]
    print(f"memory: {frames} frames of 640x480, RSS {sizes[-1]:.0f} MiB at the end,")
    print(f"memory: {min(half):.0f} to {max(half):.0f} MiB over the last half")


def rss_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main():
    print(machine())
    if sys.argv[1:] == ["memory"]:
        memory()
        return
    accuracy()
    crop = pipeline().faces(load_picture(PEOPLE / "obama.jpg"))[0].aligned
    embedders(crop)
    frame_to_decision()
    # A process of its own: the daemon has no LiteRT and no scikit-learn.
    subprocess.run([sys.executable, __file__, "memory"], check=True)


if __name__ == "__main__":
    main()
