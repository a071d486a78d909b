"""The story that the demo tells, stage by stage, and the measurements behind it."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from skerry.demo.errors import DemoError
from skerry.demo.fleet import StoredWindow
from skerry.demo.layout import DEVICES, FAMILY
from skerry.demo.narrator import Narrator
from skerry.demo.verdict import Requests, Verdict, Windows, accuracy_holds, latency_of
from skerry.demo.world import World

FP32 = "1.0.0"
INT8 = "1.1.0"
WRONG = "1.2.0"
OUTAGE_S = 4.0
_TIMEOUT_S = 60.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Outage:
    """When there was no server, in milliseconds since 1970."""

    start_ms: int
    end_ms: int


@dataclass(slots=True, kw_only=True)
class Story:
    """Leads the world through the stages and keeps what was measured."""

    world: World
    narrator: Narrator
    _accuracy: dict[str, dict[str, float]] = field(
        default_factory=lambda: {name: {} for name in DEVICES}
    )
    _windows: dict[str, list[StoredWindow]] = field(default_factory=dict)

    def tell(self) -> Verdict:
        """Go through all stages and return what was measured.

        Raises:
            DemoError: a stage could not be completed.
        """
        stage = self.narrator.stage
        with stage("provision", "Roots of trust are made, the fleet server starts"):
            self._provision()
        with stage("enroll", f"{len(DEVICES)} devices enrol with one-time claims"):
            self._enroll()
        with stage("release_1", f"Release {FP32} (FP32) goes to all devices"):
            self._publish(FP32, "fp32")
            self._roll_out(FP32, DEVICES)
            self.world.start_traffic()
            self._measure(FP32)
        with stage("release_2", f"Release {INT8} (INT8) goes to one device, then to all"):
            self._publish(INT8, "int8")
            self._roll_out(INT8, DEVICES[:1])
            self._roll_out(INT8, DEVICES)
            self._measure(INT8)
        with stage("release_3", f"Release {WRONG} is signed properly, with a wrong model inside"):
            refused = self._refuse_the_wrong_one()
        with stage("outage", "The server is killed; images go on being answered"):
            outage = self._outage()
        with stage("telemetry", "The telemetry of that gap arrives complete"):
            sent = self._settle()
        return self._verdict(refused, outage, sent)

    def _provision(self) -> None:
        with self.narrator.working("making keys"):
            self.world.provision()
        self.narrator.fact("device CA, TUF root, targets and publisher keys (encrypted), TLS")
        self.world.start_server()
        self._wait("the fleet server is ready", self.world.api("viewer").ready)
        self.narrator.fact(f"{self.world.url} answers; MQTT on port {self.world.ports.mqtt}")

    def _enroll(self) -> None:
        for name in DEVICES:
            with self.narrator.working(f"enrolling {name}"):
                self.world.enroll(name)
        self._wait("all devices are online", self.world.all_online)
        self.narrator.fact(f"{', '.join(DEVICES)} are online, each with a certificate of its own")

    def _publish(self, version: str, variant: str) -> None:
        with self.narrator.working(f"packing, signing and uploading {version}"):
            size = self.world.publish(version, variant=variant)
        self.narrator.fact(f"{version}: signed by its publisher, accepted ({size // 1024} KiB)")

    def _roll_out(self, version: str, devices: Sequence[str]) -> None:
        self.world.assign(version, devices)
        self._wait(
            f"release {version} is committed on {', '.join(devices)}",
            lambda: all(self.world.committed(name) == version for name in devices),
        )
        self.narrator.fact(f"{', '.join(devices)}: verified, tried, on probation, committed")

    def _measure(self, version: str) -> None:
        with self.narrator.working(f"classifying {len(self.world.images)} images on each device"):
            for name in DEVICES:
                self._accuracy[name][version] = self.world.measure(name, version)
        shown = ", ".join(f"{name} {self._accuracy[name][version]:.1%}" for name in DEVICES)
        self.narrator.fact(f"accuracy: {shown} (card: {self._card_accuracy()[version]:.2%})")

    def _refuse_the_wrong_one(self) -> str:
        first = DEVICES[0]
        wrong_file = self.world.model / f"{FAMILY}-int8-wrong-labels.onnx"
        with self.narrator.working(f"packing, signing and uploading {WRONG}"):
            self.world.publish(WRONG, variant="int8", model_file=wrong_file)
        self.world.assign(WRONG, [first])
        reason = self._wait(
            f"{first} refuses release {WRONG}", lambda: self.world.refusal(first, WRONG)
        )
        self.narrator.fact(f"{first} refused it: {reason}")
        self.world.assign(INT8, [first])
        self._wait("the fleet is on the old release", self._all_on_int8)
        self.narrator.fact(f"every device serves {INT8}; no call was disturbed")
        return reason

    def _outage(self) -> _Outage:
        answered = self.world.answered()
        self.world.kill_server()
        start_ms = _now_ms()
        with self.narrator.working("no server"):
            time.sleep(OUTAGE_S)
        answered = self.world.answered() - answered
        end_ms = _now_ms()
        self.narrator.fact(f"{answered} images answered in {OUTAGE_S:.0f} s without a server")
        self.world.resume_server()
        self._wait("the server is back", self.world.api("viewer").ready)
        return _Outage(start_ms, end_ms)

    def _settle(self) -> dict[str, int]:
        """End the traffic; return the windows each device numbered once the server has them."""
        self.world.stop_traffic()
        ended_ms = _now_ms()
        sent: dict[str, int] = {}

        def arrived() -> bool:
            api = self.world.api("viewer")
            for name in DEVICES:
                sent[name] = self.world.last_window(name)
                stored = api.windows(name)
                self._windows[name] = [item for item in stored if item.sequence <= sent[name]]
                if not stored or stored[-1].start_ms < ended_ms:
                    return False
                if _count(self._windows[name]) < sent[name]:
                    return False
            return True

        self._wait("every window is stored", arrived)
        self.narrator.fact(
            f"{sum(sent.values())} windows sent, {self._stored()} stored, "
            f"{self._counted()} of {self._sent()} calls counted in them"
        )
        return sent

    # The verdict

    def _verdict(self, refused: str, outage: _Outage, sent: dict[str, int]) -> Verdict:
        tallies = list(self.world.tallies.values())
        failed = sum(tally.failed for tally in tallies)
        retried = sum(tally.retried for tally in tallies)
        of_outage = {name: self._windows_of(name, outage) for name in DEVICES}
        claims = {
            "every call was answered": failed == 0,
            "every window sent is stored, once": self._stored() == sum(sent.values()),
            "every call is counted, once": (
                self._sent() <= self._counted() <= self._sent() + retried
            ),
            "the windows of the outage have no gap": all(
                _contiguous(windows, outage) for windows in of_outage.values()
            ),
            "accuracy is within 0.5 points of the card": accuracy_holds(
                self._accuracy, self._card_accuracy(), devices=len(DEVICES)
            ),
            "the wrong release was refused and served nobody": "golden" in refused
            and all(WRONG not in tally.versions for tally in tallies),
            "the fleet stayed on the good release": self._all_on_int8(),
        }
        return Verdict(
            ok=all(claims.values()),
            claims=claims,
            accuracy=self._accuracy,
            card_accuracy=self._card_accuracy(),
            latency_ms=latency_of(tallies),
            requests=Requests(
                sent=self._sent(),
                failed=failed,
                retried=retried,
                counted=self._counted(),
                longest_gap_s=round(max(tally.longest_gap_s for tally in tallies), 3),
            ),
            telemetry_windows=Windows(
                sent=sum(sent.values()),
                stored=self._stored(),
                stored_of_the_outage=sum(len(windows) for windows in of_outage.values()),
            ),
            refused=refused,
            server_outage_s=round((outage.end_ms - outage.start_ms) / 1000, 2),
            restarts=self.world.restarts(),
            seconds=self.narrator.seconds,
        )

    def _card_accuracy(self) -> dict[str, float]:
        return card_accuracy(self.world)

    def _all_on_int8(self) -> bool:
        return all(self.world.committed(name) == INT8 for name in DEVICES)

    def _sent(self) -> int:
        return sum(tally.sent for tally in self.world.tallies.values())

    def _counted(self) -> int:
        return sum(window.requests for windows in self._windows.values() for window in windows)

    def _stored(self) -> int:
        return sum(_count(windows) for windows in self._windows.values())

    def _windows_of(self, name: str, outage: _Outage) -> list[StoredWindow]:
        return [
            window
            for window in self._windows[name]
            if window.end_ms > outage.start_ms and window.start_ms < outage.end_ms
        ]

    def _wait(self, text: str, look: Callable[[], Result | None]) -> Result:
        def look_and_check() -> Result | None:
            self.world.check_processes()
            return look()

        logs = str(self.world.directory.logs)
        return self.narrator.wait(text, look_and_check, timeout_s=_TIMEOUT_S, logs=logs)


def card_accuracy(world: World) -> dict[str, float]:
    """Return what the model card says of the two good releases.

    Raises:
        DemoError: the card is not what it should be.
    """
    card = msgspec.json.decode((world.model / "card.json").read_bytes())
    try:
        variants = card["variants"]
        return {
            version: float(variants[variant]["accuracy"]["test"]["fraction"])
            for version, variant in ((FP32, "fp32"), (INT8, "int8"))
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DemoError(f"{world.model / 'card.json'} lacks the accuracy of a variant") from error


def _count(windows: list[StoredWindow]) -> int:
    """Count the sequence numbers that some windows stand for."""
    return sum(window.sequence - window.covers_from + 1 for window in windows)


def _contiguous(windows: list[StoredWindow], outage: _Outage) -> bool:
    """Say whether windows cover the outage from end to end and follow each other."""
    if not windows or windows[0].start_ms > outage.start_ms or windows[-1].end_ms < outage.end_ms:
        return False
    return all(
        later.covers_from == earlier.sequence + 1 for earlier, later in itertools.pairwise(windows)
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
