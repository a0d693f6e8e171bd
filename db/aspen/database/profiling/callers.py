"""The line that caused a statement: the innermost one that is neither a library's nor our own.

The stack is walked for each statement, so this only reads frame attributes; names and line numbers
are computed when they are needed.
"""

from __future__ import annotations

import sysconfig
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeAlias

import sqlalchemy

from aspen.database.cancel import StatementThread


def _folders(*packages: str) -> list[str]:
    """Return the folders of those packages that are installed."""
    specs = map(find_spec, packages)
    return [str(Path(spec.origin).parent) + "/" for spec in specs if spec and spec.origin]


_THEIRS, _OTHER, _NEVER, _LOADING, _END = range(5)
_SQLALCHEMY = str(Path(sqlalchemy.__file__).parent) + "/"
_LOADERS = frozenset({_SQLALCHEMY + "orm/strategies.py", _SQLALCHEMY + "orm/loading.py"})
_DRIVERS = ("/psycopg2/", "/asyncpg/", "/greenlet/")
# The code that runs the event loop did not cause what a task does.
_EVENT_LOOP = "/asyncio/events.py"
_SILENT = (_SQLALCHEMY, "<sqlalchemy", str(Path(__file__).parent) + "/")
# Libraries, and those of our packages that only pass on other code's requests.
_ASIDE = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *_folders("aspen.database", "aspencli"),
    *(folder + "in_process.py" for folder in _folders("aspen.api")),
    "<frozen",
    "<string",
)
_KINDS: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Lazy:
    """A lazy load: an attribute that was not loaded together with its object."""

    name: str  # such as Sample.aliases; for an expired object, only its class
    many: bool = False  # it is a collection
    expired: bool = False  # the object's own columns were reloaded

    @property
    def cure(self) -> str:
        """Return the code change that would avoid the extra statements."""
        if self.expired:
            return "Set expire_on_commit=False, or end the transaction after the loop"
        return f".options({'selectinload' if self.many else 'joinedload'}({self.name}))"


Site: TypeAlias = tuple[CodeType | None, int, Lazy | None]
"""A code object, an instruction in it, and the lazy load if any; cheap to create."""


def line_of(site: Site) -> int:
    """Return the line number of a site; 0 if it is unknown."""
    code, instruction, _ = site
    if code is None:
        return 0
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno


def calling_site(frame: FrameType | None, outer: Any = None) -> Site:
    """Return the site that caused what this frame does.

    The walk continues in the outer greenlet, which waits for this one, if there is one.
    """
    kinds = _KINDS
    lazy: Lazy | None = None
    other: FrameType | None = None
    asked = False
    while True:
        while frame is not None:
            code = frame.f_code
            kind = kinds.get(code.co_filename)
            if kind is None:
                kind = _classify(code.co_filename)
            if kind == _THEIRS:
                return code, frame.f_lasti, lazy
            if kind == _LOADING:
                lazy = lazy or _lazy(code.co_name, frame)
            elif kind == _OTHER:
                other = other or frame
            elif kind == _END:
                break
            frame = frame.f_back
        if outer is not None:
            frame, outer = outer.gr_frame, None
        elif not asked and isinstance(thread := threading.current_thread(), StatementThread):
            frame, asked = thread.asked_by, True
        else:
            break
    if other is None:
        return None, 0, lazy
    return other.f_code, other.f_lasti, lazy


def calling_site_of_task(frame: FrameType | None) -> Site:
    """Return the same when SQLAlchemy runs in its own greenlet, beside the task that awaits it."""
    from greenlet import getcurrent

    return calling_site(frame, getcurrent().parent)


def _classify(filename: str) -> int:
    if filename in _LOADERS:
        kind = _LOADING
    elif filename.endswith(_EVENT_LOOP):
        kind = _END
    elif filename.startswith(_SILENT) or any(name in filename for name in _DRIVERS):
        kind = _NEVER
    elif filename.startswith(_ASIDE) or "site-packages" in filename:
        kind = _OTHER
    else:
        kind = _THEIRS
    _KINDS[filename] = kind
    return kind


def _lazy(name: str, frame: FrameType) -> Lazy | None:
    if name == "_emit_lazyload":
        relationship = frame.f_locals["self"].parent_property
        return Lazy(str(relationship), many=bool(relationship.uselist))
    if name.endswith("load_scalar_attributes"):
        return Lazy(frame.f_locals["mapper"].class_.__name__, expired=True)
    return None
