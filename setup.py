"""Package discovery for the three source roots; everything else is in pyproject.toml.

pyproject alone cannot discover renamed roots, and a hand-kept package list would drop new folders from the wheel.
"""

from setuptools import find_packages, setup

ROOTS = {"qfx": "qfx", "qfx.passes": "passes", "qfx.patterns": "patterns"}

setup(
    package_dir=ROOTS,
    packages=[n for root, folder in ROOTS.items() for n in (root, *(f"{root}.{sub}" for sub in find_packages(folder)))],
)
