"""A card reader under a pcscd of this process's own, for the contract suite."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devices.device import CaptureSpec
from devices.pcsc import PcscDriver
from devices.virtual.ektp_card import EktpCard
from devices.virtual.pcscd import READER
from devices.virtual.test_sam import TestIssuer
from tests.card_places import CARD, card_table
from tests.device_places import DevicePlace


@contextmanager
def pcsc(folder: Path) -> Iterator[DevicePlace]:
    """A reader with an e-KTP that can be laid on it."""
    with card_table() as table:
        yield DevicePlace(
            PcscDriver(),
            CARD,
            CaptureSpec(),
            present=lambda: table.card.insert(EktpCard(TestIssuer())),
            withdraw=table.card.remove,
            unplug=lambda: table.pcscd.configure(None),
            replug=lambda: table.pcscd.configure(READER),
            command=bytes.fromhex("00A40000027F0A"),
        )
