"""Make the message classes of the gRPC service from ``open_inference.proto``.

Run it after a change of that file: ``.venv/bin/python scripts/grpc_messages.py``. With ``--check``
it changes nothing, and its exit code says whether the committed files are what it would write.

The module is not protoc's own: that one refuses to load under another major version of protobuf
than the one it was made with, and puts its messages into a pool that all libraries of a process
share, where two that speak this protocol collide.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "edge_agent" / "inference" / "grpc_api" / "wire"
SOURCE = "open_inference.proto"
MODULE = "open_inference_pb2.py"
TYPES = "open_inference_pb2.pyi"
_NOTE = "Made by scripts/grpc_messages.py from open_inference.proto; an edit here is lost."
_BYTES_PER_LINE = 32

_PROGRAM = '''"""{note}"""

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

_FILE = (
{literal}
)
_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_FILE)
DESCRIPTOR = _POOL.FindFileByName({source!r})

globals().update(
    (name, message_factory.GetMessageClass(message))
    for name, message in DESCRIPTOR.message_types_by_name.items()
)
for _name, _enum in DESCRIPTOR.enum_types_by_name.items():
    globals()[_name] = enum_type_wrapper.EnumTypeWrapper(_enum)
    globals().update((value.name, value.number) for value in _enum.values)
'''


def generated() -> dict[str, str]:
    """Return the content of each file by name."""
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
        descriptors = Path(folder) / "descriptors.bin"
        command = [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={FOLDER}"),
            *(f"--descriptor_set_out={descriptors}", f"--pyi_out={folder}", SOURCE),
        ]
        subprocess.run(command, check=True)
        types = (Path(folder) / TYPES).read_text()
        return {MODULE: _module(descriptors.read_bytes()), TYPES: f"# {_NOTE}\n{types}"}


def _module(descriptor_set: bytes) -> str:
    # google.protobuf is needed only where grpc_tools has run, which brings it.
    from google.protobuf import descriptor_pb2  # noqa: PLC0415

    (file,) = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    content = file.SerializeToString(deterministic=True)
    chunks = [content[at : at + _BYTES_PER_LINE] for at in range(0, len(content), _BYTES_PER_LINE)]
    literal = "\n".join(f"    {chunk!r}" for chunk in chunks)
    return _PROGRAM.format(note=_NOTE, literal=literal, source=SOURCE)


def main() -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check: bool = parser.parse_args().check
    stale = [
        name
        for name, content in generated().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != content
    ]
    if check:
        for name in stale:
            print(f"{name} is not what scripts/grpc_messages.py makes of {SOURCE}")
        return 1 if stale else 0
    for name, content in generated().items():
        (FOLDER / name).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
