"""libcamera's Python bindings as far as picamera2 0.3.38 asks for them, with a sensor behind them.

Everything above is picamera2's own code. The stub keeps libcamera's rules that matter: a request is
completed once and must be queued again, requests that a time-out ends come back as Cancelled, a
camera is acquired by one owner, rows are padded to the hardware's stride.
"""

import contextlib
import enum
import os
import sys
import threading
import types
from unittest.mock import MagicMock

STRIDE = 64


class StreamRole(enum.Enum):
    Raw, StillCapture, VideoRecording, Viewfinder = range(4)


class ControlType(enum.Enum):
    Null, Bool, Integer32, Float, Rectangle, Size = range(6)


class Orientation(enum.Enum):
    (
        Rotate0,
        Rotate0Mirror,
        Rotate180,
        Rotate180Mirror,
        Rotate90,
        Rotate90Mirror,
        Rotate270,
        Rotate270Mirror,
    ) = range(8)


class Size:
    def __init__(self, width=0, height=0):
        self.width, self.height = width, height

    def to_tuple(self):
        return self.width, self.height


class Rectangle:
    def __init__(self, *values):
        self.values = values

    def to_tuple(self):
        return self.values


class Transform:
    def __init__(self, other=None, hflip=0, vflip=0, transpose=0):
        self.hflip, self.vflip, self.transpose = bool(hflip), bool(vflip), bool(transpose)
        if other is not None:
            self.hflip, self.vflip, self.transpose = other.key

    @property
    def key(self):
        return self.hflip, self.vflip, self.transpose

    def __str__(self):
        return f"transform {self.key}"

    def __eq__(self, other):
        return self.key == other.key

    def __hash__(self):
        return hash(self.key)


class ColorSpace:
    YcbcrEncoding = enum.Enum("YcbcrEncoding", ["Null", "Rec601"])
    Range = enum.Enum("Range", ["Full", "Limited"])

    def __init__(self, other):
        self.primaries = self.transferFunction = getattr(other, "primaries", other)
        self.ycbcrEncoding, self.range = None, None

    def __str__(self):
        return str(self.primaries)

    def __eq__(self, other):
        return self.primaries == other.primaries

    def __hash__(self):
        return hash(self.primaries)


for _name in ("Sycc", "Smpte170m", "Rec709", "Raw"):
    setattr(ColorSpace, _name, staticmethod(lambda name=_name: ColorSpace(name)))


class PixelFormat(str):
    __slots__ = ()


class _Control:
    def __init__(self, name, kind=ControlType.Integer32):
        self.name, self.type = name, kind

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return isinstance(other, _Control) and self.name == other.name


class _Limits:
    def __init__(self, low, high, default):
        self.min, self.max, self.default = low, high, default


class FrameMetadata:
    Status = enum.Enum("Status", ["Success", "Error", "Cancelled"])


class FrameBuffer:
    class Plane:
        fd = offset = length = 0

    def __init__(self, planes):
        self.planes = planes
        self.metadata = types.SimpleNamespace(status=FrameMetadata.Status.Success)


class Request:
    Status = enum.Enum("Status", ["Pending", "Complete", "Cancelled"])

    def __init__(self, cookie):
        self.cookie, self.buffers, self.metadata = cookie, {}, {}
        self.status = Request.Status.Pending

    def add_buffer(self, stream, buffer):
        self.buffers[stream] = buffer

    def set_control(self, control, value):
        """Taken, as by a sensor that has it."""

    def reuse(self):
        assert self.status is not Request.Status.Pending, "still with the camera"
        self.status, self.metadata = Request.Status.Pending, {}


class _Stream:
    pass


class _StreamConfiguration:
    class formats:  # noqa: N801 - as libcamera has it
        pixel_formats = (PixelFormat("SBGGR10_CSI2P"),)

        @staticmethod
        def sizes(_):
            return [Size(4608, 2592), Size(2304, 1296)]

    def __init__(self):
        self.stream, self.size, self.pixel_format = _Stream(), Size(640, 480), PixelFormat("")
        self.buffer_count, self.stride, self.color_space = 4, 0, None

    @property
    def frame_size(self):
        return self.stride * self.size.height * (3 if self.pixel_format == "YUV420" else 2) // 2


class CameraConfiguration:
    Status = enum.Enum("Status", ["Valid", "Adjusted", "Invalid"])

    def __init__(self, roles):
        self._streams = [_StreamConfiguration() for _ in roles]
        self.orientation, self.sensor_config = Orientation.Rotate0, None

    def at(self, index):
        return self._streams[index]

    def __iter__(self):
        return iter(self._streams)

    def validate(self):
        """Odd sizes are made even; rows are as long as the hardware makes them."""
        status = CameraConfiguration.Status.Valid
        for one in self._streams:
            if one.size.width % 2:
                one.size = Size(one.size.width - 1, one.size.height)
                status = CameraConfiguration.Status.Adjusted
            row = one.size.width * (3 if one.pixel_format in ("RGB888", "BGR888") else 1)
            one.stride = -(-row // STRIDE) * STRIDE + STRIDE
        return status


class SensorConfiguration:
    bit_depth, output_size = 10, None


class Sensor:
    """What is at the far end of the ribbon; a test says how it behaves.

    `live`: a frame each 10 ms with a new time. `stale`: with the same time. `mute`: libcamera
    times out, and every request comes back Cancelled. `hang`: stopping it never returns.
    """

    def __init__(self):
        self.mode, self.connected = "live", True
        self.controls = {"FrameDurationLimits": _Limits(1000, 1_000_000, 33_333)}
        self.sensor_ns = 1_000_000
        self.let_go = threading.Event()
        self.camera = None

    def offer(self, name, low, high, default):
        self.controls[name] = _Limits(low, high, default)


class Camera:
    def __init__(self, sensor, manager):
        self.sensor, self.manager, self.id = sensor, manager, "/base/soc/i2c0mux/i2c@1/imx708@1a"
        self.properties = {
            _Control("Model"): "imx708",
            _Control("ColorFilterArrangement"): 0,
        }
        self.owned, self.queued, self.started_with = False, [], None
        self._lock, self._ended, self._thread = threading.Lock(), threading.Event(), None

    @property
    def controls(self):
        return {_Control(name): limits for name, limits in self.sensor.controls.items()}

    def acquire(self):
        if self.owned:
            raise RuntimeError("Failed to acquire camera: Device or resource busy")
        self.owned = True

    def release(self):
        self.owned = False

    def generate_configuration(self, roles):
        return CameraConfiguration(roles)

    def configure(self, configuration):
        self.configuration = configuration
        return 0

    def create_request(self, cookie):
        return Request(cookie)

    def start(self, controls):
        self.started_with = {control.name: value for control, value in controls.items()}
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def queue_request(self, request):
        with self._lock:
            self.queued.append(request)

    def stop(self):
        if self.sensor.mode == "hang":
            self.sensor.let_go.wait(60)
        self._ended.set()
        self._thread.join(10)
        self._give_back()

    def _give_back(self):
        with self._lock:
            cancelled, self.queued = self.queued, []
        for request in cancelled:
            request.status = Request.Status.Cancelled
        self.manager.complete(cancelled)

    def _run(self):
        while not self._ended.wait(0.01):
            mode = self.sensor.mode
            if mode == "mute":
                self._give_back()
            if mode not in ("live", "stale"):
                continue
            with self._lock:
                request = self.queued.pop(0) if self.queued else None
            if request is not None:
                self._expose(request, mode)

    def _expose(self, request, mode):
        if mode == "live":
            self.sensor.sensor_ns += 1_000_000
        level = self.sensor.sensor_ns // 1_000_000 % 200
        for one in self.configuration:
            row = bytes([level, level + 1, level + 2]) * one.size.width
            if one.pixel_format == "YUV420":
                row = bytes([level]) * one.size.width
            row = row[: one.stride].ljust(one.stride, b"\xff")
            plane = request.buffers[one.stream].planes[0]
            rows = plane.length // one.stride
            os.pwrite(plane.fd, row * rows, 0)
        request.metadata = {_Control("SensorTimestamp"): self.sensor.sensor_ns}
        request.status = Request.Status.Complete
        self.manager.complete([request])


class CameraManager:
    sensor = Sensor()
    _one = None

    def __init__(self, sensor):
        self.event_fd, self._writing = os.pipe2(os.O_NONBLOCK)
        self._ready, self._lock = [], threading.Lock()
        self._camera = Camera(sensor, self)

    @classmethod
    def singleton(cls):
        if cls._one is None or cls._one._camera.sensor is not cls.sensor:
            cls._one = cls(cls.sensor)
            cls.sensor.camera = cls._one._camera
        return cls._one

    @property
    def cameras(self):
        return [self._camera] if self._camera.sensor.connected else []

    def complete(self, requests):
        with self._lock:
            self._ready += requests
        if requests:
            os.write(self._writing, b"x")

    def get_ready_requests(self):
        # Asked again before anything came, there is nothing to read.
        with contextlib.suppress(BlockingIOError):
            os.read(self.event_fd, 4096)
        with self._lock:
            ready, self._ready = self._ready, []
        return ready


def modules():
    """The modules to be imported as libcamera, prctl and what draws on a screen or writes DNGs."""
    libcamera = types.ModuleType("libcamera")
    here = sys.modules[__name__]
    names = (
        "StreamRole ControlType Orientation Size Rectangle Transform ColorSpace PixelFormat"
        " FrameBuffer Request CameraConfiguration SensorConfiguration Camera CameraManager"
    )
    for name in names.split():
        setattr(libcamera, name, getattr(here, name))
    libcamera.FrameBufferAllocator, libcamera.FrameMetadata = object, FrameMetadata
    controls = types.ModuleType("libcamera.controls")
    for name in ("ExposureTime", "ExposureTimeMode", "AnalogueGain", "AnalogueGainMode"):
        setattr(controls, name, _Control(name))
    modes = enum.IntEnum("NoiseReductionModeEnum", ["Off", "Fast", "HighQuality", "Minimal"])
    controls.draft = types.SimpleNamespace(NoiseReductionModeEnum=modes)
    libcamera.controls = controls
    # Its C++ part, which has the types.
    libcamera._libcamera = libcamera
    libcamera.properties = types.SimpleNamespace(
        draft=types.SimpleNamespace(ColorFilterArrangementEnum=types.SimpleNamespace(MONO=9))
    )
    made = {"libcamera": libcamera, "libcamera.controls": controls}
    for name in ("prctl", "pykms", "pidng", "pidng.core", "pidng.camdefs"):
        made[name] = types.ModuleType(name)
    # Named when the module is read, and never drawn with.
    made["pykms"].PixelFormat = MagicMock()
    made["pidng.core"].PICAM2DNG = made["pidng.camdefs"].Picamera2Camera = object
    return made
