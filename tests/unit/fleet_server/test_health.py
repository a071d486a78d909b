"""One word for a device, the same from its row and from SQL."""

import itertools

import pytest
from sqlalchemy import create_engine, insert, select

from fleet_server.database import Base
from fleet_server.devices import health
from fleet_server.devices.health import SILENT_AFTER_MS, Health, Signs
from fleet_server.devices.tables import Device

NOW = 1_000_000_000_000
MOMENTS = (NOW - SILENT_AFTER_MS - 1, NOW - SILENT_AFTER_MS, NOW - 1, NOW, NOW + 1)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, Health.HEALTHY),
        ({"runtime_up": None}, Health.HEALTHY),
        ({"runtime_up": False}, Health.DEGRADED),
        ({"last_seen_ms": NOW - SILENT_AFTER_MS}, Health.HEALTHY),
        ({"last_seen_ms": NOW - SILENT_AFTER_MS - 1}, Health.OFFLINE),
        ({"last_seen_ms": None}, Health.NEW),
        ({"certificate_expires_ms": NOW}, Health.EXPIRED),
        ({"certificate_expires_ms": NOW, "revoked_ms": 1}, Health.REVOKED),
        ({"revoked_ms": 1, "decommissioned_ms": 1}, Health.DECOMMISSIONED),
    ],
)
def test_the_word(changes: dict[str, int | None], word: Health) -> None:
    signs = {
        "decommissioned_ms": None,
        "revoked_ms": None,
        "certificate_expires_ms": NOW + 1,
        "last_seen_ms": NOW,
        "runtime_up": True,
    }
    assert health.of(Signs(**(signs | changes)), now_ms=NOW) is word  # type: ignore[arg-type]


def test_sql_says_the_same_of_every_combination() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    blank = dict.fromkeys(
        ("public_key_pem", "public_key_sha256", "certificate_pem", "certificate_serial"), ""
    )
    combinations = itertools.product(
        (None, NOW), (None, NOW), MOMENTS, (None, *MOMENTS), (None, True, False)
    )
    words: dict[str, Health] = {}
    with engine.connect() as connection:
        for number, (gone, revoked, expires, seen, up) in enumerate(combinations):
            signs = Signs(
                decommissioned_ms=gone,
                revoked_ms=revoked,
                certificate_expires_ms=expires,
                last_seen_ms=seen,
                runtime_up=up,
            )
            words[str(number)] = health.of(signs, now_ms=NOW)
            connection.execute(
                insert(Device).values(
                    id=str(number),
                    decommissioned_ms=gone,
                    revoked_ms=revoked,
                    certificate_expires_ms=expires,
                    last_seen_ms=seen,
                    runtime_up=up,
                    online=False,
                    enrolled_ms=0,
                    **blank,
                )
            )
        for word in Health:
            found = connection.scalars(select(Device.id).where(health.condition(word, now_ms=NOW)))
            assert set(found) == {each for each, derived in words.items() if derived is word}
    assert set(words.values()) == set(Health)
    engine.dispose()
