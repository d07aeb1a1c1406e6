"""Signatures: a list of what is in a model folder, with a hash of each file, signed by Ed25519 (Bernstein 2011; RFC 8032).

The signature is over the list's very bytes, and it is checked before any of them is understood.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likely.checkpoint.atomic_write import PARTIAL_SUFFIX, write_atomically
from likely.checkpoint.errors import security
from likely.exceptions import CheckpointError

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
OWN = {MANIFEST, SIGNATURE, MANIFEST + PARTIAL_SUFFIX, SIGNATURE + PARTIAL_SUFFIX}  # files of the signature itself


def sign(folder: Path, key: Path) -> None:
    """Sign every file of a model folder with the private key in a PEM file."""
    listed = {path.name: _sha256(path.read_bytes()) for path in sorted(folder.iterdir()) if path.name not in OWN}
    if not listed:
        raise CheckpointError(f"{folder} holds nothing to sign")
    manifest = json.dumps({"files": listed}, indent=2, sort_keys=True).encode() + b"\n"
    signature = _private(key).sign(manifest)
    for name, content in ((SIGNATURE, signature), (MANIFEST, manifest)):
        write_atomically(folder / name, content)


def verify(folder: Path, signer: Path) -> Mapping[str, str]:
    """The hashes of a folder's files, as whoever holds the private key of `signer` has signed them.

    A CheckpointError if the signature is another's or none, or if a file is missing or was added since. The files themselves
    are to be checked as they are read, by `check`.
    """
    try:
        manifest, signature = ((folder / name).read_bytes() for name in (MANIFEST, SIGNATURE))
    except OSError:
        raise CheckpointError(
            f"{folder} is not signed, and only models signed by the holder of {signer} are to be read; "
            f"`likely sign {folder} --key PRIVATE` signs"
        ) from None
    if not _is_by(_public(signer), signature, manifest):
        raise CheckpointError(
            f"{folder} was not signed by the holder of {signer}, or was changed since; nothing was read"
        )
    listed: dict[str, str] = json.loads(manifest)["files"]
    there = {path.name for path in folder.iterdir()} - OWN
    for names, how in ((sorted(set(listed) - there), "lacks"), (sorted(there - set(listed)), "holds besides")):
        if names:
            raise CheckpointError(f"{folder} {how} {', '.join(names)}, unlike what was signed; nothing was read")
    return listed


def check(path: Path, content: bytes, listed: Mapping[str, str]) -> None:
    """A CheckpointError unless a file's content is what was signed."""
    if _sha256(content) != listed.get(path.name):
        raise CheckpointError(f"{path} is not what was signed; nothing of it was read")


def new_key(path: Path) -> Path:
    """A new private key in a PEM file that nobody else can read, and beside it the public one, "NAME.pub": that one's path."""
    serialization = _crypto("serialization", str(path))
    private = _crypto("ed25519", str(path)).Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    write_secret(path, private.private_bytes(pem, pkcs8, plain))
    public = path.with_name(path.name + ".pub")
    public.write_bytes(private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return public


def write_secret(path: Path, content: bytes) -> None:
    """A new file that its owner alone can read; a CheckpointError if there is one already."""
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise CheckpointError(
            f"{path} exists, and a key that was lost cannot be made again; name another file"
        ) from None
    path.write_bytes(content)


def _private(path: Path) -> Any:
    content, serialization = path.read_bytes(), _crypto("serialization", str(path))
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except Exception:  # of a damaged file the parser raises whatever it likes
        raise CheckpointError(f"{path} holds no private key; `likely sign --new-key {path}` makes one") from None
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


def _crypto(name: str, for_what: str) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise CheckpointError(f"{for_what}: {security()}") from None
    return {"serialization": serialization, "ed25519": ed25519}[name]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
