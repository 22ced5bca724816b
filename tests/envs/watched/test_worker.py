"""A message that stands still in the middle is a worker that hangs; one that breaks off, a worker that died."""

from __future__ import annotations

import os
import pickle
import socket
import struct

import pytest

from rims_rl.envs.watched.faults import Trouble

pytestmark = pytest.mark.faults
PART = struct.pack("!i", 1000) + b"not yet a thousand bytes"


class TestAMessage:
    def test_that_comes_to_a_stop_is_a_worker_that_hangs(self, pair):
        worker, theirs = pair
        os.write(theirs.fileno(), PART)
        worker.listen(is_readable=True)
        assert worker.outcome == Trouble("gave no answer within 0.25 s")
        assert (worker.owes, worker.is_lost, worker.process.exitcode) == (False, True, -9)

    @pytest.mark.parametrize("seconds", [1e300, 1e10])
    def test_may_take_longer_than_any_clock_of_the_system_runs(self, pair, seconds):
        worker, theirs = pair
        worker.allow(seconds)
        theirs.send_bytes(pickle.dumps(("well", None)))
        worker.listen(is_readable=True)
        assert worker.outcome == "well"

    def test_is_not_waited_for_without_end_however_short_the_time(self, pair):
        worker, theirs = pair
        worker.allow(1e-7)
        os.write(theirs.fileno(), PART)
        worker.listen(is_readable=True)
        assert worker.outcome == Trouble("gave no answer within 1e-07 s")

    def test_that_breaks_off_is_a_worker_that_died(self, pair):
        worker, theirs = pair
        os.write(theirs.fileno(), PART)
        theirs.close()
        worker.listen(is_readable=True)
        assert worker.outcome == Trouble("died with exit code 3")

    def test_that_nobody_reads_is_a_worker_that_hangs(self, pair):
        worker, _ = pair
        worker.send(bytes(10_000_000))
        assert worker.outcome == Trouble("gave no answer within 0.25 s")

    def test_that_is_interrupted_makes_the_connection_useless(self, pair, monkeypatch):
        worker, _ = pair

        def interrupt() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(worker.connection, "recv_bytes", interrupt, raising=False)
        with pytest.raises(KeyboardInterrupt):
            worker.listen(is_readable=True)
        assert worker.outcome == Trouble("was interrupted by this process")
        assert worker.is_lost

    def test_is_not_sent_to_a_lost_worker(self, pair):
        worker, theirs = pair
        worker.lose(Trouble("died with exit code 7"))
        worker.send(b"anything")
        assert worker.outcome.reason == "died with exit code 7"
        assert not theirs.poll()

    def test_is_waited_for_whatever_the_default_of_other_sockets(self, pair):
        worker, _ = pair
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(30)
        try:
            worker.allow(0.25)
        finally:
            socket.setdefaulttimeout(before)
        assert os.get_blocking(worker.connection.fileno())
