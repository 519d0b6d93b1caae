"""A Milvus gallery with a store to go with it, for tests."""

from collections.abc import Collection

from benchmarks.milvus_server import MilvusServer
from matching.encounter import EncounterForm
from matching.milvus_gallery import MilvusGallery
from matching.search import Match


class KeptGallery(MilvusGallery):
    """Forms are kept as a store would keep them: they outlive the gallery."""

    def __init__(
        self,
        server: MilvusServer,
        prefix: str,
        kept: dict[int, EncounterForm] | None = None,
        *,
        strong: bool = False,
    ) -> None:
        self.server = server
        self.prefix = prefix
        self.kept = {} if kept is None else kept
        super().__init__(server.uri, self.kept.get, prefix=prefix, strong=strong)

    def add(self, key: int, subject: int, form: EncounterForm) -> None:
        super().add(key, subject, form)
        self.kept[key] = form


class PromptGallery(KeptGallery):
    """Everything is in Milvus, and nowhere else, before anybody searches."""

    def __init__(
        self, server: MilvusServer, prefix: str, kept: dict[int, EncounterForm] | None = None
    ) -> None:
        super().__init__(server, prefix, kept, strong=True)

    def search(self, probe: EncounterForm, *, exclude: Collection[int] = ()) -> list[Match]:
        self.flush()
        return super().search(probe, exclude=exclude)

    def again(self) -> "PromptGallery":
        """Another one over the same rows and records."""
        return PromptGallery(self.server, self.prefix, self.kept)


def emptied(gallery: PromptGallery) -> PromptGallery:
    """The gallery without what a test before left there: new collections would cost seconds."""
    for subject in gallery.subjects():
        for key in gallery.subject_keys(subject):
            gallery.remove(key)
    gallery.watermark = 0
    gallery.flush()
    return gallery
