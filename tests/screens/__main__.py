"""``make screens``: draws the pictures whose screens look different by now."""

from __future__ import annotations

import sys

from tests.screens.drawing import title_of
from tests.screens.scenes import FOLDER, SCENES, is_current, picture, playable, stage


def main() -> int:
    """Draw the pictures, or those that are named."""
    with stage() as running:
        for name, scene in playable().items():
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            file = FOLDER / f"{name}.svg"
            new = picture(running, scene)
            old = file.read_text("utf-8") if file.exists() else ""
            if not old or title_of(old) != scene.title or not is_current(old, new):
                file.write_text(new, encoding="utf-8")
                sys.stderr.write(f"{file.name}\n")
    for file in FOLDER.glob("*.svg"):
        if file.stem not in SCENES:
            file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
