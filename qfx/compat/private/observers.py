"""What scripts import from ``observer`` that is no observer."""

from abc import ABC as ABC
