"""The optional extras of this package: which ones are missing, and how to add them."""

import importlib.util

EXTRAS = {  # the extra that installs each package
    "torch": "convert",
    "sentencepiece": "convert",
    "modelscope_hub": "modelscope",
    "starlette": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "msgspec": "serve",
}
PAGE = "docs/install.md#optional-features"


def missing(*packages: str) -> tuple[str, ...]:
    """Return the extras that install those packages which are not installed."""
    absent = (package for package in packages if importlib.util.find_spec(package) is None)
    return tuple(dict.fromkeys(EXTRAS[package] for package in absent))


def to_add(*extras: str) -> str:
    """Return a hint that names extras to add. The command for it depends on how this program was installed."""
    named = f"the extra {extras[0]}" if len(extras) == 1 else f"the extras {' and '.join(extras)}"
    return f"install {named}: see {PAGE}"
