"""The page of `rekam evaluate fingerprint --report`, and the peers beside us."""

import base64
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import nbis
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from benchmarks.synthetic_prints import finger, impression
from capture.fingerprint.template import MAX_MINUTIAE, ExtractorChoice, FingerprintTemplate
from capture.sample import FingerPosition
from matching.error_rates import Pairs
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders
from rekam.offline import peers, prints_page
from rekam.offline.evaluate_prints import evaluate_app
from rekam.offline.evaluate_prints import report as error_rates
from rekam.offline.explain_prints import Seen, explain_seen
from rekam.offline.extremes import causes, extremes
from rekam.offline.page import Circumstances
from rekam.offline.peers import (
    MINDTCT_BOZORTH3,
    MINDTCT_OURS,
    bozorth3_chunk,
    mindtct,
    peer_pairs,
    require_peers,
)
from rekam.offline.prints import Compared, Impression, PrintSet, read_print
from rekam.offline.samples import EvaluationError, Extracted, all_pairs
from tests.minutiae import made_template, moved_template

QUIET = Console(quiet=True)


class Page(HTMLParser):
    """A page's tags, checked to be closed in order, its texts and images."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.images: list[str] = []
        self.attributes: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "img":
            self.images.append(str(dict(attrs)["src"]))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fingers twice each and a blank image, in a folder and under names that HTML must not read."""
    folder = tmp_path_factory.mktemp("prints") / "<b>set & co"
    folder.mkdir()
    for person in (1, 2):
        thumb = finger(person, FingerPosition.RIGHT_THUMB)
        for n in (1, 2):
            image = Image.fromarray(impression(thumb, 10 * person + n))
            image.save(folder / f"<i>{person}_{n}.png", dpi=(500, 500))
    Image.new("L", (300, 300), 255).save(folder / "<i>2_3.png", dpi=(500, 500))
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(evaluate_app, ["fingerprint", *map(str, arguments)])


def test_the_page_stands_alone_and_shows_everything(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prints_page, "SHOWN_PAIRS", 1)
    out = tmp_path / "page.html"
    options = ("--workers", "1", "--replicates", "20", "--peers", "--report", out)
    result = run(folder, *options)
    assert result.exit_code == 0, result.output
    written = out.read_text(encoding="utf-8")
    page = Page(written)

    # one file: no script, nothing from elsewhere
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not {"href", "onload", "onclick"} & page.attributes
    assert "://" not in written
    assert "@import" not in written
    assert re.findall(r"url\(", written) == []
    for image in page.images:
        kind, data = image.split(";base64,")
        assert kind in ("data:image/png", "data:image/jpeg")
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        assert min(pixels.shape[:2]) > 100

    # what users named is text
    assert "<i>1_1" not in written
    assert "<b>set & co" in page.text
    assert {"<i>1_1", "<i>2_1"} & set(re.findall(r"<i>\d_\d", page.text))

    # everything has its place: curves twice, scores, quality, a genuine and an impostor pair, the failure
    assert page.tags.count("article") == 2
    assert len(page.images) == 7
    assert "<i>2_3.png" in page.text
    assert "Nothing was captured" in page.text
    assert "1 of 5 prints" in page.text
    assert "There are too few impostor pairs" in page.text
    assert "not supported needs 100" in page.text
    for pipeline in ("Rekam", MINDTCT_BOZORTH3, MINDTCT_OURS):
        assert pipeline in page.words
    assert "no template" in page.text
    assert re.search(r"extraction of a print.* \d+ ms .* \d+ µs", page.text)


def test_a_report_is_html_and_peers_are_shown_in_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run(folder, "--report", tmp_path / "page.pdf")
    assert refused.exit_code == 1
    assert "name it .html" in refused.stderr
    refused = run(folder, "--peers")
    assert refused.exit_code == 1
    assert "--report FILE.html" in refused.stderr
    monkeypatch.setitem(sys.modules, "nbis", None)
    with pytest.raises(EvaluationError, match="pip install nbis-py"):
        require_peers()
    refused = run(folder, "--peers", "--report", tmp_path / "page.html")
    assert refused.exit_code == 1
    assert not (tmp_path / "page.html").exists()


# --- sets without images


def set_of(name: str, templates: Sequence[Sequence[FingerprintTemplate | None]]) -> Compared:
    """A set of fingers, each a sequence of impressions, compared as `compare_set` would."""
    every = [(f, i, one) for f, finger in enumerate(templates) for i, one in enumerate(finger)]
    found = tuple(Impression(Path(f"nowhere/{f}_{i}.png"), str(f), str(i)) for f, i, _ in every)
    extracted = tuple(
        Extracted(None, 0, ("blank",), "Nothing there.")
        if one is None
        else Extracted(one.to_bytes(), one.quality, (), "")
        for _, _, one in every
    )
    number = np.array([f for f, _, _ in every])
    first, second = all_pairs(len(every))
    stored = [None if one is None else FingerprintTemplate.from_bytes(one.to_bytes()) for _, _, one in every]
    described = [None if one is None else cylinders(one) for one in stored]
    scores = np.full(len(first), -np.inf)
    for k, (i, j) in enumerate(zip(first, second, strict=True)):
        a, b = described[i], described[j]
        if a is not None and b is not None:
            scores[k] = similarity(a, b)
    genuine = number[first] == number[second]
    pairs = Pairs(scores, genuine, number[first], number[second])
    return Compared(PrintSet(name, 500, found, ()), extracted, pairs, np.ones(len(first), np.bool_))


def fingers(seed: int, count: int) -> list[list[FingerprintTemplate | None]]:
    """Fingers seen twice, the second time turned, and of every other finger only in part."""
    made: list[list[FingerprintTemplate | None]] = []
    for f in range(count):
        whole = made_template(30, seed + f, 300)
        again = moved_template(whole, 0.3, 5, 5)
        columns = ("x", "y", "direction", "ending", "reliability")
        part = replace(again, **{name: getattr(again, name)[: 12 if f % 2 else 30] for name in columns})
        made.append([whole, part])
    return made


def test_extremes_are_the_lowest_genuine_and_the_highest_impostor_scores() -> None:
    a, b = set_of("a", fingers(10, 3)), set_of("b", [*fingers(20, 3), [made_template(20, 99, 300), None]])
    worst = list(extremes([a, b], genuine=True, count=4))
    scores = np.concatenate([one.pairs.score[one.pairs.genuine] for one in (a, b)])
    assert [one.score for one in worst] == sorted(scores[np.isfinite(scores)])[:4]
    best = list(extremes([a, b], genuine=False, count=3))
    scores = np.concatenate([one.pairs.score[~one.pairs.genuine] for one in (a, b)])
    assert [one.score for one in best] == sorted(scores, reverse=True)[:3]
    assert all(one.names[0][0] == one.names[1][0] for one in worst)
    assert all(one.names[0][0] != one.names[1][0] for one in best)
    assert {one.set_name for one in worst} == {"a", "b"}
    # the images are nowhere: what is shown has blank ground
    assert worst[0].explanation.prints[0].image is None
    assert len(list(extremes([a], genuine=True, count=50))) == 3


def test_a_page_of_sets_without_failures_or_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prints_page, "SHOWN_PAIRS", 1)
    monkeypatch.setattr(prints_page, "costs", lambda *_, **__: {})
    sets = [set_of("a", fingers(10, 3)), set_of("b", fingers(20, 3))]
    made = Circumstances("1 May 2030", "rekam <x>", (("rekam", "0"),), ExtractorChoice.ACCURATE, 5, 1)
    result = error_rates(sets, replicates=5, seed=1)
    written = prints_page.evaluation_page(sets, result, [], made, QUIET)
    page = Page(written)
    assert "Every print gave a template." in page.text
    assert "No capture gave reason for advice." in page.text
    assert "all, pooled" in page.text
    assert "1 May 2030" in page.text
    assert "rekam <x>" in page.text
    assert "Side by side" not in page.text
    # the same page from the same figures
    assert prints_page.evaluation_page(sets, result, [], made, QUIET) == written


def seen(template: FingerprintTemplate, quality: int = 80) -> Seen:
    return Seen(None, template, quality)


def test_causes_say_what_is_wrong() -> None:
    whole = made_template(40, 7, 300)
    columns = ("x", "y", "direction", "ending", "reliability")
    corner = (whole.x < 130) & (whole.y < 170)
    part = replace(whole, **{name: getattr(whole, name)[corner] for name in columns})
    small = causes(explain_seen(seen(whole), seen(part, 20)), genuine=True)
    assert any(cause.startswith("Small common region") for cause in small)
    assert any(cause.startswith("Few minutiae in the common region") for cause in small)
    assert any(cause.startswith("Print B is poor, quality 20") for cause in small)
    turned = causes(explain_seen(seen(whole), seen(moved_template(whole, 1.2, 0, 0))), genuine=True)
    assert turned == ["Turned by 69° against each other."]
    alike = causes(explain_seen(seen(whole), seen(whole)), genuine=False)
    assert alike[0].startswith("So much agrees that it may be one finger")
    assert causes(explain_seen(seen(whole), seen(whole)), genuine=True) == [
        "Nothing stands out: a little of everything."
    ]
    missing = explain_seen(seen(whole), Seen(None, None, 0))
    assert causes(missing, genuine=True) == ["One print gave no template."]


# --- peers


def test_bozorth3_scores_are_the_packages_own(folder: Path) -> None:
    samples = [read_print(folder / f"<i>{name}.png", None) for name in ("1_1", "1_2", "2_1")]
    made = [mindtct(sample) for sample in samples]
    records = (*(one.record for one in made), mindtct(read_print(folder / "<i>2_3.png", None)).record)
    assert records[3] is None
    settings = nbis.NbisExtractorSettings(
        min_quality=0.0, get_center=False, check_fingerprint=False, compute_nfiq2=False, ppi=None
    )
    whole = nbis.new_nbis_extractor(settings)
    direct = []
    for sample in samples:
        _, png = cv2.imencode(".png", sample.image)
        direct.append(whole.extract_minutiae(png.tobytes()))
    part = np.array([0, 0, 1, 2]), np.array([1, 2, 2, 3])
    scores = bozorth3_chunk(records, part)
    expected = [direct[i].compare(direct[j]) for i, j in zip(*part, strict=True) if j < 3]
    assert scores.tolist() == [*expected, -np.inf]
    assert scores[0] > scores[1]

    # our template of the same minutiae
    data = made[0].template
    assert data is not None
    template = FingerprintTemplate.from_bytes(data)
    best = sorted(direct[0].get(), key=lambda m: (-m.reliability(), m.y(), m.x()))[:MAX_MINUTIAE]
    places = zip(template.x.tolist(), template.y.tolist(), strict=True)
    assert sorted(places) == sorted((m.x(), m.y()) for m in best)
    assert (template.reliability >= 0.5 - 1 / 127).all()


def test_peers_of_large_sets_compare_a_seeded_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    one = set_of("a", fingers(10, 4))
    assert peer_pairs(one, 1).all()
    monkeypatch.setattr(peers, "MAX_IMPOSTORS", 7)
    chosen = peer_pairs(one, 1)
    assert chosen[one.pairs.genuine].all()
    assert chosen[~one.pairs.genuine].sum() == 7
    assert np.array_equal(chosen, peer_pairs(one, 1))
    assert not np.array_equal(chosen, peer_pairs(one, 2))
