"""What of the broker's crosses a close of ours: its reason is told, and nothing of it is lost."""

from __future__ import annotations

import pytest

import evamqp
from tests.interop.rig import OnTwoLoops, Rig, SharingVhost


class TestReasons(SharingVhost, OnTwoLoops):
    def test_a_refused_declare_is_told_though_the_channel_was_closed_behind_it(
        self, rig: Rig
    ) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q"))
        errors: list[Exception] = []
        channel.queue_declare("q", durable=True, on_error=errors.append)
        channel.close()
        reason = rig.closed(channel)
        assert (reason.code, reason.culprit, reason.by) == (406, "queue.declare", "broker")
        (error,) = errors
        assert isinstance(error, evamqp.NotExecuted)
        assert error.is_culprit
        assert error.reason is reason

    def test_a_refused_publish_is_told_though_the_channel_was_closed_behind_it(
        self, rig: Rig
    ) -> None:
        channel = rig.channel()
        channel.basic_publish("missing", "", b"body")
        channel.close()
        reason = rig.closed(channel)
        assert (reason.code, reason.culprit, reason.by) == (404, "basic.publish", "broker")

    @pytest.mark.parametrize("refused", ["queue.declare", "basic.publish"])
    def test_a_refusal_is_told_though_the_connection_was_closed_behind_it(
        self, rig: Rig, refused: str
    ) -> None:
        client = rig.open()
        channel = client.connection.channel()
        rig.wait(channel.queue_declare("q"))
        declared = None
        if refused == "queue.declare":
            declared = channel.queue_declare("q", durable=True)
        else:
            channel.basic_publish("missing", "", b"body")
        rig.wait(client.connection.close())
        assert client.reason is not None
        assert client.reason.by == "client"
        reason = client.channel_reasons[channel]
        assert (reason.culprit, reason.by) == (refused, "broker")
        if declared is not None:
            with pytest.raises(evamqp.NotExecuted) as caught:
                rig.wait(declared)
            assert caught.value.is_culprit

    def test_what_ends_the_connection_is_told_though_it_was_closed_behind_it(
        self, rig: Rig
    ) -> None:
        client = rig.open()
        channel = client.connection.channel()
        recover = channel.basic_recover(requeue=False)
        rig.wait(client.connection.close())
        assert client.reason is not None
        assert (client.reason.code, client.reason.by) == (540, "broker")
        with pytest.raises(evamqp.NotExecuted) as caught:
            rig.wait(recover)
        assert caught.value.is_culprit
