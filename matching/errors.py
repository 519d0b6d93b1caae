"""What can go wrong between templates and decisions.

    MatchingError
    ├── GalleryDamaged        an index on disk is unreadable or fails its checksum; rebuild it from the store
    ├── GalleryUnavailable    the server that holds an index does not answer; to be tried again
    ├── NotCalibrated         templates whose makers were never calibrated together
    ├── RateUnsupported       the calibration sample is too small for the rate asked for
    └── ParametersUnavailable shipped parameters are missing or of another version

That two people do not match is no error.
"""


class MatchingError(Exception):
    """Base of every fault of the matching stage."""


class GalleryDamaged(MatchingError):
    """An index on disk cannot be trusted; it is derived data and can be rebuilt from the store."""


class GalleryUnavailable(MatchingError):
    """The server that holds an index does not serve now; nothing was done, and may be tried again."""


class ParametersUnavailable(MatchingError):
    """Shipped parameters are missing or were fitted for another version of the code."""


class NotCalibrated(MatchingError):
    """Templates of two makers that were never calibrated together: their scores say nothing known."""


class RateUnsupported(MatchingError):
    """A false match rate was asked for that the calibration sample is too small to support."""
