"""Live assistance: what a frame costs, whether advice is that of the full pipeline, which frame is chosen.

    python -m benchmarks.live_assistance [--people 6] [--eyes 4] [--sheet build/live_assistance.png]

Frames are made of the development portraits, enlarged until the eyes are some 105 pixels apart, of the
development eyes, and of drawn eyes (`benchmarks/synthetic_irises.py`). Each is spoilt in the ways named below
and shown as a stream: the camera trembles a little, light and noise change. Then

* agreement: of each word, how often the steady advice after the last frame and the full pipeline's feedback
  on that frame both have it, only one of them, or neither;
* flicker: how often a word comes or goes between two frames of a stream in which nothing happens, in the
  feedback of single frames and in the steady advice;
* choice: in streams whose frames are spoilt more and less, the full quality of the chosen frame beside that
  of the best, of a typical one, and of the first without advice;
* cost: processor time of a frame, one thread.

The sheet shows frames with their advice: portraits of the data set, so it is not kept with the results.
"""

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray
from rich.progress import track

from benchmarks import synthetic_irises
from benchmarks.provenance import ROOT, provenance
from benchmarks.spoilt_irises import KINDS, spoilt
from capture.best_frame import FrameChoice
from capture.decode import decode_face_image, decode_iris_image
from capture.face.assist import FaceAssistance, FaceAssistant
from capture.face.detection import FaceFinder
from capture.face.extract import FaceExtractor
from capture.iris.assist import IrisAssistance, IrisAssistant
from capture.iris.extract import IrisExtractor
from capture.quality import Feedback, Quality
from capture.sample import FaceSample, IrisSample
from devices.frame import DeviceKind, Frame, Provenance

SEED = 2026
ENLARGED = 2.5  # eyes of LFW are some 42 pixels apart
STREAM = 8
TIMED, CHOSEN_OF = 24, 16
SIZES = ((640, 480), (1280, 720), (1920, 1080))
IRIS_SIZES = ((320, 280), (640, 480), (1280, 960))

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]
Assistant = FaceAssistant | IrisAssistant
Seen = FaceAssistance | IrisAssistance


# Frames


@dataclass(frozen=True, slots=True)
class Spoilt:
    """How a portrait is spoilt: moved by (shares of the side, degrees, size), lit, smeared."""

    turn: float = 0.0
    size: float = 1.0
    right: float = 0.0
    down: float = 0.0
    light: float = 1.0
    lift: float = 0.0
    shade: float = 0.0
    blur: float = 0.0
    covered: bool = False
    joined: bool = False


PORTRAITS = {
    "plain": Spoilt(),
    "tilted": Spoilt(turn=14),
    "far": Spoilt(size=0.6),
    "near": Spoilt(size=1.6),
    "to the side": Spoilt(right=0.25),
    "low": Spoilt(down=0.25),
    "dark": Spoilt(light=0.3),
    "light": Spoilt(light=1.9, lift=30),
    "lit from one side": Spoilt(shade=0.7),
    "blurred": Spoilt(blur=7),
    "eyes covered": Spoilt(covered=True),
    "two people": Spoilt(joined=True),
}


def enlarged(path: Path) -> Image:
    image = decode_face_image(path.read_bytes()).image
    return cv2.resize(image, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def portrait(image: Image, how: Spoilt, beside: Image, finder: FaceFinder) -> Image:
    """The portrait as `how` says, of the same height."""
    side = image.shape[0]
    if how.covered:
        image = with_covered_eyes(image, finder)
    if how.joined:
        image = np.concatenate([image, beside], axis=1)
    moved = carried(image, how.turn, how.size, (side * how.right, side * how.down))
    across = np.linspace(0, 1, image.shape[1])
    across = across[None, :, None] if image.ndim == 3 else across
    lit: Floats = moved * how.light * (1 - how.shade * np.clip(3 * across - 1, 0, 1)) + how.lift
    if how.blur:
        lit = cv2.GaussianBlur(lit, (0, 0), how.blur).astype(np.float64, copy=False)
    return np.clip(lit, 0, 255).astype(np.uint8)


def carried(image: Image, degrees: float, size: float, shift: tuple[float, float]) -> Floats:
    """Turned and scaled about the middle and shifted, in pixels; the edge goes on beyond itself."""
    height, width = image.shape[:2]
    motion = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), degrees, size), np.float64)
    motion[:, 2] += np.array(shift)
    return cv2.warpAffine(image, motion, (width, height), borderMode=cv2.BORDER_REPLICATE).astype(np.float64)


def with_covered_eyes(image: Image, finder: FaceFinder) -> Image:
    """A strip of the cheeks' grey over the eyes."""
    image = image.copy()
    for face in finder.faces(image)[:1]:
        marks = finder.landmarks(image, face)
        x, y = marks[:4].mean(axis=0).tolist()
        apart = float(np.hypot(*(marks[0] - marks[2])))
        left, right = int(x - apart), int(x + apart)
        cheek = image[int(y + 0.5 * apart) : int(y + 0.7 * apart), int(x - apart / 2) : int(x + apart / 2)]
        image[int(y - 0.15 * apart) : int(y + 0.15 * apart), left:right] = int(
            np.median(cheek.astype(np.float64))
        )
    return image


def stream(image: Image, seed: int, frames: int) -> Iterator[Image]:
    """The camera trembles, the lamp flickers, the sensor is noisy: nothing that calls for other advice."""
    rng = np.random.default_rng([SEED, seed])
    for _ in range(frames):
        turn, size = rng.normal(0, 0.4), 1 + rng.normal(0, 0.004)
        moved = carried(image, turn, size, (rng.normal(0, 1.5), rng.normal(0, 1.5)))
        noisy = moved * (1 + rng.normal(0, 0.015)) + rng.normal(0, 1.5, image.shape)
        yield np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


# Measurements


class Agreement:
    """How often live advice and the full feedback have each word."""

    def __init__(self) -> None:
        self.rows: defaultdict[Feedback, Counter[str]] = defaultdict(Counter)
        self.pictures = 0

    def add(self, live: Iterable[Feedback], full: Iterable[Feedback]) -> None:
        """One more picture."""
        a, b = set(live), set(full)
        self.pictures += 1
        for word in a | b:
            self.rows[word]["both" if word in a & b else "live only" if word in a else "full only"] += 1

    def table(self) -> dict[str, object]:
        """Counts a word, and how many words a picture are not the same."""
        rows: dict[str, object] = {}
        apart = 0
        for word in Feedback:
            if word in self.rows:
                row = {name: self.rows[word][name] for name in ("both", "live only", "full only")}
                row["neither"] = self.pictures - sum(row.values())
                apart += row["live only"] + row["full only"]
                agree = (row["both"] + row["neither"]) / self.pictures
                rows[word] = {**row, "agree_percent": round(100 * agree, 1)}
        return {
            "pictures": self.pictures,
            "words_apart_a_picture": round(apart / self.pictures, 3),
            "words": rows,
        }


def changes(words: Sequence[Iterable[Feedback]]) -> int:
    """Words that come or go from one frame to the next."""
    return sum(len(set(a) ^ set(b)) for a, b in pairwise(words))


def cost(assistant: Assistant, frames: Sequence[Image]) -> dict[str, float]:
    """Milliseconds of processor time a frame, and frames per second on one core."""
    spent = []
    for image in frames:
        begun = time.process_time()
        assistant.look(image)
        spent.append(1000 * (time.process_time() - begun))
    kept = np.array(spent[2:])  # the first ones fill caches
    return {
        "ms_mean": round(float(kept.mean()), 1),
        "ms_p95": round(float(np.percentile(kept, 95)), 1),
        "ms_max": round(float(kept.max()), 1),
        "frames_per_second": round(1000 / float(kept.mean()), 1),
    }


def chosen(
    frames: Sequence[Image], assistant: Assistant, full: Callable[[Image], Quality], kind: DeviceKind
) -> tuple[dict[str, float], str]:
    """Full score of the chosen frame, of the best, of the median, and of the first without advice."""
    choice, first = FrameChoice(), None
    for number, image in enumerate(frames):
        seen = assistant.look(image)
        frame = Frame(image, kind, (), None, datetime.now(UTC), Provenance("benchmark", "stream"), number)
        choice.show(frame, seen.quality)
        first = number if first is None and not seen.advice else first
    best = choice.best(lambda frame: full(frame.pixels))
    assert best is not None
    scores = [full(image).score for image in frames]
    row = {
        "chosen": float(best.quality.score),
        "best": float(max(scores)),
        "median": float(np.median(scores)),
        "first_without_advice": float(scores[0 if first is None else first]),
    }
    return row, best.why


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 1) for name in rows[0]}


def measured(
    pictures: Iterable[tuple[str, Image]], made: Callable[[], Assistant], full: Callable[[Image], Quality]
) -> dict[str, object]:
    """Agreement and flicker over streams of `pictures`, each with the name of what was done to it."""
    agreement, kinds = Agreement(), defaultdict[str, Agreement](Agreement)
    raw, steady, frames = 0, 0, 0
    for seed, (kind, picture) in enumerate(track(pictures, "streams")):
        assistant = made()
        seen: list[Seen] = []
        last = picture
        for last in stream(picture, seed, STREAM):
            seen.append(assistant.look(last))
        judged = full(last).feedback
        agreement.add(seen[-1].advice, judged)
        kinds[kind].add(seen[-1].advice, judged)
        raw += changes([one.quality.feedback for one in seen])
        steady += changes([one.advice for one in seen])
        frames += len(seen) - 1
    return {
        "agreement": agreement.table(),
        "words_apart_a_picture_by_kind": {
            kind: one.table()["words_apart_a_picture"] for kind, one in kinds.items()
        },
        "changes_a_hundred_frames": {
            "single_frames": round(100 * raw / frames, 1),
            "steady_advice": round(100 * steady / frames, 1),
        },
    }


def varying(image: Image, seed: int, finder: FaceFinder) -> list[Image]:
    """Frames of a person who moves, leans, and is in and out of focus and of the light."""
    rng = np.random.default_rng([SEED, 1, seed])
    phases, side = rng.uniform(0, 2 * np.pi, 4), image.shape[0]
    made = []
    for place in range(CHOSEN_OF):
        wave = np.sin(phases + 2 * np.pi * place / np.array([9, 13, 17, 23]))
        how = Spoilt(
            turn=10 * wave[0],
            right=0.12 * wave[1],
            blur=max(0.01, 9 * wave[2]) * side / 625,
            light=1 + 0.5 * wave[3],
        )
        made.append(portrait(image, how, image, finder))
    return made


# The sheet


def sheet(panels: Sequence[tuple[str, Image, Seen]], path: Path) -> None:
    """Frames with the advice, the face or the circles, and the portrait to be cut out."""
    columns = 6
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.7 * rows))
    for number, (title, image, seen) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        outlined(axes, seen)
        words = "\n".join(seen.advice) or "good"
        axes.set_title(f"{title}: {seen.quality.score}", fontsize=9)
        axes.set_xlabel(words, fontsize=8, color="darkred" if seen.advice else "darkgreen")
        axes.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0), xticks=[], yticks=[])
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def outlined(axes: Axes, seen: Seen) -> None:
    if isinstance(seen, IrisAssistance):
        for circle in (seen.pupil, seen.limbus):
            if circle is not None:
                axes.add_patch(Circle((circle.x, circle.y), circle.radius, fill=False, color="lime"))
        return
    if seen.face is not None and seen.portrait is not None and seen.landmarks is not None:
        left, top, right, bottom = seen.portrait
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="lime"))
        axes.add_patch(
            Rectangle(
                (seen.face.left, seen.face.top), seen.face.side, seen.face.side, fill=False, color="orange"
            )
        )
        axes.plot(*seen.landmarks.T, ".", color="cyan", markersize=4)


# The command


def main(
    people: Annotated[int, typer.Option(min=2, help="How many of the development portraits.")] = 6,
    eyes: Annotated[int, typer.Option(min=1, help="How many development eyes, and drawn eyes.")] = 4,
    out: Annotated[Path, typer.Option(help="Where to write the figures.")] = ROOT
    / "benchmarks/results/live_assistance.json",
    sheet_path: Annotated[
        Path, typer.Option("--sheet", help="Where to draw frames with their advice.")
    ] = ROOT / "build/live_assistance.png",
) -> None:
    cv2.setNumThreads(1)
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    finder, portraits, irises = FaceFinder(), FaceExtractor(), IrisExtractor()

    def full_face(image: Image) -> Quality:
        return portraits.extract(FaceSample(image)).quality

    def full_iris(image: Image) -> Quality:
        return irises.extract(IrisSample(image)).quality

    # 1. Portraits, of people spread over the set.
    folders = sorted((data / "face" / "lfw").iterdir())
    paths = [sorted(folder.glob("*.jpg"))[0] for folder in folders[:: max(1, len(folders) // people)]][
        :people
    ]
    plain = [enlarged(path) for path in paths]
    faces = [
        (kind, portrait(image, how, plain[place - 1], finder))
        for place, image in enumerate(plain)
        for kind, how in PORTRAITS.items()
    ]
    face_figures = measured(faces, FaceAssistant, full_face)
    choices = [
        chosen(varying(one, k, finder), FaceAssistant(), full_face, DeviceKind.FACE)
        for k, one in enumerate(plain)
    ]
    face_figures["choice"] = means([row for row, _ in choices])

    # 2. Eyes: of the development set, spoilt, and drawn.
    samples = [
        decode_iris_image(path.read_bytes())
        for path in sorted((data / "iris" / "casia_v1").glob("*_1_1.jpg"))[:eyes]
    ]
    eye_pictures = [(kind, spoilt(one, kind, k).image) for k, one in enumerate(samples) for kind in KINDS]
    eye_pictures += [("cut off", np.roll(one.image, 110, axis=1)[:, 110:].copy()) for one in samples]
    drawn = [synthetic_irises.capture(eye, 0).image for eye in range(eyes)]
    iris_figures = measured(eye_pictures, IrisAssistant, full_iris)
    drawn_figures = measured([("drawn", one) for one in drawn], IrisAssistant, full_iris)
    iris_choices = [
        chosen(varying(one, k, finder), IrisAssistant(), full_iris, DeviceKind.IRIS)
        for k, one in enumerate(drawn)
    ]
    iris_figures["choice_drawn"] = means([row for row, _ in iris_choices])

    # 3. What a frame costs.
    costs: dict[str, object] = {}
    for width, height in SIZES:
        frame = in_the_middle(plain[0], width, height)
        costs[f"face {width} x {height}"] = cost(FaceAssistant(), list(stream(frame, 0, TIMED)))
        empty = np.full_like(frame, 128)
        costs[f"no face {width} x {height}"] = cost(FaceAssistant(), list(stream(empty, 0, TIMED // 2)))
        costs[f"full pipeline, face {width} x {height}"] = full_cost(full_face, list(stream(frame, 0, 12)))
    for width, height in IRIS_SIZES:
        frame = cv2.resize(drawn[0], (width, height)).astype(np.uint8)
        costs[f"eye {width} x {height}"] = cost(IrisAssistant(), list(stream(frame, 0, TIMED)))

    # 4. The sheet.
    panels: list[tuple[str, Image, Seen]] = []
    for place in (0, len(plain) // 2):
        panels += [shown(kind, image, FaceAssistant()) for kind, image in faces[12 * place : 12 * place + 12]]
    panels += [shown(kind, image, IrisAssistant()) for kind, image in eye_pictures[:7] + eye_pictures[-1:]]
    panels += [shown("drawn", drawn[0], IrisAssistant())]
    sheet(panels, sheet_path)

    report = {
        "provenance": provenance(),
        "parameters": {"people": people, "eyes": eyes, "frames_a_stream": STREAM, "chosen_of": CHOSEN_OF},
        "cost": costs,
        "portraits": face_figures,
        "eyes": iris_figures,
        "drawn_eyes": drawn_figures,
        "an_explanation": choices[0][1],
    }
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({name: report[name] for name in report if name != "provenance"}, indent=1))


def in_the_middle(image: Image, width: int, height: int) -> Image:
    """The portrait as high as the frame, in its middle, before a plain wall."""
    fitted = cv2.resize(image, (height, height)).astype(np.uint8)
    frame = np.full((height, width, 3), 170, np.uint8)
    left = (width - height) // 2
    frame[:, left : left + height] = fitted
    return frame


def full_cost(full: Callable[[Image], Quality], frames: Sequence[Image]) -> dict[str, float]:
    full(frames[0])
    begun = time.process_time()
    for image in frames:
        full(image)
    return {"ms_mean": round(1000 * (time.process_time() - begun) / len(frames), 1)}


def shown(title: str, image: Image, assistant: Assistant) -> tuple[str, Image, Seen]:
    for last in stream(image, 5, 4):
        seen = assistant.look(last)
    return title, last, seen


if __name__ == "__main__":
    typer.run(main)
