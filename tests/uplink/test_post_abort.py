"""A stop must not wait for a server: the post under way ends at once, wherever it stands."""

import contextlib
import errno
import socket
import threading

import pytest

from kiosk.errors import LinkDownError

LONG = {"connect_timeout_s": 280.0, "read_timeout_s": 280.0}


def never(connection, _):
    """Wait until the client has left."""
    connection.recv(1)


def is_aborted(outcome):
    return isinstance(outcome, LinkDownError) and "the kiosk is stopping" in str(outcome)


def test_without_an_abort_the_post_waits(server, poster, envelope, in_background):
    """The test below would show nothing if the server's silence ended the post by itself."""
    server.answers = [never]
    one = poster(server.url, read_timeout_s=0.5)
    finish = in_background(lambda: one.send(envelope))
    assert server.asked.wait(5.0)
    assert not is_aborted(finish())


def test_waiting_for_a_reply(server, poster, envelope, in_background):
    """The server has the request and says nothing."""
    server.answers = [never]
    one = poster(server.url, **LONG)
    finish = in_background(lambda: one.send(envelope))
    assert server.asked.wait(5.0)
    one.abort()
    assert is_aborted(finish())


@pytest.mark.parametrize("head", ["Content-Length: 60000", "Connection: close"])
def test_reading_a_reply(server, poster, envelope, in_background, head):
    """Half a body is there; one that ends with its connection must not pass for a whole one."""

    sent = threading.Event()

    def half(connection, request):
        connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{{".encode())
        sent.set()
        never(connection, request)

    server.answers = [half]
    one = poster(server.url, **LONG)
    finish = in_background(lambda: one.send(envelope))
    assert sent.wait(5.0)
    one.abort()
    assert is_aborted(finish())


def test_on_a_kept_connection(server, poster, envelope, in_background):
    """A connection that an earlier post made is cut as well."""
    one = poster(server.url, **LONG)
    one.send(envelope)
    server.asked.clear()
    server.answers = [never]
    finish = in_background(lambda: one.send(envelope))
    assert server.asked.wait(5.0)
    one.abort()
    assert is_aborted(finish())


def test_in_the_middle_of_the_handshake(serve, poster, envelope, in_background):
    """TLS against a server that takes the first word and says nothing."""
    greeted = threading.Event()

    def silent(accepted):
        while accepted.recv(4096):
            greeted.set()
        raise OSError("the client has left")

    one = poster(serve(wrap=silent).url, **LONG)
    finish = in_background(lambda: one.send(envelope))
    assert greeted.wait(5.0)
    one.abort()
    assert is_aborted(finish())


def test_while_connecting(poster, envelope, in_background, monkeypatch):
    """A host that does not answer the first packet: its queue of connections is full."""
    sent = threading.Event()
    connect = socket.socket.connect_ex
    results = []

    def noted(self, address):
        results.append(connect(self, address))
        sent.set()
        return results[-1]

    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        monkeypatch.setattr(socket.socket, "connect_ex", noted)
        one = poster(f"http://127.0.0.1:{listener.getsockname()[1]}", **LONG)
        finish = in_background(lambda: one.send(envelope))
        assert sent.wait(5.0)
        one.abort()
        assert is_aborted(finish())
    assert results == [errno.EINPROGRESS]


def test_a_host_that_does_not_answer_ends_at_the_connect_timeout(poster, envelope):
    """Without an abort it is the timeout that ends it."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        one = poster(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout_s=0.2)
        with pytest.raises(LinkDownError, match="timed out"):
            one.send(envelope)


def test_every_later_post_ends_at_once(server, poster, envelope):
    """A post that begins just after the abort would otherwise wait its full time."""
    one = poster(server.url, **LONG)
    one.send(envelope)
    one.abort()
    for _ in range(2):
        with pytest.raises(LinkDownError, match="the kiosk is stopping"):
            one.send(envelope)
    assert len(server.requests) == 1


def test_aborting_an_idle_poster_is_no_error(poster):
    """Whoever stops the kiosk need not know whether a post is under way; twice neither."""
    one = poster("http://127.0.0.1:9")
    one.abort()
    one.abort()


def test_the_limit_of_one_post_does_not_outlive_it(server, poster, envelope):
    """After a cut by the time limit the next post works."""
    server.answers = [never]
    one = poster(server.url, connect_timeout_s=0.2, read_timeout_s=0.2)
    with pytest.raises(LinkDownError):
        one.send(envelope)
    assert one.send(envelope)
