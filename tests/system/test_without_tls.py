"""What needs no server: where encryption is a must, and whose name a token gives."""

import logging
import re
from pathlib import Path

import pytest

from fedaq.errors import UserError
from fedaq.settings import NetworkSettings
from fedaq_client.transport.access import PLAIN
from fedaq_client.transport.access import access_of as client_access
from fedaq_server.identity.access import access_of as server_access
from fedaq_server.identity.certificates import issue
from fedaq_server.identity.tokens import make_tokens
from system.commands import Commands


def test_listening_elsewhere_without_tls_needs_a_word(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert server_access(NetworkSettings(host=host)).credentials is None
    assert not caplog.records
    with pytest.raises(UserError, match=r"--host 0\.0\.0\.0 .* --tls .* --insecure"):
        server_access(NetworkSettings(host="0.0.0.0"))
    make_tokens(tmp_path / "tokens", ["kitchen"])
    with pytest.raises(UserError, match=r"--tls .* --insecure"):
        server_access(NetworkSettings(host="0.0.0.0", tokens=tmp_path / "tokens"))
    with caplog.at_level(logging.WARNING):
        assert server_access(NetworkSettings(host="0.0.0.0", insecure=True)).credentials is None
    assert "no TLS on 0.0.0.0" in caplog.text
    issue(tmp_path / "certs")
    assert server_access(NetworkSettings(host="0.0.0.0", tls=tmp_path / "certs/server")).credentials


def test_connecting_elsewhere_without_tls_needs_a_word() -> None:
    for address in ("127.0.0.1:1", "localhost:1", "[::1]:1"):
        assert client_access(NetworkSettings(), address, {}) == PLAIN
    for address in ("192.168.1.10:50051", "fl.example.org:50051", "[fe80::1]:50051"):
        with pytest.raises(UserError, match=r"--tls .* --insecure"):
            client_access(NetworkSettings(), address, {})
        assert client_access(NetworkSettings(insecure=True), address, {}) == PLAIN


def test_the_commands_keep_to_it(commands: Commands) -> None:
    for line in ("server --host 0.0.0.0", "client --server 192.0.2.1:50051"):
        ended = commands.run(*line.split())
        assert ended.code == 2
        assert re.fullmatch(r"fedaq: .* --tls .* --insecure\n", ended.err), ended


def test_a_token_is_not_shown_when_it_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for content in ("", "secret", "two words:secret", "\xff:secret", "a:secret\nb:secret"):
        path.write_text(content)
        with pytest.raises(UserError, match="not a token; fedaq tokens makes one") as wrong:
            client_access(NetworkSettings(token_file=path), "localhost:1", {})
        assert "secret" not in str(wrong.value)
    with pytest.raises(UserError, match="environment FEDAQ_TOKEN: not a token") as wrong:
        client_access(NetworkSettings(), "localhost:1", {"FEDAQ_TOKEN": "secret"})
    assert "secret" not in str(wrong.value)


def test_a_name_is_that_of_the_token_or_the_certificate(commands: Commands, tmp_path: Path) -> None:
    make_tokens(tmp_path / "tokens", ["kitchen"])
    ended = commands.run("client", "--token-file", "kitchen.token", "--name", "garden")
    assert ended.code == 2
    assert ended.err == (
        "fedaq: --name garden: the certificate or token is for kitchen; leave --name out\n"
    )
