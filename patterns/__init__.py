"""The pattern language, the matcher and the catalogue: shapes of graphs, nothing of quantization policy."""

if __name__ != "qfx.patterns":
    raise ImportError("import qfx.patterns, never patterns: a second copy of every class would appear")

from qfx.patterns.index import Index as Index
from qfx.patterns.language import Pattern as Pattern
from qfx.patterns.language import pattern as pattern
from qfx.patterns.match import Match as Match
from qfx.patterns.match import NearMiss as NearMiss
from qfx.patterns.matcher import match as match
from qfx.patterns.matcher import matches as matches
from qfx.patterns.terms import Anything as Anything
from qfx.patterns.terms import any_of as any_of
from qfx.patterns.terms import const as const
from qfx.patterns.terms import maybe as maybe
