"""The members of a job as arrays: templates and codes, read batch by batch, gathered, mapped by workers."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import astuple
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from capture.errors import CaptureError, TemplateRefused
from capture.face.template import FaceTemplate
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.template import GROUP_WORDS, IrisTemplate
from capture.sample import EyePosition, FingerPosition
from matching.arrays import npz, synced
from matching.encounter import EncounterForm
from matching.errors import MatchingError
from matching.face.calibration import face_calibration
from matching.fingerprint.calibration import fingerprint_calibration
from matching.fingerprint.code import CODE_WORDS, detail_bin, finger_code, finger_detail
from matching.iris.calibration import iris_calibration
from matching.join import ABSENT, EYES, FINGERS, FingerCodes, IrisCodes, Words
from rekam.capturing import Capturing, Template, form_of, position_of, read_template
from rekam.client import words
from rekam.config import Settings
from rekam.errors import InvalidRequest
from rekam.exchange import Presented
from rekam.offline.dedup_job import done_units, durably_written, read_unit, unit_file
from rekam.offline.dedup_sources import Batch, DedupError, Given, Member
from rekam.offline.samples import advice
from rekam.position import Position

_KINDS = (FingerPosition.UNKNOWN, EyePosition.UNKNOWN, None)
_DONE = "done.json"

_Number = TypeVar("_Number", bound=np.generic)


class _About(TypedDict):
    """What a batch holds besides arrays: samples as kind and length, by member."""

    members: list[list[str]]
    faults: list[list[str]]
    samples: list[list[list[int]]]


Fault = tuple[str, str, str]
"""Record, place and reason of what could not be read."""


# --- 1. one batch


def read_batch(number: int, folder: Path, batch: Batch, settings: Settings) -> None:
    """Make templates and codes of a batch: its file of the step `read`.

    What cannot be read or compared is left out and listed. Cost: 6 ms an encounter of ten fingers, irises and
    face as templates; of images, their extraction besides.
    """
    people: list[list[Template]] = []
    faults: list[Fault] = []
    for given in batch:
        usable, refused = _templates(given, settings)
        people.append(usable)
        faults += [(given.member.name, place, reason) for place, reason in refused]
    blobs = [[template.to_bytes() for template in usable] for usable in people]
    about = {
        "members": [astuple(given.member) for given in batch],
        "faults": faults,
        "samples": [
            [(_kind(t), len(b)) for t, b in zip(*of, strict=True)] for of in zip(people, blobs, strict=True)
        ],
    }
    arrays = finger_arrays(people) | iris_arrays(people) | face_arrays(people)
    blob = np.frombuffer(b"".join(b for of in blobs for b in of), dtype=np.uint8)
    text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    durably_written(unit_file(folder, "read", number), npz(about=text, templates=blob, **arrays))


def _templates(given: Given, settings: Settings) -> tuple[list[Template], list[tuple[str, str]]]:
    """The templates that can be compared, one a position, and what else there was."""
    usable: list[Template] = []
    faults = list(given.faults)
    for place, presented in given.samples:
        try:
            template = _template(presented, settings, stored=given.member.state != "record")
            position = position_of(template)
            if not _room_for(position, [position_of(one) for one in usable]):
                raise TemplateRefused(f"the {words(position)} is there already: the first one counts")
            usable.append(template)
        except (CaptureError, MatchingError) as error:
            faults.append((place, str(error)))
        except InvalidRequest as error:
            faults.append((place, "; ".join(text for _, text in error.violations)))
    if not usable and not faults:
        faults.append(("", "nothing to compare"))
    return usable, faults


def _template(presented: Presented, settings: Settings, *, stored: bool) -> Template:
    """Raises `CaptureError`, `MatchingError`, `InvalidRequest` where it cannot be compared."""
    if stored and presented.template is not None:
        template = read_template(presented.position, presented.template)
    else:
        [captured] = _capturing(settings).capture([presented], lambda: None)
        if captured.template is None:
            feedback = () if captured.quality is None else captured.quality.feedback
            raise TemplateRefused(f"the image gave no template. {advice(feedback)}")
        template = captured.template
    match template:
        case FingerprintTemplate():
            fingerprint_calibration(template.extractor, template.extractor)
        case IrisTemplate():
            iris_calibration(template.coder, template.coder)
        case FaceTemplate():
            face_calibration(template.embedder, settings.face_embedder_calibration)
    return template


@lru_cache(maxsize=1)
def _capturing(settings: Settings) -> Capturing:
    """One a process: loading the networks takes a second."""
    return Capturing(settings)


def _room_for(position: Position, taken: list[Position]) -> bool:
    """Whether an encounter may show this too: every known finger and eye once, two irises, one face."""
    like = [one for one in taken if type(one) is type(position)]
    if position is None:
        return not like
    return (not position or position not in like) and (isinstance(position, FingerPosition) or len(like) < 2)


def _kind(template: Template) -> int:
    return [FingerprintTemplate, IrisTemplate, FaceTemplate].index(type(template))


def finger_arrays(people: list[list[Template]]) -> dict[str, NDArray[np.generic]]:
    """Codes and bins of known positions, and of each loose finger its row."""
    codes = np.zeros((len(people), FINGERS, CODE_WORDS), dtype=np.uint64)
    bins = np.full((len(people), FINGERS), ABSENT, dtype=np.uint8)
    loose: list[tuple[int, Words, int]] = []
    for row, templates in enumerate(people):
        for template in templates:
            if isinstance(template, FingerprintTemplate):
                code, own_bin = finger_code(template), detail_bin(finger_detail(template))
                if template.position:
                    codes[row, template.position - 1], bins[row, template.position - 1] = code, own_bin
                else:
                    loose.append((row, code, own_bin))
    return {
        "finger_codes": codes,
        "finger_bins": bins,
        "loose_row": np.array([row for row, _, _ in loose], dtype=np.int64),
        "loose_codes": np.array([code for _, code, _ in loose], dtype=np.uint64).reshape(-1, CODE_WORDS),
        "loose_bins": np.array([own_bin for _, _, own_bin in loose], dtype=np.uint8),
    }


def iris_arrays(people: list[list[Template]]) -> dict[str, NDArray[np.generic]]:
    """Scan codes and masks by slot, of slots that anybody has."""
    slots: dict[int, Words] = {}
    for row, templates in enumerate(people):
        unknown = EYES.index(EyePosition.UNKNOWN)
        for template in templates:
            if isinstance(template, IrisTemplate):
                slot = EYES.index(template.eye) if template.eye else unknown
                unknown += not template.eye
                of_slot = slots.setdefault(slot, np.zeros((len(people), 2, GROUP_WORDS), dtype=np.uint64))
                of_slot[row] = template.code[:GROUP_WORDS], template.mask[:GROUP_WORDS]
    return {f"iris_{slot}": of_slot for slot, of_slot in slots.items()}


def face_arrays(people: list[list[Template]]) -> dict[str, NDArray[np.generic]]:
    """Vectors by embedder; zeros where somebody has none."""
    vectors: dict[str, NDArray[np.float32]] = {}
    for row, templates in enumerate(people):
        for template in templates:
            if isinstance(template, FaceTemplate):
                zeros = np.zeros((len(people), len(template.vector)), dtype=np.float32)
                vectors.setdefault(f"face_{template.embedder.hex()}", zeros)[row] = template.vector
    return dict(vectors)


# --- 2. all of them


def is_gathered(folder: Path) -> bool:
    """Whether the arrays are there; batches are gone then."""
    return (folder / "gathered" / _DONE).exists()


def gather(folder: Path) -> None:
    """Put all batches into arrays, in their order, then remove them. Whole or not at all."""
    target = folder / "gathered"
    numbers = sorted(done_units(folder, "read"))
    members: list[list[str]] = []
    faults: list[list[str]] = []
    samples: list[list[int]] = []
    ends: list[int] = []
    for about, _ in _units(folder, numbers):
        members += about["members"]
        faults += about["faults"]
        for of_member in about["samples"]:
            samples += of_member
            ends.append(len(samples))
    written: dict[str, NDArray[np.generic]] = {}
    loose: dict[str, list[NDArray[np.generic]]] = {"loose_row": [], "loose_codes": [], "loose_bins": []}
    first = 0
    with (target / "templates").open("wb") as templates:
        for about, arrays in _units(folder, numbers):
            count = len(about["members"])
            templates.write(arrays.pop("templates").tobytes())
            arrays["loose_row"] = arrays["loose_row"].astype(np.int64) + first
            for name, part in arrays.items():
                if name in loose:
                    loose[name].append(part)
                    continue
                if name not in written:
                    shape = (len(members), *part.shape[1:])
                    written[name] = open_memmap(target / f"{name}.npy", "w+", part.dtype, shape)
                written[name][first : first + count] = part
            first += count
    for array in written.values():
        array.flush()  # type: ignore[attr-defined]  # memory-mapped ones have it
    subjects = {subject: number for number, subject in enumerate(dict.fromkeys(one[1] for one in members))}
    tables = {
        "subjects": np.array([subjects[one[1]] for one in members], dtype=np.int64),
        "samples": np.array(samples, dtype=np.int64).reshape(-1, 2),
        "ends": np.array(ends, dtype=np.int64),
        **{name: np.concatenate(parts) for name, parts in loose.items() if parts},
    }
    for name, table in tables.items():
        np.save(target / f"{name}.npy", table, allow_pickle=False)
    # All of it is on disk before it counts as done, and what it was made of goes.
    for path in (*target.iterdir(), target):
        synced(path)
    durably_written(target / _DONE, json.dumps({"members": members, "faults": faults}).encode())
    shutil.rmtree(folder / "read")
    (folder / "read").mkdir(mode=0o700)


def _units(folder: Path, numbers: list[int]) -> Iterator[tuple[_About, dict[str, NDArray[np.generic]]]]:
    for number in numbers:
        arrays = read_unit(folder, "read", number)
        yield json.loads(arrays.pop("about").tobytes()), arrays


def members_and_faults(folder: Path) -> tuple[list[Member], list[Fault]]:
    """Who was gathered, and what could not be read."""
    content = json.loads((folder / "gathered" / _DONE).read_text())
    return [Member(*one) for one in content["members"]], [tuple(one) for one in content["faults"]]


class Gathered:
    """The arrays, mapped; members go by number. `opened` gives one a process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "gathered"
        self.subjects = self._array("subjects", np.int64)
        self._samples = self._array("samples", np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._samples[:, 1])])
        self._ends = self._array("ends", np.int64)
        self._form = lru_cache(maxsize=4096)(self._made_form)

    def __len__(self) -> int:
        return len(self.subjects)

    def _array(self, name: str, dtype: type[_Number]) -> NDArray[_Number]:
        array: NDArray[_Number] = np.load(self._folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if array.dtype != dtype:
            raise DedupError(f"{self._folder} is damaged: remove the job's folder and begin anew")
        return array

    @cached_property
    def loose_members(self) -> NDArray[np.int64]:
        """Members that have fingers of unknown position."""
        return np.unique(self._array("loose_row", np.int64))

    @cached_property
    def slots(self) -> list[int]:
        """The slots of eyes that anybody has."""
        return [slot for slot in range(len(EYES)) if (self._folder / f"iris_{slot}.npy").exists()]

    @cached_property
    def embedders(self) -> list[str]:
        """What made the faces."""
        return sorted(path.stem.removeprefix("face_") for path in self._folder.glob("face_*.npy"))

    @cached_property
    def has_fingers(self) -> bool:
        """Whether anybody has a finger of known position."""
        return bool((self._array("finger_bins", np.uint8) != ABSENT).any())

    @cached_property
    def members_of(self) -> list[NDArray[np.int64]]:
        """The members of each subject."""
        order = np.argsort(self.subjects, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.subjects[order])) + 1)

    def fingers(self, members: NDArray[np.int64], *, loose: bool = False) -> FingerCodes:
        """Codes of these members; with those of unknown position where `loose`."""
        codes, bins = (
            self._array("finger_codes", np.uint64)[members],
            self._array("finger_bins", np.uint8)[members],
        )
        if loose and len(found := np.flatnonzero(np.isin(self._array("loose_row", np.int64), members))):
            rows = self._array("loose_row", np.int64)[found]
            places = {int(member): row for row, member in enumerate(members)}
            of_row = [list(group) for _, group in groupby(range(len(rows)), key=lambda k: int(rows[k]))]
            more = max(map(len, of_row))
            codes = np.concatenate([codes, np.zeros((len(codes), more, CODE_WORDS), np.uint64)], axis=1)
            bins = np.concatenate([bins, np.full((len(bins), more), ABSENT, np.uint8)], axis=1)
            for group in of_row:
                row, some = places[int(rows[group[0]])], found[group]
                codes[row, FINGERS : FINGERS + len(some)] = self._array("loose_codes", np.uint64)[some]
                bins[row, FINGERS : FINGERS + len(some)] = self._array("loose_bins", np.uint8)[some]
        return FingerCodes(codes, bins)

    def irises(self, members: NDArray[np.int64]) -> IrisCodes:
        """Scan codes of these members."""
        words_ = np.zeros((2, len(members), len(EYES), GROUP_WORDS), dtype=np.uint64)
        for slot in self.slots:
            words_[:, :, slot] = self._array(f"iris_{slot}", np.uint64)[members].transpose(1, 0, 2)
        return IrisCodes(words_[0], words_[1])

    def faces(self, embedder: str, members: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of these members; zeros where they have none of this embedder."""
        return self._array(f"face_{embedder}", np.float32)[members]

    def form(self, member: int) -> EncounterForm:
        """A member's templates, ready to be compared. The latest are kept."""
        return self._form(member)

    def _made_form(self, member: int) -> EncounterForm:
        first = int(self._ends[member - 1]) if member else 0
        templates = []
        with (self._folder / "templates").open("rb") as file:
            for sample in range(first, int(self._ends[member])):
                file.seek(int(self._starts[sample]))
                kind, length = self._samples[sample].tolist()
                templates.append(read_template(_KINDS[kind], file.read(length)))
        return form_of(templates)


def opened(folder: Path) -> Gathered:
    """The arrays of a job, once a process."""
    return _opened(folder, (folder / "gathered" / _DONE).stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _opened(folder: Path, made: int) -> Gathered:
    return Gathered(folder)
