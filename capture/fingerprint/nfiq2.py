"""NFIQ 2, the quality of ISO/IEC 29794-4, by NIST's own code in the optional package `nbis-py`."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capture.errors import ModelUnavailable
from capture.quality import Quality

if TYPE_CHECKING:
    import nbis


def nfiq2(image: NDArray[np.uint8]) -> Quality:
    """NFIQ 2 score of `image` `(H, W) uint8` at 500 ppi, dark ridges, and its 73 measures by NIST's names.

    Not usable, with score 0, where NFIQ 2 computes none: blank, smaller than about 100 x 100 or larger than
    about 1000 x 1000. It does not tell prints from other pictures. Raises `ModelUnavailable` where `nbis-py`
    is missing. Cost: 0.3 s, one thread, without the GIL; thread-safe.
    """
    extractor, error = _nbis()
    height, width = image.shape
    grey_map = b"P5 %d %d 255\n" % (width, height) + image.tobytes()
    try:
        result = extractor.extract_minutiae(grey_map).quality()
    except error:
        return Quality(0, usable=False)
    measures = {one.name: one.value for one in (*result.actionable, *result.features)}
    return Quality(result.score, usable=True, measures=measures)


@cache
def _nbis() -> "tuple[nbis.NbisExtractor, type[Exception]]":
    """The extractor, and what it raises."""
    # Only who asks for NFIQ 2 needs the package, and another one installs a module of the same name.
    try:
        import nbis

        settings = nbis.NbisExtractorSettings(
            min_quality=0.0, get_center=False, check_fingerprint=False, compute_nfiq2=True, ppi=500.0
        )
        return nbis.new_nbis_extractor(settings), nbis.NbisError
    except (ImportError, OSError, AttributeError) as error:
        raise ModelUnavailable("NFIQ 2 needs the package nbis-py: pip install 'rekam[nfiq2]'") from error
