"""Policy bundles: everything that a deployed policy is, in one ``model.tar.gz`` or the folder that it unpacks to.

A bundle holds ``bundle.json`` (the manifest) and, listed in it with size and SHA-256, any of ``policy.onnx``,
``evaluation.json`` and ``preset.yaml``. The manifest's ``digest`` is the SHA-256 of its own canonical JSON without the
digest. Both detect truncation and careless changes. They prove integrity, not authenticity: who can write a bundle can
also write its digest, so access to the place that bundles are read from has to be limited.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, Literal

from policy_runtime.errors import BundleError
from policy_runtime.features import feature_names
from policy_runtime.rules import make_rule
from policy_runtime.session import OnnxPolicy
from policy_runtime.spec import ActionSpec, FeatureSpec, FleetSpec, GuardrailSpec, Spec, bounded

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
POLICY = "policy.onnx"
MAX_MEMBERS = 16
MAX_BYTES = {MANIFEST: 1 << 20, POLICY: 64 << 20, "evaluation.json": 1 << 20, "preset.yaml": 1 << 20}
"""Every file that a bundle may hold, with its largest size in bytes."""

_MAX_ARCHIVE = sum(MAX_BYTES.values()) + (1 << 20)  # room for tar headers and padding


@dataclasses.dataclass(frozen=True)
class RulePart:
    """A rule of ``policy_runtime.rules`` by name, with the parameters that differ from its defaults."""

    rule: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class OnnxPart:
    """A learned policy: the bundle's file that holds its graph."""

    file: str = POLICY


@dataclasses.dataclass(frozen=True)
class Interface(Spec):
    """What a generic policy reads and gives.

    Attributes:
        observation_size: length of a flat observation.
        action_kind: ``discrete``: the largest score is the action; ``continuous``: the scores are the action.
        action_size: number of discrete actions, or length of a continuous one.
    """

    observation_size: int = bounded(low=1, high=1_000_000)
    action_kind: str = "discrete"
    action_size: int = bounded(2, low=1, high=1_000_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action_kind not in ("discrete", "continuous"):
            raise ValueError(f"Interface.action_kind: {self.action_kind!r} is neither 'discrete' nor 'continuous'")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """A policy with all that it needs.

    Attributes:
        name, version: identify the policy in decision records.
        kind: ``scaling``, or ``generic`` for a policy of a user's own environment.
        policy: what decides.
        fleet, features, actions, guardrails, fallback: of a scaling policy; not part of a generic bundle.
        interface: of a generic policy, else ``None``.
        provenance: where the policy comes from (preset, seed, versions, metrics): plain JSON.
        files: content of every file but the manifest.
    """

    name: str
    version: str
    policy: RulePart | OnnxPart
    kind: Literal["scaling", "generic"] = "scaling"
    fleet: FleetSpec = dataclasses.field(default_factory=FleetSpec)
    features: FeatureSpec = dataclasses.field(default_factory=FeatureSpec)
    actions: ActionSpec = dataclasses.field(default_factory=ActionSpec)
    guardrails: GuardrailSpec = dataclasses.field(default_factory=GuardrailSpec)
    fallback: RulePart = dataclasses.field(default_factory=lambda: RulePart("hybrid"))
    interface: Interface | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    def manifest(self) -> dict[str, Any]:
        """The content of ``bundle.json``, digest included."""
        manifest: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "version": self.version,
            "kind": self.kind,
            "policy": _part_to_json(self.policy),
            "provenance": dict(self.provenance),
            "files": {
                name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in sorted(self.files.items())
            },
        }
        if self.kind == "scaling":
            manifest |= {name: getattr(self, name).to_json() for name in _SPECS}
            manifest["fallback"] = {"rule": self.fallback.rule, "parameters": dict(self.fallback.parameters)}
        elif self.interface is not None:
            manifest["interface"] = self.interface.to_json()
        return manifest | {"digest": _digest(manifest)}


_SPECS: dict[str, type[Spec]] = {
    "fleet": FleetSpec,
    "features": FeatureSpec,
    "actions": ActionSpec,
    "guardrails": GuardrailSpec,
}
_COMMON_KEYS = {"schema_version", "name", "version", "kind", "policy", "provenance", "files", "digest"}
_KIND_KEYS = {"scaling": {*_SPECS, "fallback"}, "generic": {"interface"}}


def builtin_bundle(fleet: FleetSpec | None = None) -> Bundle:
    """The hybrid rule with its defaults, so that an endpoint works before the first training."""
    fleet = fleet or FleetSpec()
    guardrails = GuardrailSpec.fitted(fleet)
    return Bundle(name="builtin", version="1", policy=RulePart("hybrid"), fleet=fleet, guardrails=guardrails)


def write_bundle(bundle: Bundle, path: str | os.PathLike[str]) -> None:
    """Write a bundle as a gzip-compressed tar archive: the same bytes for the same bundle, all or nothing.

    Raises:
        BundleError: the bundle is not valid; nothing is written.
        OSError: the file cannot be written; a file that was there before is unchanged.
    """
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, data in _contents(bundle).items():
            member = tarfile.TarInfo(name)  # time 0, owner 0
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    _replace(Path(path), packed.getvalue())


def write_bundle_folder(bundle: Bundle, folder: str | os.PathLike[str]) -> None:
    """Write a bundle's files into a folder, which is made if need be; the manifest, which vouches for them, comes last.

    What an earlier bundle left there and this one does not have is removed.

    Raises:
        BundleError: the bundle is not valid; nothing is written.
        OSError: a file cannot be written.
    """
    contents = _contents(bundle)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in MAX_BYTES.keys() - contents.keys():
        (Path(folder) / name).unlink(missing_ok=True)
    for name in reversed(contents):
        _replace(Path(folder) / name, contents[name])


def read_bundle(path: str | os.PathLike[str], *, policy_may_be_missing: bool = False) -> Bundle:
    """Read and check a bundle: a ``model.tar.gz``, or a folder (in which files that are none of its own are ignored).

    Everything is checked: the archive, sizes, hashes, digest, each value of the manifest, and that the learned policy
    loads and fits the features and actions.

    Args:
        path: of the bundle.
        policy_may_be_missing: whether a scaling bundle without its ``policy.onnx`` is read; its fallback rule decides.

    Raises:
        BundleError: what is wrong, and where.
    """
    path = Path(path)
    try:
        contents = _read_folder(path) if path.is_dir() else _read_archive(path)
        return _from_contents(contents, policy_may_be_missing)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def _contents(bundle: Bundle) -> dict[str, bytes]:
    """All files of a valid bundle, the manifest first."""
    try:
        manifest = json.dumps(bundle.manifest(), indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise BundleError(f"provenance or parameters are not plain JSON: {error}") from error
    contents = {MANIFEST: manifest} | dict(sorted(bundle.files.items()))
    for name, data in contents.items():
        _check_member(name, len(data))
    if _from_contents(contents, policy_may_be_missing=False) != bundle:
        raise BundleError("the bundle changes when it is written as JSON; use plain lists, objects and string keys")
    return contents


def _replace(path: Path, data: bytes) -> None:
    """Write a file through a temporary one beside it, so that there is never half a file under its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, f"cannot write the bundle: {error.strerror or error}", str(path)) from error


def _check_member(name: str, size: int) -> None:
    if name not in MAX_BYTES:
        raise BundleError(f"unexpected file {name!r}, a bundle may hold {', '.join(MAX_BYTES)}")
    if size > MAX_BYTES[name]:
        raise BundleError(f"{name}: {size} bytes are too large, at most {MAX_BYTES[name]} are allowed")


def _read_folder(path: Path) -> dict[str, bytes]:
    contents = {}
    for name, limit in MAX_BYTES.items():
        file = path / name
        if file.exists():
            if not file.is_file():
                raise BundleError(f"{name}: is not a regular file")
            with file.open("rb") as stream:
                contents[name] = stream.read(limit + 1)
            _check_member(name, len(contents[name]))
    return contents


def _read_archive(path: Path) -> dict[str, bytes]:
    try:
        with gzip.open(path) as stream:
            data = stream.read(_MAX_ARCHIVE + 1)  # never more, whatever it claims to hold
    except gzip.BadGzipFile as error:
        raise BundleError(f"is not a gzip file or is damaged: {error}") from error
    except EOFError as error:
        raise BundleError("the gzip file is truncated") from error
    except zlib.error as error:
        raise BundleError(f"the gzip file is damaged: {error}") from error
    if len(data) > _MAX_ARCHIVE:
        raise BundleError(f"is too large when unpacked, at most {_MAX_ARCHIVE} bytes are allowed")
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise BundleError(f"more than {MAX_MEMBERS} members")
                name = member.name.removeprefix("./")
                if member.isdir() and name in (".", ""):
                    continue  # archives of a whole folder, such as SageMaker makes, begin with the folder itself
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    raise BundleError(f"member {member.name!r} is not a regular file")
                _check_member(name, member.size)
                if name in contents:
                    raise BundleError(f"member {name!r} occurs twice")
                file = archive.extractfile(member)
                contents[name] = file.read() if file else b""
                if len(contents[name]) != member.size:
                    raise BundleError(f"{name}: is truncated")
    except (tarfile.TarError, ValueError, EOFError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"is not a tar archive or is damaged: {error}") from error
    return contents


def _from_contents(contents: Mapping[str, bytes], policy_may_be_missing: bool) -> Bundle:
    """Build and check the bundle that files make up."""
    if MANIFEST not in contents:
        raise BundleError(f"{MANIFEST} is missing")
    manifest = _parse_json(MANIFEST, contents[MANIFEST])
    if (version := manifest.get("schema_version")) != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(f"{MANIFEST}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}")
    kind = manifest.get("kind")
    if not isinstance(kind, str) or kind not in _KIND_KEYS:
        raise BundleError(f"{MANIFEST}: kind is {kind!r}, known: {', '.join(_KIND_KEYS)}")
    _check_keys(MANIFEST, manifest, _COMMON_KEYS | _KIND_KEYS[kind])
    digest = manifest.pop("digest")
    try:
        expected = _digest(manifest)
    except ValueError as error:  # 1e999 or half a surrogate pair
        raise BundleError(f"{MANIFEST}: holds a number or a text that JSON cannot: {error}") from error
    if digest != expected:
        raise BundleError(f"{MANIFEST}: the digest does not match, the manifest was changed after it was written")
    may_be_missing = {POLICY} if policy_may_be_missing and kind == "scaling" else set()
    files = _check_files(manifest["files"], contents, may_be_missing)
    try:
        fields: dict[str, Any] = {
            "name": _text("name", manifest["name"]),
            "version": _text("version", manifest["version"]),
            "kind": kind,
            "policy": _part_from_json("policy", manifest["policy"]),
            "provenance": _object("provenance", manifest["provenance"]),
            "files": files,
        }
        if kind == "scaling":
            fields |= {name: spec.from_json(manifest[name]) for name, spec in _SPECS.items()}
            fields["fallback"] = _rule_from_json("fallback", manifest["fallback"])
        else:
            fields["interface"] = Interface.from_json(manifest["interface"])
        bundle = Bundle(**fields)
        _check_policy(bundle, may_be_missing)
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError(f"{MANIFEST}: {error}") from error
    return bundle


def _check_files(listed: Any, contents: Mapping[str, bytes], may_be_missing: Set[str]) -> dict[str, bytes]:
    """The listed files that are there, after checking sizes and hashes."""
    files: dict[str, bytes] = {}
    for name, entry in _object("files", listed).items():
        _check_keys(f"{MANIFEST}: files.{name}", _object(f"files.{name}", entry), {"sha256", "bytes"})
        if name in may_be_missing and name not in contents:
            continue
        if name not in contents or name == MANIFEST:
            raise BundleError(f"{name} is listed in {MANIFEST} but missing")
        data = contents[name]
        if entry["bytes"] != len(data) or entry["sha256"] != hashlib.sha256(data).hexdigest():
            raise BundleError(
                f"{name}: size or SHA-256 differ from {MANIFEST}, the file was changed after it was written"
            )
        files[name] = data
    if "evaluation.json" in files:
        _parse_json("evaluation.json", files["evaluation.json"])
    return files


def _check_policy(bundle: Bundle, may_be_missing: Set[str]) -> None:
    """Check that what decides exists, loads, and fits."""
    if bundle.kind == "scaling":
        make_rule(bundle.fallback.rule, bundle.fallback.parameters, bundle.fleet)
        sizes = (len(feature_names(bundle.features, bundle.fleet)), len(bundle.actions.steps))
    elif bundle.interface is None or isinstance(bundle.policy, RulePart):
        raise BundleError("a generic bundle needs an interface and a learned policy")
    else:
        sizes = (bundle.interface.observation_size, bundle.interface.action_size)
    if isinstance(bundle.policy, RulePart):
        make_rule(bundle.policy.rule, bundle.policy.parameters, bundle.fleet)
    elif bundle.policy.file in bundle.files or bundle.policy.file not in may_be_missing:
        load_policy(bundle, *sizes)


def load_policy(bundle: Bundle, features: int, actions: int) -> OnnxPolicy:
    """The bundle's learned policy.

    Raises:
        BundleError: it is missing, cannot be loaded, or reads other than ``features`` values or gives other than
            ``actions`` scores.
    """
    if not isinstance(bundle.policy, OnnxPart) or bundle.policy.file not in bundle.files:
        raise BundleError(f"{POLICY} is missing")
    policy = OnnxPolicy(bundle.files[bundle.policy.file])
    if policy.features != features:
        raise BundleError(f"{POLICY}: reads {policy.features} features, {MANIFEST} describes {features}")
    if policy.actions != actions:
        raise BundleError(f"{POLICY}: gives {policy.actions} scores, {MANIFEST} describes {actions} actions")
    return policy


def _part_to_json(part: RulePart | OnnxPart) -> dict[str, Any]:
    if isinstance(part, OnnxPart):
        return {"kind": "onnx", "file": part.file}
    return {"kind": "rule", "rule": part.rule, "parameters": dict(part.parameters)}


def _part_from_json(name: str, data: Any) -> RulePart | OnnxPart:
    part = dict(_object(name, data))
    kind = part.pop("kind", None)
    if kind == "rule":
        return _rule_from_json(name, part)
    if kind != "onnx":
        raise BundleError(f"{MANIFEST}: {name}.kind is {kind!r}, known: onnx, rule")
    _check_keys(f"{MANIFEST}: {name}", part, {"file"})
    if part["file"] != POLICY:
        raise BundleError(f"{MANIFEST}: {name}.file is {part['file']!r}, expected {POLICY!r}")
    return OnnxPart(part["file"])


def _rule_from_json(name: str, data: Any) -> RulePart:
    _check_keys(f"{MANIFEST}: {name}", _object(name, data), {"rule", "parameters"})
    return RulePart(_text(f"{name}.rule", data["rule"]), _object(f"{name}.parameters", data["parameters"]))


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BundleError(f"{MANIFEST}: {name}: expected an object, got {type(value).__name__}")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise BundleError(f"{MANIFEST}: {name}: expected a text of 1 to 256 characters, got {value!r:.80}")
    return value


def _check_keys(where: str, data: Mapping[str, Any], keys: set[str]) -> None:
    if missing := sorted(keys - set(data)):
        raise BundleError(f"{where}: missing key {missing[0]!r}")
    if unknown := sorted(set(data) - keys):
        raise BundleError(f"{where}: unknown key {unknown[0]!r}, known: {', '.join(sorted(keys))}")


def _parse_json(name: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name}: is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{name}: expected a JSON object, got {type(value).__name__}")
    return value


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
