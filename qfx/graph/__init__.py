"""The view of an fx graph."""

from __future__ import annotations

from qfx.graph.attributes import get_attribute as get_attribute
from qfx.graph.attributes import parent_of as parent_of
from qfx.graph.attributes import set_attribute as set_attribute
from qfx.graph.values import Param as Param
from qfx.graph.values import Reading as Reading
from qfx.graph.view import GraphView as GraphView
