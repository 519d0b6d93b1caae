"""The names that docs/station.md gives are names that the devices have."""

import re
import tomllib
from pathlib import Path

from devices.pcsc import PcscDriver
from tests.card_places import card_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "station.md"


def test_the_sam_slot_of_the_page_is_one_that_pcsc_could_have() -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    sam_slot: str = tomllib.loads(text)["cards"]["sam_slot"]
    with card_table() as table:
        table.pcscd.configure(sam_slot.partition(" slot ")[0])
        assert sam_slot in {info.id for info in PcscDriver().discover()}
