"""A script as users of PyTorch Lightning 1.9 have it: nothing in it knows of qfx."""

import json

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import QuantizationAwareTraining
from torch import nn


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.mse_loss(self(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


torch.manual_seed(0)
x = torch.randn(256, 8)
y = x[:, :1] * 2 - x[:, 1:2]
net = Net()
trainer = pl.Trainer(
    max_epochs=20,
    accelerator="cpu",
    callbacks=[
        QuantizationAwareTraining(qconfig="fbgemm", observer_type="average", modules_to_fuse=[["layers.0", "layers.1"]])
    ],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(net, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=32))
loss = float(nn.functional.mse_loss(net(x), y))
kinds = [f"{type(part).__module__}.{type(part).__name__}" for part in net.layers]
print(
    json.dumps(
        {"loss": loss, "before": float((y**2).mean()), "kinds": kinds, "codes": str(net.layers[0].weight().dtype)}
    )
)
