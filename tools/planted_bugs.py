"""The bugs that ``plant_bugs.py`` puts into a copy of the package, each as one exchange of text.

Every text stands exactly once in the package, in whichever file; one that does not is stale.
"""

from __future__ import annotations

from typing import NamedTuple


class Bug(NamedTuple):
    """One bug.

    Args:
        name: What a user would see.
        old: Text that is replaced, indentation included.
        new: What stands there instead.
    """

    name: str
    old: str
    new: str


BUGS = (
    Bug(
        "a lost connection forgets the eldest publish under way",
        "        again = self.under_way\n",
        "        again = self.under_way[1:]\n",
    ),
    Bug(
        "a lost connection turns the order of publishes round",
        "self._unsent.extendleft(reversed(again))",
        "self._unsent.extendleft(again)",
    ),
    Bug(
        "a nack counts as a confirm",
        "            if not acked:\n                self._nacked(entry)\n            elif",
        "            if",
    ),
    Bug(
        "a returned message counts as confirmed",
        "            elif entry._returned is not None:\n",
        "            elif False:\n",
    ),
    Bug(
        "all publishes under way are refused for one culprit",
        "        if unconfirmed > 1:\n            self.isolated = set(under_way)\n",
        "        if False:\n            self.isolated = set(under_way)\n",
    ),
    Bug(
        "a publish is not mandatory on the wire",
        "                    entry.mandatory,\n",
        "                    False,\n",
    ),
    Bug(
        "messages are transient though persistence was asked for",
        "            completed = properties.replace(delivery_mode=DeliveryMode.PERSISTENT)\n",
        "            pass\n",
    ),
    Bug(
        "the room of a settled publish stays taken",
        "        self.size -= entry.size\n",
        "",
    ),
    Bug(
        "on_writable(True) never follows a full publisher",
        "            self._refresh_writable()  # so that on_writable(True) follows\n",
        "",
    ),
    Bug(
        "close() does not wait for outcomes",
        "        if self._is_closing and not self._ledger.count:\n",
        "        if self._is_closing:\n",
    ),
    Bug(
        "a failed handler's message is acknowledged",
        '            unit.reject(requeue=False)\n            return "the message is rejected',
        '            unit.ack()\n            return "the message is rejected',
    ),
    Bug(
        "an acknowledgement takes all before it along",
        "            unit.ack()\n\n    def _failed",
        "            unit.channel.basic_ack(unit.delivery_tag, True)\n\n    def _failed",
    ),
    Bug(
        "an asynchronous handler that fails counts as successful",
        "            self._returned(unit, work)\n        else:\n",
        "            self._returned(unit, work)\n        elif self._returned(unit, work):\n",
    ),
    Bug(
        "a forward that was returned counts as success",
        "        if forward is not None:\n",
        "        if False:\n",
    ),
    Bug(
        "an interrupted handler has failed",
        "        self.return_later(unit, INTERRUPTED_DELAY, give_back)\n",
        "        self._fail(unit, error)\n",
    ),
    Bug(
        "a consumer that the broker cancelled stays away",
        "        self._come_back(partial(self._declare, self._consume))\n",
        "",
    ),
    Bug(
        "more handlers run than prefetch allows",
        "        if len(self.at_work) < self.limit:\n            self._handle(unit)\n",
        "        if True:\n            self._handle(unit)\n",
    ),
    Bug(
        "pause() goes on delivering",
        "        self._is_paused = True\n        self._cancel()\n",
        "        self._is_paused = True\n",
    ),
    Bug(
        "a closed member stays with its reconnector",
        "        self._members.remove(member)\n",
        "        pass\n",
    ),
    Bug(
        "the deadline of close() is not set",
        "self._close_timer = self.adapter.call_later(timeout, self._time_is_up)",
        "pass",
    ),
    Bug(
        "an entity to be skipped is tried for ever",
        '        if entity.policy == "retry":\n            self.failing[entity.key] = entity\n',
        '        if entity.policy != "fail":\n'
        "            self._start_after(self._delay, self.start)\n"
        "            return\n",
    ),
    Bug(
        "a peer that says nothing is never missed",
        "        return self._missed >= DEAD_AFTER\n",
        "        return False\n",
    ),
    Bug(
        "what still comes for a cancelled consumer is dropped",
        '        self.reply("basic.nack", delivery_tag, False, True)\n',
        "        return\n",
    ),
    Bug(
        "requests of a channel that ends never complete",
        "            self.defer(request.fail, error)\n",
        "            pass\n",
    ),
    Bug(
        "a confirm that comes twice is told twice",
        "            if tag not in self._overtaken:\n                return ()\n"
        "            del self._overtaken[tag]\n",
        "            self._overtaken.pop(tag, None)\n",
    ),
    Bug(
        "who joins while the connection is up is never served",
        "            self._defer(self._welcome, member, self.epoch)\n",
        "            pass\n",
    ),
)
