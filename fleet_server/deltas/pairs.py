"""Between which published files there may be deltas: always files of one family."""

from fleet_protocol import names
from fleet_protocol.manifest import MANIFEST_FILE
from fleet_server.deltas.service import Pair
from fleet_server.errors import NotFoundError
from fleet_server.releases.repository import Repository
from fleet_server.releases.verification import StoredFile, files_of


def asked_for(
    repository: Repository, family: str, target: str, stored: StoredFile, *, base: str
) -> Pair:
    """Return a target and the file of its family that has a SHA-256.

    Raises:
        NotFoundError: there is no such target, or no such file.
    """
    files = _files(repository, family)
    if target not in files or files[target].sha256 != stored.sha256:
        raise NotFoundError(f"there is no target {target!r}")
    for held, file in files.items():
        if file.sha256 == base:
            return _pair(repository, (held, file), (target, files[target]))
    raise NotFoundError(f"{family} has no file with the SHA-256 {base[:64]!r}")


def likely(repository: Repository, family: str, version: str) -> list[Pair]:
    """Return the pairs that devices will ask for first: a variant and that of the release before.

    The latter is the one with the highest lower version; devices on others ask for themselves.
    """
    files = _files(repository, family)
    parsed = {path: names.parse_target_path(path) for path in files}
    lower = {one for _, one, _ in parsed.values() if _order(one) < _order(version)}
    if not lower:
        return []
    before = max(lower, key=_order)
    pairs = []
    for path, (_, of_version, name) in parsed.items():
        base = names.target_path(family, before, name)
        if of_version == version and name != MANIFEST_FILE and base in files:
            pairs.append(_pair(repository, (base, files[base]), (path, files[path])))
    return [pair for pair in pairs if pair.base_sha256 != pair.new_sha256]


def _files(repository: Repository, family: str) -> dict[str, StoredFile]:
    role = repository.published.families.get(family)
    return {} if role is None else files_of(role)


def _pair(
    repository: Repository, base: tuple[str, StoredFile], new: tuple[str, StoredFile]
) -> Pair:
    return Pair(
        base_sha256=base[1].sha256,
        new_sha256=new[1].sha256,
        base=repository.files.location(*base),
        new=repository.files.location(*new),
    )


def _order(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Return what sorts versions: a suffix such as ``-rc1`` comes before the release itself."""
    numbers, _, suffix = version.partition("-")
    return tuple(int(number) for number in numbers.split(".")), not suffix, suffix
