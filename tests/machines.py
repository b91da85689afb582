"""Worker processes that live on machines of their own, as far as one machine can show it: namespaces of Linux."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def unshare(*namespaces: str) -> list[str]:
    """The command that makes namespaces; skips the test where this machine or user may not."""
    program = shutil.which("unshare")
    if program is None:
        pytest.skip("there is no unshare to make namespaces with")
    command = [program, *([] if os.getuid() == 0 else ["--user", "--map-root-user"]), *namespaces]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"namespaces may not be made here: {tried.stderr.strip()}")
    return command


class Network:
    """A bridge in a network of its own; `machine` plugs machines into it. This machine has its first address."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(3)
        self._prefix = f"10.{random.randrange(200, 250)}.{random.randrange(256)}"
        self._count = 1
        self._bridge = f"br{self._token}"
        self.address = self.address_of(1)
        """Of this machine."""
        self.cables: dict[str, str] = {}
        """Of each machine its end on this one."""

    def address_of(self, number: int) -> str:
        """Of the so many-th machine; this one is the first."""
        return f"{self._prefix}.{number}"

    @contextmanager
    def up(self) -> Iterator[Network]:
        """The network, for a while; skips the test where it cannot be made."""
        if os.geteuid() or _program_ip() is None:
            pytest.skip("networks of one's own take root and the program ip (Debian: iproute2)")
        tried = subprocess.run(
            ["ip", "link", "add", self._bridge, "type", "bridge"], capture_output=True, text=True, check=False
        )
        if tried.returncode:
            pytest.skip(f"networks may not be made here: {tried.stderr.strip()}")
        try:
            _ip("address", "add", f"{self.address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            yield self
        finally:
            _ip("link", "delete", self._bridge)

    @contextmanager
    def plugged(self, name: str) -> Iterator[tuple[list[str], str]]:
        """A machine's end of a cable: the command that runs something there, and its address."""
        self._count += 1
        namespace, cable = f"{name}-{self._token}", f"c{self._count}{self._token}"
        address = self.address_of(self._count)
        _ip("netns", "add", namespace)
        try:
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", cable, "master", self._bridge, "up")
            for words in (
                ("address", "add", f"{address}/24", "dev", "eth0"),
                *(("link", "set", one, "up") for one in ("lo", "eth0")),
            ):
                _ip("-netns", namespace, *words)
            self.cables[name] = cable
            yield ["ip", "netns", "exec", namespace], address
        finally:
            _ip("netns", "delete", namespace)

    def cut(self, name: str) -> None:
        """Nothing gets to a machine or from it any more; it does not notice but by waiting."""
        _ip("link", "set", self.cables[name], "down")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _program_ip() -> str | None:
    return shutil.which("ip")


@contextmanager
def machine(
    client: Any,
    folder: Path,
    name: str,
    *,
    hidden: Sequence[Path] = (),
    seen: Sequence[Path] = (),
    network: Network | None = None,
    scheduler: str | None = None,
) -> Iterator[None]:
    """A worker with a host name, process numbers and a work folder of its own, and an address of its own in a ``network``.

    It finds the scheduler at ``scheduler``, by default where the client found it. ``hidden`` folders are empty disks of its own there, but for those ``seen``, which are shared nevertheless.
    """
    command = unshare("--mount", "--uts", "--pid", "--fork", "--kill-child")
    home = folder / name
    home.mkdir()
    before = len(client.scheduler_info(n_workers=-1)["workers"])
    with ExitStack() as ended, open(f"/tmp/{name}.log" if folder in hidden else folder / f"{name}.log", "w") as log:
        inside, address = ended.enter_context(network.plugged(name)) if network else ([], "127.0.0.1")
        environment = {
            **os.environ,
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }
        script = _script(scheduler or client.scheduler.address, home, address, hidden, seen)
        process = subprocess.Popen([*inside, *command, "sh", "-c", script], env=environment, stdout=log, stderr=log)
        try:
            client.wait_for_workers(before + 1, timeout=30)
            yield
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _script(scheduler: str, home: Path, address: str, hidden: Sequence[Path], seen: Sequence[Path]) -> str:
    """What the machine does when it starts."""
    name = home.name
    steps = [f"hostname {name}", "mount -t proc none /proc", "mount --make-rprivate /"]
    # A disk is bound to a place that stays, and from there back again when its place is covered.
    steps += [f"mkdir -p '/mnt/{number}' && mount --bind '{path}' '/mnt/{number}'" for number, path in enumerate(seen)]
    steps = ["mount -t tmpfs none /mnt", *steps] if seen else steps
    steps += [f"mount -t tmpfs none '{path}'" for path in hidden]
    steps += [f"mkdir -p '{path}' && mount --bind '/mnt/{number}' '{path}'" for number, path in enumerate(seen)]
    steps += [f"mkdir -p '{home}' && cd '{home}'"]
    options = f"--no-nanny --no-dashboard --nthreads 1 --host {address} --local-directory . --name {name}"
    steps += [f"exec '{sys.executable}' -m distributed.cli.dask_worker '{scheduler}' {options}"]
    return " && ".join(steps)
