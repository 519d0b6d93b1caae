"""CBEFF biometric information records in XML: ISO/IEC 19785-3 and the OASIS BIAS patron format, both ways.

    BIR   Version, CBEFFVersion, BIRInfo, BDBInfo, SBInfo, BIR ..., BDB, SB, Others ...

Both schemas of MOSIP are read and written. What is read is written back equal in canonical form (Canonical
XML 2.0), as long as its numbers, truth values and base64 are in their shortest form: elements of foreign
namespaces and white space between elements are kept, comments are not. Both forms of Others are read under
either schema, because files in use mix them.

Files are hostile until read: a document type (with it entities), processing instructions, encodings other
than UTF-8, and more markup, nesting or text than a person's record needs are refused; nothing is fetched.
"""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from lxml import etree

from capture.errors import RecordRefused
from capture.sample import FingerPosition

# A person's ten fingers, two irises and a face take 2 MB and some 500 elements.
_MAX_BYTES = 32 * 1024 * 1024
_MAX_ELEMENTS = 25_000
_MAX_QUOTES = 100_000
_MAX_DEPTH = 8
# The parser's cost grows with declared namespaces times elements, and with the square of attributes.
_MAX_DECLARED = 2_000
_MAX_OF_A_RECORD = 16
# Each foreign element takes 0.1 ms to bring into canonical form: so many bytes of the document.
_COST_OF_EXTRA = 16 * 1024
_SPACE = " \t\r\n"
_INTEGER = re.compile(r"-?[0-9]{1,10}")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,12})?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)


class Patron(StrEnum):
    """The two XML patron formats, by their namespaces."""

    ISO_19785_3 = "http://standards.iso.org/iso-iec/19785/-3/ed-2/"
    BIAS = "http://docs.oasis-open.org/bias/ns/biaspatronformat-1.0/"


class BiometricType(StrEnum):
    """What a record shows. The last three are not known to BIAS; no schema accepts `EAR`, by a slip."""

    SCENT = "Scent"
    DNA = "DNA"
    EAR = "Ear"
    FACE = "Face"
    FINGER = "Finger"
    FOOT = "Foot"
    VEIN = "Vein"
    HAND_GEOMETRY = "HandGeometry"
    IRIS = "Iris"
    RETINA = "Retina"
    VOICE = "Voice"
    GAIT = "Gait"
    KEYSTROKE = "Keystroke"
    LIP_MOVEMENT = "LipMovement"
    SIGNATURE_SIGN = "SignatureSign"
    PALM = "Palm"
    BACK_OF_HAND = "BackOfHand"
    WRIST = "Wrist"


class Subtype(StrEnum):
    """Which of several: side and finger, or part of a hand's veins."""

    LEFT = "Left"
    RIGHT = "Right"
    THUMB = "Thumb"
    INDEX_FINGER = "IndexFinger"
    MIDDLE_FINGER = "MiddleFinger"
    RING_FINGER = "RingFinger"
    LITTLE_FINGER = "LittleFinger"
    LEFT_VEIN = "LeftVein"
    RIGHT_VEIN = "RightVein"
    PALM = "Palm"
    BACK_OF_HAND = "BackOfHand"
    WRIST = "Wrist"
    RESERVED_1 = "Reserved1"
    RESERVED_2 = "Reserved2"


class Level(StrEnum):
    """How far a record's data is processed."""

    RAW = "Raw"
    INTERMEDIATE = "Intermediate"
    PROCESSED = "Processed"


class Purpose(StrEnum):
    """What a record was made for."""

    VERIFY = "Verify"
    IDENTIFY = "Identify"
    ENROLL = "Enroll"
    ENROLL_VERIFY = "EnrollVerify"
    ENROLL_IDENTIFY = "EnrollIdentify"
    AUDIT = "Audit"


_NOT_IN_BIAS = {BiometricType.PALM, BiometricType.BACK_OF_HAND, BiometricType.WRIST}
_FINGERS = (
    Subtype.THUMB,
    Subtype.INDEX_FINGER,
    Subtype.MIDDLE_FINGER,
    Subtype.RING_FINGER,
    Subtype.LITTLE_FINGER,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Laid:
    """`spaces`: white space before each child and before the element's end, as it came; () is none at all."""

    spaces: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version(_Laid):
    """A version of a schema or of CBEFF."""

    major: int
    minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryId(_Laid):
    """An entry of the biometric organisations' registry. BIAS writes both as numbers above 0."""

    organization: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality(_Laid):
    """ISO: an algorithm, and a score of 0-100 or why there is none. BIAS: a score of -2 to 100 alone."""

    score: int | None
    algorithm: RegistryId | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BirInfo(_Laid):
    """About the record. Dates are kept as written, because some carry nanoseconds; `index` is a UUID."""

    creator: str | None = None
    index: str | None = None
    payload: bytes | None = None
    integrity: bool = False
    created: str | None = None
    not_valid_before: str | None = None
    not_valid_after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BdbInfo(_Laid):
    """About the biometric data. The four between `product` and `purpose` are not known to BIAS."""

    challenge_response: bytes | None = None
    index: str | None = None
    format: RegistryId | None = None
    encryption: bool | None = None
    created: str | None = None
    not_valid_before: str | None = None
    not_valid_after: str | None = None
    types: tuple[BiometricType, ...] | None = None
    subtypes: tuple[Subtype, ...] | None = None
    level: Level | None = None
    product: RegistryId | None = None
    capture_device: RegistryId | None = None
    feature_extraction: RegistryId | None = None
    comparison: RegistryId | None = None
    compression: RegistryId | None = None
    purpose: Purpose | None = None
    quality: Quality | None = None

    @property
    def finger_position(self) -> FingerPosition:
        """The one finger the record says it shows; unknown for slaps and whatever is no finger."""
        subtypes = set(self.subtypes or ())
        for hand, first in (
            (Subtype.RIGHT, FingerPosition.RIGHT_THUMB),
            (Subtype.LEFT, FingerPosition.LEFT_THUMB),
        ):
            for i, finger in enumerate(_FINGERS):
                if self.types == (BiometricType.FINGER,) and subtypes == {hand, finger}:
                    return FingerPosition(first + i)
        return FingerPosition.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class SbInfo(_Laid):
    """The format of the security block."""

    format: RegistryId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Other(_Laid):
    """A key and a value as BIAS has them, MOSIP under either schema: `<Others><Key/><Value/></Others>`."""

    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherEntries(_Laid):
    """Keys and values as ISO has them: `<others><entry key="...">...</entry></others>`."""

    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Extra:
    """An element of a foreign namespace in canonical form; `at` is its place among its parent's children."""

    at: int
    xml: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bir(_Laid):
    """A biometric information record: data of its own, or records within it, or both.

    `bdb` is the biometric data block, `sb` the security block; `attributes` are (name, value), a name with
    a namespace as `{namespace}name`.
    """

    version: Version | None = None
    cbeff_version: Version | None = None
    info: BirInfo = field(default_factory=BirInfo)
    bdb_info: BdbInfo | None = None
    sb_info: SbInfo | None = None
    birs: "tuple[Bir, ...]" = ()
    bdb: bytes | None = None
    sb: bytes | None = None
    others: tuple[Other | OtherEntries, ...] = ()
    extras: tuple[Extra, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CbeffFile:
    """A document: its outermost record, the schema it follows, and the prefix its elements carry."""

    bir: Bir
    patron: Patron = Patron.ISO_19785_3
    prefix: str | None = None


def read_cbeff(data: bytes) -> CbeffFile:
    """Read a CBEFF document. Raises `RecordRefused`, and nothing else, whatever the bytes are.

    Cost: 1 ms for 100 kB; memory is bounded by a few times the document.
    """
    root = _parsed(_bounded(data))
    namespace, name = _split(root)
    if name != "BIR" or namespace not in set(Patron):
        raise RecordRefused("the root element is no BIR of a schema known here")
    patron = Patron(namespace)
    return CbeffFile(_Reader(patron).bir(root, 1), patron, root.prefix)


def write_cbeff(file: CbeffFile) -> bytes:
    """The document as UTF-8 bytes. Raises `RecordRefused` for what its schema cannot say."""
    try:
        root = _Writer(file.patron, file.prefix).bir(file.bir, 1)
        return etree.tostring(root, xml_declaration=True, encoding="UTF-8", standalone=True)
    except (ValueError, TypeError) as error:
        raise RecordRefused(f"no XML can say this: {error}") from error


def _bounded(data: bytes) -> bytes:
    """The document, if by its looks it costs no more than a person's record."""
    if len(data) > _MAX_BYTES:
        raise RecordRefused(f"the document has {len(data):,} bytes, more than the {_MAX_BYTES:,} allowed")
    if data.count(b"<") > 2 * _MAX_ELEMENTS or data.count(b'"') + data.count(b"'") > _MAX_QUOTES:
        raise RecordRefused(f"the document has more markup than {_MAX_ELEMENTS:,} elements need")
    if data.count(b"xmlns") > _MAX_DECLARED:
        raise RecordRefused(f"more than {_MAX_DECLARED:,} namespaces are declared")
    return data


def _parsed(data: bytes) -> etree._Element:
    """The root element of a document without a document type; nothing is fetched and nothing expanded."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordRefused("the document is not in UTF-8", error.start) from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise RecordRefused("documents with a document type or entities are not read")
    # The parser is told the encoding, and keeps its own bounds on depth and text.
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        collect_ids=False,
    )
    try:
        return etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise RecordRefused(f"the document is no well-formed XML: {error.msg}") from error


class _Children:
    """The children of an element, taken in the order of the schema; what is foreign is kept aside."""

    def __init__(self, element: etree._Element, patron: Patron) -> None:
        self.element = element
        self.patron = patron
        self.children = list(element)
        self.at = 0
        self.extras: list[Extra] = []
        self.kept = 0
        self.spaces = (element.text or "", *(child.tail or "" for child in self.children))
        if "".join(self.spaces).strip(_SPACE):
            raise RecordRefused(f"text between the elements of {_name(element)}")

    def find(self, tag: str) -> etree._Element | None:
        """The next child if it is `tag`."""
        while self.at < len(self.children):
            child = self.children[self.at]
            if not isinstance(child.tag, str):
                raise RecordRefused("processing instructions are not read")
            namespace, _ = _split(child)
            if namespace and namespace not in set(Patron):
                self.keep(child)
            elif child.tag == f"{{{self.patron}}}{tag}":
                self.at += 1
                return child
            else:
                return None
            self.at += 1
        return None

    def keep(self, child: etree._Element) -> None:
        """Keep a foreign element; it repeats namespaces its ancestors declare, so the sum is bounded."""
        xml = etree.tostring(child, encoding="unicode", with_tail=False)
        self.kept += len(xml) + _COST_OF_EXTRA
        if self.kept > _MAX_BYTES:
            raise RecordRefused("the document has too much in foreign elements")
        self.extras.append(Extra(self.at, etree.canonicalize(xml).encode()))

    def optional(self, tag: str, read: Callable[[etree._Element], _T]) -> _T | None:
        """What `read` makes of the child `tag`, None where it is not there."""
        child = self.find(tag)
        return None if child is None else read(child)

    def one(self, tag: str, read: Callable[[etree._Element], _T]) -> _T:
        """What `read` makes of the child `tag`, which has to be there."""
        child = self.find(tag)
        if child is None:
            raise RecordRefused(f"{_name(self.element)} lacks {tag}, or has it in another place")
        return read(child)

    def many(self, tag: str, read: Callable[[etree._Element], _T]) -> tuple[_T, ...]:
        """What `read` makes of every child `tag` that follows."""
        found = []
        while (child := self.find(tag)) is not None:
            found.append(read(child))
        return tuple(found)

    def done(self, *, extras: bool = False) -> None:
        """Refuse what is left over, and foreign elements unless they are kept."""
        self.find("")
        if self.at < len(self.children):
            raise RecordRefused(
                f"{_name(self.children[self.at])} is unknown, or out of place in {_name(self.element)}"
            )
        if self.extras and not extras:
            raise RecordRefused(f"a foreign element in {_name(self.element)}")


class _Reader:
    """Reads the elements of one document. `kept` counts the bytes of foreign elements."""

    def __init__(self, patron: Patron) -> None:
        self.patron = patron
        self.iso = patron is Patron.ISO_19785_3
        self.kept = 0

    def bir(self, element: etree._Element, depth: int) -> Bir:
        if depth > _MAX_DEPTH:
            raise RecordRefused(f"records are nested deeper than {_MAX_DEPTH}")
        if max(len(element.nsmap), len(element.attrib)) > _MAX_OF_A_RECORD:
            raise RecordRefused(f"a record has more than {_MAX_OF_A_RECORD} attributes or namespaces")
        if any(str(key).count("}") > 1 for key in element.attrib):
            raise RecordRefused("an attribute's namespace has braces")
        children = _Children(element, self.patron)
        version = children.optional("Version", self.version)
        cbeff_version = children.optional("CBEFFVersion", self.version)
        info = children.one("BIRInfo", self.bir_info)
        bdb_info = children.optional("BDBInfo", self.bdb_info)
        sb_info = children.optional("SBInfo", self.sb_info)
        birs = children.many("BIR", lambda child: self.bir(child, depth + 1))
        bdb, sb = children.optional("BDB", _base64), children.optional("SB", _base64)
        others: tuple[Other | OtherEntries, ...] = ()
        while True:
            pairs, lists = children.many("Others", self.other), children.many("others", self.entries)
            if not (pairs or lists):
                break
            others = (*others, *pairs, *lists)
        children.done(extras=True)
        self.kept += children.kept
        if self.kept > _MAX_BYTES:
            raise RecordRefused("the document has too much in foreign elements")
        return Bir(
            version=version,
            cbeff_version=cbeff_version,
            info=info,
            bdb_info=bdb_info,
            sb_info=sb_info,
            birs=birs,
            bdb=bdb,
            sb=sb,
            others=others,
            extras=tuple(children.extras),
            attributes=tuple((str(key), str(value)) for key, value in element.attrib.items()),
            spaces=children.spaces,
        )

    def complex(self, element: etree._Element) -> _Children:
        if element.attrib:
            raise RecordRefused(f"{_name(element)} has no attributes")
        return _Children(element, self.patron)

    def version(self, element: etree._Element) -> Version:
        children = self.complex(element)
        major, minor = children.one("Major", _unsigned), children.one("Minor", _unsigned)
        children.done()
        return Version(major=major, minor=minor, spaces=children.spaces)

    def bir_info(self, element: etree._Element) -> BirInfo:
        children = self.complex(element)
        info = BirInfo(
            creator=children.optional("Creator", _text),
            index=children.optional("Index", _uuid),
            payload=children.optional("Payload", _base64),
            integrity=children.one("Integrity", _boolean),
            created=children.optional("CreationDate", _date),
            not_valid_before=children.optional("NotValidBefore", _date),
            not_valid_after=children.optional("NotValidAfter", _date),
            spaces=children.spaces,
        )
        children.done()
        return info

    def bdb_info(self, element: etree._Element) -> BdbInfo:
        children = self.complex(element)
        iso = self.iso
        info = BdbInfo(
            challenge_response=children.optional("ChallengeResponse", _base64),
            index=children.optional("Index", _uuid),
            format=self.registered(children, "Format"),
            encryption=children.optional("Encryption", _boolean),
            created=children.optional("CreationDate", _date),
            not_valid_before=children.optional("NotValidBefore", _date),
            not_valid_after=children.optional("NotValidAfter", _date),
            types=children.optional("Type", lambda child: _words(child, BiometricType)),
            subtypes=children.optional("Subtype", lambda child: _words(child, Subtype)),
            level=children.optional("Level", lambda child: _word(child, Level)),
            product=self.registered(children, "Product"),
            capture_device=children.optional("CaptureDevice", self.registry_id) if iso else None,
            feature_extraction=children.optional("FeatureExtractionAlgorithm", self.registry_id)
            if iso
            else None,
            comparison=children.optional("ComparisonAlgorithm", self.registry_id) if iso else None,
            compression=children.optional("CompressionAlgorithm", self.registry_id) if iso else None,
            purpose=children.optional("Purpose", lambda child: _word(child, Purpose)),
            quality=children.optional("Quality", self.quality),
            spaces=children.spaces,
        )
        children.done()
        _check_bdb_info(info, self.patron)
        return info

    def sb_info(self, element: etree._Element) -> SbInfo:
        children = self.complex(element)
        info = SbInfo(format=self.registered(children, "Format"), spaces=children.spaces)
        children.done()
        return info

    def registered(self, children: _Children, tag: str) -> RegistryId | None:
        """An element of two in ISO, two elements in BIAS."""
        if self.iso:
            return children.optional(tag, self.registry_id)
        owner = children.optional(f"{tag}Owner", _positive)
        kind = children.optional(f"{tag}Type", _positive)
        if owner is None and kind is None:
            return None
        if owner is None or kind is None:
            raise RecordRefused(f"{tag} has an owner without a type, or a type without an owner")
        return RegistryId(organization=str(owner), type=str(kind))

    def registry_id(self, element: etree._Element) -> RegistryId:
        children = self.complex(element)
        organization, kind = children.one("Organization", _text), children.one("Type", _text)
        children.done()
        return RegistryId(organization=organization, type=kind, spaces=children.spaces)

    def quality(self, element: etree._Element) -> Quality:
        if not self.iso:
            return Quality(score=_integer(element, -2, 100))
        children = self.complex(element)
        quality = Quality(
            algorithm=children.one("Algorithm", self.registry_id),
            score=children.optional("Score", lambda child: _integer(child, 0, 100)),
            failed=children.optional("QualityCalculationFailed", _text),
            spaces=children.spaces,
        )
        children.done()
        return quality

    def other(self, element: etree._Element) -> Other:
        children = self.complex(element)
        key, value = children.one("Key", _text), children.one("Value", _text)
        children.done()
        return Other(key=key, value=value, spaces=children.spaces)

    def entries(self, element: etree._Element) -> OtherEntries:
        children = self.complex(element)
        entries = children.many("entry", _entry)
        children.done()
        return OtherEntries(entries=entries, spaces=children.spaces)


class _Writer:
    """Builds the elements of one document."""

    def __init__(self, patron: Patron, prefix: str | None) -> None:
        self.patron = patron
        self.iso = patron is Patron.ISO_19785_3
        self.names = {prefix: str(patron)}

    def element(
        self, tag: str, children: Sequence[etree._Element | None], spaces: tuple[str, ...] = ()
    ) -> etree._Element:
        """An element of those children that are there, with white space if there is some for each."""
        element = etree.Element(f"{{{self.patron}}}{tag}", nsmap=self.names)
        element.extend(child for child in children if child is not None)
        if len(spaces) == len(element) + 1:
            if "".join(spaces).strip(_SPACE):
                raise RecordRefused(f"text between the elements of {tag}")
            element.text = spaces[0] or None
            for child, space in zip(element, spaces[1:], strict=True):
                child.tail = space or None
        return element

    def leaf(self, tag: str, value: str | int | bytes | None) -> etree._Element | None:
        if value is None:
            return None
        element = self.element(tag, ())
        if isinstance(value, bytes):
            value = base64.b64encode(value).decode()
        element.text = str(value).lower() if isinstance(value, bool) else str(value)
        return element

    def bir(self, bir: Bir, depth: int) -> etree._Element:
        if depth > _MAX_DEPTH:
            raise RecordRefused(f"records are nested deeper than {_MAX_DEPTH}")
        children = [
            self.version("Version", bir.version),
            self.version("CBEFFVersion", bir.cbeff_version),
            self.bir_info(bir.info),
            self.bdb_info(bir.bdb_info),
            None if bir.sb_info is None else self.sb_info(bir.sb_info),
            *(self.bir(inner, depth + 1) for inner in bir.birs),
            self.leaf("BDB", bir.bdb),
            self.leaf("SB", bir.sb),
            *(self.other(other) for other in bir.others),
        ]
        there = [child for child in children if child is not None]
        for extra in sorted(bir.extras, key=lambda extra: extra.at):
            there.insert(extra.at, _parsed(extra.xml))
        element = self.element("BIR", there, bir.spaces)
        for key, value in bir.attributes:
            element.set(key, value)
        return element

    def version(self, tag: str, version: Version | None) -> etree._Element | None:
        if version is None:
            return None
        for number in (version.major, version.minor):
            _check_range(number, 0, 0xFFFFFFFF, "version")
        numbers = self.leaf("Major", version.major), self.leaf("Minor", version.minor)
        return self.element(tag, numbers, version.spaces)

    def bir_info(self, info: BirInfo) -> etree._Element:
        return self.element(
            "BIRInfo",
            (
                self.leaf("Creator", info.creator),
                self.leaf("Index", _checked_uuid(info.index)),
                self.leaf("Payload", info.payload),
                self.leaf("Integrity", info.integrity),
                self.leaf("CreationDate", _checked_date(info.created)),
                self.leaf("NotValidBefore", _checked_date(info.not_valid_before)),
                self.leaf("NotValidAfter", _checked_date(info.not_valid_after)),
            ),
            info.spaces,
        )

    def bdb_info(self, info: BdbInfo | None) -> etree._Element | None:
        if info is None:
            return None
        _check_bdb_info(info, self.patron)
        return self.element(
            "BDBInfo",
            (
                self.leaf("ChallengeResponse", info.challenge_response),
                self.leaf("Index", _checked_uuid(info.index)),
                *self.registered("Format", info.format),
                self.leaf("Encryption", info.encryption),
                self.leaf("CreationDate", _checked_date(info.created)),
                self.leaf("NotValidBefore", _checked_date(info.not_valid_before)),
                self.leaf("NotValidAfter", _checked_date(info.not_valid_after)),
                self.leaf("Type", None if info.types is None else " ".join(info.types)),
                self.leaf("Subtype", None if info.subtypes is None else " ".join(info.subtypes)),
                self.leaf("Level", info.level),
                *self.registered("Product", info.product),
                self.registry_id("CaptureDevice", info.capture_device),
                self.registry_id("FeatureExtractionAlgorithm", info.feature_extraction),
                self.registry_id("ComparisonAlgorithm", info.comparison),
                self.registry_id("CompressionAlgorithm", info.compression),
                self.leaf("Purpose", info.purpose),
                None if info.quality is None else self.quality(info.quality),
            ),
            info.spaces,
        )

    def sb_info(self, info: SbInfo) -> etree._Element:
        return self.element("SBInfo", self.registered("Format", info.format), info.spaces)

    def registered(self, tag: str, value: RegistryId | None) -> tuple[etree._Element | None, ...]:
        if self.iso or value is None:
            return (self.registry_id(tag, value),)
        owner, kind = self.leaf(f"{tag}Owner", value.organization), self.leaf(f"{tag}Type", value.type)
        for element in (owner, kind):
            if element is None or str(_positive(element)) != element.text:
                raise RecordRefused(f"BIAS writes the {tag.lower()} as two numbers above 0")
        return owner, kind

    def registry_id(self, tag: str, value: RegistryId | None) -> etree._Element | None:
        if value is None:
            return None
        names = self.leaf("Organization", value.organization), self.leaf("Type", value.type)
        return self.element(tag, names, value.spaces)

    def quality(self, quality: Quality) -> etree._Element:
        parts = (
            self.registry_id("Algorithm", quality.algorithm),
            self.leaf("Score", quality.score),
            self.leaf("QualityCalculationFailed", quality.failed),
        )
        element = self.element("Quality", parts if self.iso else (), quality.spaces if self.iso else ())
        if not self.iso:
            element.text = str(quality.score)
        return element

    def other(self, other: Other | OtherEntries) -> etree._Element:
        if isinstance(other, Other):
            pair = self.leaf("Key", other.key), self.leaf("Value", other.value)
            return self.element("Others", pair, other.spaces)
        entries = []
        for key, value in other.entries:
            entry = self.element("entry", ())
            entry.text = value
            entry.set("key", key)
            entries.append(entry)
        return self.element("others", entries, other.spaces)


def _split(element: etree._Element) -> tuple[str, str]:
    """Namespace, "" for none, and name. `etree.QName` stumbles over namespaces with braces."""
    namespace, _, name = str(element.tag).rpartition("}")
    return namespace[1:], name


def _name(element: etree._Element) -> str:
    return _split(element)[1]


def _text(element: etree._Element) -> str:
    if len(element) or element.attrib:
        raise RecordRefused(f"{_name(element)} holds text and nothing else")
    return element.text or ""


def _token(element: etree._Element) -> str:
    return _text(element).strip(_SPACE)


def _entry(element: etree._Element) -> tuple[str, str]:
    if len(element) or list(element.attrib) != ["key"]:
        raise RecordRefused("an entry of others has a key and text")
    return str(element.attrib["key"]), element.text or ""


def _base64(element: etree._Element) -> bytes:
    text = "".join(_text(element).split())
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordRefused(f"{_name(element)} is no base64: {error}") from error
    if base64.b64encode(data).decode() != text:
        raise RecordRefused(f"the base64 of {_name(element)} has bits behind its end")
    return data


def _integer(element: etree._Element, low: int, high: int) -> int:
    text = _token(element)
    if not _INTEGER.fullmatch(text):
        raise RecordRefused(f"{_name(element)} is no number: {text[:20]!r}")
    return _check_range(int(text), low, high, _name(element))


def _unsigned(element: etree._Element) -> int:
    return _integer(element, 0, 0xFFFFFFFF)


def _positive(element: etree._Element) -> int:
    return _integer(element, 1, 0xFFFFFFFF)


def _check_range(number: int, low: int, high: int, what: str) -> int:
    if not low <= number <= high:
        raise RecordRefused(f"{what} is {low} to {high}, not {number}")
    return number


def _boolean(element: etree._Element) -> bool:
    text = _token(element)
    if text not in ("true", "false", "1", "0"):
        raise RecordRefused(f"{_name(element)} is neither true nor false")
    return text in ("true", "1")


def _date(element: etree._Element) -> str:
    text = _token(element)
    _checked_date(text)
    return text


def _checked_date(text: str | None) -> str | None:
    if text is not None:
        try:
            if not _DATE.fullmatch(text):
                raise ValueError("dates are written YYYY-MM-DDThh:mm:ss, and perhaps a fraction and a zone")
            datetime.fromisoformat(text)
        except ValueError as error:
            raise RecordRefused(f"no date: {error}") from error
    return text


def _uuid(element: etree._Element) -> str:
    text = _token(element)
    _checked_uuid(text)
    return text


def _checked_uuid(text: str | None) -> str | None:
    if text is not None and not _UUID.fullmatch(text):
        raise RecordRefused("an index is a UUID")
    return text


def _word(element: etree._Element, words: type[_E]) -> _E:
    return _known(_token(element), words, element)


def _words(element: etree._Element, words: type[_E]) -> tuple[_E, ...]:
    return tuple(_known(word, words, element) for word in _text(element).split())


def _known(word: str, words: type[_E], element: etree._Element) -> _E:
    try:
        return words(word)
    except ValueError as error:
        raise RecordRefused(f"{_name(element)} {word[:20]!r} is not known here") from error


def _check_bdb_info(info: BdbInfo, patron: Patron) -> None:
    """What the schemas demand beyond single values."""
    quality = info.quality
    if patron is Patron.BIAS:
        if _NOT_IN_BIAS & set(info.types or ()):
            raise RecordRefused(f"BIAS does not know all of {' '.join(info.types or ())}")
        if any((info.capture_device, info.feature_extraction, info.comparison, info.compression)):
            raise RecordRefused("BIAS names no capture device and no algorithms")
        if quality and (quality.score is None or quality.algorithm or quality.failed is not None):
            raise RecordRefused("BIAS gives quality as a score alone")
    elif quality and (quality.algorithm is None or (quality.score is None) == (quality.failed is None)):
        raise RecordRefused("quality has an algorithm, and a score or why there is none")
    if quality and quality.score is not None:
        _check_range(quality.score, -2 if patron is Patron.BIAS else 0, 100, "quality")
    veins = {subtype for subtype in info.subtypes or () if subtype not in _HAND_AND_FINGER}
    if veins and veins != set(info.subtypes or ()):
        raise RecordRefused("a subtype is of fingers and sides, or of veins")


_HAND_AND_FINGER = {Subtype.LEFT, Subtype.RIGHT, *_FINGERS}
