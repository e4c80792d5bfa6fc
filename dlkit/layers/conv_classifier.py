"""The common form of AlexNet and VGG: convolutions, an average to a grid, then dense layers."""

from __future__ import annotations

from torch import Tensor, nn


class ConvClassifier(nn.Module):
    """features, avgpool, classifier: torchvision's names."""

    def __init__(
        self, features: nn.Module, avgpool: nn.Module, classifier: nn.Module, *, feature_map: str, note: str
    ) -> None:
        super().__init__()
        self.features = features
        self.avgpool = avgpool
        self.classifier = classifier
        self.feature_map = feature_map
        self.notes = (note,)

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        x = self.avgpool(self.features(images))  # (N, C', 6, 6) in AlexNet, (N, C', 7, 7) in VGG
        logits: Tensor = self.classifier(x.flatten(1))
        return logits
