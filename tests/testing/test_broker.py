"""The broker as a whole: how it starts and ends, what it shows, who may come."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

import evamqp
from evamqp.adapters.asyncio import AsyncioAdapter
from evamqp.adapters.memory import MemoryAdapter
from evamqp.adapters.select import SelectAdapter
from evamqp.codec.frames import PROTOCOL_HEADER
from evamqp.testing import Broker
from evamqp.testing.broker.connection import ServerConnection
from evamqp.testing.broker.wire import Accepted, Wire
from evamqp.testing.fixtures import MemoryBroker, ServedVhost
from tests.testing.world import World

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def world(amqp_memory: MemoryBroker) -> World:
    return World(amqp_memory)


@pytest.fixture
def loop() -> Iterator[SelectAdapter]:
    adapter = SelectAdapter()
    yield adapter
    adapter.close()


def round_trip(url: str, loop: SelectAdapter) -> bytes:
    """Publish a message and get it back, over TCP."""
    connection = evamqp.connect(url, adapter=loop)
    loop.run_until(connection.wait_open(), 10.0)
    channel = connection.channel()
    queue = loop.run_until(channel.queue_declare(exclusive=True), 10.0).queue
    channel.basic_publish("", queue, b"there and back")
    message = loop.run_until(channel.basic_get(queue, auto_ack=True), 10.0)
    connection.close()
    loop.run_until(connection.wait_closed(), 10.0)
    assert message is not None
    return message.body


def read_to_end(client: socket.socket) -> None:
    while client.recv(4096):
        pass


def test_broker_serves_on_tcp_in_a_thread_that_ends(loop: SelectAdapter) -> None:
    before = set(threading.enumerate())
    with Broker().serve() as broker:
        assert round_trip(broker.url, loop) == b"there and back"
        port = broker.port
    assert not set(threading.enumerate()) - before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5.0)


def test_broker_serves_on_another_loop_that_listens(loop: SelectAdapter) -> None:
    adapter = AsyncioAdapter()
    with Broker(adapter).serve() as broker:
        assert round_trip(broker.url, loop) == b"there and back"
    adapter.close()


def test_closing_twice_is_no_error_and_drops_whoever_is_connected() -> None:
    broker = Broker().serve()
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10.0) as client:
        client.sendall(PROTOCOL_HEADER)
        assert client.recv(7)
        broker.close()
        broker.close()
        with pytest.raises(ConnectionResetError):
            read_to_end(client)


def test_virtual_time_does_not_serve_in_a_thread() -> None:
    with pytest.raises(evamqp.WrongState, match="virtual time"):
        Broker(MemoryAdapter()).serve()


def test_broker_that_listens_nowhere_has_no_url() -> None:
    with Broker(MemoryAdapter()) as broker, pytest.raises(evamqp.WrongState, match="nowhere"):
        _ = broker.url


def test_error_in_the_brokers_thread_comes_to_the_caller(amqp_broker: ServedVhost) -> None:
    with pytest.raises(KeyError):
        amqp_broker.broker.queue("nope", amqp_broker.vhost)


def test_program_says_where_it_listens_and_ends_on_a_signal(loop: SelectAdapter) -> None:
    command = [sys.executable, "-m", "evamqp.testing", "--port", "0", "--vhost", "other"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        url = program.stdout.readline().strip()
        assert round_trip(url, loop) == b"there and back"
        assert round_trip(url.replace("%2F", "other"), loop) == b"there and back"
        program.terminate()
        assert program.wait(10.0) == 0


def test_program_reports_that_its_port_is_taken() -> None:
    with Broker().serve() as broker:
        port = str(broker.port)
        command = [sys.executable, "-m", "evamqp.testing", "--port", port]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert port in done.stderr


def test_pika_connects_publishes_confirms_gets_and_consumes(amqp_broker: ServedVhost) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(amqp_broker.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("q", durable=True)
    for number in range(3):
        channel.basic_publish("", "q", b"%d" % number, mandatory=True)
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish("", "nowhere", b"lost", mandatory=True)
    method, _, body = channel.basic_get("q")
    channel.basic_ack(method.delivery_tag)
    assert body == b"0"
    bodies = []
    for delivery, _, body in channel.consume("q", inactivity_timeout=5.0):
        bodies.append(body)
        channel.basic_ack(delivery.delivery_tag)
        if len(bodies) == 2:
            break
    channel.cancel()
    connection.close()
    assert bodies == [b"1", b"2"]
    assert amqp_broker.broker.queue("q", amqp_broker.vhost).ready == 0


def test_each_test_has_a_virtual_host_of_its_own(amqp_broker: ServedVhost) -> None:
    assert amqp_broker.broker.queues(amqp_broker.vhost) == {}
    assert amqp_broker.vhost in amqp_broker.broker.virtual_hosts


def test_state_is_there_to_be_looked_at(world: World) -> None:
    recorder, channel = world.open(name="observer")
    channel.exchange_declare("x", "topic", durable=True)
    channel.queue_bind("q", "x", "a.*", {"k": 1})
    channel.basic_qos(1)
    world.settle()
    channel.basic_consume("q", recorder.on_message, consumer_tag="t")
    for number in range(3):
        channel.basic_publish("x", "a.b", b"%d" % number, evamqp.Properties(app_id="me"))
    world.settle()
    broker = world.broker
    queue = broker.queue("q")
    assert (queue.ready, queue.unacked, queue.consumers) == (2, 1, 1)
    assert queue.bodies == (b"1", b"2")
    assert broker.exchanges()["x"][:3] == ("x", "topic", True)
    assert broker.bindings() == [("x", "queue", "q", "a.*", {"k": 1})]
    (consumer,) = broker.consumers()
    assert (consumer.queue, consumer.tag, consumer.prefetch, consumer.unacked) == ("q", "t", 1, 1)
    (connection,) = broker.connections()
    assert (connection.name, connection.user, connection.vhost) == ("observer", "guest", "/")
    assert connection.channels == (1,)
    first = broker.published[0]
    assert (first.exchange, first.routing_key, first.body) == ("x", "a.b", b"0")
    assert first.queues == ("q",)
    assert first.properties.app_id == "me"
    broker.forget_published()
    assert broker.published == []


def test_published_keeps_the_last_only() -> None:
    adapter = MemoryAdapter()
    with Broker(adapter, publishes_kept=2) as broker:
        broker.listen()
        world = World(MemoryBroker(adapter, broker))
        _, channel = world.open()
        for number in range(5):
            channel.basic_publish("", "q", b"%d" % number)
        world.settle()
        assert [each.body for each in broker.published] == [b"3", b"4"]


def test_test_may_publish_without_a_client(world: World) -> None:
    recorder, channel = world.open()
    channel.basic_consume("q", recorder.on_message, auto_ack=True)
    world.settle()
    assert world.broker.publish("", "q", b"from the test", evamqp.Properties(type="t")) == 1
    assert world.broker.publish("", "nowhere", b"lost") == 0
    world.settle()
    assert recorder.bodies == [b"from the test"]


@pytest.mark.parametrize("arguments", [{"x-queue-type": "quorum"}, {"x-queue-type": "stream"}])
def test_queue_type_that_the_broker_has_not_ends_the_channel_with_540(
    world: World, arguments: dict[str, object]
) -> None:
    recorder, channel = world.open()
    channel.queue_declare("big", durable=True, arguments=arguments)
    world.settle()
    kind = arguments["x-queue-type"]
    text = f"NOT_IMPLEMENTED - evamqp.testing has no {kind} queues; RabbitMQ has"
    assert ("channel_close", (540, text)) in recorder.calls
    assert recorder.reason is None
    assert channel.connection.is_open


def test_waiting_for_a_condition_ends_when_it_holds_or_never_does(amqp_broker: ServedVhost) -> None:
    broker, vhost = amqp_broker.broker, amqp_broker.vhost
    broker.wait_until(lambda each: vhost in each.virtual_hosts)
    with pytest.raises(TimeoutError, match="did not hold"):
        broker.wait_until(lambda each: "q" in each.queues(vhost), seconds=0.01)


def test_deleted_vhost_closes_its_connections(world: World) -> None:
    world.broker.add_vhost("gone")
    connection = evamqp.connect(world.broker.url_of("gone"), adapter=world.adapter)
    world.wait(connection.wait_open())
    world.broker.delete_vhost("gone")
    reason = world.wait(connection.wait_closed())
    assert reason.code == 320


def test_user_may_use_its_virtual_hosts_only(world: World) -> None:
    world.broker.add_vhost("mine")
    world.broker.add_user("me", "p/w", "mine")
    mine = evamqp.connect(world.broker.url_of("mine", "me"), adapter=world.adapter)
    world.wait(mine.wait_open())
    assert world.broker.connections()[0].user == "me"
    errors: list[evamqp.ConnectionClosed] = []
    evamqp.connect(
        world.broker.url_of("/", "me"),
        adapter=world.adapter,
        on_open_error=lambda _, error: errors.append(error),
    )
    world.settle()
    assert isinstance(errors[0], evamqp.VhostRefused)
    world.broker.delete_user("me")
    assert "me" not in world.broker.users


def test_slow_reader_is_not_drowned(world: World) -> None:
    recorder, channel = world.open()
    channel.basic_consume("q", recorder.on_message, auto_ack=True)
    world.settle()
    channel.connection.pause_reading()
    world.settle()
    for _ in range(64):
        world.broker.publish("", "q", bytes(128 * 1024))
        world.settle()
    (wire,) = world.broker.wires.values()
    assert wire.connection.output_size < 2 * 1024 * 1024
    assert world.broker.queue("q").ready > 0
    channel.connection.resume_reading()
    world.settle()
    assert len(recorder.bodies) == 64


def test_silent_client_is_hung_up_on(amqp_memory: MemoryBroker) -> None:
    world = World(amqp_memory)
    world.connect()
    accepted = world.broker.connections()
    world.settle()
    assert accepted == []
    wire = world.adapter.accepted[0]
    wire.peer.silence()
    world.adapter.advance(200)
    assert world.broker.connections() == []


def test_same_script_runs_the_same_way_twice() -> None:
    runs = []
    for _ in range(2):
        adapter = MemoryAdapter()
        with Broker(adapter) as broker:
            broker.listen()
            world = World(MemoryBroker(adapter, broker))
            _, channel = world.open()
            names = [world.wait(channel.queue_declare()).queue for _ in range(3)]
            for name in names:
                channel.queue_bind(name, "amq.fanout")
            channel.basic_publish("amq.fanout", "", b"m")
            world.settle()
            runs.append((names, broker.published[0].queues, adapter.time()))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_connections_that_ended_leave_nothing_behind(world: World, how: str) -> None:
    def visit() -> None:
        _, channel = world.open()
        channel.queue_declare(exclusive=True)
        channel.basic_publish("", "q", b"m")
        world.settle()
        if how == "close":
            channel.connection.close()
        else:
            world.broker.faults.drop_connections()
        world.settle()

    def count() -> int:
        world.broker.forget_published()
        world.broker.faults.delete_queue("q")
        world.adapter.accepted.clear()
        world.adapter.advance(120)
        gc.collect()
        kinds = (ServerConnection, Accepted, Wire)
        return sum(isinstance(each, kinds) for each in gc.get_objects())

    visit()
    before = count()
    for _ in range(50):
        visit()
    assert count() == before


@pytest.mark.parametrize(
    ("statement", "prefix"),
    [("import pytest_evamqp", "evamqp"), ("import evamqp", "evamqp.testing")],
)
def test_import_loads_no_more_than_it_must(statement: str, prefix: str) -> None:
    code = f"import sys; {statement}; print(*(n for n in sys.modules if n.startswith({prefix!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_import_of_the_contract_loads_no_broker() -> None:
    code = "import sys, evamqp.testing; print('evamqp.testing.broker' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
