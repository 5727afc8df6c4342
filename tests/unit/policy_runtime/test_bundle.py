from __future__ import annotations

import dataclasses
import errno
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policy_runtime import bundle as bundle_module
from policy_runtime.bundle import (
    MAX_BYTES,
    Bundle,
    Interface,
    OnnxPart,
    RulePart,
    builtin_bundle,
    read_bundle,
    write_bundle,
    write_bundle_folder,
)
from policy_runtime.decision import Policy
from policy_runtime.errors import BundleError
from policy_runtime.spec import ActionSpec, FleetSpec


def pack(path: Path, members: list[tuple[tarfile.TarInfo | str, bytes]]) -> Path:
    """An archive of any members, valid or not."""
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def resigned(manifest: dict[str, Any]) -> bytes:
    """A manifest whose digest is right whatever its content: reaches the checks behind the digest."""
    manifest = {key: value for key, value in manifest.items() if key != "digest"}
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(manifest | {"digest": hashlib.sha256(canonical.encode()).hexdigest()}).encode()


@pytest.fixture
def generic_bundle(linear_model) -> Bundle:
    return Bundle(
        name="pendulum",
        version="1",
        kind="generic",
        policy=OnnxPart(),
        interface=Interface(observation_size=3, action_kind="continuous", action_size=2),
        files={"policy.onnx": linear_model(np.ones((3, 2)))},
    )


def test_bundles_survive_writing_and_reading(tmp_path, learned_bundle, generic_bundle) -> None:
    tuned = RulePart("target_tracking", {"target": 0.5, "in_periods": 10})
    for bundle in (builtin_bundle(), learned_bundle(), generic_bundle, Bundle(name="t", version="2", policy=tuned)):
        write_bundle(bundle, tmp_path / "model.tar.gz")
        assert read_bundle(tmp_path / "model.tar.gz") == bundle
        write_bundle_folder(bundle, tmp_path / bundle.name)
        assert read_bundle(tmp_path / bundle.name) == bundle


def test_the_same_bundle_gives_the_same_bytes(tmp_path, learned_bundle) -> None:
    bundle = learned_bundle()
    reordered = dataclasses.replace(
        bundle,
        files=dict(reversed(bundle.files.items())),
        provenance=dict(reversed(bundle.provenance.items())),
    )
    for name, which in (("a", bundle), ("b", reordered)):
        write_bundle(which, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert builtin_bundle().manifest() == builtin_bundle(FleetSpec()).manifest()


def test_an_archive_made_by_packing_the_unpacked_folder_is_read(tmp_path, learned_bundle) -> None:
    write_bundle_folder(learned_bundle(), tmp_path / "model")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "model", arcname=".")
    assert read_bundle(tmp_path / "model.tar.gz") == learned_bundle()


def test_other_files_in_a_folder_are_ignored(tmp_path) -> None:
    write_bundle_folder(builtin_bundle(), tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "policy.onnx").write_bytes(b"left over from another policy")
    assert read_bundle(tmp_path) == builtin_bundle()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_archive_is_refused(tmp_path, learned_bundle, share: float) -> None:
    whole = tmp_path / "whole.tar.gz"
    if not whole.exists():
        write_bundle(learned_bundle(), whole)
    data = whole.read_bytes()
    part = tmp_path / "part.tar.gz"
    part.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BundleError, match=r"part.tar.gz: "):
        read_bundle(part)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_of_any_file_is_detected(tmp_path, learned_bundle, data) -> None:
    folder = tmp_path / "folder"
    if not folder.exists():
        write_bundle_folder(learned_bundle(), folder)
    file = folder / data.draw(st.sampled_from(["bundle.json", "policy.onnx", "evaluation.json"]))
    original = file.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(changed)
    try:
        if read_bundle(folder) == learned_bundle():  # only white space of the manifest may differ
            assert file.name == "bundle.json" and original[position : position + 1].isspace()
        else:
            pytest.fail("a changed bundle was read as another one")
    except BundleError:
        pass
    finally:
        file.write_bytes(original)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"plain text", "not a gzip file"),
        (gzip.compress(b"not a tar archive" * 100), "not a tar archive"),
        (gzip.compress(b""), "not a tar archive|bundle.json is missing"),
    ],
)
def test_what_is_not_a_bundle_is_refused(tmp_path, content: bytes, message: str) -> None:
    (tmp_path / "model.tar.gz").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        read_bundle(tmp_path / "model.tar.gz")


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(BundleError, match=r"nowhere.tar.gz: cannot be read: No such file"):
        read_bundle(tmp_path / "nowhere.tar.gz")
    with pytest.raises(BundleError, match=r"bundle.json is missing"):
        read_bundle(tmp_path)


def test_where_the_policy_may_be_missing_its_rule_is_read_but_nothing_else_may_be(tmp_path, learned_bundle) -> None:
    write_bundle_folder(learned_bundle(), tmp_path)
    (tmp_path / "policy.onnx").unlink()
    with pytest.raises(BundleError, match=r"policy.onnx is listed in bundle.json but missing"):
        read_bundle(tmp_path)

    bundle = read_bundle(tmp_path, policy_may_be_missing=True)

    assert Policy(bundle).failure == "policy.onnx is missing"
    (tmp_path / "policy.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"policy.onnx: size or SHA-256 differ"):
        read_bundle(tmp_path, policy_may_be_missing=True)


def test_a_folder_keeps_nothing_of_an_earlier_bundle(tmp_path, learned_bundle) -> None:
    write_bundle_folder(learned_bundle(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")

    write_bundle_folder(builtin_bundle(), tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"bundle.json", "notes.txt"}


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (special("policy.onnx", tarfile.SYMTYPE, "/etc/passwd"), "is not a regular file"),
        (special("policy.onnx", tarfile.LNKTYPE, "bundle.json"), "is not a regular file"),
        (special("policy.onnx", tarfile.CHRTYPE), "is not a regular file"),
        (special("code", tarfile.DIRTYPE), "is not a regular file"),
        ("../policy.onnx", "unexpected file '../policy.onnx'"),
        ("/bundle.json", "unexpected file '/bundle.json'"),
        ("policy.pkl", "unexpected file 'policy.pkl', a bundle may hold bundle.json, policy.onnx"),
        ("bundle.json", "'bundle.json' occurs twice"),
    ],
)
def test_unsafe_members_are_refused(tmp_path, member: tarfile.TarInfo | str, message: str) -> None:
    write_bundle(builtin_bundle(), tmp_path / "good")
    manifest = members_of(tmp_path / "good")["bundle.json"]
    with pytest.raises(BundleError, match=message):
        read_bundle(pack(tmp_path / "bad", [("bundle.json", manifest), (member, b"x")]))


def test_too_large_and_too_many_members_are_refused(tmp_path, monkeypatch) -> None:
    too_large = b" " * (MAX_BYTES["preset.yaml"] + 1)
    with pytest.raises(BundleError, match=r"preset.yaml: 1048577 bytes are too large"):
        read_bundle(pack(tmp_path / "large", [("preset.yaml", too_large)]))
    with pytest.raises(BundleError, match="more than 16 members"):
        read_bundle(pack(tmp_path / "many", [(special(".", tarfile.DIRTYPE), b"")] * 17))
    with pytest.raises(BundleError, match=r"preset.yaml: 1048577 bytes are too large"):
        write_bundle(dataclasses.replace(builtin_bundle(), files={"preset.yaml": too_large}), tmp_path / "model")
    (tmp_path / "bundle.json").write_bytes(too_large)
    with pytest.raises(BundleError, match=r"bundle.json: 1048577 bytes are too large"):
        read_bundle(tmp_path)


def test_a_decompression_bomb_is_not_unpacked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bundle_module, "_MAX_ARCHIVE", 1 << 20)
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(8 << 20)))
    with pytest.raises(BundleError, match="too large when unpacked, at most 1048576 bytes"):
        read_bundle(tmp_path / "bomb")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=2), "schema_version is 2, this version reads 1"),
        (lambda m: m.pop("schema_version"), "schema_version is None"),
        (lambda m: m.update(kind="other"), "kind is 'other', known: scaling, generic"),
        (lambda m: m.update(extra=1), "unknown key 'extra'"),
        (lambda m: m.pop("fallback"), "missing key 'fallback'"),
        (lambda m: m.update(name=""), "name: expected a text"),
        (lambda m: m.update(version=3), "version: expected a text"),
        (lambda m: m.update(provenance=[]), "provenance: expected an object, got list"),
        (lambda m: m["fleet"].update(throughput=-1), "FleetSpec.throughput: -1.0 is out of range"),
        (lambda m: m["features"].update(version=2), "FeatureSpec.version: 2 is out of range"),
        (lambda m: m["guardrails"].update(maximum=1), "GuardrailSpec: unknown key 'maximum'"),
        (lambda m: m["fallback"].update(rule="hope"), "unknown rule 'hope'"),
        (lambda m: m["fallback"]["parameters"].update(x=1), "HybridParameters: unknown key 'x'"),
        (lambda m: m["policy"].update(kind="pickle"), "policy.kind is 'pickle', known: onnx, rule"),
        (lambda m: m["policy"].update(file="../policy.onnx"), "policy.file is '../policy.onnx'"),
        (lambda m: m.update(policy="policy.onnx"), "policy: expected an object, got str"),
        (lambda m: m["files"].update({"preset.yaml": {"bytes": 1, "sha256": "0"}}), "preset.yaml is listed in"),
        (lambda m: m["files"]["policy.onnx"].update(bytes=1), "policy.onnx: size or SHA-256 differ"),
        (lambda m: m["files"]["policy.onnx"].pop("sha256"), "files.policy.onnx: missing key 'sha256'"),
        (lambda m: m["files"].pop("policy.onnx"), "policy.onnx is missing"),
        (lambda m: m["actions"].update(steps=[-1, 0, 1]), "gives 6 scores, bundle.json describes 3 actions"),
        (lambda m: m["fleet"].update(provisioning_delay=4), "reads 23 features, bundle.json describes 22"),
    ],
)
def test_a_wrong_manifest_is_refused_by_key(
    tmp_path, learned_bundle, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    write_bundle_folder(learned_bundle(), tmp_path)
    manifest = json.loads((tmp_path / "bundle.json").read_bytes())
    change(manifest)
    (tmp_path / "bundle.json").write_bytes(resigned(manifest))
    with pytest.raises(BundleError, match=message):
        read_bundle(tmp_path)


def test_an_edited_manifest_does_not_match_its_digest(tmp_path) -> None:
    write_bundle_folder(builtin_bundle(), tmp_path)
    file = tmp_path / "bundle.json"
    file.write_text(file.read_text().replace('"max_machines": 120', '"max_machines": 999'))
    with pytest.raises(BundleError, match="the digest does not match"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(("old", "new"), [('"builtin"', '"\\ud800"'), ("300.0", "1e999")])
def test_a_manifest_that_has_no_canonical_json_is_refused(tmp_path, old: str, new: str) -> None:
    write_bundle_folder(builtin_bundle(), tmp_path)
    file = tmp_path / "bundle.json"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(BundleError, match=r"bundle.json: holds a number or a text that JSON cannot"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": NaN}', "\ud800", "[" * 100_000])
def test_bad_json_is_refused(tmp_path, text: str) -> None:
    (tmp_path / "bundle.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BundleError, match=r"bundle.json: (is not valid JSON|expected a JSON object)"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("bundle", "message"),
    [
        (Bundle(name="x", version="1", policy=RulePart("hope")), "unknown rule 'hope'"),
        (Bundle(name="x", version="1", policy=OnnxPart()), "policy.onnx is missing"),
        (Bundle(name="x", version="1", policy=RulePart("hybrid"), provenance={"x": float("nan")}), "not plain JSON"),
        (Bundle(name="x", version="1", policy=RulePart("hybrid"), provenance={"x": {1}}), "not plain JSON"),
        (
            Bundle(name="x", version="1", policy=RulePart("hybrid"), provenance={"x": (1,)}),
            "changes when it is written",
        ),
        (Bundle(name="x", version="1", policy=RulePart("hybrid"), kind="generic"), "missing key 'interface'"),
        (Bundle(name="x", version="1", policy=RulePart("hybrid"), files={"a.txt": b""}), "unexpected file 'a.txt'"),
    ],
)
def test_an_invalid_bundle_is_not_written(tmp_path, bundle: Bundle, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        write_bundle(bundle, tmp_path / "model.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_learned_policy_of_another_size_is_not_written(tmp_path, learned_bundle) -> None:
    bundle = dataclasses.replace(learned_bundle(), actions=ActionSpec(steps=(-1, 0, 1)))
    with pytest.raises(BundleError, match=r"gives 6 scores, bundle.json describes 3 actions"):
        write_bundle(bundle, tmp_path / "model.tar.gz")


def test_a_full_disk_leaves_the_previous_bundle_and_no_rest(tmp_path, monkeypatch) -> None:
    path = tmp_path / "model.tar.gz"
    write_bundle(builtin_bundle(), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write the bundle: No space left on device: .*model.tar.gz"):
        write_bundle(builtin_bundle(FleetSpec(max_machines=7)), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.tar.gz"]


def test_an_unwritable_place_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot write the bundle: .*missing"):
        write_bundle(builtin_bundle(), tmp_path / "missing" / "model.tar.gz")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_bundle_folder(builtin_bundle(), tmp_path / "file")
