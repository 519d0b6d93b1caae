"""CBEFF XML: samples equal in canonical form, what is written valid by both schemas, hostile documents."""

import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from capture.errors import RecordRefused
from capture.formats.cbeff import (
    BdbInfo,
    BiometricType,
    Bir,
    BirInfo,
    CbeffFile,
    Extra,
    Level,
    Other,
    OtherEntries,
    Patron,
    Purpose,
    Quality,
    RegistryId,
    SbInfo,
    Subtype,
    Version,
    read_cbeff,
    write_cbeff,
)
from capture.formats.finger_image import read_finger_images
from capture.sample import FingerPosition

SAMPLES = ("TestCbeff.xml", "createCbeffLatest.xml", "cbeff-sample.xml")
SCHEMAS = {Patron.BIAS: "cbeff.xsd", Patron.ISO_19785_3: "updatedcbeff.xsd"}
INFO = "<BIRInfo><Integrity>false</Integrity></BIRInfo>"


def canonical(data: bytes) -> str:
    text: str = etree.canonicalize(data.decode())
    return text


def document(inner: str, *, attributes: str = "", namespace: str = Patron.ISO_19785_3) -> bytes:
    return f'<BIR xmlns="{namespace}"{attributes}>{inner}</BIR>'.encode()


def with_info(inner: str, namespace: str = Patron.ISO_19785_3) -> bytes:
    return document(f"{INFO}<BDBInfo>{inner}</BDBInfo>", namespace=namespace)


# --- the samples


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_equal_in_canonical_form(name: str, development_data: Path) -> None:
    data = (development_data / "conformance" / "cbeff" / name).read_bytes()
    file = read_cbeff(data)
    written = write_cbeff(file)
    assert canonical(written) == canonical(data)
    assert read_cbeff(written) == file


def test_what_a_sample_says(development_data: Path) -> None:
    data = (development_data / "conformance" / "cbeff" / "cbeff-sample.xml").read_bytes()
    file = read_cbeff(data)
    assert file.patron is Patron.ISO_19785_3
    first = file.bir.birs[0]
    assert first.version == Version(major=1, minor=1)
    assert first.sb is not None
    info = first.bdb_info
    assert info is not None
    assert info.format == RegistryId(organization="Mosip", type="7")
    assert info.created == "2021-08-11T10:32:48.121201800Z"
    assert (info.types, info.level, info.purpose) == ((BiometricType.FINGER,), Level.RAW, Purpose.ENROLL)
    assert info.quality == Quality(score=80, algorithm=RegistryId(organization="HMAC", type="SHA-256"))
    assert first.others[1] == Other(key="RETRIES", value="1")
    fingers = [bir for bir in file.bir.birs if bir.bdb_info and bir.bdb_info.types == (BiometricType.FINGER,)]
    assert {bir.bdb_info.finger_position for bir in fingers if bir.bdb_info} == set(range(1, 11))
    for bir in fingers:
        (image,) = read_finger_images(bir.bdb or b"").images
        assert bir.bdb_info is not None
        assert image.position == bir.bdb_info.finger_position


def test_numbers_of_the_older_schema(development_data: Path) -> None:
    file = read_cbeff((development_data / "conformance" / "cbeff" / "TestCbeff.xml").read_bytes())
    assert file.patron is Patron.BIAS
    info = file.bir.birs[0].bdb_info
    assert info is not None
    assert info.format == RegistryId(organization="257", type="7")
    assert info.quality == Quality(score=95)
    assert info.finger_position is FingerPosition.UNKNOWN  # four fingers
    assert file.bir.birs[0].extras[0].at == 0
    assert b"Duplicate" in file.bir.birs[0].extras[0].xml


# --- what is written


TEXT = st.text(
    st.one_of(
        st.sampled_from(string.printable.replace("\x0b", "").replace("\x0c", "") + "<>&\"'é\U0001f600"),
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"),
    ),
    max_size=12,
)
DATES = st.sampled_from(
    ["2024-02-29T23:59:59", "2019-01-03T10:22:18.043+05:30", "2021-08-11T10:32:48.121201800Z"]
)
BYTES = st.binary(max_size=30)
UUIDS = st.uuids().map(str)
SIDES = [Subtype(one) for one in list(Subtype)[:7]]
VEINS = [Subtype(one) for one in list(Subtype)[7:]]
TYPES = [one for one in list(BiometricType)[:15] if one is not BiometricType.EAR]  # by a slip of the schemas


def maybe(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | strategy


def files(patron: Patron) -> st.SearchStrategy[CbeffFile]:
    iso = patron is Patron.ISO_19785_3
    number = st.integers(1, 0xFFFFFFFF).map(str)
    ids = st.builds(RegistryId, organization=TEXT if iso else number, type=TEXT if iso else number)
    versions = st.builds(Version, major=st.integers(0, 0xFFFFFFFF), minor=st.integers(0, 9))
    infos = st.builds(
        BirInfo,
        creator=maybe(TEXT),
        index=maybe(UUIDS),
        payload=maybe(BYTES),
        integrity=st.booleans(),
        created=maybe(DATES),
        not_valid_before=maybe(DATES),
        not_valid_after=maybe(DATES),
    )
    scores = st.builds(Quality, score=st.integers(-2, 100))
    if iso:
        scores = st.builds(Quality, score=st.integers(0, 100), algorithm=ids) | st.builds(
            Quality, score=st.none(), algorithm=ids, failed=TEXT
        )
    algorithms = maybe(ids) if iso else st.none()
    bdb_infos = st.builds(
        BdbInfo,
        challenge_response=maybe(BYTES),
        index=maybe(UUIDS),
        format=maybe(ids),
        encryption=maybe(st.booleans()),
        created=maybe(DATES),
        not_valid_before=maybe(DATES),
        not_valid_after=maybe(DATES),
        types=maybe(st.lists(st.sampled_from(TYPES), max_size=2).map(tuple)),
        subtypes=maybe(
            st.one_of(*(st.lists(st.sampled_from(of), max_size=3).map(tuple) for of in (SIDES, VEINS)))
        ),
        level=maybe(st.sampled_from(Level)),
        product=maybe(ids),
        capture_device=algorithms,
        feature_extraction=algorithms,
        comparison=algorithms,
        compression=algorithms,
        purpose=maybe(st.sampled_from(Purpose)),
        quality=maybe(scores),
    )
    others: st.SearchStrategy[object] = st.builds(Other, key=TEXT, value=TEXT)
    if iso:
        others = st.builds(OtherEntries, entries=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple))

    def birs(inner: st.SearchStrategy[tuple[Bir, ...]]) -> st.SearchStrategy[Bir]:
        return st.builds(
            Bir,
            version=maybe(versions),
            cbeff_version=maybe(versions),
            info=infos,
            bdb_info=maybe(bdb_infos),
            sb_info=maybe(st.builds(SbInfo, format=maybe(ids))),
            birs=inner,
            bdb=maybe(BYTES),
            sb=maybe(BYTES),
            others=st.lists(others, max_size=2).map(tuple),
        )

    leaves = birs(st.just(()))
    return st.builds(
        CbeffFile,
        birs(st.lists(leaves, max_size=2).map(tuple)),
        st.just(patron),
        st.sampled_from([None, "cb"]),
    )


@pytest.mark.parametrize("patron", Patron)
def test_what_is_written_is_valid_and_read_as_the_same(patron: Patron, development_data: Path) -> None:
    schema = etree.XMLSchema(etree.parse(development_data / "conformance" / "cbeff" / SCHEMAS[patron]))

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(files(patron))
    def run(file: CbeffFile) -> None:
        data = write_cbeff(file)
        schema.assertValid(etree.fromstring(data))
        assert read_cbeff(data) == file
        assert write_cbeff(read_cbeff(data)) == data

    run()


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_valid_once_what_the_schemas_do_not_know_is_taken_out(
    name: str, development_data: Path
) -> None:
    folder = development_data / "conformance" / "cbeff"
    file = read_cbeff((folder / name).read_bytes())
    schema = etree.XMLSchema(etree.parse(folder / SCHEMAS[file.patron]))
    plain = tuple(
        replace(
            bir,
            extras=(),
            others=tuple(
                OtherEntries(entries=((one.key, one.value),)) for one in bir.others if isinstance(one, Other)
            ),
        )
        for bir in file.bir.birs
    )
    schema.assertValid(etree.fromstring(write_cbeff(replace(file, bir=replace(file.bir, birs=plain)))))


def test_foreign_elements_attributes_and_white_space_are_kept() -> None:
    data = document(
        f'\n\t<a:x a:y="1">text<b/> tail</a:x> <?xml-?>{INFO}\n'.replace("<?xml-?>", "<!-- gone -->")
        + '<BDB>QUJD</BDB>  <z xmlns="other">1</z><Others><Key>k</Key>\n<Value/></Others>',
        attributes=' xmlns:a="urn:a" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xsi:schemaLocation="here there"',
    )
    file = read_cbeff(data)
    assert [extra.at for extra in file.bir.extras] == [0, 3]
    assert canonical(write_cbeff(file)) == canonical(data)
    assert read_cbeff(write_cbeff(file)) == file
    lowercase = document(
        f'{INFO}<others><entry key="a">1</entry></others><Others><Key>b</Key><Value>2</Value></Others>'
    )
    assert canonical(write_cbeff(read_cbeff(lowercase))) == canonical(lowercase)


def test_what_a_schema_cannot_say_is_not_written() -> None:
    algorithm = RegistryId(organization="a", type="b")
    for patron, bir in (
        (Patron.BIAS, Bir(bdb_info=BdbInfo(format=algorithm))),
        (Patron.BIAS, Bir(bdb_info=BdbInfo(format=RegistryId(organization="07", type="1")))),
        (Patron.BIAS, Bir(bdb_info=BdbInfo(capture_device=algorithm))),
        (Patron.BIAS, Bir(bdb_info=BdbInfo(types=(BiometricType.PALM,)))),
        (Patron.BIAS, Bir(bdb_info=BdbInfo(quality=Quality(score=80, algorithm=algorithm)))),
        (Patron.BIAS, Bir(bdb_info=BdbInfo(quality=Quality(score=101)))),
        (Patron.ISO_19785_3, Bir(bdb_info=BdbInfo(quality=Quality(score=80)))),
        (Patron.ISO_19785_3, Bir(bdb_info=BdbInfo(quality=Quality(score=-1, algorithm=algorithm)))),
        (Patron.ISO_19785_3, Bir(bdb_info=BdbInfo(quality=Quality(score=None, algorithm=algorithm)))),
        (Patron.ISO_19785_3, Bir(bdb_info=BdbInfo(created="yesterday"))),
        (Patron.ISO_19785_3, Bir(bdb_info=BdbInfo(subtypes=(Subtype.LEFT, Subtype.LEFT_VEIN)))),
        (Patron.ISO_19785_3, Bir(info=BirInfo(index="1"))),
        (Patron.ISO_19785_3, Bir(info=BirInfo(creator="\x00"))),
        (Patron.ISO_19785_3, Bir(version=Version(major=-1, minor=0))),
        (Patron.ISO_19785_3, Bir(extras=(Extra(0, b"<x"),))),
        (Patron.ISO_19785_3, Bir(extras=(Extra(0, b'<!DOCTYPE x [<!ENTITY e "e">]><x>&e;</x>'),))),
        (Patron.ISO_19785_3, Bir(info=BirInfo(spaces=(" ", "text", ""), integrity=True, creator="c"))),
        (Patron.ISO_19785_3, Bir(attributes=(("not a name", "1"),))),
    ):
        with pytest.raises(RecordRefused):
            write_cbeff(CbeffFile(bir, patron))


# --- hostile documents


def test_harmless_forms_are_read() -> None:
    assert read_cbeff(b"\xef\xbb\xbf" + document(INFO)).bir == Bir()
    assert read_cbeff(document(INFO.replace("false", " 1 "))).bir.info.integrity
    assert read_cbeff(document(INFO + "<BDB>\n QU\n JD </BDB>")).bir.bdb == b"ABC"
    assert read_cbeff(document(INFO + "<BDB><![CDATA[QUJD]]></BDB>")).bir.bdb == b"ABC"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "well-formed"),
        (b"\xff\xfe<\x00", "UTF-8"),
        (document(INFO).decode().encode("utf-16"), "UTF-8"),
        (b'<!DOCTYPE BIR SYSTEM "http://localhost/x.dtd">' + document(INFO), "document type"),
        (b'<!DOCTYPE BIR [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + document("&b;"), "document type"),
        (b'<!DOCTYPE BIR [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + document("&a;"), "document type"),
        (document(f"{INFO}<BDB>&undefined;</BDB>"), "well-formed"),
        (document(f"<?php evil ?>{INFO}"), "processing"),
        (document(INFO + "<BIR>" * 20 + "</BIR>" * 20), "BIRInfo"),
        (document((f"{INFO}<BIR>") * 20 + INFO + "</BIR>" * 20), "nested"),
        (document('<x xmlns="f">' * 300 + "</x>" * 300 + INFO), "well-formed"),
        (document("<x/>" * 50_001 + INFO), "markup"),
        (document("<x a='' b='' c=''/>" * 17_000 + INFO), "markup"),
        (document(INFO, attributes="".join(f' xmlns:p{i}="u{i}"' for i in range(3000))), "namespaces"),
        (document(INFO, attributes="".join(f' a{i}="1"' for i in range(17))), "attributes"),
        (document("<p:x/>" * 500 + INFO, attributes=f' xmlns:p="{"u" * 100_000}"'), "foreign"),
        (document(f"{INFO}<BDB>{'A' * 10_000_004}</BDB>"), "well-formed"),
        (b" " * (32 * 1024 * 1024 + 1), "bytes"),
        (document(INFO, namespace="urn:other"), "schema"),
        (b"<BIR/>", "schema"),
        (document(INFO).replace(b"<BIR ", b"<BIRInfo ").replace(b"</BIR>", b"</BIRInfo>"), "schema"),
        (document(f'{INFO}<BIR xmlns="{Patron.BIAS}">{INFO}</BIR>'), "out of place"),
        (document(f'{INFO}<BIR xmlns="">{INFO}</BIR>'), "out of place"),
        (document(f"<BDB/>{INFO}"), "BIRInfo"),
        (document(INFO + INFO), "out of place"),
        (document(f"{INFO}<Surprise/>"), "unknown"),
        (document(f"{INFO}text"), "text between"),
        (document("<BIRInfo/>"), "Integrity"),
        (document(INFO.replace("false", "maybe")), "neither"),
        (document(INFO.replace("false", "<b/>")), "text and nothing"),
        (document(INFO.replace("<BIRInfo>", '<BIRInfo a="1">')), "attributes"),
        (document(f'<BIRInfo><x xmlns="f"/>{INFO[9:]}'), "foreign"),
        (document(f"{INFO}<BDB>Q</BDB>"), "base64"),
        (document(f"{INFO}<BDB>QR==</BDB>"), "base64"),
        (document(f"{INFO}<BDB>QUJD*</BDB>"), "base64"),
        (document(f"{INFO}<BDB>Ｑ===</BDB>"), "base64"),
        (document(f"{INFO}<others><entry>1</entry></others>"), "key"),
        (with_info("<Index>1</Index>"), "UUID"),
        (with_info("<CreationDate>2023-02-29T00:00:00Z</CreationDate>"), "date"),
        (with_info("<CreationDate>2023-02-28</CreationDate>"), "date"),
        (with_info("<Type>Soul</Type>"), "not known"),
        (with_info("<Subtype>Left LeftVein</Subtype>"), "veins"),
        (with_info("<Quality>80</Quality>"), "text between"),
        (with_info("<Quality>NaN</Quality>", Patron.BIAS), "no number"),
        (with_info("<Quality>101</Quality>", Patron.BIAS), "-2 to 100"),
        (with_info("<Quality>1e2</Quality>", Patron.BIAS), "no number"),
        (with_info("<Quality>٨٠</Quality>", Patron.BIAS), "no number"),
        (with_info(f"<Quality>{'9' * 5000}</Quality>", Patron.BIAS), "no number"),
        (with_info("<FormatOwner>0</FormatOwner><FormatType>1</FormatType>", Patron.BIAS), "1 to"),
        (with_info("<FormatOwner>1</FormatOwner>", Patron.BIAS), "without a type"),
        (with_info("<Type>Wrist</Type>", Patron.BIAS), "BIAS"),
        (with_info("<Format><Organization>a</Organization></Format>"), "Type"),
    ],
)
def test_hostile_documents_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(RecordRefused, match=says):
        read_cbeff(data)
