"""How addresses are parsed."""

from __future__ import annotations

import pytest

from pspd.errors import BadArgument
from pspd.text.addresses import AGENT_PORT, full_address, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1", "10.0.0.1", 7070),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("hub", "hub", 7070),
        ("hub.lan:0", "hub.lan", 0),
        ("::1", "::1", 7070),
        ("[::1]", "::1", 7070),
        ("[::1]:7", "::1", 7),
        ("fd00::7:1", "fd00::7:1", 7070),  # a bare IPv6 address has no port
        ("fe80::1%eth0", "fe80::1%eth0", 7070),
        ("[fe80::1%eth0]:7", "fe80::1%eth0", 7),
    ],
)
def test_address_is_parsed_with_or_without_port(text: str, host: str, port: int) -> None:
    assert parse_address(text) == (host, port)
    assert parse_address(full_address(text)) == (host, port)


def test_default_port_depends_on_daemon() -> None:
    assert full_address("lab", AGENT_PORT) == "lab:7080"
    assert full_address("::1", AGENT_PORT) == "[::1]:7080"


@pytest.mark.parametrize(
    "text",
    [
        *("", "7070", ":7070", "hub:", "hub:x", "hub:-1", "hub:\u0661", "a b", "hub\n", "hub:1:2", "http://hub:1"),
        *("[hub]:1", "[::1", "::1]", "[]:1", "fe80::1%", "[::1]7070", "[::1]:", "\udcff:1"),
    ],
)
def test_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(BadArgument, match="is not an address"):
        parse_address(text)


def test_port_above_maximum_is_refused() -> None:
    with pytest.raises(BadArgument, match="has a port that is too large"):
        parse_address("hub:65536")


@pytest.mark.parametrize("text", ["fe80::1", "[fe80::1]:7070", "febf::1"])
def test_link_local_address_needs_interface(text: str) -> None:
    with pytest.raises(BadArgument, match="name its interface"):
        parse_address(text)
