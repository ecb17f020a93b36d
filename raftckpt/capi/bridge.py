"""What the two halves of the library say to each other, read from src/bridge.h.

Both need it: the build, which makes C of it, and the Python half, which must be of the same version
as the C half that was installed at another time.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Final

__all__ = ["HELPERS", "declarations", "digest", "entrance"]

_SOURCE: Final = Path(__file__).parent / "src" / "bridge.h"

# What the C half gives to the Python half, beside the declarations of bridge.h.
HELPERS: Final = """
void wake_dispatchers(void);
void call_consumption_callback(ClCkptNotificationCallbackT callback,
                               SaCkptCheckpointHandleT checkpoint, const char *text,
                               SaCkptIOVectorElementT *vector, SaUint32T count, void *cookie);
void keep_signals_away(void);
void let_signals_in(void);
void *malloc(size_t size);
void free(void *memory);
char *getenv(const char *name);
"""

# How the C half enters Python: the arguments of a call in one place, so that it can be made on
# another stack.
_CALL: Final = """
struct arguments_of_{name} {{ {fields} }};
static SaAisErrorT run_{name}(const void *given) {{
    const struct arguments_of_{name} *arguments = given;
    return py_{name}({passed});
}}
static SaAisErrorT call_{name}({parameters}) {{
    const struct arguments_of_{name} arguments = {{ {names} }};
    return pass_on(run_{name}, &arguments);
}}
"""


def declarations() -> tuple[str, list[tuple[str, str]]]:
    """Return the types of bridge.h, and of its functions name and parameters."""
    text = re.sub(r"/\*.*?\*/", "", _SOURCE.read_text("utf-8"), flags=re.S)
    function = r"^SaAisErrorT py_(\w+)\((.*?)\);"
    functions = re.findall(function, text, flags=re.M | re.S)
    types = re.sub(function, "", text, flags=re.M | re.S)
    return types, [(name, " ".join(given.split())) for name, given in functions]


def digest() -> int:
    """Return a number that is another one when the halves would not understand each other."""
    types, functions = declarations()
    return zlib.crc32(repr((types.split(), functions, HELPERS)).encode())


def entrance(declaration: tuple[str, str]) -> str:
    """Return the C functions through which one py_ function is called."""
    name, parameters = declaration
    names = re.findall(r"(\w+)(?:,|$)", parameters)
    return _CALL.format(
        name=name,
        parameters=parameters,
        fields=parameters.replace(",", ";") + ";",
        names=", ".join(names),
        passed=", ".join(f"arguments->{each}" for each in names),
    )
