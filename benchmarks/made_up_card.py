"""What is on an e-KTP of nobody, for whoever makes one up."""

from datetime import date

from devices.ektp import CardSex, Demographics

NOBODY = Demographics(
    nik="3273014107900001",
    address="JL. CONTOH NO. 1",
    neighbourhood="001",
    community="002",
    birthplace="BANDUNG",
    district="SUKASARI",
    village="GEGERKALONG",
    regency="KOTA BANDUNG",
    sex=CardSex.FEMALE,
    blood="O",
    religion="-",
    marital_status="KAWIN",
    occupation="GURU",
    name="SITI CONTOH",
    birth_date=date(1990, 7, 1),
    province="JAWA BARAT",
    unknown=("", "", ""),
    nationality="WNI",
)
