"""Servers that belong together: a cluster of three primaries with a replica each, and a primary that Sentinels watch.

Started from the wheels on free ports, formed by commands, gone with the test run. Both can lose a primary on demand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis
from redis.crc import key_slot

from tests.ports import free_port

PATIENCE = 30.0
SLOTS = 16384


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"it never happened: {what}")
        time.sleep(0.02)


class Member:
    """One server on a free port."""

    def __init__(self, binary: str, directory: Path, *options: str, config: str | None = None) -> None:
        self.port = free_port()
        self.directory = directory / str(self.port)
        self.directory.mkdir()
        if config is not None:
            path = self.directory / "sentinel.conf"
            path.write_text(config.format(port=self.port))
            command = [binary, str(path), "--sentinel"]
        else:
            command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            command += ["--repl-diskless-sync-delay", "0", "--dir", str(self.directory), *options]
        self.process = subprocess.Popen(
            command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.client = redis.Redis(port=self.port, socket_timeout=5, protocol=2)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def __repr__(self) -> str:
        return f"127.0.0.1:{self.port}"


class Deployment:
    """Servers in one temporary directory."""

    kind = ""

    def __init__(self, engine: str, binary: str) -> None:
        self.engine = engine
        self.directory = Path(tempfile.mkdtemp(prefix="ck-"))
        self.binary = binary
        self.members: list[Member] = []
        try:
            self._form()
        except BaseException:
            self.stop()
            raise

    def _form(self) -> None:
        raise NotImplementedError

    def start(self, *options: str, config: str | None = None) -> Member:
        member = Member(self.binary, self.directory, *options, config=config)
        self.members.append(member)
        return member

    def stop(self) -> None:
        for member in self.members:
            member.client.close()
            member.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def flush(self) -> None:
        for member in self.primaries():
            member.client.flushall()

    def be_patient(self) -> None:
        """Promote nobody because a busy machine makes a server late: for deployments that nobody breaks on purpose."""
        raise NotImplementedError

    def primaries(self) -> list[Member]:
        raise NotImplementedError

    def replica_of(self, member: Member) -> Member:
        raise NotImplementedError

    def lose(self, member: Member, while_cut_off: Callable[[], None]) -> None:
        """Kill *member* after *while_cut_off*, what happens in which its replica never hears of."""
        replica = self.replica_of(member)
        wait_for(lambda: self._in_step(member, replica), "the replica is in step")
        replica.signal(signal.SIGSTOP)
        try:
            member.client.execute_command("CLIENT", "KILL", "TYPE", "REPLICA")
            while_cut_off()
            member.kill()
        finally:
            replica.signal(signal.SIGCONT)

    @staticmethod
    def _in_step(member: Member, replica: Member) -> bool:
        ours, theirs = member.client.info("replication"), replica.client.info("replication")
        return ours["master_repl_offset"] == theirs["slave_repl_offset"] and theirs["master_link_status"] == "up"


class Cluster(Deployment):
    """Three primaries and a replica of each."""

    kind = "cluster"

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{member.port}" for member in self.members[:2])
        return f"{self.engine}+cluster://{places}"

    def _form(self) -> None:
        for _ in range(6):
            self.start(
                "--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000",
                "--cluster-replica-validity-factor", "0",
            )  # fmt: skip
        first, *others = self.members
        for member in self.members:
            wait_for(member.client.ping, "a node answers")
        bus = {m: int(m.client.config_get("cluster-port")["cluster-port"]) for m in self.members}
        bounds = [0, 5461, 10923, SLOTS]
        for number, member in enumerate(self.members[:3]):
            member.client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            member.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for member in others:
            first.client.execute_command("CLUSTER", "MEET", "127.0.0.1", member.port, bus[first] and bus[member])
        wait_for(lambda: all(len(self._nodes(m)) == 6 for m in self.members), "the nodes know each other")
        for primary, replica in zip(self.members[:3], self.members[3:], strict=True):
            self.replicate(replica, primary)
        wait_for(lambda: all(self._sound(member) for member in self.members), "the cluster is sound")

    def be_patient(self) -> None:
        for member in self.members:
            member.client.config_set("cluster-node-timeout", 60_000)

    def replicate(self, replica: Member, primary: Member) -> None:
        name = primary.client.execute_command("CLUSTER", "MYID")
        replica.client.execute_command("CLUSTER", "REPLICATE", name)

    @staticmethod
    def _nodes(member: Member) -> list[bytes]:
        return _raw(member, "CLUSTER", "NODES").splitlines()

    @classmethod
    def _sound(cls, member: Member) -> bool:
        info = _raw(member, "CLUSTER", "INFO")
        replicas = sum(b"slave" in line for line in cls._nodes(member))
        synced = "slave" not in member.client.info("replication")["role"] or (
            member.client.info("replication")["master_link_status"] == "up"
        )
        return b"cluster_state:ok" in info and replicas == 3 and synced

    def primaries(self) -> list[Member]:
        return [member for member in self._alive() if member.client.info("replication")["role"] == "master"]

    def owner(self, key: str) -> Member:
        """Return the primary of *key*, as a primary has it: a replica hears of a slot that moved some time later."""
        slot = key_slot(key.encode())
        for first, last, primary, *_ in _raw(self.primaries()[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(member for member in self.members if member.port == primary[1])
        raise LookupError(key)

    def replica_of(self, member: Member) -> Member:
        for other in self.members:
            if other.process.poll() is None:
                info = other.client.info("replication")
                if info["role"] == "slave" and info["master_port"] == member.port:
                    return other
        raise LookupError(member)

    def move(self, key: str, to: Member, half_way: Callable[[], None]) -> None:
        """Move the slot of *key* to another primary, with *half_way* in the middle."""
        slot, source = key_slot(key.encode()), self.owner(key)
        ours, theirs = (_raw(m, "CLUSTER", "MYID").decode() for m in (source, to))
        to.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ours)
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", theirs)
        try:
            half_way()
        finally:  # whatever it finds, the slot arrives: others use this cluster too
            self._arrive(slot, source, to, theirs)

    def _arrive(self, slot: int, source: Member, to: Member, theirs: str) -> None:
        while names := _raw(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.client.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *names)
        for member in (to, source, *(m for m in self.primaries() if m not in (to, source))):
            member.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", theirs)
        # Who takes a slot takes the epoch after the last that it knows of. One that had not heard of the slot's last move
        # would lose it, and drop its keys, when an older claim arrives.
        wait_for(lambda: all(self._knows(m, slot, to) for m in self._alive()), "everybody knows who has the slot")
        wait_for(lambda: len({self._epoch(m) for m in self._alive()}) == 1, "everybody knows the last epoch")

    def _alive(self) -> list[Member]:
        return [member for member in self.members if member.process.poll() is None]

    @staticmethod
    def _knows(member: Member, slot: int, owner: Member) -> bool:
        ranges = _raw(member, "CLUSTER", "SLOTS")
        return any(first <= slot <= last and primary[1] == owner.port for first, last, primary, *_ in ranges)

    @staticmethod
    def _epoch(member: Member) -> bytes:
        lines = _raw(member, "CLUSTER", "INFO").splitlines()
        return next(line for line in lines if line.startswith(b"cluster_current_epoch"))


class Sentinels(Deployment):
    """A primary, a replica, and three Sentinels that watch them."""

    kind = "sentinel"

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{member.port}" for member in self.members[2:])
        return f"sentinel://{places}/0?service=mymaster"

    def _form(self) -> None:
        primary = self.start()
        replica = self.start("--replicaof", "127.0.0.1", str(primary.port))
        for member in (primary, replica):
            wait_for(member.client.ping, "a server answers")
        wait_for(lambda: self._in_step(primary, replica), "the replica is in step")
        for _ in range(3):
            self.start(
                config="port {port}\nbind 127.0.0.1\n"
                f"sentinel monitor mymaster 127.0.0.1 {primary.port} 2\n"
                "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 4000\n"
            )
        for sentinel in self.members[2:]:
            wait_for(lambda sentinel=sentinel: self._knows_all(sentinel), "the Sentinels know each other")

    def be_patient(self) -> None:
        for sentinel in self.members[2:]:
            sentinel.client.execute_command("SENTINEL", "SET", "mymaster", "down-after-milliseconds", 60_000)

    @staticmethod
    def _knows_all(sentinel: Member) -> bool:
        said = _raw(sentinel, "SENTINEL", "MASTER", "mymaster")
        known = dict(zip(said[::2], said[1::2], strict=True))
        return known[b"num-other-sentinels"] == b"2" and known[b"num-slaves"] == b"1"

    def primaries(self) -> list[Member]:
        alive = [member for member in self.members[:2] if member.process.poll() is None]
        return [member for member in alive if member.client.info("replication")["role"] == "master"]

    def owner(self, key: str) -> Member:
        return self.primaries()[0]

    def replica_of(self, member: Member) -> Member:
        return next(other for other in self.members[:2] if other is not member)


def _raw(member: Member, *command: object):
    """Return the reply as it comes, without what the client library makes of it."""
    connection = redis.Connection(host="127.0.0.1", port=member.port, protocol=2, socket_timeout=5)
    try:
        connection.connect()
        connection.send_command(*command)
        return connection.read_response()
    finally:
        connection.disconnect()
