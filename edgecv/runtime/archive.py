"""The bundle as a file: a zip that is read and checked, and not unpacked to a disk.

Nothing of it is executed, but where an engine's files are source code (C): a session of it wants
EDGECV_TRUST_SOURCE=1 (`edgecv.source_trust`).

    manifest.json                  what it is (below); the first member
    engine/<name>                  the engine's own files
    golden/...                     a few inputs and what the engine answered where it was made
                                   (`edgecv.runtime.goldens`; older bundles have an .npy each)
    evaluation/correct.npy         which test images were answered rightly, packed bits (optional)
    evaluation/parts/<name>.npy    of other tasks: what each test image adds to the metric

Members are stored uncompressed, sorted, with fixed timestamps: the same contents give the same
bytes. Characters of a tensor's name other than A-Z a-z 0-9 _ . - are written as %XX (UTF-8).

manifest.json (no timestamps, no latencies, no paths of the machine that wrote it):

    schema         1, or 2 where "decode" is there                          set by write_bundle
    edgecv         version that wrote it                                    set by write_bundle
    name, target, engine, precision      strings
    task           a name of `edgecv.tasks`, or null: tensors in, tensors out
    decode         how the task reads the outputs: the fields of its value; of schema 2
    input          {"name", "preprocess": Preprocess.to_json()}    the image's input, or null
    graph          {"inputs", "outputs"}: the tensors by the graph's own names, shapes and layout
    inputs, outputs    [TensorSpec.to_json(), ...]; outputs[0] holds the classes, where its kind
                       (`edgecv.runtime.fidelity.KINDS`) says so
    scores         "logits" (the default when absent) or "probabilities": what outputs[0] holds
    labels         one string per class, or null
    metric         null, or {"name", "value", "samples", "images"}          optional, as are all
    executed       {precision: layers that ran in it}                       below it
    compiled       false when a vendor's compiler was not there
    notes          one sentence each
    tools          {name: version}
    recipe_digest, model_digest          strings or null
    files          the engine's files in its own order, the main one first  set by write_bundle
    size_bytes     of the engine's files                                    set by write_bundle
    members        {member: SHA-256, hex}, all but manifest.json            set by write_bundle

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from edgecv import __version__
from edgecv.errors import BundleError, StoreError, one_line
from edgecv.runtime import goldens as packed
from edgecv.runtime import manifest as manifests
from edgecv.runtime import npy
from edgecv.runtime.outside import points_outside
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.shape import Every, Text, loads, wrong
from edgecv.runtime.spec import TensorSpec, joined_shape, of_call

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

SCHEMA = 2
MANIFEST = "manifest.json"
CORRECT = "evaluation/correct.npy"
PARTS = "evaluation/parts/"
_MANIFEST_LIMIT = 32 << 20  # bytes; a million labels fit
_AGAIN = "the file is damaged: copy it again, or make it again with edgecv export"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say


@dataclass(frozen=True)
class Contents:
    """A bundle that was read and checked.

    files:   name -> bytes of the engine's files, the main one first
    golden_inputs, golden_outputs: tensor name -> (samples, ...) array in the engine's dtype, of a
             large output (samples, values), evenly spread; both empty when the bundle carries none
    correct: bool (images,), whether each test image was answered rightly, so that two bundles can
             be compared image by image; None when the bundle does not say
    graph:   (inputs, outputs) as the graph itself calls and shapes them; empty when not told
    parts:   of other tasks than classification, for the same (`edgecv.tasks.base.Task.difference`)
    """

    path: Path
    manifest: dict[str, Any]
    files: dict[str, bytes]
    preprocess: Preprocess
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden_inputs: dict[str, np.ndarray] = field(default_factory=dict)
    golden_outputs: dict[str, np.ndarray] = field(default_factory=dict)
    correct: np.ndarray | None = None
    graph: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] = ((), ())
    parts: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def image(self) -> str | None:
        """The input that takes the image; None where none does."""
        told = self.manifest.get("input")
        return str(told["name"]) if told else None

    def golden_feed(self, call: int = 0) -> dict[str, np.ndarray]:
        """What one call takes, of the golden inputs; empty without any."""
        return {s.name: of_call(self.golden_inputs[s.name], s, call) for s in self.inputs
                if s.name in self.golden_inputs}  # fmt: skip


def write_bundle(
    path: str | Path,
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    golden_inputs: Mapping[str, np.ndarray],
    golden_outputs: Mapping[str, np.ndarray],
    correct: np.ndarray | None = None,
    goldens: packed.Goldens | None = None,
    parts: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a bundle: all of it or nothing, and the same bytes for the same contents.

    manifest: as in this module's docstring, without the keys that are set here
    files:    base name -> bytes, the main one first
    golden_*: tensor name -> (samples, ...) in the engine's dtype; may be empty
    goldens:  in their place, packed
    correct:  bool (metric.samples,), or None
    parts:    of a task's score, by name; may be empty

    Raises BundleError (a manifest or a golden array that read_bundle would refuse) and
    StoreError (a full disk, no permission); neither leaves a file behind.
    """
    from hashlib import sha256

    path = Path(path)
    members = {f"engine/{name}": bytes(data) for name, data in files.items()}
    for kind, arrays in (("inputs", golden_inputs), ("outputs", golden_outputs)):
        members |= {_golden_name(kind, name): npy.written(array) for name, array in arrays.items()}
    if goldens is not None:
        members |= dict(goldens.members())
        manifest = {**manifest, "golden": {"repeat": goldens.repeat}}
    if correct is not None:
        samples = (manifest.get("metric") or {}).get("samples")
        if correct.dtype != np.bool_ or correct.shape != (samples,):
            what = f"{correct.dtype} {correct.shape} for {samples} images"
            raise BundleError(f"{path}: {CORRECT}", what, "one truth value for each image")
        members[CORRECT] = npy.written(np.packbits(correct))
    members |= {f"{PARTS}{name}.npy": npy.written(a) for name, a in (parts or {}).items()}
    full = {
        **manifest,
        "schema": SCHEMA if "decode" in manifest else 1,  # the oldest that says all of it
        "edgecv": __version__,
        "files": list(files),
        "size_bytes": sum(map(len, files.values())),
        "members": {name: sha256(members[name]).hexdigest() for name in sorted(members)},
    }
    text = _json(path, full)
    _contents(path, _manifest(path, text), members)  # what cannot be read is not written
    _replace(path, {MANIFEST: text, **dict(sorted(members.items()))})
    return path


def read_bundle(path: str | Path) -> Contents:
    """Load a bundle into memory and check all of it: names, sizes, digests, schema.

    Raises BundleError, which names the file and the member: not a zip, cut short, a member
    that is missing, changed, compressed, a link, or named to leave its folder; a manifest that
    is not one, or of a newer schema.
    """
    from zipfile import BadZipFile, ZipFile

    path = Path(path)
    try:
        about = path.stat()  # before it is opened: a pipe would wait for its writer
        if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):
            raise BundleError(str(path), "is no regular file", "a bundle is a .edgecv file")
        with path.open("rb") as handle, ZipFile(handle) as archive:
            members = _members(path, archive, os.fstat(handle.fileno()).st_size)
    except FileNotFoundError:
        raise BundleError(str(path), "no such file", "a bundle is a .edgecv file") from None
    except IsADirectoryError:
        raise BundleError(str(path), "is a folder", "a bundle is a .edgecv file") from None
    except BadZipFile as e:
        again = _AGAIN if path.suffix == ".edgecv" else "a bundle is a .edgecv file"
        raise BundleError(str(path), f"not a readable bundle: {one_line(e, 200)}", again) from None
    except (OSError, EOFError, ValueError, RuntimeError, struct.error) as e:
        # RuntimeError: encrypted, or a zip feature that Python does not know
        raise BundleError(str(path), f"not a readable bundle: {one_line(e, 200)}", _AGAIN) from None
    manifest = _manifest(path, members.pop(MANIFEST, None))
    _digests(path, manifest, members)
    return _contents(path, manifest, members)


# reading


def _members(path: Path, archive: ZipFile, size: int) -> dict[str, bytes]:
    """Member name -> bytes. Nothing is decompressed, so nothing is larger than the file."""
    infos = archive.infolist()
    names: set[str] = set()
    for info in infos:
        name = info.orig_filename
        if problem := _suspicious(info) or ("is there twice" if name in names else ""):
            raise BundleError(f"{path}: {name!r}", problem, "edgecv writes no such member")
        names.add(name)
    if (total := sum(i.file_size for i in infos)) > size:
        raise BundleError(str(path), f"declares {total} bytes in a file of {size}", _AGAIN)
    return {info.filename: archive.read(info) for info in infos}


def _suspicious(info: ZipInfo) -> str:
    """Why a member is refused, "" when it is not."""
    name = info.orig_filename
    parts = name.split("/")
    if "\\" in name or "\0" in name or ":" in parts[0] or any(p in ("", ".", "..") for p in parts):
        return "is a name that could leave its folder"
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is a link or a special file"
    if info.compress_type != 0 or info.compress_size != info.file_size:
        return "is compressed; members of a bundle are stored"
    if name == MANIFEST and info.file_size > _MANIFEST_LIMIT:
        return f"has {info.file_size} bytes"
    return ""


def _manifest(path: Path, data: bytes | None) -> dict[str, Any]:
    where = f"{path}: {MANIFEST}"
    if data is None:
        raise BundleError(where, "is missing", "is this a file that edgecv export wrote?")
    try:
        manifest = loads(data)
    except ValueError as e:
        raise BundleError(where, one_line(e, 200), _AGAIN) from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if type(schema) is not int or schema < 1:
        raise BundleError(where, f"schema {schema!r:.40} is not a number from 1 up", _AGAIN)
    if schema > SCHEMA:
        hint = f"take a newer edgecv: this is {__version__}"
        raise BundleError(where, f"schema {schema} is newer than {SCHEMA}", hint)
    return manifest


def _digests(path: Path, manifest: dict[str, Any], members: Mapping[str, bytes]) -> None:
    from hashlib import sha256

    listed = manifest.get("members")
    if problem := wrong(listed, Every(dict, Text(64)), "members"):
        raise BundleError(f"{path}: {MANIFEST}", problem, _AGAIN)
    assert isinstance(listed, dict)
    for name in sorted(listed.keys() | members.keys()):
        where = f"{path}: {name}"
        if name not in members:
            raise BundleError(where, "is missing", _AGAIN)
        if name not in listed:
            raise BundleError(where, "is not in the manifest", "edgecv writes no such member")
        found = sha256(members[name]).hexdigest()
        if found != listed[name]:
            said = listed[name][:12]
            raise BundleError(where, f"SHA-256 is {found[:12]}..., not {said}...", _AGAIN)


# what the manifest says


def _contents(path: Path, manifest: dict[str, Any], members: Mapping[str, bytes]) -> Contents:
    """The manifest and the members, checked against each other."""
    where = f"{path}: {MANIFEST}"
    try:
        told = manifests.read(manifest)
    except ValueError as e:
        raise BundleError(where, one_line(e, 200), _AGAIN) from None
    files: dict[str, bytes] = {}
    for name in manifest["files"]:
        member = f"{path}: engine/{name}"
        if (content := members.get(f"engine/{name}")) is None:
            raise BundleError(member, "is missing", _AGAIN)
        if problem := points_outside(manifest["engine"], name, content):
            raise BundleError(member, problem, "a bundle holds all that it needs")
        files[name] = content
    golden = _goldens(path, manifest, members, told)
    samples = {len(a) for arrays in golden for a in arrays.values()}
    if len(samples) > 1 or samples == {0} or bool(golden[0]) != bool(golden[1]):
        raise BundleError(f"{path}: golden", "inputs and outputs do not pair up", _AGAIN)
    correct = _correct(path, members.get(CORRECT), manifest.get("metric"))
    return Contents(
        path, manifest, files, told.preprocess, told.inputs, told.outputs, golden[0], golden[1],
        correct, told.graph, _parts(path, members),
    )  # fmt: skip


def _goldens(
    path: Path, manifest: Mapping[str, Any], members: Mapping[str, bytes], told: manifests.Read
) -> list[dict[str, np.ndarray]]:
    """[inputs, outputs], packed or, of bundles from before and for devices, as they are."""
    if not any(name.startswith("golden/") and name.endswith(".z") for name in members):
        ends = (("inputs", told.inputs), ("outputs", told.outputs))
        return [_golden(path, members, kind, specs) for kind, specs in ends]
    image = (manifest.get("input") or {}).get("name")
    repeat = (manifest.get("golden") or {}).get("repeat", 1)
    try:
        found = packed.read(members, repeat, image, told.preprocess, told.inputs, told.outputs)
        return [found.feed(image, told.preprocess), dict(found.outputs)]
    except ValueError as e:
        raise BundleError(f"{path}: golden", one_line(e, 200), _AGAIN) from None


def _golden(
    path: Path, members: Mapping[str, bytes], kind: str, specs: Iterable[TensorSpec]
) -> dict[str, np.ndarray]:
    """Tensor name -> array, for every spec; {} when the bundle carries none of that kind."""
    if not any(name.startswith(f"golden/{kind}/") for name in members):
        return {}
    arrays = {}
    for spec in specs:
        member = _golden_name(kind, spec.name)
        where = f"{path}: {member}"
        if member not in members:
            raise BundleError(where, "is missing", _AGAIN)
        try:
            array = npy.read(members[member])
        except (ValueError, TypeError):
            raise BundleError(where, "is not a plain .npy array", _AGAIN) from None
        wanted = (spec.dtype, joined_shape(spec))
        if (array.dtype.name, array.shape[1:]) != wanted or array.ndim == 0:
            what = f"{array.dtype} {array.shape} does not match {spec.dtype} {spec.shape}"
            raise BundleError(where, what, _AGAIN)
        arrays[spec.name] = array
    return arrays


def _correct(path: Path, data: bytes | None, metric: Mapping[str, Any] | None) -> np.ndarray | None:
    """Which test images were answered rightly: as many as the metric has samples."""
    if data is None:
        return None
    where = f"{path}: {CORRECT}"
    try:
        bits = npy.read(data)
    except (ValueError, TypeError):
        raise BundleError(where, "is not a plain .npy array", _AGAIN) from None
    if metric is None:
        raise BundleError(where, "is there without a metric", _AGAIN)
    samples = metric["samples"]
    right = round(metric["value"] * samples)
    if bits.dtype != np.uint8 or bits.shape != (-(-samples // 8),):
        raise BundleError(where, f"{bits.dtype} {bits.shape} for {samples} images", _AGAIN)
    correct = np.unpackbits(bits, count=samples).astype(bool)
    if int(correct.sum()) != right:
        what = f"says {int(correct.sum())} of {samples} right, the metric {right}"
        raise BundleError(where, what, _AGAIN)
    return correct


def _parts(path: Path, members: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """What each test image adds to the metric; the task checks what it says."""
    found = {}
    for name in members:
        if name.startswith(PARTS):
            try:
                found[name.removeprefix(PARTS).removesuffix(".npy")] = npy.read(members[name])
            except (ValueError, TypeError):
                raise BundleError(f"{path}: {name}", "is not a plain .npy array", _AGAIN) from None
    return found


# bytes


def _golden_name(kind: str, tensor: str) -> str:
    return packed.member(kind, tensor).removesuffix(".z") + ".npy"


def _json(path: Path, manifest: Mapping[str, Any]) -> bytes:
    import json

    try:
        text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise BundleError(f"{path}: {MANIFEST}", f"is not plain JSON: {e}") from None
    return (text + "\n").encode()


def _replace(path: Path, members: Mapping[str, bytes]) -> None:
    """Write the zip beside its place, flush it to the disk, then move it into place."""
    # not tempfile, whose files only their owner can read
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("xb") as handle:
            _zip(handle, members)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as e:
        temporary.unlink(missing_ok=True)
        if isinstance(e, OSError):
            what = f"could not be written: {e.strerror or e}"
            raise StoreError(str(path), what, "free some space or choose another folder") from None
        raise


def _zip(handle: IO[bytes], members: Mapping[str, bytes]) -> None:
    from zipfile import ZIP_STORED, ZipFile, ZipInfo

    with ZipFile(handle, "w", ZIP_STORED) as archive:
        for name, data in members.items():
            info = ZipInfo(name, _EPOCH)
            info.create_system = 3  # Unix, wherever it is written
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut; only POSIX can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
