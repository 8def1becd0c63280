"""Text sources and tokenising. Names load on first use, so that importing this package imports no framework."""

from importlib import import_module

_HOMES = {
    "StdlibText": "rbp_lab.data.stdlib",
    "LocalText": "rbp_lab.data.files",
    "HubText": "rbp_lab.data.hub",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
