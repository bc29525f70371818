"""A client's keys of one round, what two clients agree on, and who signed what.

X25519, HKDF-SHA256 and AES-GCM. Keys live for one round: whoever is given one of them learns
nothing of another round.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from fedaq.net.credentials import Certificates
from fedaq.privacy.shares import SECRET_BYTES, SHARE_BYTES
from fedaq.v1 import federation_pb2 as pb

KEY_BYTES, DIGEST_BYTES = 32, 16
_TAG_BYTES = 16
# A key seals once: it is of one round, one sender and one receiver.
_NONCE = bytes(12)
# What one client sends another: a share of its key for masks, and one of its seed.
SEALED_BYTES = 2 * SHARE_BYTES + _TAG_BYTES


@dataclass(frozen=True)
class PublicKeys:
    """What a client says of its keys.

    Attributes
    ----------
    cipher, mask : bytes
        X25519: of what it sends to others, and of the masks that it has with them.
    seed_digest : bytes
        By which its seed is known again.
    certificate, signature : bytes
        DER, and over all that with run, round and name; empty where it has none.
    """

    cipher: bytes
    mask: bytes
    seed_digest: bytes
    certificate: bytes = b""
    signature: bytes = b""


def to_message(keys: PublicKeys) -> pb.MaskKeys:
    """Return keys as they travel."""
    return pb.MaskKeys(
        cipher_key=keys.cipher,
        mask_key=keys.mask,
        seed_digest=keys.seed_digest,
        certificate=keys.certificate,
        signature=keys.signature,
    )


def from_message(message: pb.MaskKeys) -> PublicKeys:
    """Return keys that came, whatever they are."""
    return PublicKeys(
        message.cipher_key,
        message.mask_key,
        message.seed_digest,
        message.certificate,
        message.signature,
    )


@dataclass(frozen=True)
class Keys:
    """The secret side of them.

    Attributes
    ----------
    cipher : bytes
        A private X25519 key.
    mask_secret : bytes
        From which the other one follows.
    seed : bytes
        Of the client's own mask.
    """

    cipher: bytes = field(default_factory=lambda: os.urandom(KEY_BYTES), repr=False)
    mask_secret: bytes = field(default_factory=lambda: os.urandom(SECRET_BYTES), repr=False)
    seed: bytes = field(default_factory=lambda: os.urandom(SECRET_BYTES), repr=False)

    def public(self) -> PublicKeys:
        """Return what others may know."""
        mask = public_of(mask_key(self.mask_secret))
        return PublicKeys(public_of(self.cipher), mask, digest_of_seed(self.seed))


Sign = Callable[[bytes], bytes]


def public_of(private: bytes) -> bytes:
    """Return the public key to a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def digest_of_seed(seed: bytes) -> bytes:
    """Return the bytes by which a seed is known again."""
    return sha256(b"fedaq seed" + seed).digest()[:DIGEST_BYTES]


def mask_key(secret: bytes) -> bytes:
    """Return the private X25519 key for masks that follows from a secret."""
    return derived(secret, b"fedaq mask key")


def agreed(private: bytes, public: bytes, use: bytes) -> bytes:
    """Return the 32 secret bytes that two clients have in common, for one use.

    Raises
    ------
    ValueError
        If the public key is one with which nothing is secret.
    """
    own = X25519PrivateKey.from_private_bytes(private)
    shared = own.exchange(X25519PublicKey.from_public_bytes(public))
    ends = b"".join(sorted((own.public_key().public_bytes_raw(), public)))
    return derived(shared, use + ends)


def derived(secret: bytes, use: bytes) -> bytes:
    """Return 32 secret bytes for one use of a secret."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=use).derive(secret)


def seal(key: bytes, words: bytes) -> bytes:
    """Return words that only who has the key reads; it must seal nothing else."""
    return AESGCM(key).encrypt(_NONCE, words, None)


def unsealed(key: bytes, sealed: bytes) -> bytes | None:
    """Return what was sealed; None if it was not, or not with this key."""
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, None)
    except (InvalidTag, ValueError):
        return None


def statement(context: bytes, name: str, keys: PublicKeys) -> bytes:
    """Return what a client signs: its keys, and for which run, round and name."""
    called = name.encode()
    parts = (context, called, keys.cipher, keys.mask, keys.seed_digest)
    return b"fedaq masks" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@dataclass(frozen=True)
class Authority:
    """Who says whose a certificate is.

    Attributes
    ----------
    certificates : tuple of Certificate
        Of the federation's private authority.
    """

    certificates: tuple[x509.Certificate, ...]

    def why_not(self, context: bytes, name: str, keys: PublicKeys) -> str:
        """Return why keys are not proved to be a client's; empty if they are."""
        if not (keys.certificate and keys.signature):
            return "its keys are not signed"
        try:
            certificate = x509.load_der_x509_certificate(keys.certificate)
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        except ValueError:
            return "its certificate cannot be read"
        if [each.value for each in names] != [name]:
            return "its keys come with the certificate of another"
        if not any(_is_issued(certificate, by) for by in self.certificates):
            return "its certificate is not signed by our ca.crt"
        if not _is_signed(certificate, keys.signature, statement(context, name, keys)):
            return "its keys are signed by another"
        return ""


def authority_of(own: Certificates) -> Authority:
    """Return the authority in a folder of certificates."""
    return Authority(tuple(x509.load_pem_x509_certificates(own.ca)))


@dataclass(frozen=True)
class Signer:
    """What a client with a certificate signs its keys with.

    Attributes
    ----------
    certificate : bytes
        DER.
    sign : callable
    """

    certificate: bytes
    sign: Sign = field(repr=False)


def signer_of(own: Certificates) -> Signer | None:
    """Return what signs with a client's certificate; None for a client that has none."""
    if not own.certificate:
        return None
    key = serialization.load_pem_private_key(own.key, None)
    certificate = x509.load_pem_x509_certificate(own.certificate)

    def sign(words: bytes) -> bytes:
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(words, ec.ECDSA(hashes.SHA256()))
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(words, padding.PKCS1v15(), hashes.SHA256())
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        return key.sign(words)

    return Signer(certificate.public_bytes(serialization.Encoding.DER), sign)


def _is_issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _is_signed(certificate: x509.Certificate, signature: bytes, words: bytes) -> bool:
    key = certificate.public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, words, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, words, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, words)
        else:
            return False
    except InvalidSignature:
        return False
    return True
