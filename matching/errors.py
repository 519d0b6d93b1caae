"""What can go wrong between templates and decisions.

    MatchingError
    ├── GalleryDamaged        an index on disk is unreadable or fails its checksum; rebuild it from the store
    ├── NotCalibrated         templates of extractors never calibrated together (calibration.py)
    ├── RateUnsupported       the calibration sample is too small for the rate asked for (calibration.py)
    └── ParametersUnavailable shipped parameters are missing or of another version

That two people do not match is no error.
"""


class MatchingError(Exception):
    """Base of every fault of the matching stage."""


class GalleryDamaged(MatchingError):
    """An index on disk cannot be trusted; it is derived data and can be rebuilt from the store."""


class ParametersUnavailable(MatchingError):
    """Shipped parameters are missing or were fitted for another version of the code."""
