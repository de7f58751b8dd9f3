"""Three nodes of RabbitMQ that are one cluster.

It holds no tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rabbitmq_node import RabbitNode

SIZE = 3


class ClusterNode(RabbitNode):
    """One node of several; they share the first one's cookie and epmd.

    Args:
        number: From 1.
        first: None for the first itself.
    """

    def __init__(self, number: int, first: ClusterNode | None) -> None:
        super().__init__()
        self.name = f"n{number}@localhost"
        self._first = first

    def _prepare(self) -> None:
        super()._prepare()
        first = self._first
        if first is None:
            return
        cookie = self.folder / "home" / ".erlang.cookie"
        cookie.unlink()
        cookie.write_bytes((first.folder / "home" / ".erlang.cookie").read_bytes())
        cookie.chmod(0o400)
        self._epmd = first._epmd
        self._epmd_port = first._epmd_port

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "RABBITMQ_NODENAME": self.name}

    def join(self, other: ClusterNode) -> None:
        """Become a node of the other's cluster."""
        self.ctl("stop_app")
        self.ctl("join_cluster", other.name)
        self.ctl("start_app")

    def close(self) -> None:
        if self._first is not None:
            self._epmd = None  # it is the first one's to end
        super().close()


@contextmanager
def cluster() -> Iterator[list[ClusterNode]]:
    """Three nodes that run; the last to start is the first to end."""
    with ExitStack() as stack:
        first: ClusterNode | None = None
        nodes: list[ClusterNode] = []
        for number in range(1, SIZE + 1):
            node = ClusterNode(number, first)
            stack.enter_context(node)
            if first is not None:
                node.join(first)
            first = first or node
            nodes.append(node)
        yield nodes


def leader(nodes: Sequence[ClusterNode], queue: str) -> ClusterNode:
    """The node that leads a quorum queue."""
    listed = nodes[0].ctl("list_queues", "name", "leader")
    names = dict(line.split("\t") for line in listed.splitlines() if "\t" in line)
    return next(node for node in nodes if node.name == names[queue])
