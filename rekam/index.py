"""The search index of a service: derived from the store, behind it by no more than a commit.

It carries the number of the last change it applied. At start it is loaded from the data folder where it can
be trusted, and caught up with the store, or rebuilt from it. Its codes may be on a Milvus server instead.
"""

import logging
import shutil
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from matching.encounter import EncounterComparison, EncounterForm, compare_encounters
from matching.errors import GalleryDamaged, MatchingError
from matching.gallery import Gallery
from rekam.capturing import form_of, read_template
from rekam.config import GalleryKind, Settings
from rekam.errors import InvalidSettings, RekamError
from rekam.store import ChangeKind, Reader, Store
from rekam.written import written

if TYPE_CHECKING:  # its client is an extra
    from matching.milvus_gallery import MilvusGallery

log = logging.getLogger(__name__)

_FOLDER = "index"
_OPENING = "index.opening"
_SAVE_AFTER = 1000
# What was erased leaves the files of a running service's index within this time.
_FORGOTTEN_SECONDS = 600.0
# An index on disk that is larger is checked to its last byte behind the service's back.
_CHECKED_AT_START = 1 << 28


class Progress(Protocol):
    """Told how far a long work has come."""

    def __call__(self, done: int, of: int) -> None:
        """`done` of `of` steps are done."""


def label_of(seq: int, subject_key: int | None) -> int:
    """How the index groups an encounter: by subject, a held one by itself."""
    return -seq if subject_key is None else subject_key


class Index:
    """The gallery of the encounters that searches meet. `follow` belongs to the one writing thread.

    `gallery` is to be searched from any thread. Raises `GalleryUnavailable` where it is on a server that does
    not serve, `InvalidSettings` where what it takes to reach one is not installed.
    """

    def __init__(self, store: Store, settings: Settings, progress: Progress | None = None) -> None:
        self._store = store
        self._settings = settings
        self._face_file = settings.face_embedder_calibration
        self._captured: dict[int, EncounterForm] = {}
        self._erased = False
        self._folder = store.folder / _FOLDER
        self._stopping = threading.Event()
        self._checking: threading.Thread | None = None
        self._forgetting: threading.Thread | None = None
        self._saving = threading.Lock()
        self.gallery = self._opened(progress)
        if isinstance(self.gallery, Gallery) and self.gallery.removed():
            self._forget_soon()  # also what a process that was killed did not come to

    def save(self) -> None:
        """Save the index beside the store; what was erased leaves the disk. To be called once, at the end."""
        self._stopping.set()
        for thread in (self._checking, self._forgetting):
            if thread is not None:
                thread.join()
        try:
            with self._saving:
                self.gallery.save(self._folder)
        except OSError:
            log.exception("the index could not be saved; the next start makes up for it")
        except GalleryDamaged:
            log.exception("the index is damaged; the next start rebuilds it")
            shutil.rmtree(self._folder, ignore_errors=True)
        self.gallery.close()
        if self._erased:
            self._store.compact()

    def copy_to(self, folder: Path) -> None:
        """Put a copy of the index, with the history it followed, into a backup; none if on a server."""
        if isinstance(self.gallery, Gallery):
            self.gallery.snapshot(folder / _FOLDER)
            written(folder / _OPENING, self._store.opening.encode("ascii"))

    def expect(self, seq: int, form: EncounterForm) -> None:
        """Keep the form of an encounter about to be committed, so that it is not made again."""
        self._captured[seq] = form

    def _opened(self, progress: Progress | None) -> "Gallery | MilvusGallery":
        """The index as it was left, or an empty one if there is none to trust, caught up with the store."""
        gallery = self._on_milvus() if self._settings.gallery is GalleryKind.MILVUS else self._embedded()
        with self._store.read() as reader:
            behind = reader.last_change() - gallery.watermark
        self.gallery = gallery
        self.follow(progress)
        if behind > _SAVE_AFTER:
            gallery.save(self._folder)
        return gallery

    def _on_milvus(self) -> "MilvusGallery":
        """The codes on the server, if they followed this very history of the store; else none."""
        try:
            from matching.milvus_gallery import MilvusGallery
        except ImportError as error:
            raise InvalidSettings([("gallery", "milvus needs its client: install rekam[milvus]")]) from error
        settings = self._settings
        opened = partial(
            MilvusGallery,
            settings.milvus_uri or "",
            self._stored_form,
            prefix=settings.milvus_prefix,
            token=settings.milvus_token or "",
            face_file=self._face_file,
        )
        try:
            gallery = opened()
        except GalleryDamaged as error:
            log.warning("what is in Milvus is not used and is made anew: %s", error)
            gallery = opened(anew=True)
        with self._store.read() as reader:
            followed = reader.continues(gallery.history, gallery.watermark)
            if (len(gallery) or gallery.watermark) and not followed:
                log.warning("what is in Milvus followed another history of the store: it is made anew")
                gallery.clear()
        gallery.history = self._store.opening
        gallery.flush()
        return gallery

    def _stored_form(self, key: int) -> EncounterForm | None:
        with self._store.read() as reader:
            return self._form_to_index(reader, key)

    def _embedded(self) -> Gallery:
        gallery = self._loaded()
        if gallery is None:
            # It may hold what was erased since, or be of an older format: nothing of it stays.
            shutil.rmtree(self._folder, ignore_errors=True)
            gallery = Gallery(self._folder, face_file=self._face_file)
        # Whatever is saved from now on followed the store as it is since it was opened.
        written(self._store.folder / _OPENING, self._store.opening.encode("ascii"))
        return gallery

    def _loaded(self) -> Gallery | None:
        """The saved index, if it can be trusted; a large one is checked to the end while it serves."""
        if not self._folder.exists():
            return None
        try:
            gallery = Gallery.load(self._folder, face_file=self._face_file)
            if in_short := sum(gallery.sizes().compared.values()) <= _CHECKED_AT_START:
                gallery.verify()
        except GalleryDamaged as error:
            log.warning("the saved index is not used and is rebuilt from the store: %s", error)
            return None
        marker = self._store.folder / _OPENING
        followed = marker.read_text(encoding="ascii") if marker.exists() else ""
        with self._store.read() as reader:
            if gallery.watermark and not reader.continues(followed, gallery.watermark):
                log.warning(
                    "the saved index followed another history of the store and is rebuilt from this one"
                )
                return None
        if not in_short:
            self._checking = threading.Thread(target=self._check, args=(gallery,), name="index-check")
            self._checking.start()
        return gallery

    def _check(self, gallery: Gallery) -> None:
        """Check the index to its last byte; what is damaged is made anew from the store."""
        try:
            if repaired := gallery.repair(self._stored_form, self._stopping):
                log.warning("%d encounters of the index were made anew from the store", repaired)
        except (OSError, RekamError, MatchingError):
            log.exception("the index could not be checked to the end; the next start tries again")

    def follow(self, progress: Progress | None = None) -> None:
        """Apply the changes the index has not seen. Called after every commit, by the writing thread."""
        gallery = self.gallery
        gone: set[int] = set()
        with self._store.read() as reader:
            start, last = gallery.watermark, reader.last_change()
            while changes := reader.changes(gallery.watermark, limit=_SAVE_AFTER):
                for change in changes:
                    added = change.kind is ChangeKind.ADD
                    form = self._form_to_index(reader, change.encounter_seq) if added else None
                    if change.encounter_seq in gallery:
                        gallery.remove(change.encounter_seq)
                        gone.add(change.encounter_seq)
                    if form is not None:
                        gone.discard(change.encounter_seq)
                        label = label_of(change.encounter_seq, change.subject_key)
                        gallery.add(change.encounter_seq, label, form)
                    gallery.watermark = change.seq
                    if progress is not None:
                        progress(change.seq - start, last - start)
        self._captured.clear()
        if gone:
            self._forget_soon()

    def _forget_soon(self) -> None:
        self._erased = True
        if self._forgetting is None:
            self._forgetting = threading.Thread(target=self._forget, name="index-forget", daemon=True)
            self._forgetting.start()

    def _forget(self) -> None:
        """After a while, keep the index without what was erased until then: of many erasures only once."""
        while not self._stopping.wait(_FORGOTTEN_SECONDS):
            with self._saving:
                if self._stopping.is_set():
                    return
                self._forgetting = None  # what is erased from now on has a while of its own
                try:
                    self.gallery.save(self._folder)
                except (OSError, MatchingError):
                    log.exception("what was erased could not be taken out of the index; tried again")
                else:
                    return

    def compared(
        self, reader: Reader, form: EncounterForm, keys: Iterable[int]
    ) -> dict[int, EncounterComparison]:
        """The form compared exactly with these encounters, by key; erased ones are left out."""
        return {
            key: compare_encounters(form, reference, face_file=self._face_file)
            for key in sorted(keys)
            if (reference := self.form(reader, key)) is not None
        }

    def form(self, reader: Reader, key: int) -> EncounterForm | None:
        """The form of an encounter to compare with, from memory where it is indexed; None once erased."""
        try:
            return self.gallery.form(key)
        except KeyError:
            return self._form_to_index(reader, key)

    def _form_to_index(self, reader: Reader, key: int) -> EncounterForm | None:
        """The form of an encounter to index: as just captured, or made of its stored templates."""
        if (form := self._captured.get(key)) is not None:
            return form
        encounter = reader.encounter_by_seq(key)
        if encounter is None or not encounter.state.searchable:
            return None
        return form_of([read_template(s.position, s.template) for s in encounter.samples])
