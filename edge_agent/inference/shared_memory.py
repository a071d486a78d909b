"""System shared memory: regions that applications of this machine registered, and tensors in them.

The regions are other people's files, which may be cut short or removed at any moment. Tensors are
copied, so that nobody changes them once they have been read; a small one out of a guarded mapping
(`fault_guard`), a large one by `pread`, which lets other threads run and meets the end of a file
that has shrunk as an error like any other.

Source: Triton's shared memory extension (protocol/extension_shared_memory.md).
"""

import os
import re
import stat
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from edge_agent.inference.errors import ConflictError, RequestError, UnknownModelError
from edge_agent.inference.fault_guard import GuardedMapping, MappingLostError
from edge_agent.inference.inference_request import InferenceRequest, Slice, checked_elements
from edge_agent.inference.tensors import Data, Tensor

MAX_REGIONS = 128
INLINE_BYTES = 1024 * 1024
"""Up to so many bytes are copied on the event loop, which takes some 20 µs; more in a thread."""

_FOLDER = Path("/dev/shm")  # noqa: S108 (where POSIX shared memory lies on Linux)
_KEY = re.compile(r"/?[^/\0]{1,254}")


class RegionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the answer to ``status``."""

    name: str
    key: str
    offset: int
    byte_size: int


class Region:
    """A part of a shared memory file, open until nobody uses it any more."""

    def __init__(self, status: RegionStatus, *, folder: Path = _FOLDER) -> None:
        """Open it and check that it is as large as it is said to be.

        Raises:
            RequestError: there is no such file, or it may not be used, or it is too small.
        """
        self.status = status
        self._byte_size = status.byte_size
        self._descriptor = _opened(status, folder)
        # A call in a thread may still hold the region when it is unregistered: the descriptor is
        # closed with the last reference, so that its number cannot mean another file meanwhile.
        weakref.finalize(self, os.close, self._descriptor)
        self._check()
        try:
            self._mapping = GuardedMapping(
                self._descriptor, offset=status.offset, length=status.byte_size
            )
        except MappingLostError:
            raise self._lost() from None
        except OSError as error:
            raise RequestError(f"cannot map {self._name}: {error.strerror}") from error

    def read(self, place: Slice) -> bytes:
        """Return a copy of a part.

        Raises:
            RequestError: it is not within the region, or the region has shrunk or was removed.
        """
        self._check_place(place)
        try:
            if place.byte_size <= INLINE_BYTES:
                data = self._mapping.read(place.offset, place.byte_size)
            else:
                data = self._read_file(self.status.offset + place.offset, place.byte_size)
        except MappingLostError:
            raise self._lost() from None
        except OSError as error:
            raise RequestError(f"cannot read {self._name}: {error.strerror}") from error
        # Afterwards, so that it holds for what has been read.
        self._check()
        return data

    def write(self, place: Slice, data: Data) -> None:
        """Copy data to the beginning of a part.

        Raises:
            RequestError: as in `read`, or the data are larger than the part.
        """
        self.check_room(place, len(data))
        try:
            if len(data) <= INLINE_BYTES:
                self._mapping.write(place.offset, data)
                self._check()
            else:
                # Beforehand: `pwrite` would make a file longer that has shrunk.
                self._check()
                self._write_file(self.status.offset + place.offset, memoryview(data))
        except MappingLostError:
            raise self._lost() from None
        except OSError as error:
            raise RequestError(f"cannot write into {self._name}: {error.strerror}") from error

    def check_room(self, place: Slice, size_bytes: int) -> None:
        """Accept a part into which so many bytes shall be written.

        Raises:
            RequestError: it is not within the region, or smaller than that.
        """
        if size_bytes <= place.byte_size and place.offset + place.byte_size <= self._byte_size:
            return
        self._check_place(place)
        raise RequestError(
            f"{size_bytes} bytes do not fit into the {place.byte_size} bytes that the request "
            f"gives them in {self._name}"
        )

    def _read_file(self, begin: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, begin)
        while len(data) < size:
            more = os.pread(self._descriptor, size - len(data), begin + len(data))
            if not more:
                raise self._shrunk()
            data += more
        return data

    def _write_file(self, begin: int, data: memoryview) -> None:
        while data:
            written = os.pwrite(self._descriptor, data, begin)
            begin += written
            data = data[written:]

    @property
    def _name(self) -> str:
        return f"the shared memory region {self.status.name!r} (key {self.status.key!r})"

    def _check_place(self, place: Slice) -> None:
        if place.offset + place.byte_size > self._byte_size:
            raise RequestError(
                f"{place.byte_size} bytes at offset {place.offset} lie outside of {self._name}, "
                f"which was registered with {self.status.byte_size} bytes"
            )

    def _check(self) -> None:
        found = os.fstat(self._descriptor)
        if not found.st_nlink:
            raise RequestError(
                f"{self._name} has been removed: unregister it, create it and register it anew"
            )
        if found.st_size < self.status.offset + self.status.byte_size:
            raise self._shrunk(found.st_size)

    def _lost(self) -> RequestError:
        size = os.fstat(self._descriptor).st_size
        if size < self.status.offset + self.status.byte_size:
            return self._shrunk(size)
        return RequestError(
            f"{self._name} cannot be used any more: its file was cut short meanwhile, or the "
            "machine had no memory for it; unregister it and register it anew"
        )

    def _shrunk(self, size: int | None = None) -> RequestError:
        now = "" if size is None else f": the file has {size} bytes"
        return RequestError(
            f"{self._name} is smaller than the {self.status.byte_size} bytes at offset "
            f"{self.status.offset} that it was registered with{now}"
        )


class Regions:
    """The registered regions. Belongs to the event loop, except `filled` and `store`."""

    def __init__(self, *, max_bytes: int, max_request_bytes: int, folder: Path = _FOLDER) -> None:
        """Begin with none.

        Args:
            max_bytes: of all regions together.
            max_request_bytes: that one request may have copied out of them.
            folder: where the files of shared memory lie.
        """
        self._max_bytes = max_bytes
        self._max_request_bytes = max_request_bytes
        self._folder = folder
        self._regions: dict[str, Region] = {}

    def register(self, status: RegionStatus) -> None:
        """Add a region; opening a file in memory does not block.

        Raises:
            RequestError: it cannot be used, or is too much.
            ConflictError: the name is taken.
        """
        if status.name in self._regions:
            raise ConflictError(
                f"shared memory region {status.name!r} is registered already; unregister it first"
            )
        if len(self._regions) >= MAX_REGIONS:
            raise RequestError(
                f"{MAX_REGIONS} shared memory regions are registered; unregister some first"
            )
        total = sum(region.status.byte_size for region in self._regions.values())
        if total + status.byte_size > self._max_bytes:
            raise RequestError(
                f"shared memory region {status.name!r} has {status.byte_size} bytes, "
                f"{self._max_bytes - total} of {self._max_bytes} are free "
                "(setting runtime.shared_memory_bytes)"
            )
        self._regions[status.name] = Region(status, folder=self._folder)

    def unregister(self, name: str | None = None) -> None:
        """Forget a region, or all; what uses one at the moment finishes. None there is fine."""
        if name is None:
            self._regions.clear()
        else:
            self._regions.pop(name, None)

    def status(self, name: str | None = None) -> list[RegionStatus]:
        """Return one region, or all.

        Raises:
            UnknownModelError: nothing of that name is registered.
        """
        if name is None:
            return [region.status for region in self._regions.values()]
        region = self._regions.get(name)
        if region is None:
            raise UnknownModelError(f"no shared memory region {name[:200]!r} is registered")
        return [region.status]

    def filled(self, request: InferenceRequest) -> InferenceRequest:
        """Return a request with the inputs copied that lie in regions.

        Raises:
            RequestError: a region is not there, too small or gone, or holds no sound tensor, or
                the inputs are larger than a request may be.
        """
        places = request.shared_inputs
        if request.shared_bytes > self._max_request_bytes:
            raise RequestError(
                f"the inputs in shared memory have {request.shared_bytes} bytes, at most "
                f"{self._max_request_bytes} are read (setting runtime.max_request_bytes)"
            )
        return msgspec.structs.replace(
            request,
            inputs=[
                self._input(tensor, places[tensor.name]) if tensor.name in places else tensor
                for tensor in request.inputs
            ],
        )

    def check_room(self, places: Mapping[str, Slice], least_bytes: Mapping[str, int]) -> None:
        """Accept the places for outputs before anything is computed for them.

        Whether their files are still there is seen when they are written; it may change meanwhile.

        Args:
            places: for outputs, by their names.
            least_bytes: what the outputs of the model take at least.

        Raises:
            RequestError: a region is not there, or a place not within it or too small.
        """
        for name, place in places.items():
            self._region(place.region).check_room(place, least_bytes.get(name, 0))

    def store(self, request: InferenceRequest, outputs: Sequence[Tensor]) -> None:
        """Copy the outputs into regions that the request wants there.

        Raises:
            RequestError: a region is not there, gone, or too small for the output.
        """
        for output in outputs:
            place = request.shared_outputs.get(output.name)
            if place is not None:
                self._region(place.region).write(place, output.data)

    def _input(self, tensor: Tensor, place: Slice) -> Tensor:
        data = self._region(place.region).read(place)
        filled = Tensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, data=data)
        return checked_elements(filled)

    def _region(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise RequestError(f"no shared memory region {name[:200]!r} is registered")
        return region


def _opened(status: RegionStatus, folder: Path) -> int:
    file = status.key.removeprefix("/")
    if not _KEY.fullmatch(status.key) or file in (".", ".."):
        raise RequestError(
            f"{status.key[:200]!r} is no key of a shared memory region: it is one name, as given "
            "to shm_open(3)"
        )
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(folder / file, flags)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RequestError(
            f"cannot open the shared memory region {status.name!r} (key {status.key[:200]!r}): "
            f"{reason}; the user of the runtime must be allowed to read and write it"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RequestError(f"{status.key!r} is not shared memory")
    return descriptor
