"""C programs on the library: ABI, conformance, threads, kills, and how it finds its Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from raftckpt_cli.main import run

from raftckpt.testing import LocalCluster
from tests.c.conftest import CONFORMANCE, HERE, WARNINGS, Program, environment_with, run_program
from tests.waiting import until

_ROOT = HERE.parents[1]
# now: tests see nothing of what this environment says about clusters
SMALL_STACKS_SECONDS = int(os.environ.get("RAFTCKPT_SMALL_STACKS", "3"))


@pytest.fixture(scope="module", autouse=True)
def out_of_reach(program: Program) -> Iterator[subprocess.Popen[str]]:
    """Begun before everything else: it takes as long as a call may take."""
    with subprocess.Popen(
        [program("initialize.c")],
        env=environment_with(RAFTCKPT_ENDPOINTS="127.0.0.1:1"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("flags", [(), ("-DSA_EXTENDED_NAME_SOURCE",), ("-std=c11", "-pedantic")])
def test_abi(prefix: Path, compiler: str, flags: tuple[str, ...]) -> None:
    command = [compiler, *WARNINGS, *flags, f"-I{prefix / 'include'}", "-c", HERE / "abi.c"]
    done = subprocess.run(
        [*command, "-o", "/dev/null"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_headers_are_cpp(prefix: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler (c++) on this machine")
    include = f"-I{prefix / 'include'}"
    done = subprocess.run(
        [compiler, "-x", "c++", "-Wall", "-pedantic", "-Werror", "-fsyntax-only", include, "-"],
        input="#include <saCkpt.h>\n#include <cpsv_papi.h>\n#include <saCkpt_B_02_03.h>\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_conformance_under_sanitizers(
    program: Program, environment: dict[str, str], tmp_path: Path
) -> None:
    """Both the program and the C half of the library are compiled for them."""
    # Leaks are not looked for: an interpreter frees little at exit. A program that lost memory
    # for each call would show in test_threads, and valgrind (docs/guides/c.md) judges it exactly.
    # The sanitizer takes what a cancelled thread left on its stack for an error of its own
    # when it puts that thread's signal stack away.
    flags = "-fsanitize=address,undefined"
    env = {**environment, "ASAN_OPTIONS": "detect_leaks=0:use_sigaltstack=0"}
    command = ["-m", "raftckpt_cli.main", "saf-library", "install", "--prefix", tmp_path]
    done = run_program(sys.executable, *command, "--cc", f"cc {flags}", env=env)
    assert done.returncode == 0, done.stdout
    env["LD_LIBRARY_PATH"] = str(tmp_path / "lib")
    done = run_program(program(*CONFORMANCE, flags=("-D_GNU_SOURCE", flags)), env=env)
    assert done.returncode == 0, done.stdout
    assert "runtime error" not in done.stdout  # the undefined behaviour sanitizer only prints
    assert " 0 failures" in done.stdout


@pytest.mark.long
def test_conformance_under_valgrind(program: Program, environment: dict[str, str]) -> None:
    """Nothing is lost, nothing touched that is not ours; without the forks (docs/guides/c.md)."""
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind on this machine")
    parts = (
        "null-pointers names lifecycle dispatch open checkpoints sections iteration data "
        "synchronize tracking stacks cancellation"
    )
    done = run_program(
        "valgrind",
        "--leak-check=full",
        "--errors-for-leak-kinds=definite",
        "--error-exitcode=9",
        program(*CONFORMANCE, flags=("-D_GNU_SOURCE",)),
        *parts.split(),
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "ERROR SUMMARY: 0 errors" in done.stdout
    assert "definitely lost: 0 bytes" in done.stdout
    assert " 0 failures" in done.stdout


@pytest.mark.slow
def test_threads(program: Program, environment: dict[str, str]) -> None:
    done = run_program(program("hammer.c"), "5", "8", env=environment)
    assert done.returncode == 0, done.stdout
    result = json.loads(done.stdout)
    assert result["failures"] == 0
    assert result["calls"] > 100
    assert result["called_back"] > 0
    assert result["signals"] > 0
    assert result["children"] > 0
    grown = result["resident_kib_at_the_end"] - result["resident_kib_after_a_third"]
    assert grown < 16 * 1024


@pytest.mark.parametrize("stack", [0, 40 * 1024])
def test_cancelled_threads_with_small_stacks(
    program: Program, environment: dict[str, str], stack: int
) -> None:
    seconds = SMALL_STACKS_SECONDS
    done = run_program(
        program("small.c", flags=("-D_GNU_SOURCE",)),
        str(seconds),
        "16",
        str(stack),
        env=environment,
        timeout=seconds + 100,
    )
    assert done.returncode == 0, done.stdout
    result = json.loads(done.stdout)
    assert result["failures"] == 0
    assert result["writes"] > 50
    assert result["called_back"] > 0
    assert result["tracked"] >= result["writes"]
    assert result["cancelled_writers"] > 10
    assert result["cancelled_dispatchers"] > 3


def test_no_descriptors(program: Program, environment: dict[str, str]) -> None:
    done = run_program(program("descriptors.c"), env=environment)
    assert done.returncode == 0, done.stdout
    (line,) = done.stdout.splitlines()  # and nothing on standard error
    assert line.endswith(" 0 failures")


@pytest.mark.parametrize("compat", ["", "openais", "safplus", "safplus,openais"])
def test_habits(program: Program, environment: dict[str, str], compat: str) -> None:
    done = run_program(program("habits.c"), env={**environment, "RAFTCKPT_SAF_COMPAT": compat})
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(" 0 failures\n")


def test_habits_that_are_not_known(program: Program, environment: dict[str, str]) -> None:
    done = run_program(
        program("initialize.c"), env={**environment, "RAFTCKPT_SAF_COMPAT": "opensaf"}
    )
    said, answer = done.stdout.splitlines()
    assert answer == "2 0"
    assert "openais, safplus or both" in said


def test_replicas_killed_during_writes(
    program: Program, cluster: LocalCluster, environment: dict[str, str]
) -> None:
    with subprocess.Popen(
        [program("steady.c")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
        reader.start()

        def until_written(more: int) -> None:
            def written() -> int:
                return sum(line.endswith(" 1\n") for line in list(lines))

            goal = written() + more
            until(lambda: written() >= goal, "writes")

        try:
            until_written(1)
            assert _take_signals(process.pid, signal.SIGUSR1) == [process.pid]
            for _ in range(2):
                until_written(3)
                killed = cluster.leader()
                cluster.kill(killed)
                until_written(3)
                cluster.restart(killed)
                cluster.wait_ready()
            process.stdin.close()
            assert process.wait(60) == 0, lines[-5:]
        finally:
            process.kill()
        reader.join(10)
        assert "failures 0" in lines[-1]


def test_hidden_symbols_and_unloading(
    program: Program, prefix: Path, environment: dict[str, str]
) -> None:
    done = run_program(program("loader.c"), prefix / "lib" / "libSaCkpt.so.1", env=environment)
    assert (done.returncode, done.stdout) == (0, "9\n")


def test_program_that_knows_no_cluster(program: Program, tmp_path: Path) -> None:
    done = subprocess.run(
        [program("initialize.c")],
        env=environment_with(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "2 0\n"
    assert "RAFTCKPT_ENDPOINTS" in done.stderr


def test_cluster_file(program: Program, cluster: LocalCluster, tmp_path: Path) -> None:
    env = environment_with(RAFTCKPT_CONFIG=str(cluster.config_path))
    assert run_program(program("initialize.c"), env=env).stdout == "1 1\n"


def _refused(program: Program, **env: str) -> str:
    """Return what a program is told whose first call is refused: one line."""
    done = subprocess.run(
        [program("initialize.c")],
        env=environment_with(**env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "2 0\n"), done.stderr
    assert done.stderr.startswith("libSaCkpt: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_python_that_is_not_there(program: Program) -> None:
    said = _refused(program, RAFTCKPT_PYTHON="/nowhere/bin/python")
    assert "/nowhere/bin/python is not there" in said


def test_python_without_this_package(program: Program, tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", symlinks=True)
    said = _refused(program, RAFTCKPT_PYTHON=str(tmp_path / "empty" / "bin" / "python"))
    assert f"{tmp_path}/empty cannot load raftckpt (ModuleNotFoundError" in said
    assert "RAFTCKPT_PYTHON" in said


def test_python_home_that_is_not_there(program: Program) -> None:
    done = run_program(
        program("initialize.c"), env=environment_with(RAFTCKPT_PYTHONHOME="/nowhere")
    )
    assert done.stdout.endswith("2 0\n")  # Python itself says more than a line
    assert "libSaCkpt: Python does not start" in done.stdout


def test_moved_environment(
    compiler: str, program: Program, environment: dict[str, str], tmp_path: Path
) -> None:
    """Whoever moves it is told what to do, and that helps."""
    venv.create(tmp_path / "old", symlinks=True)
    site = next((tmp_path / "old" / "lib").glob("python*")) / "site-packages"
    paths = [*filter(None, sys.path), str(_ROOT), str(_ROOT / "cli")]
    (site / "here.pth").write_text("\n".join(paths) + "\n", "utf-8")
    prefix = tmp_path / "saf"
    command = ["-m", "raftckpt_cli.main", "saf-library", "install", "--prefix", prefix]
    installed = run_program(tmp_path / "old" / "bin" / "python", *command, env=environment)
    assert installed.returncode == 0, installed.stdout
    (tmp_path / "old").rename(tmp_path / "new")
    preload = {"LD_PRELOAD": str(prefix / "lib" / "libSaCkpt.so.1")}
    said = _refused(program, **preload)
    assert f"{tmp_path}/old/bin/python" in said
    assert "RAFTCKPT_PYTHON" in said
    moved = {"RAFTCKPT_PYTHON": str(tmp_path / "new" / "bin" / "python")}
    done = run_program(program("initialize.c"), env={**environment, **preload, **moved})
    assert done.stdout == "1 1\n"


def test_library_of_another_version(program: Program, tmp_path: Path) -> None:
    shutil.copytree(
        _ROOT / "raftckpt",
        tmp_path / "raftckpt",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    bridge = tmp_path / "raftckpt" / "capi" / "src" / "bridge.h"
    bridge.write_text(bridge.read_text("utf-8").replace("SaUint32T flags", "SaUint64T flags"))
    said = _refused(program, RAFTCKPT_PYTHONPATH=str(tmp_path))
    assert "of another version" in said
    assert "saf-library install" in said


@pytest.fixture(scope="module")
def other_python(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the loader takes for a later Python that runs already."""
    directory = tmp_path_factory.mktemp("other")
    source, library = directory / "other.c", directory / "libpython3.99.so.1.0"
    source.write_text(
        'const char *Py_GetVersion(void) { return "3.99.1 (main)"; }\n'
        "int Py_IsInitialized(void) { return 1; }\n",
        "ascii",
    )
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library], check=True, timeout=60)
    return library


def test_another_python_in_the_process(program: Program, other_python: Path) -> None:
    """Its symbols come before those of the library's own Python."""
    said = _refused(program, LD_PRELOAD=str(other_python))
    assert "another Python (3.99.1)" in said
    assert f"for {sys.version_info.major}.{sys.version_info.minor}:" in said
    assert "saf-library install" in said


def test_another_python_that_is_hidden(
    program: Program, prefix: Path, other_python: Path, environment: dict[str, str]
) -> None:
    library = prefix / "lib" / "libSaCkpt.so.1"
    done = run_program(program("loader.c"), other_python, library, env=environment)
    said, answer = done.stdout.splitlines()
    assert answer == "2"
    assert str(other_python) in said


def _other_pythons() -> list[Path]:
    """Return Pythons of other versions: in the path, or beside the one that runs this."""
    beside = Path(sys.base_prefix).parent.glob("*/bin/python3.[0-9]*")
    named = (shutil.which(f"python3.{minor}") for minor in range(8, 20))
    found: dict[str, Path] = {}
    for python in [*beside, *map(Path, filter(None, named))]:
        if not python.name.removeprefix("python3.").isdigit():
            continue
        code = "import ctypes, sys; print(sys.version_info[:2])"
        version = run_program(python, "-c", code, env=environment_with())
        if version.returncode == 0:
            found.setdefault(version.stdout, python)
    found.pop(f"{sys.version_info[:2]}\n", None)
    return list(found.values())


def test_from_another_python(prefix: Path, environment: dict[str, str]) -> None:
    """The same with real ones, if there are any here."""
    others = _other_pythons()
    if not others:
        pytest.skip("no Python of another version on this machine")
    code = (
        "import ctypes, sys\nprint(ctypes.CDLL(sys.argv[1]).saCkptFinalize(ctypes.c_uint64(1)))\n"
    )
    for other in others:
        done = run_program(other, "-c", code, prefix / "lib" / "libSaCkpt.so.1", env=environment)
        assert done.returncode == 0, done.stdout
        lines = done.stdout.splitlines()
        assert len(lines) == 2, lines
        assert sum("another Python" in line for line in lines) == 1
        assert "2" in lines


def test_foreign_python_variables_do_not_matter(
    program: Program, environment: dict[str, str]
) -> None:
    env = {**environment, "PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "PATH": "/bin"}
    assert run_program(program("initialize.c"), env=env).stdout == "1 1\n"


def test_python_path_comes_first(
    program: Program, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "raftckpt.py").write_text("raise RuntimeError('found here')\n", "utf-8")
    env = {**environment, "RAFTCKPT_PYTHONPATH": str(tmp_path)}
    done = run_program(program("initialize.c"), env=env)
    assert "RuntimeError: found here" in done.stdout
    assert done.stdout.endswith("2 0\n")


def test_moved_prefix(
    compiler: str, prefix: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("no pkg-config on this machine")
    moved = tmp_path / "moved"
    shutil.copytree(prefix, moved, symlinks=True)
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "SaCkpt"],
        env={**environment, "PKG_CONFIG_PATH": str(moved / "lib" / "pkgconfig")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()
    assert not any(str(prefix) in flag for flag in flags)
    binary = tmp_path / "initialize"
    subprocess.run([compiler, HERE / "initialize.c", "-o", binary, *flags], check=True, timeout=60)
    assert run_program(binary, env=environment).stdout == "1 1\n"
    loaded = run_program("ldd", binary, env=environment).stdout
    assert str(moved) in loaded


def test_from_a_python_program(prefix: Path, environment: dict[str, str]) -> None:
    """The interpreter that is there is used; a child of it cannot begin anew."""
    code = (
        "import ctypes, os, sys\n"
        "library = ctypes.CDLL(sys.argv[1])\n"
        "handle = ctypes.c_uint64()\n"
        "version = (ctypes.c_ubyte * 3)(ord('B'), 1, 1)\n"
        "assert library.saCkptInitialize(ctypes.byref(handle), None, version) == 1\n"
        "assert bytes(version) == b'B\\x02\\x03'\n"
        "if (child := os.fork()) == 0:\n"
        "    assert library.saCkptFinalize(handle) == 9\n"
        "    assert library.saCkptInitialize(ctypes.byref(handle), None, version) == 2\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert library.saCkptFinalize(handle) == 1\n"
        "assert library.saCkptFinalize(handle) == 9\n"
    )
    path = prefix / "lib" / "libSaCkpt.so"
    done = run_program(sys.executable, "-c", code, path, env=environment)
    assert done.returncode == 0, done.stdout


def test_interrupt_ends_a_program_that_waits_for_the_cluster(program: Program) -> None:
    with subprocess.Popen(
        [program("initialize.c")],
        env=environment_with(RAFTCKPT_ENDPOINTS="127.0.0.1:1"),
        stdout=subprocess.PIPE,
    ) as process:
        try:
            until(lambda: _threads(process.pid) > 1, "the client to try")
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == -signal.SIGINT
        finally:
            process.kill()


def _take_signals(pid: int, number: signal.Signals) -> list[int]:
    """Return the threads of a process that do not block a signal."""
    takers = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        blocked = next(
            line.split()[1]
            for line in (task / "status").read_text("ascii").splitlines()
            if line.startswith("SigBlk:")
        )
        if not int(blocked, 16) >> (number - 1) & 1:
            takers.append(int(task.name))
    return takers


def _threads(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except FileNotFoundError:
        return 0


def test_cluster_out_of_reach(out_of_reach: subprocess.Popen[str]) -> None:
    output, _ = out_of_reach.communicate(timeout=60)
    assert output == "6 0\n"


def test_an_older_installation_is_replaced_in_place(prefix: Path) -> None:
    """Programs that run have the old file mapped: it must stay as it is."""
    library = prefix / "lib" / "libSaCkpt.so.1"
    old = library.stat().st_ino
    assert run(["saf-library", "install", "--prefix", str(prefix), "-o", "json"]) == 0
    assert library.stat().st_ino != old
    assert (prefix / "lib" / "libSaCkpt.so").resolve() == library
    assert sorted(path.name for path in prefix.rglob("*.new")) == []


def test_compiler_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = tmp_path / "saf"
    assert run(["saf-library", "install", "--prefix", str(prefix), "--cc", "no-such-cc"]) == 1
    said = capsys.readouterr().err
    assert "no C compiler" in said
    assert "no-such-cc" in said
    assert not prefix.exists()


def test_headers_that_are_not_there(
    compiler: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda *_, **__: str(tmp_path))
    assert run(["saf-library", "install", "--prefix", str(tmp_path / "saf")]) == 1
    said = capsys.readouterr().err
    assert "no Python headers" in said
    assert "python3-dev" in said


def test_python_without_a_shared_library(
    compiler: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = sysconfig.get_config_var
    monkeypatch.setattr(
        sysconfig,
        "get_config_var",
        lambda name: "libpython.a" if name == "LDLIBRARY" else known(name),
    )
    assert run(["saf-library", "install", "--prefix", str(tmp_path / "saf")]) == 1
    assert "--enable-shared" in capsys.readouterr().err


def test_prefix_that_cannot_be_written(compiler: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    assert run(["saf-library", "install", "--prefix", str(tmp_path / "file")]) == 2
    assert run(["saf-library", "install", "--prefix", str(tmp_path / "file" / "below")]) == 1
