"""Who is observed how: specs on sites, sharing, derivation; resolved independently of the order they were said in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import networkx as nx
import torch

from qfx.errors import SpecError
from qfx.qparams import QParams

OUTPUT = "out"


class Site(NamedTuple):
    """A place a spec can sit: an input of a node, by the op's name for it, or its output (``"out"``)."""

    node: str
    slot: str = OUTPUT

    def __str__(self) -> str:
        return f"{self.node}.{self.slot}"


@dataclass(frozen=True, slots=True)
class Spec:
    """How a value is to be quantized.

    Attributes:
        dtype: as the config has it (``torch.quint8`` included).
        observer: makes the module that watches it; None for a derived site.
        qscheme: per tensor or per channel; only compared, never interpreted here.
    """

    dtype: torch.dtype
    observer: Callable[[], Any] | None = None
    qscheme: torch.qscheme | None = None


class Ticket(NamedTuple):
    """What `SpecBook.site` returns: a site somebody has observed, so a later spec cannot name an unobserved one."""

    site: Site


@dataclass(frozen=True, slots=True)
class Derived:
    """A site whose parameters follow from others'; it gets no module and costs nothing in calibration.

    Attributes:
        sources: the sites it follows from.
        qparams: pure function of the sources' `QParams`, in order.
        dormant: the node has no such input yet (a bias a later fold may create).
    """

    site: Site
    dtype: torch.dtype
    sources: tuple[Site, ...]
    qparams: Callable[..., QParams]
    dormant: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Sites that have the same parameters, hence one observer."""

    sites: tuple[Site, ...]
    spec: Spec


@dataclass(frozen=True, slots=True)
class Solution:
    """The solved book: groups, and derived sites so that each comes after what it follows from."""

    groups: tuple[Group, ...]
    derived: tuple[Derived, ...]
    group_of: Mapping[Site, int]

    def evaluate(self, qparams: Callable[[int], QParams]) -> dict[Site, QParams]:
        """Parameters of every site, given those of each group (by number)."""
        found = {site: qparams(number) for site, number in self.group_of.items()}
        for each in self.derived:
            found[each.site] = each.qparams(*(found[source] for source in each.sources))
        return found


@dataclass(slots=True)
class _Claim:
    spec: Spec
    owner: str


@dataclass(slots=True)
class SpecBook:
    """Collects specs from rules, in any order, and solves them.

    Example:
        >>> from qfx.qparams import QParams
        >>> book = SpecBook()
        >>> act = book.site("conv", "x", Spec(torch.quint8), owner="weighted")
        >>> wgt = book.site("conv", "w", Spec(torch.qint8), owner="weighted")
        >>> def product(a, w):
        ...     return QParams(a.scale * w.scale)
        >>> _ = book.derive("conv", "b", dtype=torch.qint32, sources=(act, wgt), qparams=product, owner="weighted")
        >>> [str(each.site) for each in book.solve().derived]
        ['conv.b']
    """

    _claims: dict[Site, _Claim] = field(default_factory=dict)
    _shared: list[tuple[Site, Site, str]] = field(default_factory=list)
    _derived: dict[Site, tuple[Derived, str]] = field(default_factory=dict)

    def site(self, node: str, slot: str, spec: Spec, *, owner: str) -> Ticket:
        """Observe a site.

        Args:
            node: name of the node.
            slot: the op's name of the input, or ``"out"``.
            spec: how.
            owner: the rule or config line that asks, for messages.

        Raises:
            SpecError: another owner asked for another dtype or scheme here, or the site is derived.
        """
        site = Site(node, slot)
        before = self._claims.get(site)
        if before is not None and not _agree(before.spec, spec):
            raise SpecError(_conflict(site, before.owner, before.spec, site, owner, spec))
        if site in self._derived:
            raise SpecError(
                f"{site} is observed by {owner} and derived by {self._derived[site][1]}; it can be one of both"
            )
        if before is None:
            self._claims[site] = _Claim(spec, owner)
        return Ticket(site)

    def output(self, node: str, spec: Spec, *, owner: str) -> Ticket:
        """Observe what a node returns."""
        return self.site(node, OUTPUT, spec, owner=owner)

    def share(self, a: Ticket, b: Ticket, *, owner: str) -> None:
        """Give two sites the same parameters."""
        self._shared.append((a.site, b.site, owner))

    def derive(
        self,
        node: str,
        slot: str,
        *,
        dtype: torch.dtype,
        sources: Sequence[Ticket],
        qparams: Callable[..., QParams],
        owner: str,
        dormant: bool = False,
    ) -> Ticket:
        """Let a site's parameters follow from others'.

        Raises:
            SpecError: the site is observed or derived already.
        """
        site = Site(node, slot)
        if site in self._claims:
            raise SpecError(
                f"{site} is derived by {owner} and observed by {self._claims[site].owner}; it can be one of both"
            )
        if site in self._derived:
            raise SpecError(f"{site} is derived by both {self._derived[site][1]} and {owner}")
        self._derived[site] = (Derived(site, dtype, tuple(t.site for t in sources), qparams, dormant), owner)
        return Ticket(site)

    def solve(self, renamed: Mapping[str, str] | None = None) -> Solution:
        """Join what is shared and order what is derived.

        Args:
            renamed: old node name -> new one, from the rewriter; chains are followed.

        Raises:
            SpecError: sites of one group disagree, a derivation is circular or lacks a source; names the sites and who
                asked.
        """
        moved = _mover(renamed or {})
        claims = self._moved_claims(moved)
        graph: nx.Graph[Site] = nx.Graph()
        for a, b, owner in self._shared:
            for site in (moved(a), moved(b)):
                if site not in claims:
                    raise SpecError(f"{owner} shares the parameters of {site}, which nobody observes")
            graph.add_edge(moved(a), moved(b))
        together = [tuple(sorted(sites)) for sites in nx.connected_components(graph)]
        groups = [self._group(claims, sites) for sites in (*((s,) for s in claims if s not in graph), *together)]
        groups.sort(key=lambda group: group.sites)
        group_of = {site: number for number, group in enumerate(groups) for site in group.sites}
        return Solution(tuple(groups), self._ordered(moved, group_of), group_of)

    def _moved_claims(self, moved: Callable[[Site], Site]) -> dict[Site, _Claim]:
        claims: dict[Site, _Claim] = {}
        for site, claim in self._claims.items():
            other = claims.setdefault(moved(site), claim)
            if not _agree(other.spec, claim.spec):
                raise SpecError(_conflict(moved(site), other.owner, other.spec, site, claim.owner, claim.spec))
        return claims

    @staticmethod
    def _group(claims: dict[Site, _Claim], sites: tuple[Site, ...]) -> Group:
        first = claims[sites[0]]
        for site in sites[1:]:
            if not _agree(first.spec, claims[site].spec):
                other = claims[site]
                raise SpecError(_conflict(sites[0], first.owner, first.spec, site, other.owner, other.spec))
        return Group(sites, first.spec)

    def _ordered(self, moved: Callable[[Site], Site], group_of: Mapping[Site, int]) -> tuple[Derived, ...]:
        table = {moved(each.site): (_moved(each, moved), owner) for each, owner in self._derived.values()}
        graph: nx.DiGraph[Site] = nx.DiGraph()
        in_order = sorted(table)
        for site in in_order:
            each, owner = table[site]
            for source in each.sources:
                if source in table:
                    graph.add_edge(source, site)
                elif source not in group_of:
                    raise SpecError(
                        f"{site}, derived by {owner}, follows from {source}, which nobody observes or derives"
                    )
        if graph:  # else all follow from what is observed alone, and any order will do
            graph.add_nodes_from(in_order)
        try:
            order = list(nx.lexicographical_topological_sort(graph)) if graph else in_order
        except nx.NetworkXUnfeasible:
            cycle = [edge[0] for edge in nx.find_cycle(graph)]
            said = "; ".join(f"{site} by {table[site][1]}" for site in cycle)
            raise SpecError(f"derived parameters follow from themselves: {said}") from None
        return tuple(table[site][0] for site in order)


def _moved(each: Derived, moved: Callable[[Site], Site]) -> Derived:
    site, sources = moved(each.site), tuple(map(moved, each.sources))
    return each if (site, sources) == (each.site, each.sources) else replace(each, site=site, sources=sources)


def _agree(a: Spec, b: Spec) -> bool:
    return a.dtype == b.dtype and a.qscheme == b.qscheme


def _conflict(a: Site, by_a: str, spec_a: Spec, b: Site, by_b: str, spec_b: Spec) -> str:
    def said(spec: Spec) -> str:
        return f"{spec.dtype}" + (f" {spec.qscheme}" if spec.qscheme is not None else "")

    return (
        f"{a} ({said(spec_a)}, asked by {by_a}) and {b} ({said(spec_b)}, asked by {by_b}) must have the same "
        f"parameters and cannot; give both one dtype and scheme, or do not share them"
    )


def _mover(renamed: Mapping[str, str]) -> Callable[[Site], Site]:
    def move(site: Site) -> Site:
        if site.node not in renamed:
            return site
        name, seen = site.node, {site.node}
        while name in renamed and renamed[name] not in seen:
            name = renamed[name]
            seen.add(name)
        return Site(name, site.slot)

    return move
