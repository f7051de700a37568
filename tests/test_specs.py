from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qfx.errors import SpecError
from qfx.qparams import QParams
from qfx.specs import Site, Spec, SpecBook

ACT = Spec(torch.quint8, qscheme=torch.per_tensor_affine)
WEIGHT = Spec(torch.qint8, qscheme=torch.per_channel_symmetric)


def product(a: QParams, w: QParams) -> QParams:
    return QParams(scale=a.scale * w.scale)


def weighted(book: SpecBook, node: str, *, dormant: bool = False) -> None:
    act = book.site(node, "x", ACT, owner="weighted")
    weight = book.site(node, "w", WEIGHT, owner="weighted")
    book.derive(
        node, "b", dtype=torch.qint32, sources=(act, weight), qparams=product, owner="weighted", dormant=dormant
    )


def test_a_bias_follows_from_activation_and_weight() -> None:
    book = SpecBook()
    weighted(book, "conv")
    solution = book.solve()
    qparams = {"conv.x": QParams(0.5), "conv.w": QParams(0.25)}
    found = solution.evaluate(lambda number: qparams[str(solution.groups[number].sites[0])])
    assert found[Site("conv", "b")].scale == 0.125
    assert len(solution.groups) == 2  # the derived site has none


def test_a_dormant_bias_keeps_its_place() -> None:
    book = SpecBook()
    weighted(book, "conv", dormant=True)
    (derived,) = book.solve({"conv": "conv_1"}).derived
    assert derived.dormant
    assert derived.site == Site("conv_1", "b")
    assert derived.sources == (Site("conv_1", "x"), Site("conv_1", "w"))


def test_sharing_joins_transitively() -> None:
    book = SpecBook()
    a, b, c, d = (book.output(name, ACT, owner="r") for name in "abcd")
    book.share(a, b, owner="r")
    book.share(c, b, owner="r")
    groups = book.solve().groups
    assert [tuple(map(str, g.sites)) for g in groups] == [("a.out", "b.out", "c.out"), ("d.out",)]
    assert d.site == Site("d")


@given(st.randoms(use_true_random=False), st.integers(2, 8))
def test_the_order_of_annotation_does_not_matter(rnd: random.Random, count: int) -> None:
    def build(order: list[int]) -> Any:
        book = SpecBook()
        tickets = {}
        for i in order:
            tickets[i] = book.output(f"n{i}", ACT, owner=f"rule {i}")
        links = [(i, i // 2) for i in range(1, count)]
        rnd.shuffle(links)
        for i, j in links:
            if i % 3:
                book.share(tickets[i], tickets[j], owner="share")
        derived = list(range(count))
        rnd.shuffle(derived)
        for i in derived:
            sources = (tickets[i], tickets[(i + 1) % count])
            book.derive(f"n{i}", "b", dtype=torch.qint32, sources=sources, qparams=product, owner="d")
        solution = book.solve()
        return solution.groups, [(d.site, d.sources) for d in solution.derived]

    shuffled = list(range(count))
    rnd.shuffle(shuffled)
    assert build(list(range(count))) == build(shuffled)


def test_conflicting_dtypes_name_both_sites_and_owners() -> None:
    book = SpecBook()
    a = book.output("a", ACT, owner="rule one")
    b = book.output("b", Spec(torch.float16), owner="rule two")
    book.share(a, b, owner="cat")
    with pytest.raises(
        SpecError,
        match=r"a\.out \(torch\.quint8 .* asked by rule one\) and b\.out \(torch\.float16, asked by rule two\)",
    ):
        book.solve()


def test_conflicting_claims_of_one_site() -> None:
    book = SpecBook()
    book.output("a", ACT, owner="one")
    book.output("a", ACT, owner="two")  # agreeing twice is fine
    with pytest.raises(SpecError, match=r"asked by one.*asked by three"):
        book.output("a", WEIGHT, owner="three")


def test_a_rename_that_joins_two_sites_is_checked() -> None:
    book = SpecBook()
    book.output("a", ACT, owner="one")
    book.output("b", WEIGHT, owner="two")
    with pytest.raises(SpecError, match=r"asked by one.*asked by two"):
        book.solve({"a": "c", "b": "c"})


def test_a_cycle_is_an_error() -> None:
    book = SpecBook()
    x = book.output("x", ACT, owner="x")
    a = book.derive("a", "b", dtype=torch.qint32, sources=(x,), qparams=product, owner="ra")
    b = book.derive("b", "b", dtype=torch.qint32, sources=(a,), qparams=product, owner="rb")
    book._derived[a.site] = (book._derived[a.site][0].__class__(a.site, torch.qint32, (b.site,), product), "ra")
    with pytest.raises(
        SpecError,
        match=r"follow from themselves: .*a\.b by ra.*b\.b by rb|follow from themselves: .*b\.b by rb.*a\.b by ra",
    ):
        book.solve()


def test_a_missing_source_is_an_error() -> None:
    book, other = SpecBook(), SpecBook()
    stray = other.output("elsewhere", ACT, owner="other")
    book.derive("a", "b", dtype=torch.qint32, sources=(stray,), qparams=product, owner="ra")
    with pytest.raises(SpecError, match=r"a\.b, derived by ra, follows from elsewhere\.out, which nobody"):
        book.solve()
    book = SpecBook()
    book.share(book.output("a", ACT, owner="a"), stray, owner="cat")
    with pytest.raises(SpecError, match=r"cat shares the parameters of elsewhere\.out, which nobody observes"):
        book.solve()


def test_observed_and_derived_at_once() -> None:
    book = SpecBook()
    a = book.site("a", "b", ACT, owner="one")
    with pytest.raises(SpecError, match="derived by two and observed by one"):
        book.derive("a", "b", dtype=torch.qint32, sources=(a,), qparams=product, owner="two")
    book.derive("c", "b", dtype=torch.qint32, sources=(a,), qparams=product, owner="two")
    with pytest.raises(SpecError, match="observed by three and derived by two"):
        book.site("c", "b", ACT, owner="three")
    with pytest.raises(SpecError, match="derived by both two and four"):
        book.derive("c", "b", dtype=torch.qint32, sources=(a,), qparams=product, owner="four")
