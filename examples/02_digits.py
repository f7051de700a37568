"""Train a small network on scikit-learn's digits in seconds, quantize it, compare the test accuracy.

Run: python examples/02_digits.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import qfx


class Digits(nn.Module):
    """Two convolutions with batch norm, a pool and a linear layer, for 8 by 8 pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(32 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.second(self.first(x))).flatten(1))


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training pictures, test pictures, their labels; pictures are (N, 1, 8, 8) in 0..1."""
    digits = load_digits()
    parts = train_test_split(digits.images / 16, digits.target, test_size=0.3, random_state=0, stratify=digits.target)
    train_x, test_x = (torch.tensor(part, dtype=torch.float32).unsqueeze(1) for part in parts[:2])
    return train_x, test_x, torch.tensor(parts[2]), torch.tensor(parts[3])


def trained(x: torch.Tensor, labels: torch.Tensor, epochs: int = 12, seed: int = 0) -> nn.Module:
    """A network after a few epochs of Adam, in eval mode."""
    torch.manual_seed(seed)
    model = Digits().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[part]), labels[part]).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of pictures that get their label."""
    return float((model(x).argmax(1) == labels).float().mean())


def main() -> None:
    train_x, test_x, train_y, test_y = data()
    model = trained(train_x, train_y)
    prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (train_x[:1],))
    with torch.no_grad():
        for batch in train_x[:512].split(64):
            prepared(batch)
    table = Table("model", "test accuracy", "bytes", title=f"Digits: {len(test_x)} test pictures")
    table.add_row("float", f"{accuracy(model, test_x, test_y):.2%}", "")
    for target in ("reference", "native"):
        int8 = qfx.convert_fx(prepared, target=target)
        counted = qfx.summary(int8)
        size = f"{counted.bytes_before:,} -> {counted.bytes_after:,}" if target != "reference" else ""
        table.add_row(f"int8, {target}", f"{accuracy(int8, test_x, test_y):.2%}", size)
    Console().print(table)


if __name__ == "__main__":
    main()
