"""Signing of model folders: a manifest with a SHA-256 of each file, signed with Ed25519 (Bernstein 2011; RFC 8032).

The signature is verified over the bytes of the manifest before they are parsed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likely.checkpoint.atomic_write import PARTIAL_SUFFIX, write_atomically
from likely.exceptions import CheckpointError

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
OWN = {MANIFEST, SIGNATURE, MANIFEST + PARTIAL_SUFFIX, SIGNATURE + PARTIAL_SUFFIX}  # files of the signature itself
MISSING_PACKAGE = "signing and encryption need the cryptography package: pip install 'likely[secure]'"


def sign(folder: Path, key: Path) -> None:
    """Sign every file of a model folder with the private key in a PEM file."""
    hashes = {path.name: _sha256(path.read_bytes()) for path in sorted(folder.iterdir()) if path.name not in OWN}
    if not hashes:
        raise CheckpointError(f"{folder} holds no files to sign; a model folder was expected")
    manifest = json.dumps({"files": hashes}, indent=2, sort_keys=True).encode() + b"\n"
    signature = _private(key).sign(manifest)
    for name, content in ((SIGNATURE, signature), (MANIFEST, manifest)):
        write_atomically(folder / name, content)


def verify(folder: Path, signer: Path) -> Mapping[str, str]:
    """Return the hashes of a folder's files signed by the private key of the public key file `signer`.

    Raises CheckpointError if the signature is missing or invalid, or if files are missing or were added. `check` verifies each
    file's content on reading.
    """
    try:
        manifest, signature = ((folder / name).read_bytes() for name in (MANIFEST, SIGNATURE))
    except OSError:
        raise CheckpointError(
            f"{folder} is not signed; a signature by the private key of {signer} was expected, "
            f"as `likely sign {folder} --key PRIVATE` writes"
        ) from None
    if not _is_by(_public(signer), signature, manifest):
        raise CheckpointError(
            f"{folder} was not signed by the private key of {signer}, or was changed since; nothing was read"
        )
    hashes = _signed_hashes(manifest, folder / MANIFEST)
    present = {path.name for path in folder.iterdir()} - OWN
    for names, verb in ((sorted(set(hashes) - present), "lacks"), (sorted(present - set(hashes)), "also holds")):
        if names:
            raise CheckpointError(f"{folder} {verb} {', '.join(names)}, unlike the signed folder; nothing was read")
    return hashes


def _signed_hashes(manifest: bytes, path: Path) -> dict[str, str]:
    try:
        hashes: dict[str, str] = json.loads(manifest)["files"]
        return {name: str(digest) for name, digest in hashes.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} lists no files; a manifest that `likely sign` writes was expected") from None


def check(path: Path, content: bytes, hashes: Mapping[str, str]) -> None:
    """Raise CheckpointError unless a file's content has its signed hash."""
    if _sha256(content) != hashes.get(path.name):
        raise CheckpointError(f"{path} differs from the signed file; nothing was read")


def new_key(path: Path) -> Path:
    """Write a private key that only its owner can read and its public key "NAME.pub"; return the public key's path."""
    serialization = _crypto("serialization", str(path))
    private = _crypto("ed25519", str(path)).Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    write_secret(path, private.private_bytes(pem, pkcs8, plain))
    public = path.with_name(path.name + ".pub")
    public.write_bytes(private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return public


def write_secret(path: Path, content: bytes) -> None:
    """Create a file that only its owner can read; raise CheckpointError if it exists."""
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise CheckpointError(f"{path} exists, and an overwritten key would be lost; a new file was expected") from None
    path.write_bytes(content)


def _private(path: Path) -> Any:
    content, serialization = path.read_bytes(), _crypto("serialization", str(path))
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except Exception:  # the parser raises any exception for a damaged file
        raise CheckpointError(f"{path} holds no private key; `likely sign --new-key {path}` writes one") from None
    if not isinstance(key, _crypto("ed25519", str(path)).Ed25519PrivateKey):
        raise CheckpointError(f"{path} holds a key of another kind; an Ed25519 key was expected")
    return key


def _public(path: Path) -> Any:
    content, serialization = path.read_bytes(), _crypto("serialization", str(path))
    try:
        key = serialization.load_pem_public_key(content)
    except Exception:  # as above
        raise CheckpointError(f"{path} holds no public key; the .pub beside the private one was expected") from None
    if not isinstance(key, _crypto("ed25519", str(path)).Ed25519PublicKey):
        raise CheckpointError(f"{path} holds a key of another kind; an Ed25519 key was expected")
    return key


def _is_by(public: Any, signature: bytes, content: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _crypto(name: str, purpose: str) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise CheckpointError(f"{purpose}: {MISSING_PACKAGE}") from None
    return {"serialization": serialization, "ed25519": ed25519}[name]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
