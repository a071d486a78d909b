"""Names and topics: what gets through is harmless in a path, a URL and a topic."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import names
from fleet_protocol.errors import ProtocolError
from fleet_protocol.topics import DOWNLINK, UPLINK, Channel, Topic, all_devices

HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DEVICES = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?\Z")


@given(st.text(max_size=80))
def test_a_name_is_refused_or_harmless(text: str) -> None:
    for check in (names.device_id, names.family, names.version, names.file_name):
        try:
            accepted = check(text)
        except ProtocolError:
            continue
        assert HARMLESS.fullmatch(accepted)
        assert accepted not in {".", ".."}


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", "A", "a/b", "a+", "a\n", "a" * 64, "..", "é", "a_b", "#", "a b"]
)
def test_device_ids_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="device id"):
        names.device_id(text)


@pytest.mark.parametrize("text", ["1", "1.2", "1.2.3.4", "01.2.3", "1.2.3\n", "v1.2.3", "1.2.3-"])
def test_versions_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="release version"):
        names.version(text)


@pytest.mark.parametrize(
    "path",
    [
        "models/f/1.0.0",
        "models/f/1.0.0/a/b",
        "models/../1.0.0/a",
        "models/f/1.0.0/..",
        "models/f/1.0.0/.hidden",
        "/models/f/1.0.0/a",
        "other/f/1.0.0/a",
    ],
)
def test_target_paths_refused(path: str) -> None:
    with pytest.raises(ProtocolError):
        names.parse_target_path(path)


def test_a_target_path_reads_back() -> None:
    path = names.target_path("fashion_mnist", "1.2.3-rc1", "manifest.json")
    assert path == "models/fashion_mnist/1.2.3-rc1/manifest.json"
    assert names.parse_target_path(path) == ("fashion_mnist", "1.2.3-rc1", "manifest.json")


@given(DEVICES, st.sampled_from(Channel))
def test_a_topic_reads_back(device: str, channel: Channel) -> None:
    topic = Topic(device, channel)
    assert Topic.parse(str(topic)) == topic
    assert re.fullmatch(all_devices(channel).replace("+", "[^/]+"), str(topic))


@pytest.mark.parametrize(
    "topic",
    [
        "skerry/v1/cam/telemetry/x",
        "skerry/v2/cam/telemetry",
        "skerry/v1/+/telemetry",
        "skerry/v1/cam/#",
        "skerry/v1//telemetry",
        "skerry/v1/cam/other",
        "",
    ],
)
def test_topics_refused(topic: str) -> None:
    with pytest.raises(ProtocolError):
        Topic.parse(topic)


def test_every_channel_has_one_direction() -> None:
    assert set(Channel) == UPLINK | DOWNLINK
    assert not UPLINK & DOWNLINK
