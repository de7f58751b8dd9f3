"""kombu's Connection, Producer, Consumer and Hub on evamqp, against the embedded broker."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import amqp.exceptions
import kombu
import pytest
from kombu.asynchronous import Hub

import evamqp
import evamqp.integrations.kombu
from evamqp.integrations.kombu.errors import translate, translate_unasked
from evamqp.integrations.kombu.transport import make_parameters
from evamqp.testing.fixtures import ServedVhost

TIMEOUT = 10.0
Got = list[tuple[Any, Any]]


@pytest.fixture
def url(amqp_broker: ServedVhost) -> str:
    return amqp_broker.url.replace("amqp", "evamqp", 1)


@pytest.fixture
def connection(url: str) -> Iterator[kombu.Connection]:
    with kombu.Connection(url) as connection:
        yield connection


@pytest.fixture
def queue(connection: kombu.Connection) -> kombu.Queue:
    queue = kombu.Queue("q", kombu.Exchange("x"), routing_key="q")
    queue(connection.default_channel).declare()
    return queue


@pytest.fixture
def producer(connection: kombu.Connection, queue: kombu.Queue) -> kombu.Producer:
    return connection.Producer(exchange=queue.exchange, routing_key="q")


def consume(connection: kombu.Connection, queue: kombu.Queue, got: Got) -> kombu.Consumer:
    consumer = connection.Consumer([queue], callbacks=[lambda *each: got.append(each)])
    consumer.consume()
    return consumer


def drain(connection: kombu.Connection, count: int) -> None:
    for _ in range(count):
        connection.drain_events(timeout=TIMEOUT)


class TestTransport:
    def test_says_what_kombu_and_celery_ask(self, connection: kombu.Connection) -> None:
        transport = connection.connect() and connection.transport
        assert (transport.driver_type, transport.driver_name) == ("amqp", "evamqp")
        assert transport.driver_version() == evamqp.__version__
        assert connection.is_evented
        assert connection.supports_heartbeats
        assert connection.connected
        assert connection.get_heartbeat_interval() == 0
        connection.heartbeat_check()
        assert OSError in connection.connection_errors
        assert amqp.exceptions.ChannelError in connection.channel_errors
        with pytest.raises(NotImplementedError, match="management"):
            connection.get_manager()

    def test_settings_become_parameters(self) -> None:
        client = kombu.Connection(
            "evamqps://me:secret@broker:5000/here", heartbeat=7, login_method="AMQPLAIN",
            ssl={"cert_reqs": ssl.CERT_NONE, "server_hostname": "name"},
            transport_options={"request_timeout": 3, "max_retries": 1},
        )  # fmt: skip
        parameters = make_parameters(client)
        assert (parameters.host, parameters.port) == ("broker", 5000)
        assert parameters.virtual_host == "here"
        assert parameters.credentials == evamqp.Credentials("me", "secret")
        assert (parameters.heartbeat, parameters.request_timeout) == (7, 3)
        assert tuple(parameters.mechanisms) == ("AMQPLAIN",)
        assert (parameters.tls, parameters.verify) == (True, False)
        assert parameters.server_hostname == "name"
        client.ssl = {"chipers": "all"}
        with pytest.raises(evamqp.BadArgument, match="chipers"):
            make_parameters(client)

    def test_the_query_of_a_url_sets_what_kombu_takes(self) -> None:
        client = kombu.Connection(
            "evamqps://me:secret@broker:5000/?heartbeat=7&connect_timeout=2.5"
            "&login_method=AMQPLAIN&ssl_cert_reqs=CERT_NONE&ssl_server_hostname=name"
        )
        parameters = make_parameters(client)
        assert (parameters.heartbeat, parameters.connect_timeout) == (7, 2.5)
        assert tuple(parameters.mechanisms) == ("AMQPLAIN",)
        assert (parameters.tls, parameters.verify) == (True, False)
        assert (parameters.server_hostname, parameters.virtual_host) == ("name", "/")

    def test_what_cannot_be_reached_raises_what_pyamqp_raises(self, url: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with (
            kombu.Connection(f"evamqp://127.0.0.1:{port}") as nowhere,
            pytest.raises(ConnectionRefusedError),
        ):
            nowhere.connect()
        with (
            kombu.Connection(url.replace("guest@", "wrong@")) as stranger,
            pytest.raises(amqp.exceptions.AccessRefused),
        ):
            stranger.connect()

    def test_a_list_of_brokers_is_tried_in_turn(self, url: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with kombu.Connection(f"evamqp://127.0.0.1:{port};{url}") as connection:
            connection.ensure_connection(max_retries=3, interval_start=0)
            assert connection.connected

    @pytest.mark.parametrize(
        ("version", "matches"),
        [("3.2.4", True), ("3.10.8", False), ("3.13.7", False), ("4.0.5", True), ("4.3.0", True)],
    )
    def test_quality_of_service_means_what_the_broker_means(
        self, connection: kombu.Connection, version: str, matches: bool
    ) -> None:
        class Fake:
            server_properties = {"product": "RabbitMQ", "version": version}  # noqa: RUF012

        assert connection.transport.qos_semantics_matches_spec(Fake()) is matches


class TestPublishing:
    def test_messages_arrive_one_for_each_drain(
        self, connection: kombu.Connection, queue: kombu.Queue, producer: kombu.Producer
    ) -> None:
        got: Got = []
        consume(connection, queue, got)
        for number in range(3):
            producer.publish({"n": number}, headers={"h": 1}, priority=3, correlation_id="c")
        for number in range(3):
            connection.drain_events(timeout=TIMEOUT)
            assert [body["n"] for body, _ in got] == list(range(number + 1))
        message = got[0][1]
        assert message.headers == {"h": 1}
        message.headers["own"] = 2  # a dict of the program's own, as in py-amqp
        assert message.headers == {"h": 1, "own": 2}
        assert message.properties["priority"] == 3
        assert message.properties["correlation_id"] == "c"
        assert message.delivery_info["exchange"] == "x"
        assert message.delivery_info["routing_key"] == "q"
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0)

    def test_times_without_a_zone_are_utc(
        self, queue: kombu.Queue, producer: kombu.Producer
    ) -> None:
        producer.publish("b", headers={"at": datetime(2024, 2, 29)}, serializer="raw")  # noqa: DTZ001
        message = queue(producer.channel).get()
        assert message.headers["at"].isoformat() == "2024-02-29T00:00:00+00:00"

    def test_a_message_without_a_queue_is_told(self, producer: kombu.Producer) -> None:
        with pytest.raises(amqp.exceptions.ChannelError) as caught:
            producer.publish("b", exchange="", routing_key="none", mandatory=True)
        assert caught.value.reply_code == 312
        told: list[Any] = []
        producer.channel.events["basic_return"].add(lambda *each: told.append(each))
        producer.publish("b", exchange="", routing_key="none", mandatory=True)
        assert told[0][2] == "none"
        assert told[0][3].body == b"b" or told[0][3].body == "b"

    def test_a_publish_that_ends_the_channel_raises_at_once(
        self, connection: kombu.Connection, producer: kombu.Producer
    ) -> None:
        with pytest.raises(amqp.exceptions.NotFound):
            producer.publish("b", exchange="missing")
        with suppress(TimeoutError):  # it is told once
            connection.drain_events(timeout=0)
        queue = connection.SimpleQueue("q")
        producer.publish("b", routing_key="q", retry=True)
        assert queue.get(timeout=TIMEOUT).body == "b"
        queue.close()

    def test_a_body_is_text_where_the_message_says_so(self, connection: kombu.Connection) -> None:
        queue = connection.SimpleQueue("q")
        for body, encoding in ((b"caf\xc3\xa9", "utf-8"), (b"x", "binary")):
            queue.put(body, content_type="application/data", content_encoding=encoding)
        assert [queue.get(timeout=TIMEOUT).body for _ in range(2)] == ["café", b"x"]
        queue.close()
        channel = connection.default_channel
        channel.queue_declare("raw", exclusive=True)
        channel.basic_publish(
            channel.prepare_message(b"\xff", content_encoding="utf-8"), routing_key="raw"
        )
        assert channel.basic_get("raw", no_ack=True).body == b"\xff"

    def test_unconfirmed_publishes_tell_in_drain_events(self, url: str) -> None:
        options = {"confirm_publish": False}
        with kombu.Connection(url, transport_options=options) as connection:
            producer = connection.Producer()
            producer.publish("b", exchange="missing")
            with pytest.raises(amqp.exceptions.NotFound) as caught:
                connection.drain_events(timeout=TIMEOUT)
        assert isinstance(caught.value, connection.connection_errors)

    def test_unconfirmed_publishes_hear_of_the_channels_end_themselves(self, url: str) -> None:
        options = {"confirm_publish": False}
        with kombu.Connection(url, transport_options=options) as connection:
            producer = connection.Producer()

            def publish_for_long() -> None:
                deadline = time.monotonic() + TIMEOUT
                while time.monotonic() < deadline:
                    producer.publish("b", exchange="missing")

            with pytest.raises(amqp.exceptions.NotFound):
                publish_for_long()
            with suppress(TimeoutError):  # it is told once
                connection.drain_events(timeout=0)

    @pytest.mark.parametrize("confirm_publish", [True, False])
    def test_a_blocked_broker_is_told_of_while_a_call_waits(
        self, url: str, amqp_broker: ServedVhost, confirm_publish: bool
    ) -> None:
        faults, told = amqp_broker.broker.faults, []

        def on_blocked(reason: str) -> None:
            told.append(reason)
            faults.unblock()

        options = {
            "confirm_publish": confirm_publish,
            "on_blocked": on_blocked,
            "on_unblocked": lambda: told.append("over"),
        }
        with kombu.Connection(url, transport_options=options) as connection:
            producer = connection.Producer()
            faults.block("low on disk")
            producer.publish("b", exchange="", routing_key="q")
            assert told[:1] == ["low on disk"] * confirm_publish
            producer.channel.queue_declare("q")  # waits as well
            assert told == ["low on disk", "over"]

    def test_a_blocked_broker_is_told_of_in_drain_events(
        self, url: str, amqp_broker: ServedVhost
    ) -> None:
        told: list[str] = []
        options = {"confirm_publish": False, "on_blocked": told.append}
        with kombu.Connection(url, transport_options=options) as connection:
            amqp_broker.broker.faults.block("low on memory")
            connection.Producer().publish("b", exchange="", routing_key="q")
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.5)
            assert told == ["low on memory"]
            amqp_broker.broker.faults.unblock()

    def test_a_lost_connection_is_made_again(
        self, connection: kombu.Connection, amqp_broker: ServedVhost, queue: kombu.Queue,
        producer: kombu.Producer,
    ) -> None:  # fmt: skip
        before = connection.connection
        amqp_broker.broker.faults.drop_connections()
        producer.publish("b", retry=True, retry_policy={"max_retries": 3, "interval_start": 0})
        assert connection.connection is not before
        assert queue(connection.default_channel).get().decode() == "b"


class TestConsuming:
    def test_a_new_limit_holds_for_a_consumer_that_runs(
        self, connection: kombu.Connection, queue: kombu.Queue, producer: kombu.Producer
    ) -> None:
        got: Got = []
        channel = connection.default_channel
        channel.basic_qos(0, 2, False)
        consumer = consume(connection, queue, got)
        for number in range(10):
            producer.publish(number)
        drain(connection, 2)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        consumer.qos(prefetch_count=3)
        drain(connection, 3)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        assert {message.delivery_info["consumer_tag"] for _, message in got} == {
            consumer._active_tags["q"]
        }
        for _, message in got:
            message.ack()
        drain(connection, 3)
        consumer.cancel()
        assert [body for body, _ in got] == list(range(8))

    def test_what_a_stopped_consumer_had_not_handed_over_goes_back(
        self, connection: kombu.Connection, queue: kombu.Queue, producer: kombu.Producer
    ) -> None:
        got: Got = []
        consumer = consume(connection, queue, got)
        for number in range(3):
            producer.publish(number)
        drain(connection, 1)
        consumer.cancel()
        while True:
            try:
                connection.drain_events(timeout=0.05)
            except TimeoutError:
                break
        assert len(got) == 1
        assert queue(connection.default_channel).queue_declare(passive=True).message_count == 2

    def test_a_deleted_queue_ends_its_consumer(
        self, connection: kombu.Connection, queue: kombu.Queue
    ) -> None:
        consume(connection, queue, [])
        with connection.channel() as other:
            other.queue_delete("q")
        with pytest.raises(amqp.exceptions.ConsumerCancelled):
            drain(connection, 1)

    def test_acknowledging_from_another_thread(
        self, connection: kombu.Connection, queue: kombu.Queue, producer: kombu.Producer
    ) -> None:
        got: Got = []
        consume(connection, queue, got)
        producer.publish("b")
        drain(connection, 1)
        thread = threading.Thread(target=got[0][1].ack)
        thread.start()
        thread.join(TIMEOUT)
        assert got[0][1].acknowledged
        connection.release()
        assert queue(connection.channel()).get() is None if connection.connect() else False


def run(hub: Hub, times: int) -> None:
    for _ in range(times):
        hub.run_once()


class TestHub:
    @pytest.fixture
    def hub(self) -> Iterator[Hub]:
        hub = Hub()
        yield hub
        hub.close()

    def test_messages_come_in_the_hub(
        self, hub: Hub, connection: kombu.Connection, queue: kombu.Queue, producer: kombu.Producer
    ) -> None:
        connection.register_with_event_loop(hub)
        got: Got = []
        consume(connection, queue, got)
        for number in range(20):
            producer.publish(number)  # whose wait for the confirm takes in the message before it
        for _ in range(100):
            if len(got) == 20:
                break
            hub.run_once()
        assert [body for body, _ in got] == list(range(20))

    def test_the_end_is_raised_in_the_hub(
        self, hub: Hub, connection: kombu.Connection, amqp_broker: ServedVhost
    ) -> None:
        connection.register_with_event_loop(hub)
        amqp_broker.broker.faults.drop_connections()
        with pytest.raises(connection.recoverable_connection_errors):
            run(hub, 100)

    def test_a_connection_that_was_closed_leaves_the_hub(
        self, hub: Hub, connection: kombu.Connection
    ) -> None:
        connection.register_with_event_loop(hub)
        assert hub.readers
        connection.release()
        assert not hub.readers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_leaves_the_connection_to_its_parent(
    connection: kombu.Connection, queue: kombu.Queue, producer: kombu.Producer
) -> None:
    parents = connection.connection
    child = os.fork()
    if child == 0:
        try:
            refused = not connection.connected
            producer.publish("from the child", retry=True)
            os._exit(0 if refused and connection.connection is not parents else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert parents.connected
    assert queue(connection.default_channel).get().decode() == "from the child"
    assert connection.connection is parents


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (evamqp.ConnectionClosed("gone", by="network"), "RecoverableConnectionError"),
        (evamqp.ConnectionClosed("forced", code=320, by="broker"), "ConnectionForced"),
        (evamqp.ConnectionClosed("odd", code=404, by="broker"), "RecoverableConnectionError"),
        (evamqp.VhostRefused("no vhost", code=530, by="broker"), "NotAllowed"),
        (evamqp.ChannelClosed("differs", code=406, by="broker"), "PreconditionFailed"),
        (evamqp.ChannelClosed("closed", by="client"), "RecoverableConnectionError"),
        (evamqp.RequestTimeout("no answer"), "RecoverableConnectionError"),
        (evamqp.WrongState("closed"), "RecoverableConnectionError"),
        (evamqp.PublishNacked("publish 1"), "MessageNacked"),
    ],
)
def test_errors_become_those_that_programs_catch(error: Exception, kind: str) -> None:
    assert type(translate(error)) is getattr(amqp.exceptions, kind)


def test_the_end_of_a_channel_that_nobody_waited_for_is_of_both_kinds() -> None:
    reason = evamqp.ChannelClosed("delivery acknowledgement timed out", code=406, by="broker")
    error = translate_unasked(reason)
    assert isinstance(error, amqp.exceptions.PreconditionFailed)
    assert isinstance(error, amqp.exceptions.RecoverableConnectionError)


def test_a_mistake_of_the_caller_stays_what_it_is() -> None:
    mistake = evamqp.BadType("body must be bytes")
    assert translate(mistake) is mistake
