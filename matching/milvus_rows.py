"""What a gallery keeps on a Milvus server: its collections, and rows going in and coming out.

All faults of the server and of the way to it come out as `GalleryUnavailable`. Exact indexes only (BIN_FLAT,
FLAT). Milvus knows no masks, so an iris code goes in with two bits for each of its own, such that the plain
Hamming distance is twice the number of differing bits that are valid in both codes, and one for every bit
that is not: the order of distances is that of agreeing less differing bits within both masks.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, Required, TypedDict, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from capture.iris.template import GROUP_WORDS
from capture.sample import EyePosition, FingerPosition, Modality
from matching.errors import GalleryDamaged, GalleryUnavailable
from matching.face.shelf import FaceShelf
from matching.fingerprint.code import CODE_BITS, code_identity
from matching.fingerprint.shelf import FingerShelf
from matching.iris.scan import blocked, unblocked
from matching.iris.shelf import IrisShelf
from matching.segment import Segment

T = TypeVar("T")
P = TypeVar("P", FingerPosition, EyePosition)
Words = NDArray[np.uint64]


NewRow = Mapping[str, object]


class Row(TypedDict, total=False):
    """A row as it is read: `id`, its vector in a list (a face's is one of numbers), and what else it has."""

    id: Required[int]
    code: list[bytes]
    subject: int
    thin: bool
    history: str
    held: bool
    position: int
    eye: int
    detail: int


class _Shelf(Protocol):
    @property
    def slot(self) -> NDArray[np.int32]: ...


_Group = tuple[NDArray[np.int32], Words, list[Row]]

# What is wrong is raised; the client would log it besides, at length.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

FINGERS_EACH = 16  # of one encounter at most
EYES_EACH = 2
IRIS_BITS = 2 * 64 * GROUP_WORDS
ANYBODY = ""
ENROLLED = "held == false"  # filters: everybody, or only encounters that are somebody's

_FORMAT = 1
_WATERMARK = -1  # the row of encounters that holds it as its subject; keys are not negative
_MOST_OF_HISTORY = 64  # letters
_ROWS_AT_ONCE = 4000
_IDS_AT_ONCE = 16_000
_CREATION_SECONDS = 60.0
_CONNECTION_SECONDS = 3.0
_AWAY_SECONDS = 0.5
_EVEN = np.uint64(0x5555_5555_5555_5555)
_SCALARS = {
    "encounters": {"subject": DataType.INT64, "thin": DataType.BOOL, "history": DataType.VARCHAR},
    "fingers": {"position": DataType.INT8, "detail": DataType.INT8, "held": DataType.BOOL},
    "irises": {"eye": DataType.INT8, "held": DataType.BOOL},
    "faces": {"held": DataType.BOOL},
}
# Milvus wants a vector in every collection; that of encounters says nothing.
_NOTHING = bytes(1)
_BITS = {"encounters": 8, "fingers": CODE_BITS, "irises": IRIS_BITS}
_KINDS = "|".join([*_BITS, "faces_[0-9a-f]+"])


@dataclass(frozen=True, slots=True)
class Hit:
    """A row near a query: whose encounter, its distance or cosine, and what else the row says."""

    key: int
    value: float
    position: int = 0
    detail: int = 0


class Rows:
    """The collections of one gallery: `encounters`, `fingers`, `irises`, and `faces_` of each embedder.

    Reads see all that was written longer ago than Milvus's bounded staleness (`common.gracefulTime`, 5 s as
    shipped), and for the first `strong_for` seconds everything: who wrote before may not be there to ask.
    No call but the creation of collections takes longer than `seconds`. Thread-safe.
    """

    def __init__(self, uri: str, token: str, prefix: str, *, strong_for: float, seconds: float) -> None:
        self._prefix = f"{prefix}_"
        self._strong_until = time.monotonic() + strong_for
        self._seconds = seconds
        self._face_values: dict[bytes, int] = {}
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="milvus")
        self._away_until = 0.0
        with self._faults():
            self._client = MilvusClient(uri=uri, token=token, timeout=_CONNECTION_SECONDS)

    def close(self) -> None:
        """Let go of the connection."""
        self._pool.shutdown()
        self._client.close()

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """What these calls give, made at the same time."""
        return list(self._pool.map(lambda call: call(), calls))

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Whatever Milvus, its client or the way to it have to say; for a moment then nobody asks again.

        The client reconnects for each call that failed, one after the other.
        """
        if time.monotonic() < self._away_until:
            raise GalleryUnavailable("Milvus did not serve a moment ago")
        try:
            yield
        except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            told = error.message if isinstance(error, MilvusException) else str(error)
            error.__cause__ = None  # the client has it be its own: whoever follows causes would never end
            raise GalleryUnavailable(f"Milvus does not serve: {told}") from error

    # Collections ----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create what is missing, load what is there; `GalleryDamaged` where rows are of another version."""
        with self._faults():
            there = [name.removeprefix(self._prefix) for name in self._own()]
            for kind in list(there):
                told = self._client.describe_collection(self._prefix + kind, timeout=self._seconds)
                if told["description"] != _identity():
                    raise GalleryDamaged(
                        f"{self._prefix}{kind} in Milvus was made by another version: rebuild the gallery"
                    )
                if not self._client.list_indexes(
                    self._prefix + kind
                ):  # a crash when it was made: it is empty
                    self._client.drop_collection(self._prefix + kind, timeout=self._seconds)
                    there.remove(kind)
                elif kind.startswith("faces_"):
                    size = next(f["params"]["dim"] for f in told["fields"] if f["name"] == "code")
                    self._face_values[bytes.fromhex(kind.removeprefix("faces_"))] = int(size)
        missing = [kind for kind in _BITS if kind not in there]
        self.together(
            [partial(self._create, kind, _BITS[kind]) for kind in missing]
            + [partial(self._load, kind) for kind in there]
        )

    def _own(self) -> list[str]:
        """Its collections; those of a prefix that begins with this one are another gallery's."""
        names: list[str] = self._client.list_collections(timeout=self._seconds)
        return [name for name in names if re.fullmatch(f"{self._prefix}({_KINDS})", name)]

    def _load(self, kind: str) -> None:
        with self._faults():
            self._client.load_collection(self._prefix + kind, timeout=_CREATION_SECONDS)

    def drop(self) -> None:
        """Remove everything of this gallery from the server."""
        with self._faults():
            for name in self._own():
                self._client.drop_collection(name, timeout=self._seconds)
        self._face_values.clear()

    def face_values(self) -> dict[bytes, int]:
        """How long the vectors of each embedder are."""
        return dict(self._face_values)

    def sizes(self) -> dict[Modality, int]:
        """Bytes of codes and vectors."""
        rows = dict(
            zip(kinds := (*_BITS, *map(_faces, self._face_values)), map(self.count, kinds), strict=True)
        )
        return {
            Modality.FINGERPRINT: rows["fingers"] * CODE_BITS // 8,
            Modality.IRIS: rows["irises"] * IRIS_BITS // 8,
            Modality.FACE: sum(
                4 * size * rows[_faces(embedder)] for embedder, size in self._face_values.items()
            ),
        }

    def count(self, kind: str) -> int:
        """Rows of a collection; among the encounters is the watermark."""
        with self._faults():
            told = self._client.query(
                self._prefix + kind,
                output_fields=["count(*)"],
                consistency_level=self._level,
                timeout=self._seconds,
            )
        return int(told[0]["count(*)"])

    def _create(self, kind: str, size: int) -> None:
        binary = kind in _BITS
        with self._faults():
            schema = self._client.create_schema(
                auto_id=False, enable_dynamic_field=False, description=_identity()
            )
            schema.add_field("id", DataType.INT64, is_primary=True)
            for name, kind_of in _SCALARS[kind.split("_")[0]].items():
                more = {"max_length": _MOST_OF_HISTORY} if kind_of is DataType.VARCHAR else {}
                schema.add_field(name, kind_of, **more)
            schema.add_field("code", DataType.BINARY_VECTOR if binary else DataType.FLOAT_VECTOR, dim=size)
            index = self._client.prepare_index_params()
            if binary:
                index.add_index("code", index_type="BIN_FLAT", metric_type="HAMMING")
            else:
                index.add_index("code", index_type="FLAT", metric_type="IP")
            self._client.create_collection(
                self._prefix + kind, schema=schema, index_params=index, timeout=_CREATION_SECONDS
            )
            if kind == "fingers":
                for partition in {_partition(position) for position in FingerPosition}:
                    self._client.create_partition(self._prefix + kind, partition, timeout=self._seconds)

    @property
    def _level(self) -> str:
        return "Strong" if time.monotonic() < self._strong_until else "Bounded"

    # Writing --------------------------------------------------------------------------------------

    def insert(self, segment: Segment) -> None:
        """Write the living encounters of a segment, whose keys must not be there: Milvus accepts any twice.

        Encounters go first and leave last, so that whatever is there, its encounter is.
        """
        alive = ~segment.dead
        keys, held = segment.keys, segment.subjects < 0
        thin = np.zeros(len(segment), dtype=np.bool_)
        thin[segment.thin] = True
        self._insert(
            "encounters",
            [
                {
                    "id": int(keys[r]),
                    "subject": int(segment.subjects[r]),
                    "thin": bool(thin[r]),
                    "history": "",
                    "code": _NOTHING,
                }
                for r in np.flatnonzero(alive).tolist()
            ],
        )
        self.together([
            lambda: self._insert_fingers(segment.fingers, keys, held, alive),
            lambda: self._insert_irises(segment.irises, keys, held, alive),
            lambda: self._insert_faces(segment.faces, keys, held, alive),
        ])  # fmt: skip

    def _insert_fingers(
        self,
        shelves: Mapping[FingerPosition, FingerShelf],
        keys: NDArray[np.int64],
        held: NDArray[np.bool_],
        alive: NDArray[np.bool_],
    ) -> None:
        rows: dict[str, list[NewRow]] = {}
        for number, position, n, row in _numbered(shelves, len(keys)):
            if alive[row]:
                made = {
                    "id": int(keys[row]) * FINGERS_EACH + number,
                    "position": int(position),
                    "detail": int(shelves[position].detail[n]),
                    "held": bool(held[row]),
                    "code": shelves[position].code[n].tobytes(),
                }
                rows.setdefault(_partition(position), []).append(made)
        for partition, of in rows.items():
            self._insert("fingers", of, partition)

    def _insert_irises(
        self,
        shelves: Mapping[EyePosition, IrisShelf],
        keys: NDArray[np.int64],
        held: NDArray[np.bool_],
        alive: NDArray[np.bool_],
    ) -> None:
        words = {eye: unblocked(shelf.blocks, len(shelf.slot)) for eye, shelf in shelves.items()}
        rows: list[NewRow] = [
            {
                "id": int(keys[row]) * EYES_EACH + number,
                "eye": int(eye),
                "held": bool(held[row]),
                "code": doubled(words[eye][n, :, 0], words[eye][n, :, 1]).tobytes(),
            }
            for number, eye, n, row in _numbered(shelves, len(keys))
            if alive[row]
        ]
        self._insert("irises", rows)

    def _insert_faces(
        self,
        shelves: Mapping[bytes, FaceShelf],
        keys: NDArray[np.int64],
        held: NDArray[np.bool_],
        alive: NDArray[np.bool_],
    ) -> None:
        for embedder, shelf in shelves.items():
            if embedder not in self._face_values:
                self._create(_faces(embedder), shelf.vector.shape[1])
                self._face_values[embedder] = shelf.vector.shape[1]
            rows: list[NewRow] = [
                {"id": int(keys[row]), "held": bool(held[row]), "code": vector}
                for row, vector in zip(shelf.slot.tolist(), shelf.vector, strict=True)
                if alive[row]
            ]
            self._insert(_faces(embedder), rows)

    def _insert(self, kind: str, rows: Sequence[NewRow], partition: str = "") -> None:
        with self._faults():
            for first in range(0, len(rows), _ROWS_AT_ONCE):
                self._client.insert(
                    self._prefix + kind,
                    list(rows[first : first + _ROWS_AT_ONCE]),
                    timeout=self._seconds,
                    partition_name=partition,
                )

    def delete(self, keys: Sequence[int]) -> None:
        """Remove encounters, where they are there."""
        for kind, each in (("fingers", FINGERS_EACH), ("irises", EYES_EACH)):
            self._delete(kind, [key * each + number for key in keys for number in range(each)])
        for embedder in self._face_values:
            self._delete(_faces(embedder), keys)
        self._delete_encounters(keys)

    def _delete_encounters(self, keys: Sequence[int]) -> None:
        self._delete("encounters", keys)

    def _delete(self, kind: str, ids: Sequence[int]) -> None:
        with self._faults():
            for first in range(0, len(ids), _ROWS_AT_ONCE):
                some = list(ids[first : first + _ROWS_AT_ONCE])
                self._client.delete(self._prefix + kind, ids=some, timeout=self._seconds)

    def note(self, watermark: int, history: str) -> None:
        """Keep the watermark, and of what history it is one; what it stands for must have been written."""
        row = {"id": _WATERMARK, "subject": watermark, "thin": False, "history": history, "code": _NOTHING}
        with self._faults():
            self._client.upsert(self._prefix + "encounters", [row], timeout=self._seconds)

    # Reading --------------------------------------------------------------------------------------

    def encounters(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int, str]:
        """Keys and subjects of all encounters by rising key, keys of the thin ones, watermark and history.

        Sees everything written before. Cost: all of them are read, 10,000 at a time.
        """
        # Pages alone were seen to miss what was written a moment before: first wait until all is seen.
        self.count("encounters")
        rows: list[Row] = []
        with self._faults():
            pages = self._client.query_iterator(
                self._prefix + "encounters",
                batch_size=10_000,
                output_fields=["id", "subject", "thin", "history"],
                consistency_level="Strong",
                timeout=_CREATION_SECONDS,
            )
            while page := pages.next():
                rows += page
            pages.close()
        both = np.array([(row["id"], row["subject"]) for row in rows], dtype=np.int64).reshape(-1, 2)
        # a row whose writing was tried again may be there twice
        keys, first = np.unique(both[:, 0], return_index=True)
        subjects = both[first, 1]
        thin = keys[np.array([rows[n]["thin"] for n in first], dtype=np.bool_)]
        if len(keys) and keys[0] == _WATERMARK:
            return keys[1:], subjects[1:], thin, int(subjects[0]), rows[first[0]]["history"]
        return keys, subjects, thin, 0, ""

    def near_fingers(
        self, position: FingerPosition, codes: Sequence[Words], most: int, of: str
    ) -> list[list[Hit]]:
        """For each code the nearest fingers in the partition of this position, on either hand."""
        if not codes:
            return []
        return self._near(
            "fingers",
            [code.tobytes() for code in codes],
            most,
            of,
            each=FINGERS_EACH,
            told=("position", "detail"),
            partitions=[_partition(position)],
        )

    def near_irises(self, codes: Sequence[bytes], most: int, of: str) -> list[list[Hit]]:
        """For each code, as `asked` makes it, the nearest eyes of all."""
        return self._near("irises", codes, most, of, each=EYES_EACH)

    def near_faces(self, embedder: bytes, vector: NDArray[np.float32], most: int, of: str) -> list[list[Hit]]:
        """The nearest faces of the embedder, for this one vector."""
        if embedder not in self._face_values:
            return []
        return self._near(_faces(embedder), [vector.tolist()], most, of, each=1)

    def _near(
        self,
        kind: str,
        queries: Sequence[object],
        most: int,
        of: str,
        *,
        each: int,
        told: Sequence[str] = (),
        partitions: Sequence[str] = (),
    ) -> list[list[Hit]]:
        with self._faults():
            found = self._client.search(
                self._prefix + kind,
                list(queries),
                filter=of,
                limit=most,
                anns_field="code",
                output_fields=list(told),
                partition_names=list(partitions),
                consistency_level=self._level,
                timeout=self._seconds,
            )
            return [
                [
                    Hit(hit["id"] // each, hit["distance"], *(hit["entity"][name] for name in told))
                    for hit in hits
                ]
                for hits in found
            ]

    def shelves(
        self, keys: NDArray[np.int64], embedder: bytes | None, *, fingers: bool, irises: bool
    ) -> tuple[dict[FingerPosition, FingerShelf], dict[EyePosition, IrisShelf], dict[bytes, FaceShelf]]:
        """Codes and vectors of these encounters, rising keys, for a segment in which they are the rows.

        Templates stay where they are: the shelves can be scanned, and give no forms.
        """
        faces: Callable[[], list[Row]] = list
        if embedder is not None and embedder in self._face_values:
            faces = partial(self._rows_of, _faces(embedder), keys, 1)
        calls: list[Callable[[], list[Row]]] = [
            partial(self._rows_of, "fingers", keys if fingers else keys[:0], FINGERS_EACH),
            partial(self._rows_of, "irises", keys if irises else keys[:0], EYES_EACH),
            faces,
        ]
        of_fingers, of_irises, of_faces = self.together(calls)
        return (
            _finger_shelves(of_fingers, keys),
            _iris_shelves(of_irises, keys),
            {embedder: _face_shelf(of_faces, keys)} if embedder is not None and of_faces else {},
        )

    def _rows_of(self, kind: str, keys: NDArray[np.int64], each: int) -> list[Row]:
        """Whatever rows these encounters have, by rising id."""
        ids = (keys[:, None] * each + np.arange(each)).ravel().tolist()
        rows: list[Row] = []
        with self._faults():
            for first in range(0, len(ids), _IDS_AT_ONCE):
                rows += self._client.query(
                    self._prefix + kind,
                    filter=f"id in {ids[first : first + _IDS_AT_ONCE]}",
                    output_fields=["id", "code", *_SCALARS[kind.split("_")[0]]],
                    consistency_level=self._level,
                    timeout=self._seconds,
                )
        return list({row["id"]: row for row in sorted(rows, key=lambda row: int(row["id"]))}.values())


def asked(code: Words, mask: Words) -> bytes:
    """An iris code `(32,)` and its mask as a query; `doubled` is what it is held against."""
    valid = code & mask
    return np.concatenate([valid | ~mask, valid]).tobytes()


def doubled(code: Words, mask: Words) -> Words:
    """`(64,)`: an iris code `(32,)` and its mask as a row.

    A valid bit is there twice; another is 1 and 0, or 0 and 1, by turns, and always 1 and 0 in a query. Two
    valid bits are then 0 or 2 apart, and any others 1: of bits valid in neither, as many are 0 as 2.
    """
    valid = code & mask
    return np.concatenate([valid | (~mask & _EVEN), valid | (~mask & ~_EVEN)])


def surplus(distance: float) -> float:
    """Agreeing less differing bits within both masks, of the distance of a query from a row."""
    return IRIS_BITS / 2 - distance


def _partition(position: FingerPosition) -> str:
    """Both hands' fingers lie together: a search asks for a finger on either."""
    return f"finger_{(position - 1) % 5 + 1}" if position else "finger_unknown"


def _faces(embedder: bytes) -> str:
    return f"faces_{embedder.hex()}"


def _identity() -> str:
    """What the rows are made with."""
    return f"rekam {_FORMAT} {code_identity()}"


def _numbered(shelves: Mapping[P, _Shelf], rows: int) -> Iterator[tuple[int, P, int, int]]:
    """Of each finger or eye its number in its encounter, its position, its place on the shelf, its row."""
    count = [0] * rows
    for position, shelf in shelves.items():
        for n, row in enumerate(shelf.slot.tolist()):
            yield count[row], position, n, row
            count[row] += 1


def _grouped(
    rows: Sequence[Row], keys: NDArray[np.int64], each: int, by: Literal["position", "eye"]
) -> dict[int, _Group]:
    """Rows by position: of each group the places of its encounters among `keys`, and the rows."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    return {
        position: (
            np.searchsorted(keys, [row["id"] // each for row in of]).astype(np.int32),
            np.frombuffer(b"".join(row["code"][0] for row in of), dtype=np.uint64).reshape(len(of), -1),
            of,
        )
        for position, of in sorted(groups.items())
    }


def _finger_shelves(rows: Sequence[Row], keys: NDArray[np.int64]) -> dict[FingerPosition, FingerShelf]:
    return {
        FingerPosition(position): FingerShelf(
            slot=slot,
            code=codes,
            detail=np.array([row["detail"] for row in of], dtype=np.uint8),
            template=np.zeros(0, dtype=np.uint8),
            end=np.zeros(len(of), dtype=np.int64),
        )
        for position, (slot, codes, of) in _grouped(rows, keys, FINGERS_EACH, "position").items()
    }


def _iris_shelves(rows: Sequence[Row], keys: NDArray[np.int64]) -> dict[EyePosition, IrisShelf]:
    shelves = {}
    for eye, (slot, codes, of) in _grouped(rows, keys, EYES_EACH, "eye").items():
        first, second = codes[:, :GROUP_WORDS], codes[:, GROUP_WORDS:]
        shelves[EyePosition(eye)] = IrisShelf(
            slot=slot,
            blocks=blocked(first & second, ~(first ^ second)),
            coder=np.zeros(len(of), dtype=np.uint8),
            quality=np.zeros(len(of), dtype=np.uint8),
            rest=np.zeros(0, dtype=np.uint64),
            end=np.zeros(len(of), dtype=np.int64),
        )
    return shelves


def _face_shelf(rows: Sequence[Row], keys: NDArray[np.int64]) -> FaceShelf:
    return FaceShelf(
        slot=np.searchsorted(keys, [row["id"] for row in rows]).astype(np.int32),
        vector=np.array([row["code"] for row in rows], dtype=np.float32),
        quality=np.zeros(len(rows), dtype=np.uint8),
    )
