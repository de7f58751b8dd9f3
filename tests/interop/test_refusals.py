"""What the broker refuses, on every loop, plain and TLS: codes, who is blamed, what lives on."""

from __future__ import annotations

import pytest

import evamqp
from evamqp import Credentials, Message, Properties
from tests.behaviour.versions import parse_version
from tests.interop.rig import OnEveryLoop, OnEveryLoopPlain, OnTwoLoops, Rig, SharingVhost


class TestChannelErrors(SharingVhost, OnEveryLoop):
    def test_missing_queue_is_404_and_blames_the_request(self, rig: Rig) -> None:
        channel = rig.channel()
        request = channel.queue_declare("missing", passive=True)
        behind = channel.queue_declare("q", durable=True)
        reason = rig.closed(channel)
        assert (reason.code, reason.method, reason.by) == (404, "queue.declare", "broker")
        for each, blamed in ((request, True), (behind, False)):
            with pytest.raises(evamqp.NotExecuted) as caught:
                rig.wait(each)
            assert caught.value.is_culprit is blamed
            assert caught.value.__cause__ is caught.value.reason
        other = channel.connection.channel()
        rig.wait(other.queue_declare("q", durable=True))

    def test_publish_to_a_missing_exchange_is_404_and_leaves_its_outcome_unknown(
        self, rig: Rig
    ) -> None:
        channel = rig.channel()
        channel.confirm_select()
        pending = channel.wait_for_confirms()
        rig.wait(pending)
        channel.basic_publish("missing", "", b"body")
        waiting = channel.wait_for_confirms()
        reason = rig.closed(channel)
        assert (reason.code, reason.culprit) == (404, "basic.publish")
        assert list(channel.unconfirmed) == [1]
        with pytest.raises(evamqp.NotExecuted):
            rig.wait(waiting)

    def test_reserved_name_is_403(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("amq.mine", durable=True)
        assert rig.closed(channel).code == 403

    def test_exclusive_consumer_keeps_others_away_with_403(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        channel.basic_consume("q", lambda message: None, exclusive=True)
        rig.wait(channel.queue_declare("q", durable=True))
        other = channel.connection.channel()
        other.basic_consume("q", lambda message: None)
        reason = rig.closed(other)
        assert (reason.code, reason.culprit) == (403, "basic.consume")
        assert channel.is_open

    def test_queue_exclusive_to_another_connection_is_405(self, rig: Rig) -> None:
        owner = rig.channel()
        rig.wait(owner.queue_declare("q", exclusive=True))
        stranger = rig.channel()
        stranger.queue_declare("q", exclusive=True)
        assert rig.closed(stranger).code == 405
        assert owner.is_open

    def test_different_arguments_are_406(self, rig: Rig) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        channel.queue_declare("q", durable=False)
        reason = rig.closed(channel)
        assert (reason.code, reason.culprit) == (406, "queue.declare")

    def test_unknown_delivery_tag_is_406(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.basic_ack(4711)
        reason = rig.closed(channel)
        assert (reason.code, reason.method, reason.culprit) == (406, "basic.ack", "basic.ack")

    def test_bad_expiration_is_406_and_blames_the_publish(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.confirm_select()
        rig.wait(channel.queue_declare("q", durable=True))
        channel.basic_publish("", "q", b"", Properties(expiration="soon"))
        reason = rig.closed(channel)
        assert (reason.code, reason.culprit) == (406, "basic.publish")

    def test_deleted_queue_cancels_its_consumers(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        cancelled: list[str] = []
        messages: list[Message] = []
        tag = channel.basic_consume("q", messages.append, on_cancel=cancelled.append)
        rig.wait(channel.queue_declare("q", passive=True))
        other = channel.connection.channel()
        rig.wait(other.queue_delete("q"))
        rig.until(lambda: cancelled)
        assert cancelled == [tag]
        assert rig.client_of(channel).count("on_consumer_cancel") == 1
        channel.queue_declare("q", durable=True)
        channel.basic_consume("q", messages.append, consumer_tag=tag)
        channel.basic_publish("", "q", b"body")
        rig.until(lambda: messages)


class TestConnectionErrors(SharingVhost, OnEveryLoop):
    def test_wrong_password_is_an_authentication_failure(self, rig: Rig) -> None:
        reason = rig.refused(credentials=Credentials("guest", "wrong"))
        assert isinstance(reason, evamqp.AuthenticationFailed)
        assert (reason.code, reason.by, reason.retry) == (403, "broker", "slow")
        assert "wrong" not in str(reason)

    def test_unknown_vhost_is_refused_with_530(self, rig: Rig) -> None:
        reason = rig.refused(virtual_host="missing")
        assert isinstance(reason, evamqp.VhostRefused)
        assert (reason.code, reason.by, reason.retry) == (530, "broker", "slow")
        assert "missing" in str(reason)

    def test_what_the_broker_does_not_implement_is_540(self, rig: Rig) -> None:
        client = rig.open()
        channel = client.connection.channel()
        recover = channel.basic_recover(requeue=False)
        behind = channel.queue_declare("q", durable=True)
        reason = rig.wait(client.connection.wait_closed())
        assert (reason.code, reason.by) == (540, "broker")
        assert client.channel_reasons[channel].code == 540
        with pytest.raises(evamqp.NotExecuted):
            rig.wait(recover)
        with pytest.raises(evamqp.NotExecuted):
            rig.wait(behind)

    def test_no_common_mechanism_is_an_authentication_failure(self, rig: Rig) -> None:
        reason = rig.refused(mechanisms=["ANONYMOUS"])
        assert isinstance(reason, evamqp.AuthenticationFailed)
        assert "ANONYMOUS" in str(reason)

    def test_amqplain_logs_in(self, rig: Rig) -> None:
        assert rig.open(mechanisms=["AMQPLAIN"]).connection.is_open

    def test_credentials_are_asked_for_at_login(self, rig: Rig) -> None:
        asked: list[int] = []

        def ask() -> Credentials:
            asked.append(1)
            return Credentials("guest", "guest")

        rig.open(credentials=ask)
        assert asked == [1]

    def test_secret_is_updated_on_a_live_connection(self, rig: Rig) -> None:
        client = rig.open()
        rig.wait(client.connection.update_secret("guest", "a new token"))
        assert client.connection.is_open

    def test_negotiated_limits_are_the_smaller_ones(self, rig: Rig) -> None:
        connection = rig.open(heartbeat=7, frame_max=8192, channel_max=10).connection
        assert (connection.heartbeat, connection.frame_max, connection.channel_max) == (7, 8192, 10)
        assert connection.server_properties["product"] == "RabbitMQ"

    def test_broker_shows_the_connections_name(self, rig: Rig) -> None:
        rig.open(name="seen by the operator")
        shown = rig.node.ctl("list_connections", "client_properties")
        assert shown.count('{"connection_name","seen by the operator"}') == 1

    def test_connection_closed_by_the_operator_is_320(self, rig: Rig) -> None:
        client = rig.open()
        channel = client.connection.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        rig.vhost.ctl("close_all_connections", "maintenance")
        reason = rig.wait(client.connection.wait_closed())
        assert (reason.code, reason.by, reason.retry) == (320, "broker", "soon")
        assert "maintenance" in str(reason)
        assert client.channel_reasons[channel].code == 320


class TestFrames(SharingVhost, OnTwoLoops):
    """RabbitMQ ends the connection over a frame that is too large, and says 501 about nothing."""

    @pytest.mark.parametrize("frame_max", [8192, 131_072])
    def test_what_fits_no_frame_is_refused_and_what_just_fits_is_taken(
        self, rig: Rig, frame_max: int
    ) -> None:
        client = rig.open(frame_max=frame_max)
        assert client.connection.frame_max == frame_max
        channel = client.connection.channel()
        channel.confirm_select()
        channel.queue_declare("q", durable=True)
        empty = len(Properties(headers={"k": ""}).raw)
        room = frame_max - 8 - 12 - empty
        with pytest.raises(evamqp.BadArgument):
            channel.basic_publish("", "q", b"x", Properties(headers={"k": "x" * (room + 1)}))
        fits = Properties(headers={"k": "x" * room})
        assert channel.basic_publish("", "q", b"x", fits) == 1
        assert rig.wait(channel.wait_for_confirms()) == []
        message = rig.get(channel, "q")
        with pytest.raises(evamqp.BadArgument):
            channel.queue_bind("q", "amq.headers", "", {"k": "x" * frame_max})
        # As it came it goes back; the broker may send headers that it would not take.
        channel.basic_publish("", "q", b"x", message.properties)
        assert rig.wait(channel.wait_for_confirms()) == []
        message.ack()
        rig.wait(channel.queue_purge("q"))


class TestWords(OnEveryLoopPlain):
    """An error names what was refused to whom, in the same words on every loop."""

    def test_a_wrong_password_names_user_host_and_virtual_host(self, rig: Rig) -> None:
        target = rig.parameters(credentials=Credentials("guest", "wrong"))
        reason = rig.refused(target)
        assert type(reason) is evamqp.AuthenticationFailed
        assert f"(as guest@{target.address} vhost {target.virtual_host})" in str(reason)
        assert "wrong" not in str(reason)

    def test_a_missing_virtual_host_is_named(self, rig: Rig) -> None:
        target = rig.parameters(virtual_host="missing")
        reason = rig.refused(target)
        assert type(reason) is evamqp.VhostRefused
        assert f"(as guest@{target.address} vhost missing)" in str(reason)

    def test_a_refused_connection_has_the_same_words(self, rig: Rig) -> None:
        reason = rig.refused(evamqp.Parameters("127.0.0.1", 1))
        assert str(reason) == "cannot connect to 127.0.0.1:1: Connection refused (by network)"

    def test_an_unknown_authority_names_the_parameter(self, rig: Rig) -> None:
        reason = rig.refused(evamqp.Parameters.from_url(rig.vhost.tls_url))
        assert "CERTIFICATE_VERIFY_FAILED" in str(reason)
        assert "give its file as cacertfile=" in str(reason)

    def test_a_queue_with_other_arguments_has_both_values(self, rig: Rig) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", exclusive=True, arguments={"x-max-length": 5}))
        again = channel.connection.channel()
        again.queue_declare("q", exclusive=True, arguments={"x-max-length": 6})
        reason = rig.closed(again)
        assert reason.culprit == "queue.declare"
        assert "'x-max-length' for queue 'q'" in str(reason)
        assert "received '6' but current is '5'" in str(reason)

    def test_a_small_frame_max_names_what_the_broker_needs(self, rig: Rig) -> None:
        if parse_version(rig.node.version()) < (4, 1):
            assert rig.open(frame_max=4096).connection.frame_max == 4096
            return
        reason = rig.refused(rig.parameters(frame_max=4096))
        assert "a frame_max of 4096: RabbitMQ 4.1 and later need 8192" in str(reason)

    def test_a_limit_across_consumers_that_is_none_is_a_warning(
        self, rig: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        channel = rig.channel()
        rig.wait(channel.basic_qos(5, across_consumers=True))
        is_said = "across_consumers limits each consumer" in caplog.text
        assert is_said is (parse_version(rig.node.version()) >= (4, 3))

    def test_a_token_that_is_too_long_for_the_login_is_named(self, rig: Rig) -> None:
        size = 8192 if parse_version(rig.node.version()) >= (4, 1) else 4096
        reason = rig.refused(rig.parameters(credentials=Credentials("guest", "t" * size)))
        assert type(reason) is evamqp.AuthenticationFailed
        assert f" bytes, because it takes {size}: the token of guest@" in str(reason)
        assert "tttt" not in str(reason)

    def test_a_body_above_the_brokers_limit_names_both_sizes(self, rig: Rig) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        rig.wait(channel.confirm_select())
        channel.basic_publish("", "q", bytes(16 * 1024 * 1024 + 1))
        if parse_version(rig.node.version()) < (4, 0):
            assert rig.wait(channel.wait_for_confirms()) == []
            return
        reason = rig.closed(channel)
        assert reason.culprit == "basic.publish"
        assert "size 16777217 is larger than configured max size 16777216" in str(reason)

    def test_a_transaction_above_the_brokers_limit_names_it(self, rig: Rig) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        rig.wait(channel.tx_select())
        for _ in range(10_001):
            channel.basic_publish("", "q", b"")
        if parse_version(rig.node.version()) < (4, 3):
            rig.wait(channel.tx_rollback())
            return
        reason = rig.closed(channel)
        assert "reached the maximum of 10000 uncommitted publishes" in str(reason)

    def test_a_user_that_a_callable_supplies_is_named(self, rig: Rig) -> None:
        good = rig.open(credentials=lambda: Credentials("guest", "guest"))
        assert f"guest@{rig.parameters().address}" in repr(good.connection)
        reason = rig.refused(rig.parameters(credentials=lambda: Credentials("guest", "wrong")))
        assert "(as guest@" in str(reason)
