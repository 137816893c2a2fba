"""Flow matching over action chunks with an MLP, and plain chunk regression with the same network.

In: features (N, f) and coded chunks (N, h, b), roughly standardised by the task. Out: a ``TrainedPolicy`` whose ONNX
graph contains the normalisation and every integration step.

Conditional flow matching (Lipman et al. 2023, arXiv 2210.02747) on the straight path x_t = (1 - t) x_0 + t x_1 from
noise x_0 to a demonstrated chunk x_1. The network g predicts the end point x_1; its velocity is (g - x_t) / (1 - t),
the usual target x_1 - x_0 seen through a weight. Where demonstrations agree g need not depend on x_t at all, which
makes it easier to learn than the velocity, and the last Euler step returns g itself.
"""

from flyball.learning.flow.config import FlowConfig
from flyball.learning.flow.training import load_network, train

__all__ = ["FlowConfig", "load_network", "train"]
