"""Where the configuration files are: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
CONF = next(p for p in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if p.is_dir())
