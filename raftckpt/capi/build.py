"""Builds libSaCkpt.so and installs it with its headers and pkg-config file.

The library is one C file: ``src/libsackpt.c`` inside what cffi generates from ``src/bridge.h`` and
the public headers. It is linked against the libpython of the Python that builds it and remembers
that Python's path, which is how it finds the interpreter and this package at run time.

The compiler is called directly: cffi's own way goes through setuptools and knows neither sonames
nor version scripts.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from raftckpt.capi import bridge
from raftckpt.version import VERSION

__all__ = ["BuildFailed", "Installed", "c_types", "install"]

_HERE = Path(__file__).parent
_INCLUDE = _HERE / "include"
_SOURCE = _HERE / "src"
HEADERS = ("saAis.h", "saCkpt.h", "saCkpt_B_02_03.h", "saCkptTracking.h", "cpsv_papi.h")
MODULE = "_raftckpt_sackpt"
LIBRARY = "libSaCkpt.so"
SONAME = "libSaCkpt.so.1"
"""The name under which existing programs were linked, so that they need no relinking."""

_EXPORTS = (
    "{ global: saAis*; saCkpt*; ncsCkptRegisterCkptArrivalCallback; "
    "clCkptImmediateConsumptionRegister; clCkptSectionCheck; local: *; };\n"
)

_PKG_CONFIG = """\
prefix=${{pcfiledir}}/../..
libdir=${{prefix}}/lib
includedir=${{prefix}}/include

Name: SaCkpt
Description: SA Forum Checkpoint Service (AIS CKPT B.02.03) on a Raft-replicated store
Version: {version}
Cflags: -I${{includedir}}
Libs: -L${{libdir}} -Wl,-rpath,${{libdir}} -lSaCkpt
"""

# Run before anything of cffi, which would tell a program's user what its own developers want to
# know: ``problem`` is one line.
_STARTUP = """
import os
import sys
sys.path[:0] = filter(None, os.environ.get("RAFTCKPT_PYTHONPATH", "").split(os.pathsep))
problem = None
try:
    import _cffi_backend
    try:
        import raftckpt.capi.binding, raftckpt.capi.bridge
    except ModuleNotFoundError:
        sys.path.append({home!r})
        import raftckpt.capi.binding, raftckpt.capi.bridge
    if raftckpt.capi.bridge.digest() != {bridge!r}:
        raise ImportError("the library is of another version of it")
except Exception as error:
    problem = (
        f"the Python in {{sys.prefix}} cannot load raftckpt ({{type(error).__name__}}: {{error}}): "
        "set RAFTCKPT_PYTHON to the Python of the environment that has raftckpt[c], or run "
        "'raftckpt saf-library install' there"
    )
"""

_ATTACHING = """
import raftckpt.capi.binding
from {module} import ffi, lib
raftckpt.capi.binding.attach(ffi, lib)
"""

# A program that makes the interpreter start: no handle is valid, so the answer is BAD_HANDLE.
_TRIAL = """
#include <saCkpt.h>
int main(void) { return saCkptFinalize(1) == SA_AIS_ERR_BAD_HANDLE ? 0 : 1; }
"""


class BuildFailed(Exception):
    """The library cannot be built, or was built and does not work here.

    Attributes:
        what: what failed.
        why: the reason.
        remedy: what to do about it.
    """

    def __init__(self, what: str, why: str, remedy: str) -> None:
        super().__init__(f"{what}: {why}; {remedy}")
        self.what = what
        self.why = why
        self.remedy = remedy


@dataclass(frozen=True)
class Installed:
    """What was installed where."""

    shared_object: Path
    headers: tuple[Path, ...]
    pkg_config: Path
    python: str


def install(prefix: Path, compiler: str | None = None) -> Installed:
    """Build the library and install it below ``prefix``; what is there already is replaced.

    Arguments:
        prefix: gets ``lib/``, ``include/`` and ``lib/pkgconfig/``.
        compiler: command of the C compiler; None: ``$CC``, else ``cc``.

    Raises:
        BuildFailed: something is missing here; says what and how to get it.
        OSError: ``prefix`` cannot be written.
    """
    prefix = prefix.resolve()
    command = _compiler(compiler)
    linking = _python_flags()
    libraries, includes = prefix / "lib", prefix / "include"
    pkg_config = libraries / "pkgconfig" / "SaCkpt.pc"
    for directory in (libraries, includes, pkg_config.parent):
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="raftckpt-") as name:
        work = Path(name)
        _compile(command, linking, work)
        _try(command, work)
        # a rename, because programs that run now have the old file mapped
        _replace(work / SONAME, libraries / SONAME)
    link = libraries / LIBRARY
    link.unlink(missing_ok=True)
    link.symlink_to(SONAME)
    for header in HEADERS:
        _replace(_INCLUDE / header, includes / header)
    pkg_config.write_text(_PKG_CONFIG.format(version=VERSION), "utf-8")
    return Installed(
        libraries / SONAME, tuple(includes / name for name in HEADERS), pkg_config, sys.executable
    )


def c_types() -> str:
    """Return the type declarations of the public headers in the form that cffi reads."""
    found: list[str] = []
    for header in HEADERS:
        text = (_INCLUDE / header).read_text("utf-8")
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        # names reach the Python half as bytes and length: SaNameT has two forms in C
        text = re.sub(r"#ifdef SA_EXTENDED_NAME_SOURCE.*?#endif", "", text, flags=re.S)
        found += re.findall(r"^typedef [^;{]*(?:\{[^}]*\}[^;]*)?;", text, flags=re.M)
    return "\n".join(found)


def _replace(source: Path, target: Path) -> None:
    fresh = target.with_name(target.name + ".new")
    shutil.copyfile(source, fresh)
    os.chmod(fresh, 0o644 if target.suffix == ".h" else 0o755)
    os.replace(fresh, target)


def _compiler(given: str | None) -> list[str]:
    command = shlex.split(given or os.environ.get("CC") or "cc")
    if not command or shutil.which(command[0]) is None:
        raise BuildFailed(
            "no C compiler",
            f"{command[0] if command else given!r} is not in PATH",
            "install gcc or clang (Debian, Ubuntu: apt install gcc), or name one with --cc or CC",
        )
    return command


def _python_flags() -> list[str]:
    """Flags that compile and link against the Python that runs this."""
    if sys.implementation.name != "cpython":
        raise BuildFailed(
            "wrong Python",
            f"the library embeds CPython, this is {sys.implementation.name}",
            "install raftckpt into a CPython and run the command there",
        )
    include = sysconfig.get_path("include", vars={"installed_base": sys.base_prefix})
    if not (Path(include) / "Python.h").is_file():
        raise BuildFailed(
            "no Python headers",
            f"{include}/Python.h does not exist",
            f"install those of Python {sysconfig.get_python_version()} (Debian, Ubuntu: "
            "apt install python3-dev)",
        )
    name = sysconfig.get_config_var("LDLIBRARY") or ""
    directories = [
        Path(found)
        for key in ("LIBDIR", "LIBPL")
        if (found := sysconfig.get_config_var(key)) is not None
    ]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    if multiarch and directories:
        directories.append(directories[0] / multiarch)
    directories = [directory for directory in directories if (directory / name).is_file()]
    if not name.endswith(".so") or not directories:
        raise BuildFailed(
            "no shared libpython",
            f"{sys.executable} was built without --enable-shared, so no C program can load it",
            "use one that has it: those of Linux distributions do, with python3-dev installed",
        )
    directory = directories[0]
    library = name.removeprefix("lib").removesuffix(".so")
    return [f"-I{include}", f"-L{directory}", f"-Wl,-rpath,{directory}", f"-l{library}"]


def _generate(work: Path) -> Path:
    """Let cffi write the C file."""
    try:
        import cffi
    except ImportError:
        raise BuildFailed(
            "no cffi", "this Python does not have it", "pip install 'raftckpt[c]'"
        ) from None
    types, functions = bridge.declarations()
    calls = "\n".join(f"SaAisErrorT py_{name}({given});" for name, given in functions)
    home = str(_HERE.parent.parent.resolve())
    startup = _STARTUP.format(home=home, bridge=bridge.digest())
    half = (_SOURCE / "libsackpt.c").read_text("utf-8")
    source = "\n".join(
        (
            "#include <saCkptTracking.h>",
            f"#define RAFTCKPT_BUILT_FROM {_c_string(sys.executable)}",
            f"#define RAFTCKPT_STARTUP {_c_string(startup)}",
            types,
            # cffi makes the py_ functions static
            re.sub(r"^SaAisErrorT", "static SaAisErrorT", calls, flags=re.M),
            half.replace("\nRAFTCKPT_CALLS\n", "".join(map(bridge.entrance, functions))),
        )
    )
    ffi = cffi.FFI()
    ffi.cdef(
        f"typedef ... SaNameT;\n{c_types()}\n{types}\n{bridge.HELPERS}\n"
        f'extern "Python" {{\n{calls}\n}}\n'
    )
    ffi.embedding_api("")
    ffi.embedding_init_code(_ATTACHING.format(module=MODULE))
    ffi.set_source(MODULE, source)
    path = work / f"{MODULE}.c"
    with contextlib.redirect_stdout(io.StringIO()):  # it announces what it does
        ffi.emit_c_code(str(path))
    return path


def _c_string(text: str) -> str:
    """Return a string literal of C."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _compile(command: list[str], linking: list[str], work: Path) -> None:
    source = _generate(work)
    exports = work / "exports"
    exports.write_text(_EXPORTS, "utf-8")
    _run(
        [
            *command,
            *(
                "-shared",
                "-fPIC",
                "-O2",
                "-g",
                "-Wall",
                "-fexceptions",
                "-pthread",
                "-D_GNU_SOURCE",
            ),
            f"-I{_INCLUDE}",
            str(source),
            *("-o", str(work / SONAME)),
            f"-Wl,-soname,{SONAME}",
            f"-Wl,--version-script={exports}",
            # threads of the client run in it: it cannot be unloaded
            *("-Wl,-z,nodelete", "-Wl,--no-undefined"),
            *linking,
            "-ldl",
        ],
        "the library does not compile",
        "compile with gcc or clang, on Linux, against a CPython of 3.11 or later",
    )
    (work / LIBRARY).symlink_to(SONAME)


def _try(command: list[str], work: Path) -> None:
    """Run a program with the new library: it must find its Python and this package."""
    program = work / "trial"
    (work / "trial.c").write_text(_TRIAL, "utf-8")
    build = [*command, f"-I{_INCLUDE}", str(work / "trial.c"), "-o", str(program)]
    _run([*build, f"-L{work}", f"-Wl,-rpath,{work}", "-lSaCkpt"], "no program links", "see above")
    _run(
        [str(program)],
        "the library does not find its Python",
        "see docs/guides/c.md, Finding Python",
    )


def _run(command: list[str], failure: str, remedy: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip()[-4000:]
        raise BuildFailed(failure, f"{shlex.join(command)}\n{output}", remedy)
