"""Which hooks other kernels have, and how right the engine `ebpf` is on them: Debian's kernels, started in qemu.

For each package (`--package`, by name, downloaded with `apt-get download`) a machine of its own starts: an initial RAM
disk with this very Python, its libraries and this checkout, no disk and no network. It prints a table and is gone. With
`--lockdown` it prints instead what pktproc says there under kernel_lockdown(7). It takes qemu-system-x86,
busybox-static and cpio.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import lzma
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.kernels_inside import BEGIN, END, FAILED

ROOT = Path(__file__).parent.parent
PACKAGES = ("linux-image-6.1.0-50-cloud-amd64", "linux-image-6.12.100+deb12-cloud-amd64")
# What the bed and the engines need and Debian does not build in; what these depend on comes along.
MODULES = ("veth", "tcp_diag", "udp_diag")
COMMANDS = ("ip", "nsenter", "setpriv")
LIBRARIES = ("libbpf.so.1",)
MEMORY_MIB = 3072
PROCESSOR = "Nehalem"  # as much as NumPy's wheels need, and no more than nested machines permit
LONGEST_S = 600
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)([^;]*)(;.*extra.*)?$")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_LINKED = re.compile(r"(/\S+) \(0x")

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs run /run
/bin/busybox mount -t cgroup2 cgroup /sys/fs/cgroup
/bin/busybox mount -t securityfs security /sys/kernel/security
/bin/busybox ln -s /proc/self/fd /dev/fd
for module in {modules}; do /bin/busybox insmod /modules/$module.ko; done
/bin/busybox ip link set lo up
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONPATH={path} PYTHONHOME={home}
cd {root}
{python} -m benchmarks.kernels_inside {arguments}
/bin/busybox poweroff -f
"""


def main() -> None:
    """Start a machine with each kernel and print what it finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", action="append", help=f"a kernel package of Debian [{', '.join(PACKAGES)}]")
    parser.add_argument("--packages", type=Path, default=Path(), help="the folder in which they lie, or come to lie")
    parser.add_argument("--count", type=int, default=300, help="processes of each storm")
    parser.add_argument("--lockdown", choices=["integrity", "confidentiality"], help="see how it is borne")
    parser.add_argument("--accelerator", default="tcg,thread=multi", help="of qemu; kvm is faster where it works")
    options = parser.parse_args()
    failed = False
    for package in options.package or PACKAGES:
        with tempfile.TemporaryDirectory() as directory:
            kernel = Kernel(downloaded(package, options.packages), Path(directory))
            print(f"\n{package}:\n", flush=True)
            if options.lockdown:
                text = kernel.run("--commands", options.accelerator, f"lockdown={options.lockdown}")
            else:
                text = kernel.run(f"--count {options.count}", options.accelerator)
            print(text, flush=True)
            failed |= FAILED in text
    sys.exit(failed)


def downloaded(package: str, folder: Path) -> Path:
    """Return the file of a package, which apt downloads if it is not there."""
    if not list(folder.glob(f"{package}_*.deb")):
        subprocess.run(["apt-get", "-q", "download", package], cwd=folder, check=True)
    return next(folder.glob(f"{package}_*.deb")).resolve()


class Kernel:
    """A kernel of a package, unpacked into a directory, and the RAM disk for it."""

    def __init__(self, package: Path, directory: Path) -> None:
        self._directory = directory
        unpacked = directory / "package"
        subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
        (self._image,) = (unpacked / "boot").glob("vmlinuz-*")
        self._modules = {path.name.partition(".")[0]: path for path in unpacked.rglob("*.ko*")}

    def run(self, arguments: str, accelerator: str, parameters: str = "") -> str:
        """Start a machine and return what it prints; AssertionError if it does not come to its end."""
        disk = self._ram_disk(arguments)
        machine = ["-m", str(MEMORY_MIB), "-smp", "2", "-accel", accelerator, "-cpu", PROCESSOR, "-nographic"]
        boot = [
            "-kernel",
            str(self._image),
            "-initrd",
            str(disk),
            "-append",
            f"console=ttyS0 quiet panic=-1 {parameters}",
        ]
        command = ["qemu-system-x86_64", *machine, "-no-reboot", "-nic", "none", *boot]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False, errors="replace")
        text = done.stdout.replace("\r", "")
        assert END in text, f"the machine did not come to its end:\n{text[-3000:]}\n{done.stderr}"
        return text.partition(BEGIN)[2].partition(END)[0].strip()

    def _ram_disk(self, arguments: str) -> Path:
        root = self._directory / "root"
        modules = list(self._with_dependencies(MODULES))
        (root / "modules").mkdir(parents=True)
        for name in modules:
            (root / "modules" / f"{name}.ko").write_bytes(self._module(name))
        for path in {*python_files(), *package_files(), *command_files(), *checkout_files()}:
            copy(path, root)
        copy(Path("/bin/busybox"), root)
        init = root / "init"
        init.write_text(
            INIT.format(
                modules=" ".join(modules),
                path=f"{ROOT}:{ROOT / 'tests'}:{sysconfig.get_paths()['purelib']}",
                home=sys.base_prefix,
                root=ROOT,
                python=Path(sys.executable).resolve(),
                arguments=arguments,
            )
        )
        init.chmod(0o755)
        disk = self._directory / "disk.cpio"
        with disk.open("wb") as stream:
            command = f"cd {root} && find . | cpio --quiet -o -H newc"
            subprocess.run(["sh", "-c", command], stdout=stream, check=True)
        return disk

    def _with_dependencies(self, names: tuple[str, ...]) -> Iterator[str]:
        """Yield modules, each after those that it depends on; what is built in is left out."""
        done: set[str] = set()

        def visit(name: str) -> Iterator[str]:
            if name in self._modules and name not in done:
                done.add(name)
                found = _DEPENDS.search(self._module(name))
                for other in found[1].decode().split(",") if found else ():
                    yield from visit(other.replace("-", "_"))
                yield name

        for name in names:
            yield from visit(name)

    def _module(self, name: str) -> bytes:
        path = self._modules[name]
        return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def copy(path: Path, root: Path) -> None:
    """Copy a file to the same place below another root."""
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(path, target)


def python_files() -> Iterator[Path]:
    """Yield the interpreter and its standard library."""
    yield from with_libraries(Path(sys.executable).resolve())
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in library.rglob("*"):
        parts = path.relative_to(library).parts
        if path.is_file() and not {"site-packages", "test", "tests", "__pycache__", "idlelib"}.intersection(parts):
            yield from with_libraries(path) if path.suffix == ".so" else (path,)


def package_files() -> Iterator[Path]:
    """Yield the files of what pktproc requires, and of what that requires."""
    seen: set[str] = set()
    wanted = ["pktproc"]
    while wanted:
        name = wanted.pop()
        if name.lower() in seen:
            continue
        seen.add(name.lower())
        found = importlib.metadata.distribution(name)
        for requirement in found.requires or ():
            match = _REQUIREMENT.match(requirement)
            if match and not match[3]:
                wanted.append(match[1])
        for file in found.files or () if name != "pktproc" else ():
            path = Path(str(found.locate_file(file)))
            if path.is_file() and path.suffix != ".pyc" and "tests" not in path.parts:
                yield from with_libraries(path) if ".so" in path.name else (path,)


def command_files() -> Iterator[Path]:
    """Yield the programs of the bed and the libraries that are loaded by name."""
    for name in COMMANDS:
        place = shutil.which(name)
        assert place, f"no {name}"
        yield from with_libraries(Path(place))
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for name in LIBRARIES:
        found = re.search(rf"\t{re.escape(name)} .* => (\S+)", cache)
        assert found, f"no {name}"
        yield from with_libraries(Path(found[1]))


def checkout_files() -> Iterator[Path]:
    """Yield this checkout, as far as the machine needs it."""
    for folder in ("pktproc", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in {".py", ".o", ".typed"}:
                yield path


def with_libraries(path: Path) -> Iterator[Path]:
    """Yield a program or library and the libraries that it is linked with."""
    yield path
    linked = subprocess.run(
        ["ldd", path], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    for place in _LINKED.findall(linked.stdout):
        yield Path(place)


if __name__ == "__main__":
    main()
