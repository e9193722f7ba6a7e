"""What can be told of a connection without receiving anything."""

from __future__ import annotations

import socket

from fedlightning.workers.remote.channel import Channel


def test_it_has_ended_when_the_other_side_has_gone_and_all_is_received() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, 2**16)
    assert not channel.ended
    theirs.send(b"x")
    theirs.close()
    assert not channel.ended
    assert ours.recv(1) == b"x"
    assert channel.ended


def test_it_has_ended_when_this_side_has_closed_it() -> None:
    ours, _theirs = socket.socketpair()
    channel = Channel(ours, 2**16)
    channel.close()
    assert channel.ended
